"""Between rows and values: what a new job stores, and how rows become jobs, attempts and consumers."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from pq import values
from pq.errors import InvalidJobError
from pq.job import Attempt, Job, NewJob, Status
from pq.records import Action, Consumer, Outcome
from pq.values import to_datetime

LARGE_PARAMETERS, LARGE_RESULT = 1, 2
"""Bits of `large`: this value stands apart from its row, where the database does not do that by itself."""


def new_row(job: NewJob, now: float, max_attempts: int) -> dict[str, Any]:
    """The columns of a new job; InvalidJobError where one cannot be stored."""
    due = values.due_seconds(job, now)
    tags = values.names(job.tags, "tag")
    most = max_attempts if job.max_attempts is None else job.max_attempts
    return {
        "task": values.name(job.task, "task"),
        "queue": values.name(job.queue, "queue"),
        "status": "scheduled" if due > now else "pending",
        "priority": values.whole(job.priority, "priority"),
        "parameters": values.parameters(job.parameters),
        "tags": json.dumps(tags, ensure_ascii=False),
        "group": None if job.group is None else values.name(job.group, "group"),
        "unique_key": None if job.unique_key is None else values.name(job.unique_key, "unique_key"),
        "due_at": due,
        "timeout": None if job.timeout is None else values.seconds(job.timeout, "timeout", positive=True),
        "max_attempts": values.whole(most, "max_attempts", least=1),
        "now": now,
    }


def checked_result(outcome: Outcome) -> str | None:
    """The result as JSON, after a look at what else could not be stored."""
    if outcome.delay is not None:
        values.seconds(outcome.delay, "delay")
    elif outcome.kind == "snoozed":
        raise InvalidJobError("a snooze needs a delay")
    return None if outcome.result is None else values.to_json(outcome.result, "result")


def checked_progress(progress: float | None) -> float | None:
    """A part of 1, or None."""
    if progress is not None and (isinstance(progress, bool) or not 0 <= progress <= 1):
        raise InvalidJobError(f"progress must be from 0 to 1, not {progress!r:.50}")
    return progress


def to_job(row: Any, large: Mapping[tuple[int, str], str], *, existed: bool = False) -> Job:
    """A row of COLUMNS as a Job; `large` holds the values that stand in `job_values`."""
    (
        id_, task, queue, status, priority, parameters, tags, group, key, assigned, due, timeout, most,
        attempt, token, consumer, cancel, progress, message, result, error, created, started, finished, sides,
    ) = row  # fmt: skip
    if sides:
        if sides & LARGE_PARAMETERS:
            parameters = large[id_, "parameters"]
        if sides & LARGE_RESULT:
            result = large[id_, "result"]
    return Job(
        id_,
        task,
        queue,
        Status(status),
        priority,
        json.loads(parameters) if parameters is not None else {},
        tuple(json.loads(tags)) if tags != "[]" else (),
        group,
        key,
        assigned,
        to_datetime(due),
        None if timeout is None else timedelta(seconds=timeout),
        most,
        attempt,
        token,
        consumer,
        bool(cancel),
        progress,
        message,
        None if result is None else json.loads(result),
        error,
        to_datetime(created),
        to_datetime(started),
        to_datetime(finished),
        existed,
    )


def to_attempt(row: Any) -> Attempt:
    """A row of attempts as an Attempt."""
    job_id, attempt, outcome, consumer, started, finished, error, traceback = row
    return Attempt(
        job_id, attempt, outcome, consumer, to_datetime(started), to_datetime(finished), error, traceback
    )


def to_consumer(row: Any, *, alive: bool | None) -> Consumer:
    """A row of consumers as a Consumer."""
    identity, name, host, pid, queues, started, beaten, doing, stop, ended = row
    return Consumer(
        id=identity,
        name=name,
        host=host,
        pid=pid,
        queues=tuple(json.loads(queues)),
        started_at=to_datetime(started),
        heartbeat_at=to_datetime(beaten),
        doing=doing,
        stop_requested=bool(stop),
        ended_at=to_datetime(ended),
        alive=alive,
    )


def to_action(row: Any) -> Action:
    """A row of actions as an Action."""
    id_, at, who, verb, job_id, target, before, after, reason = row
    return Action(id_, to_datetime(at), who, verb, job_id, target, _status(before), _status(after), reason)


def _status(value: str | None) -> Status | None:
    return None if value is None else Status(value)


def to_standing(jobs: Sequence[Job], rows: Iterable[Any]) -> dict[int, str]:
    """For each job's id: live, cancel or lost, by rows of id, token, status, cancel_requested."""
    found = {(id_, token): cancel for id_, token, status, cancel in rows if status == "processing"}
    answer = {}
    for job in jobs:
        cancel = found.get((job.id, job.token))
        answer[job.id] = "lost" if cancel is None else "cancel" if cancel else "live"
    return answer
