"""What ended over minutes to days, from the per-minute buckets: for charts, and for tables by task and queue.

Minutes that are over are read once and kept as sums, so that looking again costs what the last two
minutes cost, however long the span and however many the jobs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pq.interface import PersistentQInterface
    from pq.records import Bucket

# name -> minutes that are shown, minutes of one step
SPANS = {"5m": (5, 1), "15m": (15, 1), "1h": (60, 1), "6h": (360, 5), "24h": (1440, 15), "7d": (10_080, 120)}
DAY_MINUTES = 1440
Key = tuple[str, str]


@dataclass(slots=True)
class Tally:
    """Tries that ended: by outcome (completed, failed, retried, cancelled), and how long they took."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    slots: Counter[int] = field(default_factory=Counter)

    def add(self, bucket: Bucket) -> None:
        """Count a bucket in."""
        self.outcomes[bucket.outcome] += bucket.jobs
        self.seconds += bucket.seconds
        self.slots[bucket.slot] += bucket.jobs

    def join(self, other: Tally) -> None:
        """Count another tally in."""
        self.outcomes.update(other.outcomes)
        self.seconds += other.seconds
        self.slots.update(other.slots)

    @property
    def ended(self) -> int:
        """Jobs that were completed or failed for good; a retry is not an end."""
        return self.outcomes["completed"] + self.outcomes["failed"]

    @property
    def failed(self) -> int:
        """Jobs that failed for good."""
        return self.outcomes["failed"]

    def quantile(self, share: float) -> float | None:
        """Seconds within which that share of the tries ended, exact to 10 %; None where none did."""
        return quantile(self.slots, share)


def quantile(slots: Counter[int], share: float) -> float | None:
    """The middle of the slot (see `pq.records.Bucket`) in which that share of the tries is reached."""
    total = slots.total()
    if not total:
        return None
    seen = 0
    for slot in sorted(slots):
        seen += slots[slot]
        if seen >= share * total:
            break
    return float(0.001 * 2 ** ((slot + 0.5) / 4))


@dataclass(frozen=True, slots=True)
class Picture:
    """One look: `steps` from the oldest to the running one, `tasks` by (queue, task), `total` of all."""

    steps: list[tuple[datetime, Tally]]
    tasks: dict[Key, Tally]
    total: Tally


class History:
    """The last `minutes` of a queue in steps of `step` minutes; `read` it again and again."""

    def __init__(self, queue: PersistentQInterface, minutes: int = 60, step: int = 1) -> None:
        self._queue = queue
        self._minutes, self._step = minutes, step
        self._closed: dict[int, dict[Key, Tally]] = {}
        self._read_from: int | None = None
        self._sums: tuple[tuple[int, int], dict[int, Tally], dict[Key, Tally]] | None = None

    def read(self, now: datetime | None = None) -> Picture:
        """The span that ends now."""
        minute = int((now or datetime.now(UTC)).timestamp() // 60)
        last = minute // self._step
        first = last - self._minutes // self._step + 1
        since = first * self._step if self._read_from is None else max(self._read_from, first * self._step)
        # A transaction that began in the last minute may still write into it.
        boundary = minute - 1
        fresh = self._buckets(since, boundary // self._step * self._step)
        self._close((one for one in fresh if _minute(one) < boundary), first)
        self._read_from = boundary
        steps, tasks = self._sum(first, boundary)
        for bucket in fresh:
            if _minute(bucket) >= boundary:
                steps.setdefault(_minute(bucket) // self._step, Tally()).add(bucket)
                tasks.setdefault((bucket.queue, bucket.task), Tally()).add(bucket)
        total = Tally()
        for tally in tasks.values():
            total.join(tally)
        width = timedelta(minutes=self._step)
        start = _moment(first * self._step)
        points = [
            (start + number * width, steps.get(first + number, Tally())) for number in range(last - first + 1)
        ]
        return Picture(points, tasks, total)

    def _buckets(self, since: int, running: int) -> list[Bucket]:
        """Sums over steps, a day at a time so that no read is long; from `running` on each minute."""
        found: list[Bucket] = []
        for start in range(since, running, DAY_MINUTES):
            end = min(start + DAY_MINUTES, running) - 1
            found += self._queue.buckets(_moment(start), _moment(end), self._step)
        return found + self._queue.buckets(_moment(max(since, running)))

    def _close(self, buckets: Iterable[Bucket], first: int) -> None:
        for bucket in buckets:
            keys = self._closed.setdefault(_minute(bucket) // self._step, {})
            keys.setdefault((bucket.queue, bucket.task), Tally()).add(bucket)
        for old in [step for step in self._closed if step < first]:
            del self._closed[old]

    def _sum(self, first: int, boundary: int) -> tuple[dict[int, Tally], dict[Key, Tally]]:
        """The minutes that are over, by step and by key: copies, to which the running ones are added."""
        if self._sums is None or self._sums[0] != (first, boundary):
            steps: dict[int, Tally] = {}
            tasks: dict[Key, Tally] = {}
            for step, keys in self._closed.items():
                for key, tally in keys.items():
                    steps.setdefault(step, Tally()).join(tally)
                    tasks.setdefault(key, Tally()).join(tally)
            self._sums = (first, boundary), steps, tasks
        _, steps, tasks = self._sums
        return (
            {step: _copy(tally) for step, tally in steps.items()},
            {key: _copy(one) for key, one in tasks.items()},
        )


def _copy(tally: Tally) -> Tally:
    return Tally(tally.outcomes.copy(), tally.seconds, tally.slots.copy())


def _moment(minute: int) -> datetime:
    return datetime.fromtimestamp(minute * 60, UTC)


def _minute(bucket: Bucket) -> int:
    return int(bucket.minute.timestamp() // 60)
