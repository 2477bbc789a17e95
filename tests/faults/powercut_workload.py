"""What is done to a queue while the recorder runs: every verb that writes, with marks of what was answered.

Before each commit the state that it will leave is marked, after each verb that the contract calls durable
that it has returned, and what it has said: these jobs are enqueued, these are completed.
"""

import hashlib
import json
import os
import random
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pq
from pq import NewJob
from pq.records import Outcome
from pq.sqlite import schema
from pq.sqlite import session as sessions
from pq.sqlite.session import Session, load_sqlite_utils
from tests.faults import recorder

SPEED = 600.0
"""Seconds of the queue's clock in one of the harness, so that leases end and there is something to prune."""


class QuickClock:
    """One clock for all processes, which runs faster than the wall's."""

    def __init__(self, boot: str = "first boot") -> None:
        self._boot = boot

    def now(self) -> float:
        return 1_800_000_000.0 + self.monotonic()

    def monotonic(self) -> float:
        return time.monotonic() * SPEED

    def boot(self) -> str:
        return self._boot


def connect(path: Path, boot: str = "first boot") -> Any:
    return pq.connect(path, clock=QuickClock(boot))


def digest(value: object) -> str:
    return hashlib.md5(repr(value).encode(), usedforsecurity=False).hexdigest()


def state(session: Session) -> str:
    """A digest of all that is stored, but for the times of migrations."""
    rows = session.connection.execute
    tables = rows("select name, sql from sqlite_master order by name").fetchall()
    content = [
        rows(f'select * from "{name}"').fetchall()
        for name, statement in tables
        if statement and statement.lower().startswith("create table") and name != "_sqlite_migrations"
    ]
    return digest((tables, content))


class Marks:
    """Enters what this process commits and what it is answered."""

    def __init__(self) -> None:
        self.changed = False
        self._pid = os.getpid()

    def say(self, **facts: object) -> None:
        recorder.mark(json.dumps({"pid": self._pid, **facts}))

    @contextmanager
    def watching(self, wal_pages: int) -> Iterator["Marks"]:
        """Meanwhile sessions that are opened mark their commits, and checkpoint after so many pages."""
        plain_set_up = Session._set_up

        def set_up(session: Session) -> None:
            plain_set_up(session)
            session._sync_commits(durable=True)
            plain, before = session.execute, 0

            def execute(statement: str, parameters: Any = ()) -> Any:
                nonlocal before
                if statement == "commit" and session.connection.total_changes > before:
                    self.changed = True
                    self.say(commit=state(session))
                answer = plain(statement, parameters)
                if statement == "begin immediate":
                    before = session.connection.total_changes
                return answer

            session.execute = execute

        Session._set_up = set_up
        plain_pages, sessions.CHECKPOINT_PAGES = sessions.CHECKPOINT_PAGES, wal_pages
        try:
            yield self
        finally:
            Session._set_up = plain_set_up
            sessions.CHECKPOINT_PAGES = plain_pages

    @contextmanager
    def answered(self, **facts: Any) -> Iterator[dict[str, Any]]:
        """A durable verb: when it returns, what it committed must last."""
        self.changed = False
        yield facts
        if self.changed or facts:
            self.say(answered=self.changed, **facts)


