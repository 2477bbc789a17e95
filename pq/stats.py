"""Numbers about a queue, for the pages, `pq monitor`, `pq stats` and DataFrames."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pq.job import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from pq.interface import PersistentQInterface
    from pq.job import Job

PAGE = 500
MINUTE = timedelta(minutes=1)

_TEXTS = ("task", "queue", "status", "consumer", "group", "error", "message")
_NUMBERS = ("priority", "attempt", "max_attempts")
_OBJECTS = ("parameters", "result", "tags")
_TIMES = ("due_at", "created_at", "started_at", "finished_at")


@dataclass(frozen=True, slots=True)
class Point:
    """The jobs that were completed, or failed for good, within one minute; a retry counts as neither."""

    minute: datetime
    completed: int
    failed: int


@dataclass(frozen=True, slots=True)
class QueueSummary:
    """One queue: its jobs by status, its pause, and how long its oldest pending job has waited."""

    name: str
    counts: dict[str, int]
    paused: bool
    reason: str | None
    oldest_pending: timedelta | None


@dataclass(frozen=True, slots=True)
class Summary:
    """The whole queue at one moment.

    `completed` and `failed` are the jobs that ended so within the last `minutes`; `failed_share` is None
    where none did. `per_minute` is the mean of both over that window.
    """

    at: datetime
    counts: dict[str, int]
    queues: list[QueueSummary]
    oldest_pending: timedelta | None
    minutes: int
    completed: int
    failed: int
    failed_share: float | None
    per_minute: float


def summary(queue: PersistentQInterface, minutes: int = 5, now: datetime | None = None) -> Summary:
    """What both pages, `pq monitor` and `pq stats` show; as quick at a million jobs as at ten."""
    now = now or datetime.now(UTC)
    counts = {status.value: 0 for status in Status}
    by_queue: dict[str, dict[str, int]] = {}
    for count in queue.counters():
        counts[count.status.value] += count.jobs
        own = by_queue.setdefault(count.queue, {status.value: 0 for status in Status})
        own[count.status.value] += count.jobs
    queues = _queues(queue, by_queue, now)
    points = throughput(queue, minutes, now)
    completed, failed = sum(p.completed for p in points), sum(p.failed for p in points)
    ended = completed + failed
    return Summary(
        at=now,
        counts=counts,
        queues=queues,
        oldest_pending=max((q.oldest_pending for q in queues if q.oldest_pending), default=None),
        minutes=minutes,
        completed=completed,
        failed=failed,
        failed_share=failed / ended if ended else None,
        per_minute=ended / _window(points, now) if points else 0.0,
    )


def why_blocked(queue: PersistentQInterface, job: Job) -> str:
    """What a blocked job waits for: `group study runs 4 of at most 4`; empty for any other job."""
    if job.status is not Status.BLOCKED:
        return ""
    return next((str(limit) for limit in queue.group_limits() if limit.group == job.group), "")


def throughput(queue: PersistentQInterface, minutes: int = 60, now: datetime | None = None) -> list[Point]:
    """One point for each of the last `minutes` minutes, oldest first, the present one last; gaps are 0."""
    last = (now or datetime.now(UTC)).replace(second=0, microsecond=0)
    first = last - (minutes - 1) * MINUTE
    totals = {first + step * MINUTE: [0, 0] for step in range(minutes)}
    for bucket in queue.buckets(first):
        pair = totals.get(bucket.minute)
        if pair is None:
            continue
        if bucket.outcome == "completed":
            pair[0] += bucket.jobs
        elif bucket.outcome == "failed":
            pair[1] += bucket.jobs
    return [Point(minute, completed, failed) for minute, (completed, failed) in totals.items()]


def frame(queue: PersistentQInterface, /, *, limit: int | None = None, **filters: Any) -> pd.DataFrame:
    """Jobs as a DataFrame; the columns are those that `PersistentQInterface.frame` names.

    An empty answer has the same columns and dtypes.
    """
    import pandas as pd

    jobs = list(_pages(queue, limit, filters))
    columns: dict[str, Any] = {name: _column(jobs, name, "str") for name in _TEXTS}
    columns |= {name: _column(jobs, name, "int64") for name in _NUMBERS}
    columns["progress"] = _column(jobs, "progress", "float64")
    columns |= {name: _column(jobs, name, "object") for name in _OBJECTS}
    columns |= {name: _column(jobs, name, "datetime64[us, UTC]") for name in _TIMES}
    index = pd.Index([job.id for job in jobs], dtype="int64", name="id")
    return pd.DataFrame(columns).set_index(index)


def _pages(queue: PersistentQInterface, limit: int | None, filters: dict[str, Any]) -> Iterator[Job]:
    """Walk by keyset, so that the last page costs what the first one does."""
    after = filters.pop("after", None)
    while limit is None or limit > 0:
        size = PAGE if limit is None else min(PAGE, limit)
        jobs = queue.list(after=after, limit=size, **filters)
        yield from jobs
        if len(jobs) < size:
            return
        after = jobs[-1]
        limit = None if limit is None else limit - size


def _column(jobs: list[Job], name: str, dtype: str) -> pd.Series[Any]:
    import pandas as pd

    values = [_cell(getattr(job, name)) for job in jobs]
    return pd.Series(values, dtype=dtype)


def _cell(value: Any) -> Any:
    return value.value if isinstance(value, Status) else value


def _queues(
    queue: PersistentQInterface, by_queue: dict[str, dict[str, int]], now: datetime
) -> list[QueueSummary]:
    states = {state.name: state for state in queue.queues()}
    summaries = []
    for name in sorted(by_queue.keys() | states.keys()):
        state = states.get(name)
        oldest = state.oldest_pending_at if state else None
        summaries.append(
            QueueSummary(
                name=name,
                counts=by_queue.get(name) or {status.value: 0 for status in Status},
                paused=bool(state and state.paused_at),
                reason=state.reason if state else None,
                oldest_pending=max(now - oldest, timedelta(0)) if oldest else None,
            )
        )
    return summaries


def _window(points: list[Point], now: datetime) -> float:
    """The minutes that `points` cover; the running one only counts as far as it has come."""
    return max((now - points[0].minute) / MINUTE, 1 / 60)
