"""Actions of a person in two steps: `propose` counts and freezes, `apply` does it once, after a yes.

The browser is never believed: which verbs exist, which statuses they may leave, whether the page is
read-only, and what was confirmed are all decided here.
"""

from __future__ import annotations

import getpass
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pq.errors import DuplicateJobError, InvalidJobError, JobNotFoundError, PQError, TransitionError
from pq.widgets.rows import VERBS
from pq.widgets.undoing import UNDO_SECONDS, Undo

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pq.interface import PersistentQInterface
    from pq.job import Job

MOST_JOBS = 500  # ticked one by one
MOST_MATCHING = 10_000
BATCH = 100  # in one transaction, while which all other writers wait
LIFETIME_SECONDS = 120.0
DONE = {
    "resubmit": "resubmitted",
    "assign": "assigned",
    "mark_failed": "marked failed",
    "cancel": "cancelled, or asked to stop",
    "delete": "deleted",
}


class RefusedError(PQError, PermissionError):
    """The page does not do this: it is read-only, unknown, unconfirmed, or confirmed too late."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What would be done: the frozen ids, how many of which status, and what would be skipped and why."""

    nonce: str
    verb: str
    ids: tuple[int, ...]
    changes: Mapping[str, int]
    skipped: Mapping[str, int]
    until: float
    more: bool = False

    @property
    def typed(self) -> str | None:
        """What has to be typed before it is done; only deleting several jobs asks for it."""
        return f"delete {len(self.ids)}" if self.verb == "delete" and len(self.ids) > 1 else None

    def view(self) -> dict[str, Any]:
        """What the dialog shows; the ids stay here."""
        return {
            "nonce": self.nonce,
            "verb": self.verb,
            "jobs": len(self.ids),
            "first": list(self.ids[:10]),
            "changes": dict(self.changes),
            "skipped": dict(self.skipped),
            "typed": self.typed,
            "more": MOST_MATCHING if self.more else 0,
        }


@dataclass(slots=True)
class Report:
    """What was done: how many jobs, for each that was not the reason, and the way back."""

    verb: str
    total: int = 0
    done: int = 0
    problems: list[str] = field(default_factory=list)
    undo: Undo | None = None

    def text(self) -> str:
        """One line for a person."""
        line = f"{self.done:,} job{'' if self.done == 1 else 's'} {DONE[self.verb]}"
        if self.problems:
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            line += f"; {len(self.problems)} skipped: {self.problems[0]}{more}"
        if self.undo is not None and self.undo.final:
            words = ", ".join(f"{count:,} {why}" for why, count in self.undo.final.items())
            line += f". Cannot be taken back: {words}"
        return line


