"""A job as a frozen value: its statuses, which verb leads from where to where, and its back-off."""

import html
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from pq.errors import TransitionError

RUN = re.compile(r"runs/[0-9]+/[0-9]+\.ipynb")  # what a link may lead to


class Status(StrEnum):
    """The words that are stored and shown."""

    BLOCKED = "blocked"
    SCHEDULED = "scheduled"
    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


UNFINISHED = (Status.BLOCKED, Status.SCHEDULED, Status.PENDING, Status.PROCESSING)
FINISHED = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)

# verb -> status it leaves -> statuses it may enter. The check, its error message, the diagram in
# docs/lifecycle.md, the property test and the pages' buttons all read this one table.
TRANSITIONS: Mapping[str, Mapping[Status, tuple[Status, ...]]] = {
    "promote": {Status.SCHEDULED: (Status.PENDING, Status.BLOCKED)},
    # A limited group has room again.
    "admit": {Status.BLOCKED: (Status.PENDING,)},
    # The limit of its group was lowered.
    "limit_group": {Status.PENDING: (Status.BLOCKED,)},
    "dequeue": {Status.PENDING: (Status.PROCESSING,)},
    "heartbeat": {Status.PROCESSING: (Status.PROCESSING,)},
    "complete": {Status.PROCESSING: (Status.COMPLETED,)},
    "fail": {Status.PROCESSING: (Status.SCHEDULED, Status.FAILED, Status.CANCELLED)},
    "rescue": {Status.PROCESSING: (Status.SCHEDULED, Status.FAILED, Status.CANCELLED)},
    "release": {Status.PROCESSING: (Status.PENDING, Status.BLOCKED, Status.CANCELLED)},
    "snooze": {Status.PROCESSING: (Status.SCHEDULED, Status.CANCELLED)},
    # A processing job stays so until its consumer has stopped it; then `fail` cancels it.
    "cancel": {
        Status.BLOCKED: (Status.CANCELLED,),
        Status.SCHEDULED: (Status.CANCELLED,),
        Status.PENDING: (Status.CANCELLED,),
        Status.PROCESSING: (Status.PROCESSING,),
    },
    "mark_failed": {
        Status.BLOCKED: (Status.FAILED,),
        Status.SCHEDULED: (Status.FAILED,),
        Status.PENDING: (Status.FAILED,),
        Status.PROCESSING: (Status.FAILED,),
        Status.CANCELLED: (Status.FAILED,),
    },
    "resubmit": dict.fromkeys(FINISHED, (Status.PENDING, Status.BLOCKED)),
    "assign": {
        Status.BLOCKED: (Status.BLOCKED,),
        Status.SCHEDULED: (Status.SCHEDULED,),
        Status.PENDING: (Status.PENDING,),
        Status.PROCESSING: (Status.PENDING, Status.BLOCKED),
    },
    # Deleting a running job would leave its consumer working for nobody.
    "delete": {status: () for status in Status if status is not Status.PROCESSING},
}

_ADVICE = {
    ("resubmit", Status.PROCESSING): "cancel it first",
    ("delete", Status.PROCESSING): "cancel it first",
    ("cancel", Status.COMPLETED): "it has finished",
    ("mark_failed", Status.COMPLETED): "resubmit it to run it again",
}


def check_transition(verb: str, job_id: int, status: Status) -> None:
    """Raise TransitionError, with what to do instead, unless `verb` may leave `status`."""
    allowed = TRANSITIONS[verb]
    if status in allowed:
        return
    advice = _ADVICE.get((verb, status))
    if advice is None:
        advice = f"it can be done from {', '.join(allowed)}"
    raise TransitionError(f"cannot {verb.replace('_', ' ')} job {job_id}: it is {status}; {advice}")


@dataclass(frozen=True, slots=True)
class NewJob:
    """What `enqueue_many` takes: a job that has no id yet.

    `delay` (a timedelta, or seconds) and `due_at` (an aware datetime) exclude each other. `timeout`
    limits one attempt. `unique_key` allows one unfinished job per key. `group` names a sweep.
    """

    task: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    queue: str = "default"
    priority: int = 0
    delay: timedelta | float | None = None
    due_at: datetime | None = None
    max_attempts: int | None = None
    timeout: timedelta | float | None = None
    unique_key: str | None = None
    tags: tuple[str, ...] = ()
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One job as it was when it was read; a verb returns a new one.

    All times are aware datetimes in UTC. `attempt` counts the tries begun. `token` is the fencing token
    of the latest lease. `existed` says that `enqueue` met an unfinished job with the same unique key.
    """

    id: int
    task: str
    queue: str
    status: Status
    priority: int
    parameters: Mapping[str, Any]
    tags: tuple[str, ...]
    group: str | None
    unique_key: str | None
    assigned_to: str | None
    due_at: datetime
    timeout: timedelta | None
    max_attempts: int
    attempt: int
    token: int
    consumer: str | None
    cancel_requested: bool
    progress: float | None
    message: str | None
    result: Any
    error: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    existed: bool = False

    def can(self, verb: str) -> bool:
        """Whether a person may do `verb` now."""
        return self.status in TRANSITIONS[verb]

    def _repr_html_(self) -> str:
        rows = (
            ("status", self.status.value),
            ("queue", self.queue),
            ("parameters", self.parameters),
            ("attempt", f"{self.attempt} of {self.max_attempts}"),
            ("consumer", self.consumer),
            ("progress", None if self.progress is None else f"{self.progress:.0%}"),
            ("message", self.message),
            ("result", self.result),
            ("error", self.error),
            ("created", self.created_at.isoformat(sep=" ", timespec="seconds")),
        )
        body = "".join(
            f"<tr><th>{name}</th><td>{html.escape(str(value)[:2000])}</td></tr>"
            for name, value in rows
            if value not in (None, "", {})
        )
        run = self.result.get("run") if isinstance(self.result, dict) else None
        if isinstance(run, str) and RUN.fullmatch(run):
            body += f'<tr><th>run</th><td><a href="{run}" target="_blank">{run}</a></td></tr>'
        return f"<table><caption>job {self.id}: {html.escape(self.task)}</caption>{body}</table>"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a job that has ended; `outcome` is completed, failed, timeout, cancelled, snoozed,
    reassigned, marked failed, lease expired or consumer died.
    """

    job_id: int
    attempt: int
    outcome: str
    consumer: str | None
    started_at: datetime
    finished_at: datetime
    error: str | None
    traceback: str | None


def back_off(attempt: int, jitter: random.Random | None = None) -> timedelta:
    """Time until the next try after `attempt` tries: 1, 2, 4 … s, at most an hour, ± 25 %.

    The jitter keeps jobs that failed together from coming back together.
    """
    seconds = min(2.0 ** min(attempt - 1, 12), 3600.0)
    return timedelta(seconds=seconds * (jitter or random).uniform(0.75, 1.25))


def after_failure(
    *, attempt: int, max_attempts: int, cancel_requested: bool, retry: bool, delay: timedelta | None = None
) -> tuple[Status, timedelta | None]:
    """The status that a failed attempt leads to, and for scheduled ones the time until it is due."""
    if cancel_requested:
        return Status.CANCELLED, None
    if retry and attempt < max_attempts:
        return Status.SCHEDULED, back_off(attempt) if delay is None else delay
    return Status.FAILED, None
