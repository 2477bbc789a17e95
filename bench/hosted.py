"""What is compared on PostgreSQL: pq, a loop written by hand on psycopg, and procrastinate."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from typing import Any

import servers
from contenders import (
    LEASE_SECONDS,
    PARAMETERS,
    TASK,
    Contender,
    Fused,
    FusedBatch,
    Separate,
    WholeConsumer,
    WholeConsumerBatch,
    chunks,
)


class Hosted(Contender):
    """A place is a server's address."""

    jobs_per_second = 6_000

    def address(self) -> str:
        return self.place

    def durability(self) -> str:
        return servers.durability(self.place)


class HostedFused(Hosted, Fused):
    """pq as its consumer works: ends a batch and takes the next in one durable transaction."""


class HostedFusedBatch(Hosted, FusedBatch):
    """The same with prefetch 100."""

    jobs_per_second = 40_000


class HostedSeparate(Hosted, Separate):
    """pq by `dequeue` and `complete`."""


class HostedWholeConsumer(Hosted, WholeConsumer):
    """`pq.consume` itself."""

    count = 1_000


class HostedWholeConsumerBatch(Hosted, WholeConsumerBatch):
    """The same with prefetch 100."""

    jobs_per_second, count = 40_000, 10_000


class HostedByHand(Hosted):
    """What one writes without a queue: claim in one transaction with `skip locked`, finish in another.

    psycopg prepares each statement on the server when it has run five times.
    """

    SCHEMA = """
        create table if not exists jobs (
            id bigint generated always as identity primary key,
            task text not null,
            parameters text not null,
            status text not null default 'pending',
            attempt integer not null default 0,
            consumer text,
            lease_until timestamptz,
            result text,
            created_at timestamptz not null default now(),
            started_at timestamptz,
            finished_at timestamptz
        )
    """
    INDEX = "create index if not exists jobs_pending on jobs (id) where status = 'pending'"
    INSERT = "insert into jobs (task, parameters) values (%s, %s)"
    CLAIM = """
        update jobs
        set status = 'processing', attempt = attempt + 1, consumer = %s, started_at = now(),
            lease_until = now() + make_interval(secs => %s)
        where id in (
            select id from jobs where status = 'pending' order by id limit %s for update skip locked)
        returning id, attempt, task, parameters
    """
    FINISH = """
        update jobs
        set status = 'completed', result = null, lease_until = null, finished_at = now()
        from unnest(%s::bigint[], %s::integer[]) as done (id, attempt)
        where jobs.id = done.id and jobs.attempt = done.attempt and status = 'processing'
    """
    batch = 1

    def __init__(self, place: str, number: int = 0) -> None:
        super().__init__(place, number)
        import psycopg  # noqa: PLC0415  # may be missing

        self.connection = psycopg.connect(place, autocommit=True)
        self.connection.execute("select pg_advisory_lock(1)")
        for statement in (self.SCHEMA, self.INDEX):
            self.connection.execute(statement)
        self.connection.execute("select pg_advisory_unlock(1)")
        self.taken: list[Any] = []

    def fill(self, jobs: int) -> None:
        for size in chunks(jobs):
            self._insert(size)
        self.connection.execute("vacuum analyze jobs")

    def _insert(self, jobs: int) -> None:
        rows = [(TASK, json.dumps(PARAMETERS)) for _ in range(jobs)]
        with self.connection.transaction():
            self.connection.cursor().executemany(self.INSERT, rows)

    def enqueue(self) -> int:
        if self.batch == 1:
            self.connection.execute(self.INSERT, (TASK, json.dumps(PARAMETERS)))
        else:
            self._insert(self.batch)
        return self.batch

    def work(self) -> int:
        jobs = self._claim()
        self._finish(jobs)
        return len(jobs)

    def _claim(self) -> list[Any]:
        rows = self.connection.execute(self.CLAIM, (self.consumer, LEASE_SECONDS, self.batch)).fetchall()
        return [(id_, attempt, task, json.loads(text)) for id_, attempt, task, text in rows]

    def _finish(self, jobs: list[Any]) -> None:
        self.connection.execute(self.FINISH, ([job[0] for job in jobs], [job[1] for job in jobs]))

    def close(self) -> None:
        self.connection.close()


class HostedByHandFused(HostedByHand):
    """The same with pq's idea: finish and the next claim in one transaction, sent in one go."""

    def prepare(self) -> None:
        self.taken = self._claim()

    def work(self) -> int:
        done = self.taken
        with self.connection.pipeline(), self.connection.transaction():
            self._finish(done)
            cursor = self.connection.execute(self.CLAIM, (self.consumer, LEASE_SECONDS, self.batch))
        self.taken = [(id_, attempt, task, json.loads(text)) for id_, attempt, task, text in cursor]
        return len(done)


