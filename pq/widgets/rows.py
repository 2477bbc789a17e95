"""What the browser is told of a job, a consumer and the counts: plain JSON, short, secrets hidden."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pq.job import Status

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from pq.job import Job
    from pq.records import Consumer
    from pq.stats import Point, Summary

VERBS = ("resubmit", "assign", "mark_failed", "cancel", "delete")
TEXT_LENGTH = 500
PARAMETERS_LENGTH = 300
DEPTH = 20
HIDDEN = "•••"
_SECRET = re.compile("password|token|secret", re.IGNORECASE)


def job_row(job: Job) -> dict[str, Any]:
    """One line of the table. Times are seconds since 1970; `can` names the verbs that are allowed now."""
    return {
        "id": job.id,
        "status": job.status.value,
        "task": job.task,
        "queue": job.queue,
        "parameters": short_json(job.parameters),
        "consumer": job.consumer,
        "assigned": job.assigned_to,
        "attempt": job.attempt,
        "attempts": job.max_attempts,
        "progress": job.progress,
        "note": _note(job),
        "due": job.due_at.timestamp(),
        "created": job.created_at.timestamp(),
        "started": _seconds(job.started_at),
        "finished": _seconds(job.finished_at),
        "can": [verb for verb in VERBS if job.can(verb)],
    }


def consumer_row(consumer: Consumer) -> dict[str, Any]:
    """One live consumer."""
    return {
        "id": consumer.id,
        "name": consumer.name,
        "where": f"{consumer.host}, pid {consumer.pid}",
        "queues": ", ".join(consumer.queues),
        "doing": clean(consumer.doing),
        "started": consumer.started_at.timestamp(),
        "heartbeat": consumer.heartbeat_at.timestamp(),
        "state": _consumer_state(consumer),
    }


def summary_view(summary: Summary) -> dict[str, Any]:
    """The numbers at the top of the pages. Moments instead of ages, so that what rests stays equal."""
    return {
        "counts": summary.counts,
        "oldest": _since(summary.at, summary.oldest_pending),
        "minutes": summary.minutes,
        "ended": summary.completed + summary.failed,
        "failed": summary.failed,
        "failed_share": summary.failed_share,
        "per_minute": round(summary.per_minute, 1),
        "queues": [
            {
                "name": queue.name,
                "counts": queue.counts,
                "paused": queue.paused,
                "reason": queue.reason,
                "oldest": _since(summary.at, queue.oldest_pending),
            }
            for queue in summary.queues
        ],
    }


def points_view(points: Sequence[Point]) -> list[list[float]]:
    """The bars of the chart: minute, completed, failed."""
    return [[point.minute.timestamp(), point.completed, point.failed] for point in points]


def short_json(value: Any) -> str:
    """`value` as one line of JSON, secrets hidden, cut at 300 characters."""
    text = json.dumps(hide_secrets(value), ensure_ascii=False, default=str)
    return clean(text if len(text) <= PARAMETERS_LENGTH else f"{text[: PARAMETERS_LENGTH - 1]}…")


def hide_secrets(value: Any, depth: int = DEPTH) -> Any:
    """`value` with everything hidden whose name has password, token or secret in it.

    What lies deeper than 20 levels is left out: nobody reads it there, and nesting must not stop a page.
    """
    if not depth:
        return "…"
    if isinstance(value, Mapping):
        return {
            name: HIDDEN if _SECRET.search(str(name)) else hide_secrets(inner, depth - 1)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [hide_secrets(inner, depth - 1) for inner in value]
    return value


def clean(text: str) -> str:
    """`text` fit for sending: at most 500 characters, a question mark for a lone surrogate."""
    return text[:TEXT_LENGTH].encode("utf-8", "replace").decode()


def _note(job: Job) -> str:
    if job.cancel_requested and job.status is Status.PROCESSING:
        return "asked to stop"
    return clean(job.error or job.message or "")


def _consumer_state(consumer: Consumer) -> str:
    if consumer.alive is False:
        return "dead"
    return "stopping" if consumer.stop_requested else "live"


def _since(now: datetime, age: timedelta | None) -> float | None:
    return None if age is None else round((now - age).timestamp(), 3)


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None
