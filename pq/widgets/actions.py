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

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pq.interface import PersistentQInterface

MOST_JOBS = 500
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
        }


@dataclass(slots=True)
class Report:
    """What was done: how many jobs, and for each that was not, the reason."""

    verb: str
    done: int = 0
    problems: list[str] = field(default_factory=list)

    def text(self) -> str:
        """One line for a person."""
        line = f"{self.done} job{'' if self.done == 1 else 's'} {DONE[self.verb]}"
        if not self.problems:
            return line
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        return f"{line}; {len(self.problems)} skipped: {self.problems[0]}{more}"


class Actions:
    """The actions of one page; at most one proposal is open, and it can be used once within two minutes."""

    def __init__(
        self, queue: PersistentQInterface, *, read_only: bool = False, who: str | None = None
    ) -> None:
        self.read_only = read_only
        self._queue = queue
        self._who = who or f"{_user()} on the admin page"
        self._open: Proposal | None = None

    def propose(self, verb: object, ids: object) -> Proposal:
        """Look at the jobs as they are now; nothing is changed."""
        self._allow(verb)
        changes: Counter[str] = Counter()
        skipped: Counter[str] = Counter()
        frozen = []
        for job_id in _job_ids(ids):
            try:
                job = self._queue.get(job_id)
            except JobNotFoundError:
                skipped["deleted"] += 1
                continue
            if job.can(str(verb)):
                changes[job.status.value] += 1
                frozen.append(job_id)
            else:
                skipped[job.status.value] += 1
        until = time.monotonic() + LIFETIME_SECONDS
        nonce = secrets.token_urlsafe(16)
        self._open = Proposal(nonce, str(verb), tuple(frozen), changes, skipped, until)
        return self._open

    def withdraw(self) -> None:
        """Forget the open proposal."""
        self._open = None

    def apply(
        self, nonce: object, *, reason: object = "", consumer: object = "", typed: object = ""
    ) -> Report:
        """Do what was proposed under this nonce; the queue checks each job's status once more."""
        proposal, self._open = self._open, None
        if (
            proposal is None
            or not isinstance(nonce, str)
            or not secrets.compare_digest(nonce.encode(), proposal.nonce.encode())
        ):
            raise RefusedError("this question was answered before, or replaced by another; ask again")
        self._allow(proposal.verb)
        if time.monotonic() > proposal.until:
            raise RefusedError("the answer came after two minutes; ask again")
        if proposal.typed and _text(typed) != proposal.typed:
            raise RefusedError(f"nothing was deleted: type exactly {proposal.typed!r}")
        why = _text(reason) or None
        if proposal.verb == "mark_failed" and why is None:
            raise RefusedError("nothing was marked failed: give a reason")
        return self._do(proposal, why, _text(consumer) or None)

    def _do(self, proposal: Proposal, reason: str | None, consumer: str | None) -> Report:
        report = Report(proposal.verb)
        for job_id in proposal.ids:
            try:
                self._one(proposal.verb, job_id, reason, consumer)
            except (JobNotFoundError, TransitionError, DuplicateJobError) as error:
                report.problems.append(str(error))
            else:
                report.done += 1
        return report

    def _one(self, verb: str, job_id: int, reason: str | None, consumer: str | None) -> None:
        match verb:
            case "resubmit":
                self._queue.resubmit(job_id, reason=reason, by=self._who)
            case "assign":
                self._queue.assign(job_id, consumer, reason=reason, by=self._who)
            case "mark_failed":
                self._queue.mark_failed(job_id, reason or "", by=self._who)
            case "cancel":
                self._queue.cancel(job_id, reason=reason, by=self._who)
            case "delete":
                self._queue.delete(job_id, reason=reason, by=self._who)

    def _allow(self, verb: object) -> None:
        if verb not in VERBS:
            raise RefusedError(f"unknown action {verb!r:.50}; one of {', '.join(VERBS)}")
        if self.read_only:
            raise RefusedError("this page is read-only; nothing was changed")


def _job_ids(ids: object) -> list[int]:
    """The ids that the browser sent, each once; anything else is refused."""
    if not isinstance(ids, list) or not all(type(value) is int and 0 <= value < 2**63 for value in ids):
        raise InvalidJobError("the selection must be a list of job ids")
    if len(ids) > MOST_JOBS:
        raise RefusedError(f"{len(ids)} jobs are selected; at most {MOST_JOBS} at a time")
    if not ids:
        raise RefusedError("no job is selected")
    return list(dict.fromkeys(ids))


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 500:
        raise InvalidJobError("the answer must be a text of at most 500 characters")
    return value.strip()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        return "somebody"
