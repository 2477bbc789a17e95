"""The executed notebook of an attempt as text: its cells around the one that failed; never as markup."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pq.errors import NotebookError
from pq.private import read_below
from pq.widgets.hiding import clean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MOST_BYTES = 20_000_000
MOST_CELLS = 40
TEXT_LENGTH = 6_000
MOST_OUTPUTS = 20
BEFORE = 3


def run_path(folder: Path, job_id: int, attempt: int) -> Path:
    """Where the executed notebook of an attempt is, if it is."""
    return folder / "runs" / str(job_id) / f"{attempt}.ipynb"


def runs(folder: Path, job_id: int, attempts: int) -> list[int]:
    """The attempts that left a notebook."""
    return [
        number for number in range(1, min(attempts, 100) + 1) if run_path(folder, job_id, number).is_file()
    ]


def read_run(folder: Path, job_id: int, attempt: int) -> dict[str, Any]:
    """Its cells as text, from three before the failing one on; all from the first where none failed.

    Raises NotebookError where it cannot be read.
    """
    path = run_path(folder, job_id, attempt)
    try:
        notebook = json.loads(read_below(path, folder / "runs", MOST_BYTES))
        cells = [cell for cell in notebook["cells"] if isinstance(cell, dict)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise NotebookError(f"cannot read {path}: {error}") from None
    failed = next((index for index, cell in enumerate(cells) if _has_failed(cell)), None)
    first = 0 if failed is None else max(0, failed - BEFORE)
    shown = cells[first : first + MOST_CELLS]
    return {
        "job": job_id,
        "attempt": attempt,
        "path": clean(str(path)),
        "total": len(cells),
        "first": first + 1,
        "failed": None if failed is None else failed + 1,
        "cells": [_view(cell, first + number) for number, cell in enumerate(shown)],
    }


def _view(cell: Mapping[str, Any], index: int) -> dict[str, Any]:
    return {
        "number": index + 1,
        "kind": clean(_text(cell.get("cell_type"))),
        "source": clean(_text(cell.get("source")), TEXT_LENGTH),
        "outputs": list(_outputs(cell)),
        "failed": _has_failed(cell),
    }


def _outputs(cell: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    outputs = cell.get("outputs")
    for output in outputs[:MOST_OUTPUTS] if isinstance(outputs, list) else []:
        if isinstance(output, dict):
            bad = output.get("output_type") == "error" or output.get("name") == "stderr"
            yield {"text": clean(_output_text(output), TEXT_LENGTH), "bad": bad}


def _output_text(output: Mapping[str, Any]) -> str:
    """The plain text of an output; pictures and markup are named, not shown."""
    if output.get("output_type") == "error":
        return _text(output.get("traceback"), "\n") or f"{output.get('ename')}: {output.get('evalue')}"
    if "text" in output:
        return _text(output["text"])
    data = output.get("data")
    if not isinstance(data, dict):
        return ""
    return _text(data.get("text/plain")) or f"({', '.join(map(str, data))}: open the notebook to see it)"


def _has_failed(cell: Mapping[str, Any]) -> bool:
    outputs = cell.get("outputs")
    return isinstance(outputs, list) and any(
        isinstance(output, dict) and output.get("output_type") == "error" for output in outputs
    )


def _text(value: object, between: str = "") -> str:
    """A text as nbformat stores it: one string or a list of lines."""
    return between.join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
