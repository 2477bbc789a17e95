"""The executed notebook of a job, as nbformat has it."""

import os
from pathlib import Path
from typing import Any

from pq.errors import NotebookError, NotebookMissingError, UnsafePathError
from pq.interface import PersistentQInterface
from pq.job import Job, Status
from pq.notebook.runs import RUN_BYTES, RUNS, TASK, Draft, published
from pq.private import read_below, unlinked


def open_run(
    job: Job | int,
    queue: PersistentQInterface | str | os.PathLike[str] | None = None,
    *,
    attempt: int | None = None,
) -> Any:
    """The executed notebook (nbformat.NotebookNode) of the job's latest attempt, or of the one asked for.

    `queue` may be a database's path; None means the one of the settings. A running notebook is given as
    far as it is written. Raises NotebookMissingError where there is none, NotebookError
    where it cannot be read.
    """
    from nbformat.v4 import reads

    if not isinstance(queue, PersistentQInterface):
        from pq.factory import connect

        with connect(queue) as opened:
            return open_run(job, opened, attempt=attempt)
    path = run_path(queue, job, attempt=attempt)
    try:
        return reads(read_below(path, queue.folder / RUNS, RUN_BYTES).decode())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NotebookError(f"cannot read {path}: {error}") from None


def run_path(queue: PersistentQInterface, job: Job | int, *, attempt: int | None = None) -> Path:
    """Where that notebook lies. Raises NotebookMissingError."""
    current = queue.get(job)
    if current.task != TASK:
        raise NotebookMissingError(f"job {current.id} is no notebook: its task is {current.task}")
    number = current.attempt if attempt is None else attempt
    if current.status is Status.PROCESSING and number == current.attempt:
        found = Draft.of(queue.folder, current).latest()
    else:
        found = published(queue.folder, current.id, number)
    if found is None or not found.exists():
        ran = sorted(
            int(one.stem) for one in published(queue.folder, current.id, 0).parent.glob("[0-9]*.ipynb")
        )
        there = f"; there are those of attempt {', '.join(map(str, ran))}" if ran else ""
        raise NotebookMissingError(f"job {current.id} has no run of attempt {number}{there}")
    if found.is_symlink():
        raise UnsafePathError(f"cannot use {found}: it is a symbolic link, and no run")
    return unlinked(found, queue.folder / RUNS)
