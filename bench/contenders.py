"""What is compared: pq, a loop written by hand on sqlite3, and a bare fsync; each one a folder and verbs.

A contender is opened at a place of its own: a folder, or a server's address. `fill` makes jobs before the
clock runs, `enqueue` stores durable jobs and `work` takes and finishes some; both give how many.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pq

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pq.job import Job

TASK = "bench"
PARAMETERS = {"path": "inbox/a.txt", "number": 7}
LEASE_SECONDS = 30.0
CHUNK = 1_000


def chunks(jobs: int) -> Iterable[int]:
    """Sizes that add up to `jobs`."""
    for start in range(0, jobs, CHUNK):
        yield min(CHUNK, jobs - start)


def pragmas(connection: Any) -> str:
    """What the connection itself says about durability."""
    mode = connection.execute("pragma journal_mode").fetchone()[0]
    number = connection.execute("pragma synchronous").fetchone()[0]
    return f"{mode}, synchronous {('off', 'normal', 'full', 'extra')[number]}"


class Contender:
    """One way to keep jobs."""

    jobs_per_second = 15_000
    """More than it can do in a second, so that the queue is not emptied while the clock runs."""

    def __init__(self, place: str, number: int = 0) -> None:
        self.place = place
        self.consumer = f"consumer-{number}"

    def durability(self) -> str:
        """Journal mode and synchronous, read from its connection."""
        raise NotImplementedError

    def fill(self, jobs: int) -> None:
        """Store jobs, quickly."""
        raise NotImplementedError

    def enqueue(self) -> int:
        """Store durable jobs in one call."""
        raise NotImplementedError

    def prepare(self) -> None:
        """What a consumer does once, before the clock runs."""

    def work(self) -> int:
        """Take and finish jobs; 0 when there are none."""
        raise NotImplementedError

    def close(self) -> None:
        """Give everything back."""


class Fused(Contender):
    """pq as its consumer works: ends a batch and takes the next in one durable transaction."""

    batch = 1

    def __init__(self, place: str, number: int = 0) -> None:
        super().__init__(place, number)
        self.queue = pq.connect(self.address())
        self.taken: list[Job] = []

    def address(self) -> str:
        """What `pq.connect` opens."""
        return str(Path(self.place, "queue.db"))

    def durability(self) -> str:
        with self.queue.transaction() as db:
            return pragmas(db.conn)

    def fill(self, jobs: int) -> None:
        for size in chunks(jobs):
            self.queue.enqueue_many([pq.NewJob(TASK, PARAMETERS)] * size)

    def enqueue(self) -> int:
        if self.batch == 1:
            self.queue.enqueue(TASK, PARAMETERS)
        else:
            self.queue.enqueue_many([pq.NewJob(TASK, PARAMETERS) for _ in range(self.batch)])
        return self.batch

    def prepare(self) -> None:
        self.queue.register_consumer(self.consumer)
        self.taken = self.queue.dequeue_many(self.consumer, self.batch)

    def work(self) -> int:
        done = [pq.Outcome(job) for job in self.taken]
        self.taken = self.queue.settle(done, consumer=self.consumer, limit=self.batch).jobs
        return len(done)

    def close(self) -> None:
        self.queue.close()


class FusedBatch(Fused):
    """The same with prefetch 100."""

    batch = 100
    jobs_per_second = 70_000


class Separate(Fused):
    """pq by `dequeue` and `complete`, as a person would write it in a cell."""

    def prepare(self) -> None:
        self.queue.register_consumer(self.consumer)

    def work(self) -> int:
        job = self.queue.dequeue(self.consumer)
        if job is None:
            return 0
        self.queue.complete(job)
        return 1


class WholeConsumer(Fused):
    """`pq.consume` itself, with its threads, watching, and the call of the task."""

    prefetch, count = 1, 2_000

    def prepare(self) -> None:
        pq.task(TASK)(_nothing)

    def work(self) -> int:
        return pq.consume(
            self.queue,
            name=self.consumer,
            prefetch=self.prefetch,
            count=self.count,
            until_empty=True,
            display=False,
        ).completed


class WholeConsumerBatch(WholeConsumer):
    """The same with prefetch 100."""

    prefetch, count = 100, 20_000
    jobs_per_second = 70_000


def _nothing(path: str, number: int) -> None:
    """A task that costs nothing."""


class ByHand(Contender):
    """What one writes without a queue: claim in one immediate transaction, finish in another, both FULL."""

    SCHEMA = """
        create table if not exists jobs (
            id integer primary key,
            task text not null,
            parameters text not null,
            status text not null default 'pending',
            attempt integer not null default 0,
            consumer text,
            lease_until real,
            result text,
            created_at real not null,
            started_at real,
            finished_at real
        )
    """
    INDEX = "create index if not exists jobs_pending on jobs (id) where status = 'pending'"
    INSERT = "insert into jobs (task, parameters, created_at) values (?, ?, ?)"
    CLAIM = """
        update jobs
        set status = 'processing', attempt = attempt + 1, consumer = ?, lease_until = ?, started_at = ?
        where id in (select id from jobs where status = 'pending' order by id limit ?)
        returning id, attempt, task, parameters
    """
    FINISH = """
        update jobs
        set status = 'completed', result = ?, lease_until = null, finished_at = ?
        where id = ? and attempt = ? and status = 'processing'
    """
    batch = 1

    def __init__(self, place: str, number: int = 0) -> None:
        super().__init__(place, number)
        self.connection = sqlite3.connect(Path(place, "jobs.db"), isolation_level=None, timeout=60)
        for statement in ("pragma journal_mode = wal", "pragma synchronous = full", self.SCHEMA, self.INDEX):
            self._execute_in_turn(statement)
        self.taken: list[Any] = []

    def _execute_in_turn(self, statement: str) -> None:
        """Several open the file at once, and the switch to a write-ahead log heeds no timeout."""
        while True:
            try:
                self.connection.execute(statement)
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
                time.sleep(0.01)
            else:
                return

    def durability(self) -> str:
        return pragmas(self.connection)

    def fill(self, jobs: int) -> None:
        for size in chunks(jobs):
            self._insert(size)

    def _insert(self, jobs: int) -> None:
        rows = [(TASK, json.dumps(PARAMETERS), time.time()) for _ in range(jobs)]
        self.connection.execute("begin immediate")
        self.connection.executemany(self.INSERT, rows)
        self.connection.execute("commit")

    def enqueue(self) -> int:
        self._insert(self.batch)
        return self.batch

    def work(self) -> int:
        execute = self.connection.execute
        execute("begin immediate")
        jobs = self._claim()
        execute("commit")
        execute("begin immediate")
        self._finish(jobs)
        execute("commit")
        return len(jobs)

    def _claim(self) -> list[Any]:
        now = time.time()
        parameters = (self.consumer, now + LEASE_SECONDS, now, self.batch)
        rows = self.connection.execute(self.CLAIM, parameters).fetchall()
        return [(id_, attempt, task, json.loads(text)) for id_, attempt, task, text in rows]

    def _finish(self, jobs: list[Any]) -> None:
        now = time.time()
        self.connection.executemany(self.FINISH, [(None, now, job[0], job[1]) for job in jobs])

    def close(self) -> None:
        self.connection.close()


class ByHandFused(ByHand):
    """The same with pq's idea: finish and the next claim in one transaction."""

    def prepare(self) -> None:
        self.connection.execute("begin immediate")
        self.taken = self._claim()
        self.connection.execute("commit")

    def work(self) -> int:
        done = self.taken
        self.connection.execute("begin immediate")
        self._finish(done)
        self.taken = self._claim()
        self.connection.execute("commit")
        return len(done)


class ByHandFusedBatch(ByHandFused):
    """The same by hundreds."""

    batch = 100
    jobs_per_second = 150_000


class BareSync(Contender):
    """No queue at all: what one durable write of 4 kB costs here."""

    def __init__(self, place: str, number: int = 0) -> None:
        super().__init__(place, number)
        self.file = os.open(Path(place, f"bare-{number}"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def durability(self) -> str:
        return "append, fsync"

    def fill(self, jobs: int) -> None:
        """There are no jobs."""

    def enqueue(self) -> int:
        os.write(self.file, b"\0" * 4096)
        os.fsync(self.file)
        return 1

    work = enqueue

    def close(self) -> None:
        os.close(self.file)


OURS: dict[str, type[Contender]] = {
    "bare 4 kB write and fsync": BareSync,
    "pq": Fused,
    "pq, dequeue then complete": Separate,
    "pq, prefetch 100": FusedBatch,
    "pq, batches of 100": FusedBatch,
    "pq.consume": WholeConsumer,
    "pq.consume, prefetch 100": WholeConsumerBatch,
    "by hand": ByHand,
    "by hand, fused": ByHandFused,
    "by hand, fused, by 100": ByHandFusedBatch,
    "by hand, batches of 100": ByHandFusedBatch,
}
