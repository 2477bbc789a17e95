"""The executed notebook of one try: what ran, how it ended, and why; written as it goes, never wrongly."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pq.display import plain
from pq.notebook.masking import Masking
from pq.notebook.runs import COMPLETED, ENDED, Draft, error_output, write_atomically
from pq.private import make_folder, opener

SAVE_SECONDS = 1.0
SLOW_SHARE = 10  # a notebook that takes long to write is written so much less often
SKIP_TAG, RAISES_TAG = "skip-execution", "raises-exception"


class Executed:
    """A notebook (nbformat 4) with its run's state in its metadata.

    Each code cell has `metadata.papermill` as papermill writes it, with the status pending, running,
    completed, failed, interrupted or `not run`. `metadata.pq` tells the run's outcome, why, which cell,
    and where everything came from.
    """

    def __init__(self, notebook: Any, draft: Draft, masking: Masking, facts: Mapping[str, Any]) -> None:
        self.notebook = notebook
        self.draft = draft
        self.masking = masking
        self.cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        self.number = 0
        self._began = self._cell_began = time.monotonic()
        self._saved, self._pause, self._dirty = 0.0, SAVE_SECONDS, False
        notebook.metadata["pq"] = {"outcome": "running", "why": None, "cell": None, **facts}
        _clear(notebook)
        make_folder(draft.path().parent)
        self._cell_file = open(draft.path(".cell"), "w", encoding="ascii", opener=opener)  # noqa: SIM115  # until the run is closed

    @property
    def facts(self) -> dict[str, Any]:
        """`metadata.pq`."""
        facts: dict[str, Any] = self.notebook.metadata["pq"]
        return facts

    def speaks(self, content: Mapping[str, Any]) -> None:
        """What the kernel tells of itself."""
        from nbformat import from_dict

        language = content.get("language_info") or {}
        self.notebook.metadata["language_info"] = from_dict(language)
        self.facts["language"] = f"{language.get('name')} {language.get('version')}"
        self.facts["implementation"] = (
            f"{content.get('implementation')} {content.get('implementation_version')}"
        )

    def begin(self, number: int) -> None:
        """The cell of this number, from 1, runs now."""
        self.number = number
        self._cell_began = time.monotonic()
        self._status().update(status="running", start_time=_now())
        # Two bytes instead of the whole notebook: enough for the next consumer to tell the truth.
        self._cell_file.seek(0)
        self._cell_file.write(f"{number}\n")
        self._cell_file.flush()
        self.touch()

    def end(self, status: str, *, exception: bool = False) -> None:
        """The cell that runs has ended so."""
        duration = time.monotonic() - self._cell_began
        self._status().update(
            status=status, exception=exception, end_time=_now(), duration=round(duration, 6)
        )
        self.touch()

    def skip(self, number: int, status: str) -> None:
        """The cell of this number has nothing to run, or is not to."""
        self.cells[number - 1].metadata["papermill"]["status"] = status

    def interrupt(self, name: str, why: str) -> None:
        """The cell that runs did not come to its end; its outputs so far stay, and the reason follows."""
        if self.number and self._status()["status"] == "running":
            from nbformat import from_dict

            self.cells[self.number - 1].outputs.append(from_dict(error_output(name, why)))
            self.end("interrupted", exception=True)
            self.facts["cell"] = self.number

    def close(self, outcome: str, why: str | None) -> None:
        """Write the notebook a last time, for good; what has not run says so."""
        for cell in self.cells:
            state = cell.metadata["papermill"]
            state["status"] = {"pending": "not run", "running": "interrupted"}.get(
                state["status"], state["status"]
            )
        self.facts.update(outcome=outcome, why=why)
        papermill = self.notebook.metadata["papermill"]
        papermill.update(
            end_time=_now(),
            duration=round(time.monotonic() - self._began, 6),
            exception=None if outcome == "completed" else True,
        )
        target, other = (COMPLETED, ENDED) if outcome == "completed" else (ENDED, COMPLETED)
        self._write(self.draft.path(target), durable=True)
        self.draft.path(other).unlink(missing_ok=True)
        self.draft.path().unlink(missing_ok=True)
        self._cell_file.close()

    def touch(self) -> None:
        """Something changed: write it, if the last writing is long enough ago."""
        self._dirty = True
        self.save()

    def save(self) -> None:
        """Write what has changed, at most every second."""
        now = time.monotonic()
        if self._dirty and now - self._saved >= self._pause:
            self._write(self.draft.path(), durable=False)
            self._saved = time.monotonic()
            self._pause = max(SAVE_SECONDS, SLOW_SHARE * (self._saved - now))

    def first_line(self) -> str:
        """The first line of the cell that runs, as a person would name it."""
        lines = [line.strip() for line in self.cells[self.number - 1].source.splitlines()]
        told = next((line for line in lines if line), "")
        return self.masking.text(plain(told, 80))

    def _write(self, path: Path, *, durable: bool) -> None:
        from nbformat.v4 import writes

        text = writes(self._masked(), sort_keys=True) if self.masking.names else writes(self.notebook)
        self._dirty = False
        write_atomically(self.draft, path, text + "\n", durable=durable)

    def _masked(self) -> Any:
        from nbformat import from_dict

        masked = from_dict(dict(self.notebook))
        for cell in masked.cells:
            if cell.cell_type == "code":
                cell.outputs = from_dict(self.masking.value(cell.outputs))
        for name in ("widgets",):
            if name in masked.metadata:
                masked.metadata[name] = from_dict(self.masking.value(masked.metadata[name]))
        return masked

    def _status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.cells[self.number - 1].metadata["papermill"]
        return status


def _clear(notebook: Any) -> None:
    """Take away an earlier run's outputs and state."""
    from nbformat import NotebookNode

    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        cell.metadata.pop("papermill", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.metadata["execution"] = NotebookNode()
            cell.metadata["papermill"] = NotebookNode(
                exception=None, start_time=None, end_time=None, duration=None, status="pending"
            )


def _now() -> str:
    return datetime.now(UTC).isoformat()
