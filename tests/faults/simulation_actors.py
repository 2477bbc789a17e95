"""Who lives on the simulated host: producers, consumers, rescuers, people, and what befalls them."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

from pq import NewJob
from pq.errors import (
    CancelRequestedError,
    DuplicateJobError,
    JobNotFoundError,
    LeaseLostError,
    StorageError,
    TransitionError,
)
from pq.job import Job
from pq.records import Outcome
from tests.faults.simulation_world import LEASE_SECONDS, Died, Process

LEASE = timedelta(seconds=LEASE_SECONDS)
QUEUES = ("a", "b")
NAMES = ("c1", "c2", "c3")
KEYS = ("k1", "k2")
GROUPS = ("g1", "g2")
KINDS = ("well",) * 10 + ("error", "error", "final", "poison", "snooze", "release", "long", "hang", "stop")
MOST_UNFINISHED = 14


def produce(process: Process) -> None:
    """Enqueue until the faults are over."""
    world = process.world
    random = world.random
    while not world.is_healing:
        process.sleep(random.random() * 4)
        unfinished = sum(row.status not in ("completed", "failed", "cancelled") for row in rows(process))
        if unfinished < MOST_UNFINISHED:
            jobs = [_new(process) for _ in range(random.choice([1, 1, 1, 3]))]
            for _ in range(3):
                try:
                    world.checker.enqueued(process.call("enqueue_many", jobs))
                    break
                except StorageError:  # whether they were stored is not known: only a key makes this safe
                    jobs = [job for job in jobs if job.unique_key]
                if not jobs:
                    break


def _new(process: Process) -> NewJob:
    random = process.world.random
    return NewJob(
        random.choice(KINDS),
        queue=random.choice(QUEUES),
        priority=random.choice([0, 0, 1]),
        delay=random.choice([None, None, None, None, 0.5, 20.0, 4000.0]),
        max_attempts=random.choice([1, 2, 3, 3]),
        unique_key=random.choice((None, None, None, *KEYS)),
        group=random.choice((None, None, *GROUPS)),
    )


def rows(process: Process) -> list[Any]:
    return list(process.world.checker.rows.values())


def consume(process: Process) -> None:
    """Take jobs and end them, until told to stop or killed."""
    _Consumer(process).work()


def consume_by_hand(process: Process) -> None:
    """The same in a notebook, by `dequeue` and `complete`: only the lease tells that it lives."""
    _Consumer(process, is_registered=False).work()


class _Consumer:
    def __init__(self, process: Process, *, is_registered: bool = True) -> None:
        self.process = process
        self.is_registered = is_registered
        self.world = process.world
        self.random = process.world.random
        self.prefetch = self.random.choice([1, 1, 3])
        self.is_fused = self.random.random() < 0.7
        self.stale: list[Job] = []
        self.idle = 0.2
        self.rescued_at = 0.0

    def work(self) -> None:
        process = self.process
        identity = None
        if self.is_registered:
            identity = process.call("register_consumer", process.name, QUEUES)
        jobs: list[Job] = []
        while True:
            if not jobs:
                if self.world.clock.mono > self.rescued_at + 1:
                    self._rescue()
                    if identity is not None and self._patiently("beat_consumer", identity, "idle"):
                        process.call("unregister_consumer", identity)
                        return
                jobs = self._take()
            if not jobs:
                process.sleep(self.random.random() * self.idle)
                self.idle = min(self.idle * 3, 3_600.0 if self.world.is_healing else 1.0)
                continue
            self.idle = 0.2
            outcome = self._run(jobs.pop(0), jobs)
            if self.random.random() < 0.25:
                self._call_with_a_stale_lease()
            if outcome is not None:
                jobs += self._settle([outcome], 0 if jobs or not self.is_fused else self.prefetch)
                self.stale.append(outcome.job)

    def _rescue(self) -> None:
        forsaken = self.world.checker.forsaken()
        self._patiently("rescue")
        self.world.checker.rescued(forsaken)
        self.rescued_at = self.world.clock.mono

    def _take(self) -> list[Job]:
        taken = self._patiently("dequeue_many", self.process.name, self.prefetch, QUEUES, LEASE)
        self.world.checker.took(self.process, taken)
        return list(taken)

    def _settle(self, outcomes: list[Outcome], limit: int) -> list[Job]:
        settled = self._patiently(
            "settle", outcomes, consumer=self.process.name, limit=limit, queues=QUEUES, lease=LEASE
        )
        self.world.checker.settled(self.process, settled.lost)
        self.world.checker.took(self.process, settled.jobs)
        return list(settled.jobs)

    def _patiently(self, verb: str, *arguments: Any, **options: Any) -> Any:
        """As pq.settling does: an error of the storage is tried again, and in the end fatal."""
        for _ in range(4):
            try:
                return self.process.call(verb, *arguments, **options)
            except StorageError:
                self.process.sleep(self.random.random())
        raise Died

    def _run(self, job: Job, waiting: list[Job]) -> Outcome | None:
        """What the task does, with heartbeats for it and for those that wait for it."""
        end = self.world.clock.mono + self.random.random() * (4 * LEASE_SECONDS if job.task == "long" else 3)
        if job.task == "hang" and self.random.random() < 0.5:
            self.process.sleep(LEASE_SECONDS * 1.5)
        try:
            while self.world.clock.mono < end:
                self.process.sleep(self.random.random() * LEASE_SECONDS / 3)
                self._heartbeat(job)
                if waiting:
                    self.process.call("heartbeat_many", waiting, LEASE)
        except LeaseLostError:
            self.stale.append(job)
            return None
        except CancelRequestedError as error:
            return Outcome(job, "failed", error=error)
        except StorageError:
            pass
        return self._end(job)

    def _heartbeat(self, job: Job) -> None:
        try:
            self.process.call("heartbeat", job, progress=0.5, lease=LEASE)
        except LeaseLostError:
            self.world.checker.demand(not self.process.live, f"the live lease of {job.id} was refused")
            raise
        self.world.checker.demand(bool(self.process.live), f"a stale heartbeat of {job.id} was accepted")

    def _end(self, job: Job) -> Outcome:
        kind = job.task
        if kind == "poison":
            raise Died
        if kind == "error" or (kind == "stop" and self.random.random() < 0.5):
            return Outcome(job, "failed", error="no", delay=self.random.choice([None, timedelta(0)]))
        if kind == "final":
            return Outcome(job, "failed", error="no", retry=False)
        if kind == "snooze" and not self.world.is_healing:
            return Outcome(job, "snoozed", delay=timedelta(seconds=self.random.choice([0, 5, 40])))
        if kind == "release" and not self.world.is_healing:
            return Outcome(job, "released")
        return Outcome(job, "completed", result=job.token)

    def _call_with_a_stale_lease(self) -> None:
        """What a paused or confused process may send: something for a lease that it had once."""
        if not self.stale:
            return
        job = self.random.choice(self.stale)
        if self.random.random() < 0.4:
            with suppress(LeaseLostError, CancelRequestedError, StorageError):
                if self.random.random() < 0.5:
                    self._heartbeat(job)
                else:
                    self.process.call("heartbeat_many", [job], LEASE)
            return
        kind = self.random.choice(["completed", "failed", "released", "snoozed"])
        outcome = Outcome(job, kind, result=job.token, error="no", delay=timedelta(seconds=1))
        try:
            settled = self.process.call("settle", [outcome])
        except StorageError:
            return
        self.world.checker.settled(self.process, settled.lost)


def rescue(process: Process) -> None:
    """`pq rescue`, again and again."""
    while True:
        process.sleep(1 + process.world.random.random() * (3_600 if process.world.is_healing else 6))
        try:
            process.call("rescue")
        except StorageError:
            continue


def meddle(process: Process) -> None:
    """A person who does anything to any job, until the faults are over."""
    world = process.world
    random = world.random
    while not world.is_healing:
        process.sleep(random.random() * 8)
        known = [row.id for row in rows(process)] or [1]
        job = random.choice(known)
        verb, *arguments = random.choice(
            [
                ("cancel", job),
                ("cancel", job),
                ("resubmit", job),
                ("resubmit", job),
                ("resubmit", job),
                ("mark_failed", job, "why"),
                ("assign", job, random.choice([*NAMES, None])),
                ("assign", job, random.choice([*NAMES, None])),
                ("delete", job),
                ("pause", random.choice(QUEUES)),
                ("resume", random.choice(QUEUES)),
                ("limit_group", random.choice(GROUPS), random.choice([1, 1, 2, 3, None])),
                ("limit_group", random.choice(GROUPS), random.choice([1, 1, 2, 3, None])),
                ("stop_consumer", random.choice(NAMES)),
                ("prune", timedelta(seconds=random.choice([20, 100]))),
                *([("delete_all",)] if random.random() < 0.1 else []),
            ]
        )
        try:
            process.call(verb, *arguments)
        except (TransitionError, DuplicateJobError, JobNotFoundError, StorageError):
            continue


def heal(process: Process) -> None:
    """The person who puts everything right at the end."""
    for queue in QUEUES:
        process.call("resume", queue)
    for row in rows(process):
        if row.assigned_to is not None:
            try:
                process.call("assign", row.id, None)
            except (TransitionError, JobNotFoundError):
                continue