class Actions:
    """The actions of one page; at most one proposal is open, and it can be used once within two minutes."""

    def __init__(
        self, queue: PersistentQInterface, *, read_only: bool = False, who: str | None = None
    ) -> None:
        self.read_only = read_only
        self.who = who or f"{_user()} on the admin page"
        self._queue = queue
        self._open: Proposal | None = None
        self._undo: Undo | None = None

    def propose(self, verb: object, ids: object) -> Proposal:
        """Look at the jobs as they are now; nothing is changed."""
        self.allow(verb)
        jobs, gone = [], 0
        for job_id in _job_ids(ids):
            try:
                jobs.append(self._queue.get(job_id))
            except JobNotFoundError:
                gone += 1
        return self.propose_jobs(verb, jobs, gone=gone)

    def propose_jobs(
        self, verb: object, jobs: Sequence[Job], *, gone: int = 0, more: bool = False
    ) -> Proposal:
        """Freeze these jobs, as they were read a moment ago; `more` says that others matched too."""
        self.allow(verb)
        if not jobs and not gone:
            raise RefusedError("no job matches any more; nothing was changed")
        fit = [job for job in jobs if job.can(str(verb))]
        skipped = Counter(job.status.value for job in jobs if not job.can(str(verb)))
        if gone:
            skipped["deleted"] = gone
        self._open = Proposal(
            nonce=secrets.token_urlsafe(16),
            verb=str(verb),
            ids=tuple(job.id for job in fit),
            changes=Counter(job.status.value for job in fit),
            skipped=skipped,
            until=time.monotonic() + LIFETIME_SECONDS,
            more=more,
        )
        return self._open

    def withdraw(self) -> None:
        """Forget the open proposal."""
        self._open = None

    def apply(self, nonce: object, **answers: object) -> Report:
        """Do what was proposed under this nonce; the queue checks each job's status once more."""
        *_, report = self.begin(nonce, **answers)
        return report

    def begin(
        self, nonce: object, *, reason: object = "", consumer: object = "", typed: object = ""
    ) -> Iterator[Report]:
        """Check the answer now; then do the batches one by one, with the report after each."""
        proposal, self._open = self._open, None
        if (
            proposal is None
            or not isinstance(nonce, str)
            or not secrets.compare_digest(nonce.encode(), proposal.nonce.encode())
        ):
            raise RefusedError("this question was answered before, or replaced by another; ask again")
        self.allow(proposal.verb)
        if time.monotonic() > proposal.until:
            raise RefusedError("the answer came after two minutes; ask again")
        if proposal.typed and text(typed) != proposal.typed:
            raise RefusedError(f"nothing was deleted: type exactly {proposal.typed!r}")
        why = text(reason) or None
        if proposal.verb == "mark_failed" and why is None:
            raise RefusedError("nothing was marked failed: give a reason")
        return self._batches(proposal, why, text(consumer) or None)

    def undo(self, nonce: object) -> str:
        """Take the last action back, once, within half a minute; a line on what that did."""
        undo, self._undo = self._undo, None
        if undo is None or not isinstance(nonce, str) or nonce != undo.nonce:
            raise RefusedError("there is nothing to take back")
        if self.read_only:
            raise RefusedError("this page is read-only; nothing was changed")
        if time.monotonic() > undo.until:
            raise RefusedError(
                f"an action can be taken back within {UNDO_SECONDS:.0f} seconds; it is too late"
            )
        done, moved = undo.run(self._queue)
        line = f"taken back for {done:,} job{'' if done == 1 else 's'}"
        return f"{line}; {moved:,} had moved on" if moved else line

    def allow(self, verb: object) -> None:
        """Raise RefusedError unless this page may do that."""
        if verb not in VERBS:
            raise RefusedError(f"unknown action {verb!r:.50}; one of {', '.join(VERBS)}")
        if self.read_only:
            raise RefusedError("this page is read-only; nothing was changed")

    def _batches(self, proposal: Proposal, reason: str | None, consumer: str | None) -> Iterator[Report]:
        report = Report(proposal.verb, total=len(proposal.ids), undo=Undo(proposal.verb, self.who))
        for start in range(0, len(proposal.ids), BATCH):
            done = 0
            with self._queue.transaction():
                for job_id in proposal.ids[start : start + BATCH]:
                    done += self._attempt(report, job_id, reason, consumer)
            report.done += done
            yield report
        if report.undo is not None:
            report.undo.until = time.monotonic() + UNDO_SECONDS
            self._undo = report.undo if report.undo.steps else None
        yield report

    def _attempt(self, report: Report, job_id: int, reason: str | None, consumer: str | None) -> bool:
        try:
            before = self._queue.get(job_id)
            after = self._one(report.verb, job_id, reason, consumer)
        except (JobNotFoundError, TransitionError, DuplicateJobError) as error:
            report.problems.append(str(error))
            return False
        if report.undo is not None:
            report.undo.note(before, after)
        return True

    def _one(self, verb: str, job_id: int, reason: str | None, consumer: str | None) -> Job | None:
        queue, who = self._queue, self.who
        match verb:
            case "resubmit":
                return queue.resubmit(job_id, reason=reason, by=who)
            case "assign":
                return queue.assign(job_id, consumer, reason=reason, by=who)
            case "mark_failed":
                return queue.mark_failed(job_id, reason or "", by=who)
            case "cancel":
                return queue.cancel(job_id, reason=reason, by=who)
            case _:
                queue.delete(job_id, reason=reason, by=who)
                return None


def _job_ids(ids: object) -> list[int]:
    """The ids that the browser sent, each once; anything else is refused."""
    if not isinstance(ids, list) or not all(type(value) is int and 0 <= value < 2**63 for value in ids):
        raise InvalidJobError("the selection must be a list of job ids")
    if len(ids) > MOST_JOBS:
        raise RefusedError(f"{len(ids)} jobs are selected; at most {MOST_JOBS} at a time")
    if not ids:
        raise RefusedError("no job is selected")
    return list(dict.fromkeys(ids))


def text(value: object, length: int = 500) -> str:
    """What a person typed, without the space around it. Raises InvalidJobError."""
    if not isinstance(value, str) or len(value) > length:
        raise InvalidJobError(f"the answer must be a text of at most {length} characters")
    return value.strip()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        return "somebody"
