"""Runs as files: drafts while a notebook runs, published once its end was stored, closed for the dead.

A draft is `.running/JOB-ATTEMPT-TOKEN.ipynb` in the place of runs, beside a `.cell` file with the number of
the cell that runs; when the notebook has ended it becomes `.completed.ipynb` or `.ended.ipynb`. The token
is in the name, so a consumer that lost its lease can never touch the run of another. All drafts stand in one
folder, so that the look for dead ones costs nothing however many runs there are.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pq import values
from pq.errors import JobNotFoundError
from pq.interface import PersistentQInterface
from pq.job import Attempt, Job, Status
from pq.notebook.owning import owns_runs
from pq.notebook.places import RUNNING, Place, place_of
from pq.records import Outcome

TASK = "notebook"
COMPLETED, ENDED = ".completed.ipynb", ".ended.ipynb"

log = logging.getLogger("pq")


def published(job_id: int, attempt: int) -> str:
    """The name of the executed notebook of an attempt once its end was stored."""
    return f"{job_id}/{attempt}.ipynb"


@dataclass(frozen=True, slots=True)
class Draft:
    """The files of one try that is not published."""

    place: Place
    job: int
    attempt: int
    token: int

    @classmethod
    def of(cls, folder: Path, job: Job) -> "Draft":
        """The draft of a job that this process holds, or that somebody looks at."""
        return cls(place_of(folder), job.id, job.attempt, job.token)

    def name(self, ending: str = ".ipynb") -> str:
        """One of its files."""
        return f"{RUNNING}/{self.job}-{self.attempt}-{self.token}{ending}"

    def latest(self) -> str | None:
        """The notebook as far as it was written, the ended one first."""
        names = map(self.name, (COMPLETED, ENDED, ".ipynb"))
        return next((one for one in names if self.place.exists(one)), None)

    def discard(self) -> None:
        """Remove all of its files."""
        for ending in (COMPLETED, ENDED, ".ipynb", ".cell"):
            self.place.remove(self.name(ending))

    def sweep(self) -> None:
        """Remove what writers left that were killed in the middle."""
        self.place.sweep(self.name(""))

    def write(self, ending: str, text: str, *, durable: bool = False) -> None:
        """Replace one of its files as a whole."""
        # A lone surrogate cannot be UTF-8; its escape is what JSON has for it.
        self.place.write(self.name(ending), text.encode("utf-8", "backslashreplace"), durable=durable)

    def publish(self, source: str) -> None:
        """Give the notebook its final name; another process may have done so."""
        with suppress(FileNotFoundError):
            self.place.rename(source, published(self.job, self.attempt))
        self.discard()


def after_settling(queue: PersistentQInterface, outcome: Outcome, *, accepted: bool) -> None:
    """Publish the run whose end was stored; drop that of a lost lease or of an attempt given back."""
    if outcome.job.task != TASK:
        return
    try:
        _after_settling(queue, outcome, accepted=accepted)
    except (OSError, ValueError) as error:  # the job has ended all the same; the next consumer tries again
        log.warning("the run of job %d could not be published: %s", outcome.job.id, error)


def _after_settling(queue: PersistentQInterface, outcome: Outcome, *, accepted: bool) -> None:
    draft = Draft.of(queue.folder, outcome.job)
    if not accepted or outcome.kind == "released":
        draft.discard()
        return
    ended = draft.name(COMPLETED if outcome.kind == "completed" else ENDED)
    if not draft.place.exists(ended):
        # The notebook did not stop, or stopped a moment after its end was decided.
        close(draft, outcome.kind, values.error_text(outcome.error or ""))
    if draft.place.exists(ended):
        draft.publish(ended)


def close_runs(queue: PersistentQInterface) -> int:
    """Publish what dead consumers left, told truthfully; returns how many runs were closed."""
    closed = 0
    if not owns_runs(queue):
        return closed
    for draft in list(_drafts(place_of(queue.folder))):
        try:
            closed += _close_dead(queue, draft)
        except (OSError, ValueError) as error:
            log.warning("the run of job %d could not be closed: %s", draft.job, error)
    return closed


def _drafts(place: Place) -> Iterator[Draft]:
    for name in sorted({name.partition(".")[0] for name in place.names(RUNNING)}):
        parts = name.split("-")
        if len(parts) == 3 and all(part.isdecimal() for part in parts):
            yield Draft(place, *map(int, parts))


def _close_dead(queue: PersistentQInterface, draft: Draft) -> bool:
    try:
        job = queue.get(draft.job)
    except JobNotFoundError:
        draft.discard()
        return False
    if job.status is Status.PROCESSING and job.token <= draft.token:
        return False
    draft.sweep()
    document = _read(draft.place, draft.latest())
    attempt = None if document is None else _attempt_of(queue, draft, document)
    if attempt is None:
        draft.discard()  # given back, or not readable: nothing that was stored refers to it
        return False
    target = close(draft, attempt.outcome, attempt.error or attempt.outcome)
    if target is not None:
        draft.publish(target)
    log.warning("the run of job %d, attempt %d was closed: %s", draft.job, draft.attempt, attempt.outcome)
    return True


def _attempt_of(queue: PersistentQInterface, draft: Draft, document: dict[str, Any]) -> Attempt | None:
    """The stored attempt of this very lease: an attempt given back leaves its number to the next."""
    claimed = document.get("metadata", {}).get("pq", {}).get("claimed_at")
    for attempt in queue.attempts(draft.job):
        if attempt.attempt == draft.attempt and attempt.started_at.isoformat() == claimed:
            return attempt
    return None


def close(draft: Draft, outcome: str, why: str) -> str | None:
    """Make a draft say how its attempt ended; returns the ended file, None where there is nothing to read."""
    latest = draft.latest()
    document = _read(draft.place, latest)
    if latest is None or document is None:
        return None
    ending = COMPLETED if outcome == "completed" else ENDED
    target = draft.name(ending)
    facts = document["metadata"].setdefault("pq", {})
    if facts.get("outcome") != outcome:
        if facts.get("outcome") == "running":
            _close_cells(document, _running_cell(draft), outcome, why)
        facts.update(outcome=outcome, why=why)
        draft.write(ending, _text(document), durable=True)
    elif latest != target:
        draft.place.rename(latest, target)
    return target


def _close_cells(document: dict[str, Any], running: int, outcome: str, why: str) -> None:
    """Set the cells' statuses right; those before `running` have ended, but their output was not written."""
    cells = [cell for cell in document["cells"] if "status" in cell.get("metadata", {}).get("papermill", {})]
    facts = document["metadata"]["pq"]
    lost = []
    for number, cell in enumerate(cells, 1):
        status = cell["metadata"]["papermill"]
        if number < running and status["status"] in ("running", "pending"):
            status["status"] = "completed"
            lost.append(number)
        elif number == running and status["status"] in ("running", "pending"):
            status.update(status="interrupted", exception=True)
            cell["outputs"] = [*cell.get("outputs", []), error_output(outcome, why)]
            facts["cell"] = number
        elif status["status"] in ("running", "pending"):
            status["status"] = "not run"
    if lost:
        facts["outputs_lost"] = lost


def error_output(name: str, text: str) -> dict[str, Any]:
    """An output that a reader of the notebook sees as the reason why a cell did not end."""
    return {"output_type": "error", "ename": name, "evalue": text, "traceback": [f"{name}: {text}"]}


def _running_cell(draft: Draft) -> int:
    """The cell that ran when the consumer died, from 1; 0 where none had begun."""
    try:
        return int(draft.place.read(draft.name(".cell")))
    except (OSError, ValueError):
        return 0


def _read(place: Place, name: str | None) -> dict[str, Any] | None:
    try:
        document = None if name is None else json.loads(place.read(name))
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) and isinstance(document.get("metadata"), dict) else None


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, indent=1, sort_keys=True, separators=(",", ": ")) + "\n"
