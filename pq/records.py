"""The other values that the queue hands out: outcomes, consumers, actions of people, counts, buckets."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from pq.job import Job, Status

Kind = Literal["completed", "failed", "timeout", "released", "snoozed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one try, for `settle`.

    `error` goes with failed and timeout; `retry=False` makes the failure final. `delay` replaces the
    back-off of a failure and is the time of a snooze.
    """

    job: Job
    kind: Kind = "completed"
    result: Any = None
    error: BaseException | str | None = None
    retry: bool = True
    delay: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """What `settle` did: the jobs it took next, and those whose lease was lost before."""

    jobs: list[Job]
    lost: list[Job]


@dataclass(frozen=True, slots=True)
class Consumer:
    """One incarnation of a consumer; `id` is a uuid, `name` may come back. `doing` is one line.

    `stop_requested` is the wish of a person or of the supervisor. `ended_at` is None while it lives.
    `alive` is what its presence lock says now (None where that cannot be told).
    """

    id: str
    name: str
    host: str
    pid: int
    queues: tuple[str, ...]
    started_at: datetime
    heartbeat_at: datetime
    doing: str
    stop_requested: bool
    ended_at: datetime | None
    alive: bool | None


@dataclass(frozen=True, slots=True)
class Action:
    """What a person did: who, when, to which job (None: a queue or a consumer), and why."""

    id: int
    at: datetime
    who: str
    verb: str
    job_id: int | None
    target: str | None
    from_status: Status | None
    to_status: Status | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Count:
    """How many jobs of one task in one queue have one status."""

    queue: str
    task: str
    status: Status
    jobs: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """The tries of one task in one queue that ended within one minute with one outcome.

    `seconds` is the sum of their durations. `slot` classes them by duration: a try of d seconds is in
    slot floor(4 * log2(max(d, 0.001) / 0.001)), so a slot is 19 % wide.
    """

    minute: datetime
    queue: str
    task: str
    outcome: str
    slot: int
    jobs: int
    seconds: float


@dataclass(frozen=True, slots=True)
class GroupLimit:
    """How many jobs of a group may be pending or processing, how many are, and how many wait blocked."""

    group: str
    max_running: int
    running: int
    blocked: int

    def __str__(self) -> str:
        return f"group {self.group} runs {self.running:,} of at most {self.max_running:,}"


@dataclass(frozen=True, slots=True)
class QueueState:
    """Whether a queue is paused, since when and why, and the creation time of its oldest pending job."""

    name: str
    paused_at: datetime | None
    reason: str | None
    oldest_pending_at: datetime | None