class Worker:
    """One process that does everything that producers, consumers and people do."""

    def __init__(self, path: Path, seed: int, name: str, marks: Marks) -> None:
        self.chance = random.Random(seed)
        self.held: list[Any] = []
        self.name = name
        self.path = path
        self.marks = marks
        self.queue = self._connect()
        self.verbs: list[Callable[[], None]] = []
        for verb, weight in VERBS.items():
            self.verbs += [getattr(self, verb)] * weight

    def _connect(self) -> Any:
        with self.marks.answered():
            return connect(self.path)

    def work(self, steps: int) -> None:
        for _ in range(steps):
            with suppress(
                pq.TransitionError, pq.LeaseLostError, pq.JobNotFoundError, pq.DuplicateJobError,
                pq.CancelRequestedError,
            ):  # fmt: skip
                self.chance.choice(self.verbs)()

    def _job(self) -> Any:
        jobs = self.queue.list(limit=200)
        if not jobs:
            raise pq.JobNotFoundError
        return self.chance.choice(jobs)

    def _new(self) -> NewJob:
        chance = self.chance
        size = chance.choice([0, 10, 10, 100, 100, 5_000])
        return NewJob(
            chance.choice(["stamp", "report"]),
            {"text": chance.randbytes(size // 2).hex()},
            queue=chance.choice(["default", "default", "slow"]),
            priority=chance.randrange(3),
            delay=chance.choice([None, None, timedelta(seconds=20)]),
            unique_key=chance.choice([None, None, None, "one", "two"]),
            group=chance.choice([None, "sweep"]),
            tags=chance.choice([(), ("night",)]),
        )

    # -- producing ------------------------------------------------------------------------------------

    def enqueue(self) -> None:
        self._enqueue([self._new()])

    def enqueue_many(self) -> None:
        self._enqueue([self._new() for _ in range(self.chance.randrange(2, 7))])

    def _enqueue(self, new: list[NewJob]) -> None:
        with self.marks.answered() as facts:
            facts["has"] = [(job.id, digest(dict(job.parameters))) for job in self.queue.enqueue_many(new)]

    # -- consuming: claims and heartbeats may be undone by a cut --------------------------------------

    def dequeue(self) -> None:
        limit = self.chance.choice([1, 1, 3])
        self.held += self.queue.dequeue_many(
            self.name, limit, ("default", "slow"), timedelta(seconds=self.chance.choice([10, 300]))
        )

    def heartbeat(self) -> None:
        if self.held:
            self.queue.heartbeat(self.chance.choice(self.held), progress=self.chance.random(), message="on")

    def beat(self) -> None:
        for identity in self.queue._incarnations.values():
            self.queue.beat_consumer(identity, "busy")

    def _outcome(self) -> Outcome:
        chance = self.chance
        job = self.held.pop(chance.randrange(len(self.held)))
        kind = chance.choice(["completed"] * 6 + ["failed", "failed", "released", "snoozed"])
        if kind == "completed":
            size = chance.choice([0, 10, 100, 6_000])
            return Outcome(job, result={"text": chance.randbytes(size // 2).hex()})
        if kind == "failed":
            return Outcome(job, kind, error=ValueError("it failed " * 20), retry=chance.random() < 0.5)
        return Outcome(job, kind, delay=timedelta(seconds=5) if kind == "snoozed" else None)

    def settle(self) -> None:
        outcomes = [self._outcome() for _ in range(min(self.chance.choice([1, 1, 4]), len(self.held)))]
        if not outcomes:
            return
        with self.marks.answered() as facts:
            settled = self.queue.settle(
                outcomes, consumer=self.name, limit=self.chance.choice([0, 2]), queues=("default", "slow")
            )
            self.held += settled.jobs
            lost = {job.id for job in settled.lost}
            facts["done"] = [
                (outcome.job.id, digest(outcome.result))
                for outcome in outcomes
                if outcome.kind == "completed" and outcome.job.id not in lost
            ]

    def rescue(self) -> None:
        with self.marks.answered():
            self.queue.rescue()

    def register(self) -> None:
        with self.marks.answered():
            if self.queue._incarnations:
                self.queue.unregister_consumer(next(iter(self.queue._incarnations.values())))
            else:
                self.queue.register_consumer(self.name, ("default", "slow"))

    # -- people: what they touch is no longer what was answered before ---------------------------------

    def _person(self, act: Callable[[Any], object]) -> None:
        job = self._job()
        self.marks.say(forget=job.id)
        with self.marks.answered():
            act(job)

    def cancel(self) -> None:
        self._person(self.queue.cancel)

    def resubmit(self) -> None:
        self._person(self.queue.resubmit)

    def mark_failed(self) -> None:
        self._person(lambda job: self.queue.mark_failed(job, "by hand"))

    def assign(self) -> None:
        with self.marks.answered():
            self.queue.assign(self._job(), self.chance.choice([None, self.name]))

    def delete(self) -> None:
        self._person(self.queue.delete)

    def _sweep_away(self, act: Callable[[], object]) -> None:
        self.marks.say(sweeping=1)
        try:
            with self.marks.answered():
                act()
        finally:
            newest = self.queue._session.rows("select max(seq) from sqlite_sequence where name = 'jobs'")
            self.marks.say(sweeping=-1, newest=newest[0][0] or 0)

    def prune(self) -> None:
        self._sweep_away(lambda: self.queue.prune(timedelta(seconds=self.chance.choice([1, 60]))))

    def delete_all(self) -> None:
        self._sweep_away(self.queue.delete_all)

    def pause(self) -> None:
        with self.marks.answered():
            self.queue.pause("slow", "for a while")

    def limit_group(self) -> None:
        with self.marks.answered():
            self.queue.limit_group("sweep", self.chance.choice([1, 2, 5, None]))

    def resume(self) -> None:
        with self.marks.answered():
            self.queue.resume("slow")

    def set_setting(self) -> None:
        with self.marks.answered():
            self.queue.set_setting("interval", str(self.chance.random()))

    def own_table(self) -> None:
        with self.marks.answered(), self.queue.transaction() as db:
            db["mine"].insert({"value": self.chance.random(), "text": "x" * self.chance.choice([1, 9_000])})
            self.queue.enqueue("stamp")

    # -- the file -------------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        self.queue.checkpoint()

    def reopen(self) -> None:
        self.queue.close()  # it keeps quiet about a consumer that it could not sign off: no answer to rely on
        self.queue = self._connect()


VERBS = {
    "enqueue": 12, "enqueue_many": 5, "dequeue": 14, "heartbeat": 5, "beat": 2, "settle": 16, "rescue": 4,
    "register": 2, "cancel": 2, "resubmit": 4, "mark_failed": 1, "assign": 2, "delete": 2, "prune": 1,
    "delete_all": 1, "pause": 1, "resume": 2, "set_setting": 1, "own_table": 1, "checkpoint": 2, "reopen": 2,
    "limit_group": 2,
}  # fmt: skip


OLD_JOB = """
insert into jobs (task, queue, status, priority, parameters, tags, due_at, max_attempts, created_at)
values ('stamp', 'default', 'pending', 0, '{}', '[]', 0, 3, 0);
"""


def make_older(path: Path, seed: int) -> None:
    """A file that opening has to bring up to date: of an earlier schema, or with none of pq's tables."""
    chance = random.Random(seed)
    steps = schema.migrations()
    names = [step.name for step in steps._migrations]
    applied = chance.randrange(len(names))
    db = load_sqlite_utils().Database(path)
    if chance.random() < 0.5:
        db.enable_wal()
    db["mine"].insert_all({"value": number, "text": "mine"} for number in range(20))
    steps.apply(db, stop_before=names[applied])
    if applied:
        db.conn.executescript(OLD_JOB * 5)
    db.close()


def work(path: Path, trace: Path, seed: int, name: str, steps: int) -> None:
    """Record what one process does from opening the queue to closing it, or to ending without that."""
    chance = random.Random(seed)
    recorder.start(path, trace)
    with Marks().watching(chance.choice([5, 20, 100, 1000])) as marks:
        worker = Worker(path, seed, name, marks)
        worker.work(steps)
        if chance.random() < 0.5:
            worker.queue.close()


def record(path: Path, trace: Path, seed: int, *, processes: int, steps: int) -> None:
    """Let so many processes work on one queue, and record all they do to its files."""
    chance = random.Random(seed)
    children = []
    for number in range(processes):
        own_seed = chance.randrange(2**32)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                work(path, trace, own_seed, f"consumer-{number}", steps)
                code = 0
            except BaseException:  # noqa: BLE001  # a forked child must not return
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    if any(codes):
        raise RuntimeError(f"the workload of seed {seed} ended with {codes}")
