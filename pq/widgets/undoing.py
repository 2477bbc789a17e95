"""Taking an action back within half a minute, as far as the queue's verbs lead back."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pq.errors import PQError
from pq.job import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from pq.interface import PersistentQInterface
    from pq.job import Job

UNDO_SECONDS = 30.0
REASON = "taken back"


@dataclass(frozen=True, slots=True)
class Step:
    """One job's way back: the verb, and what the job must still look like."""

    job_id: int
    verb: str
    status: Status
    attempt: int
    assigned: str | None


@dataclass(slots=True)
class Undo:
    """What can be taken back of one action, and of how many jobs it cannot, by reason."""

    verb: str
    who: str
    steps: list[Step] = field(default_factory=list)
    final: dict[str, int] = field(default_factory=dict)
    nonce: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    until: float = field(default_factory=lambda: time.monotonic() + UNDO_SECONDS)

    def note(self, before: Job, after: Job | None) -> None:
        """Remember how `before` comes back, or why it does not."""
        way = way_back(self.verb, before.status)
        if way is None or after is None:
            why = why_final(self.verb, before.status)
            self.final[why] = self.final.get(why, 0) + 1
        else:
            self.steps.append(Step(before.id, way, after.status, after.attempt, before.assigned_to))

    def run(self, queue: PersistentQInterface) -> tuple[int, int]:
        """Take back what has not moved on; how many, and how many had."""
        done = 0
        for step in self.steps:
            with suppress(PQError):  # deleted meanwhile, or a twin lives: it has moved on
                done += self._one(queue, step)
        return done, len(self.steps) - done

    def _one(self, queue: PersistentQInterface, step: Step) -> bool:
        with queue.transaction():
            job = queue.get(step.job_id)
            if (_waiting(job.status), job.attempt) != (_waiting(step.status), step.attempt):
                return False
            undo: dict[str, Callable[[], object]] = {
                "cancel": lambda: queue.cancel(job, reason=REASON, by=self.who),
                "resubmit": lambda: queue.resubmit(job, reason=REASON, by=self.who),
                "assign": lambda: queue.assign(job, step.assigned, reason=REASON, by=self.who),
            }
            undo[step.verb]()
            if step.verb == "resubmit" and step.assigned is not None:
                queue.assign(job, step.assigned, reason=REASON, by=self.who)
            return True


def way_back(verb: str, status: Status) -> str | None:
    """The verb that takes `verb` back from a job that was `status`; None: there is none."""
    if verb == "resubmit":
        return "cancel"
    if verb in ("cancel", "mark_failed") and _waiting(status) is Status.PENDING:
        return "resubmit"
    if verb == "assign" and status is not Status.PROCESSING:
        return "assign"
    return None


def _waiting(status: Status) -> Status:
    """A blocked job counts as pending: which of them it is, its group decides at any moment."""
    return Status.PENDING if status is Status.BLOCKED else status


def why_final(verb: str, status: Status) -> str:
    """Why there is no way back."""
    if verb == "delete":
        return "deleted for good"
    if status is Status.PROCESSING:
        return "was running"
    return "would lose its due time" if status is Status.SCHEDULED else f"was {status}"
