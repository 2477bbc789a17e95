"""The executed notebook of a job, as nbformat has it."""

import os
from typing import Any

from pq.errors import NotebookError, NotebookMissingError
from pq.interface import PersistentQInterface
from pq.job import Job, Status
from pq.notebook.places import Place, attempts_with_runs, place_of
from pq.notebook.runs import TASK, Draft, published


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
    place, name = find_run(queue, job, attempt=attempt)
    try:
        return reads(place.read(name).decode())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NotebookError(f"cannot read {place.address(name)}: {error}") from None


def find_run(queue: PersistentQInterface, job: Job | int, *, attempt: int | None = None) -> tuple[Place, str]:
    """Where that notebook lies: the place, and its name there. Raises NotebookMissingError."""
    current = queue.get(job)
    if current.task != TASK:
        raise NotebookMissingError(f"job {current.id} is no notebook: its task is {current.task}")
    number = current.attempt if attempt is None else attempt
    place = place_of(queue.folder)
    found: str | None = published(current.id, number)
    if current.status is Status.PROCESSING and number == current.attempt:
        found = Draft.of(queue.folder, current).latest()
    if found is None or not place.exists(found):
        ran = attempts_with_runs(place, current.id)
        there = f"; there are those of attempt {', '.join(map(str, ran))}" if ran else ""
        raise NotebookMissingError(f"job {current.id} has no run of attempt {number}{there}")
    return place, found