class HostedByHandFusedBatch(HostedByHandFused):
    """The same by hundreds."""

    batch = 100
    jobs_per_second = 60_000


class Procrastinate(Hosted):
    """Its manager's `fetch_job` and `finish_job`, the two transactions that its worker makes of each job.

    Without its worker's own time, which would be a third more; its jobs are kept, as ours are.
    """

    batch = 1

    def __init__(self, place: str, number: int = 0) -> None:
        super().__init__(place, number)
        import procrastinate  # noqa: PLC0415  # may be missing

        self.loop = asyncio.new_event_loop()
        # The enqueuing side is synchronous, as a script's is; the worker is asynchronous, as its own is.
        self.sync = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=place))
        self.app = procrastinate.App(
            connector=procrastinate.PsycopgConnector(conninfo=place, min_size=1, max_size=2)
        )
        self.task = self.sync.task(name=TASK)(_nothing)
        self.app.task(name=TASK)(_nothing)
        self.sync.open()
        self.loop.run_until_complete(self.app.open_async())
        self._prepare_schema()
        self.worker: int | None = None

    def _prepare_schema(self) -> None:
        existing = "select 1 from pg_tables where tablename = 'procrastinate_jobs'"
        import psycopg  # noqa: PLC0415  # may be missing

        with psycopg.connect(self.place, autocommit=True) as connection:
            connection.execute("select pg_advisory_lock(1)")
            if not connection.execute(existing).fetchall():
                self.sync.schema_manager.apply_schema()

    def fill(self, jobs: int) -> None:
        for size in chunks(jobs):
            self.task.batch_defer(*[PARAMETERS] * size)
        servers.execute(self.place, "vacuum analyze")

    def enqueue(self) -> int:
        if self.batch == 1:
            self.task.defer(**PARAMETERS)
        else:
            self.task.batch_defer(*[PARAMETERS] * self.batch)
        return self.batch

    def prepare(self) -> None:
        self.worker = self.loop.run_until_complete(self.app.job_manager.register_worker())

    def work(self) -> int:
        return self.loop.run_until_complete(self._work())

    async def _work(self) -> int:
        from procrastinate.jobs import Status  # noqa: PLC0415  # may be missing

        manager = self.app.job_manager
        job = await manager.fetch_job(queues=None, worker_id=self.worker)
        if job is None:
            return 0
        await manager.finish_job(job=job, status=Status.SUCCEEDED, delete_job=False)
        return 1

    def close(self) -> None:
        self.loop.run_until_complete(self.app.close_async())
        self.sync.close()
        self.loop.close()


class ProcrastinateBatch(Procrastinate):
    """A hundred in one `batch_defer`."""

    batch = 100


class ProcrastinateWorker(Procrastinate):
    """Its whole worker, one job at a time, until a second is over."""

    def work(self) -> int:
        return self.loop.run_until_complete(self._run())

    async def _run(self) -> int:
        before = await self._succeeded()
        worker = asyncio.ensure_future(
            self.app.run_worker_async(wait=False, install_signal_handlers=False, name=self.consumer)
        )
        await asyncio.wait([worker], timeout=1)
        worker.cancel()
        await asyncio.wait([worker])
        return await self._succeeded() - before

    async def _succeeded(self) -> int:
        query = "select count(*) as jobs from procrastinate_jobs where status = 'succeeded'"
        return int((await self.app.connector.execute_query_one_async(query))["jobs"])


def _nothing(path: str, number: int) -> None:
    """A task that costs nothing."""


HOSTED: dict[str, type[Contender]] = {
    "pq": HostedFused,
    "pq, dequeue then complete": HostedSeparate,
    "pq, prefetch 100": HostedFusedBatch,
    "pq, batches of 100": HostedFusedBatch,
    "pq.consume": HostedWholeConsumer,
    "pq.consume, prefetch 100": HostedWholeConsumerBatch,
    "by hand": HostedByHand,
    "by hand, fused": HostedByHandFused,
    "by hand, fused, by 100": HostedByHandFusedBatch,
    "by hand, batches of 100": HostedByHandFusedBatch,
}
_PEERS: dict[str, type[Contender]] = {
    "procrastinate": Procrastinate,
    "procrastinate, its worker": ProcrastinateWorker,
    "procrastinate, batches of 100": ProcrastinateBatch,
}
HOSTED_PEERS = _PEERS if importlib.util.find_spec("procrastinate") else {}
HOSTED_MISSING = sorted(_PEERS.keys() - HOSTED_PEERS.keys())
