"""What the browser is told of a job, a consumer and the counts: plain JSON, short, secrets hidden."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pq.job import Status
from pq.widgets.hiding import Hiding, clean

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from pq.history import Key, Picture, Tally
    from pq.job import Job
    from pq.records import Consumer, GroupLimit
    from pq.stats import Summary

VERBS = ("resubmit", "assign", "mark_failed", "cancel", "delete")
PARAMETERS_LENGTH = 300
MOST_TASKS = 50
_USUAL = Hiding()


def job_row(job: Job, hiding: Hiding = _USUAL) -> dict[str, Any]:
    """One line of the table. Times are seconds since 1970; `can` names the verbs that are allowed now."""
    return {
        "id": job.id,
        "status": job.status.value,
        "task": job.task,
        "queue": job.queue,
        "parameters": short_json(job.parameters, hiding),
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
        "name": clean(consumer.name),
        "where": clean(f"{consumer.host}, pid {consumer.pid}"),
        "queues": ", ".join(consumer.queues),
        "doing": clean(consumer.doing),
        "started": consumer.started_at.timestamp(),
        "heartbeat": consumer.heartbeat_at.timestamp(),
        "state": _consumer_state(consumer),
    }


def group_row(limit: GroupLimit) -> dict[str, Any]:
    """One group with a limit."""
    return {"id": limit.group, "group": limit.group, "most": limit.max_running, "running": limit.running,
            "blocked": limit.blocked}  # fmt: skip


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


def picture_view(picture: Picture) -> dict[str, Any]:
    """The charts and the tables by task: `points` are time, completed, failed, p50, p95 (seconds)."""
    tasks = sorted(picture.tasks.items(), key=lambda pair: (-pair[1].failed, -pair[1].ended, pair[0]))
    return {
        "points": [[start.timestamp(), *_ends(tally), *_times(tally)] for start, tally in picture.steps],
        "tasks": [_task_row(key, tally) for key, tally in tasks[:MOST_TASKS]],
        "window": {"ended": picture.total.ended, "failed": picture.total.failed},
    }


def _task_row(key: Key, tally: Tally) -> dict[str, Any]:
    median, slow = _times(tally)
    return {
        "id": f"{key[0]}\n{key[1]}",
        "queue": key[0],
        "task": key[1],
        "ended": tally.ended,
        "failed": tally.failed,
        "retried": tally.outcomes["retried"],
        "p50": median,
        "p95": slow,
    }


def _ends(tally: Tally) -> tuple[int, int]:
    return tally.outcomes["completed"], tally.failed


def _times(tally: Tally) -> tuple[float | None, float | None]:
    return _rounded(tally.quantile(0.5)), _rounded(tally.quantile(0.95))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else float(f"{seconds:.3g}")


def short_json(value: Any, hiding: Hiding, length: int = PARAMETERS_LENGTH) -> str:
    """`value` as one line of JSON, hidden names hidden, cut at 300 characters."""
    return clean(json.dumps(hiding.hide(value), ensure_ascii=False, default=str), length)


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
