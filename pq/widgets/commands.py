"""What the admin page does besides acting on selected jobs: queues, consumers, new jobs; all checked."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pq.errors import InvalidJobError
from pq.job import NewJob
from pq.values import VALUE_BYTES, job_id
from pq.widgets.actions import RefusedError, text
from pq.widgets.hiding import clean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pq.interface import PersistentQInterface
    from pq.job import Job
    from pq.widgets.hiding import Hiding

AGAIN = "again-"


class Commands:
    """One method per verb, from the browser's message to a line for the person."""

    def __init__(self, queue: PersistentQInterface, who: str, hiding: Hiding, *, read_only: bool) -> None:
        self._queue, self._who, self._hiding, self._read_only = queue, who, hiding, read_only

    def pause(self, message: Mapping[str, Any]) -> str:
        """Pause a queue, with a reason where one is given."""
        self._allow()
        name = text(message.get("queue", ""))
        self._queue.pause(name, text(message.get("reason", "")) or None, by=self._who)
        return f"queue {clean(name)} is paused; running jobs go on"

    def resume(self, message: Mapping[str, Any]) -> str:
        """Resume a paused queue."""
        self._allow()
        name = text(message.get("queue", ""))
        self._queue.resume(name, by=self._who)
        return f"queue {clean(name)} is open again"

    def limit(self, message: Mapping[str, Any]) -> str:
        """Limit a group, or lift its limit where no number is given."""
        self._allow()
        group = text(message.get("group", ""))
        most = _whole(message.get("most", ""), "the limit")
        self._queue.limit_group(group, most, reason=text(message.get("reason", "")) or None, by=self._who)
        allowed = "no limit any more" if most is None else f"at most {most:,} pending or processing"
        return f"group {clean(group)} has {allowed}"

    def stop(self, message: Mapping[str, Any]) -> str:
        """Ask one consumer, by its uuid, to stop."""
        self._allow()
        asked = self._queue.stop_consumer(
            text(message.get("consumer", "")), reason=text(message.get("reason", "")) or None, by=self._who
        )
        if not asked:
            raise RefusedError("this consumer has already ended")
        return "the consumer was asked to stop; it finishes or gives back its job first"

    def enqueue(self, message: Mapping[str, Any]) -> Job:
        """Store a new job from the form's texts."""
        self._allow()
        new = NewJob(
            text(message.get("task", "")),
            parameters(message.get("parameters")),
            queue=text(message.get("queue", "")) or "default",
            priority=_whole(message.get("priority", ""), "priority") or 0,
            delay=_seconds(message.get("delay", "")),
            max_attempts=_whole(message.get("max_attempts", ""), "the number of attempts"),
            unique_key=text(message.get("unique_key", "")) or None,
            tags=tuple(part for tag in text(message.get("tags", "")).split(",") if (part := tag.strip())),
            group=text(message.get("group", "")) or None,
        )
        return self._queue.enqueue_many([new])[0]

    def revise(self, message: Mapping[str, Any]) -> Job:
        """A new job like a finished one, with changed parameters; the old one stays as it is.

        The new one carries the tag `again-ID`. Hidden values that were left alone come along.
        """
        self._allow()
        old = self._queue.get(job_id(message.get("id")))
        if not old.can("resubmit"):
            raise RefusedError(f"job {old.id} is {old.status}; only a finished job is run again with changes")
        changed = self._hiding.restore(parameters(message.get("parameters")), old.parameters)
        again = f"{AGAIN}{old.id}"
        new = NewJob(
            old.task,
            changed,
            queue=old.queue,
            priority=old.priority,
            max_attempts=old.max_attempts,
            timeout=old.timeout,
            unique_key=old.unique_key,
            tags=(*(tag for tag in old.tags if not tag.startswith(AGAIN)), again),
            group=old.group,
        )
        reason = text(message.get("reason", ""))
        if reason:
            new = replace(new, tags=(*new.tags, f"reason: {' '.join(clean(reason, 150).split())}"))
        job = self._queue.enqueue_many([new])[0]
        if job.existed:
            raise RefusedError(f"job {job.id} is {job.status} with the same unique key; nothing was enqueued")
        return job

    def _allow(self) -> None:
        if self._read_only:
            raise RefusedError("this page is read-only; nothing was changed")


def parameters(value: object) -> dict[str, Any]:
    """A JSON object as a person writes it. Raises InvalidJobError that says where it is wrong."""
    if not isinstance(value, str) or len(value) > VALUE_BYTES:
        raise InvalidJobError(f"parameters must be a text of at most {VALUE_BYTES:,} characters")
    try:
        parsed = json.loads(value or "{}")
    except json.JSONDecodeError as error:
        raise InvalidJobError(
            f"parameters must be JSON: {error.msg} in line {error.lineno}, column {error.colno}"
        ) from None
    except RecursionError:
        raise InvalidJobError("parameters are nested too deeply") from None
    if not isinstance(parsed, dict):
        raise InvalidJobError('parameters must be a JSON object, such as {"path": "inbox/a.txt"}')
    return parsed


def _whole(value: object, what: str) -> int | None:
    written = text(value)
    if not written:
        return None
    try:
        return int(written)
    except ValueError:
        raise InvalidJobError(f"{what} must be a whole number, not {written!r:.50}") from None


def _seconds(value: object) -> float | None:
    written = text(value)
    if not written:
        return None
    try:
        return float(written)
    except ValueError:
        raise InvalidJobError(f"the delay must be a number of seconds, not {written!r:.50}") from None
