"""Torture: producers and consumers are killed and stopped at random and at named points, then all is counted.

    python -m tests.faults.torture --kills 10000 --jobs 50000 --seed 1
    python -m tests.faults.torture --postgresql --kills 1000 --jobs 5000 --server-kills 10

A nemesis sends SIGKILL, or SIGSTOP past the lease and then SIGCONT, to processes that use the queue for real;
they also kill themselves around their own commits, and some fall asleep past their lease and go on. Then the
faults end, all jobs must finish, and the checker compares what was answered with what is there. It ends with
one line of figures, and exits with 1 where a promise was broken.
"""

import argparse
import gc
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pq
from pq import NewJob
from pq.records import Outcome
from tests.faults import mutants
from tests.faults.checker import read, violations
from tests.faults.simulation_mutants import MUTANTS as SIMULATION_MUTANTS
from tests.faults.torture_places import FilePlace, Place, ServerPlace

LEASE = timedelta(seconds=0.6)
PRODUCERS, NAMES = 4, ("c1", "c2", "c3", "c4", "c5", "c5")  # two consumers have the same name
BACKLOG = 400
POISON_TRIES = 3
DEATH_CHANCE = 0.004
STUCK_SECONDS = 60.0


@dataclass
class Arena:
    """One database, its history, and how wild it is in there now."""

    folder: Path
    place: Place
    chance: random.Random
    is_wild: bool = True
    log: int = -1
    children: dict[int, Callable[[], int]] = field(default_factory=dict)
    spared: set[int] = field(default_factory=set)

    @property
    def database(self) -> str:
        return self.place.url

    @property
    def history(self) -> Path:
        return self.folder / "history.log"

    def write(self, line: str) -> None:
        """One line of history; a single write to a file opened for appending is whole, also when killed."""
        os.write(self.log, f"{line}\n".encode())

    def die_perhaps(self, point: str) -> None:
        if self.is_wild and self.chance.random() < DEATH_CHANCE:
            self.write(f"d {os.getpid()} {point}")
            os.kill(os.getpid(), signal.SIGKILL)

    def fork(self, role: Callable[["Arena"], None], *, spared: bool = False) -> int:
        """A process in that role, as quickly as possible; the nemesis leaves it alone where `spared`.

        The one that forks never opens the database before the end.
        """
        seed = self.chance.random()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                self.chance.seed(seed)
                random.seed(seed)
                role(self)
                status = 0
            except pq.StorageError as error:
                # Where the server may be killed: it does not know what has happened, and starts anew.
                self.write(f"k {os.getpid()}")
                if isinstance(self.place, FilePlace):
                    os.write(2, f"{role}: {error!r}\n".encode())
            except pq.PQError as error:
                os.write(2, f"{role}: {error!r}\n".encode())
            finally:
                os._exit(status)
        self.children[pid] = lambda: self.fork(role, spared=spared)
        if spared:
            self.spared.add(pid)
        return pid

    def end(self, pid: int) -> None:
        self.write(f"k {pid}")
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        del self.children[pid]

    def kill_server(self) -> None:
        """A claim that was not synced may be forgotten then: whoever holds one may meet another holder."""
        for pid in self.children:
            self.write(f"k {pid}")
        self.place.kill()
        for pid in self.children:
            self.write(f"k {pid}")

    def revive(self) -> int:
        """Start again what ended by itself; how many these were."""
        ended = 0
        for pid, again in list(self.children.items()):
            if os.waitpid(pid, os.WNOHANG)[0]:
                del self.children[pid]
                again()
                ended += 1
        return ended


def produce(arena: Arena) -> None:
    with pq.connect(arena.database) as queue:
        while True:
            keys = [f"{os.getpid()}-{time.monotonic_ns()}-{n}" for n in range(arena.chance.choice([1, 1, 5]))]
            new = [_new_job(arena, key) for key in keys]
            for key in keys:
                arena.write(f"e? {key}")
            for key, job in zip(keys, queue.enqueue_many(new), strict=True):
                arena.write(f"e+ {key} {job.id}")
            time.sleep(arena.chance.uniform(0, 0.02))
            while queue.counts()["pending"] > BACKLOG:
                time.sleep(0.05)


def _new_job(arena: Arena, key: str) -> NewJob:
    poison = arena.chance.random() < 0.003
    return NewJob("work", {"key": key, "poison": poison}, max_attempts=POISON_TRIES if poison else 1_000_000)


def sleep_and_settle(arena: Arena, name: str) -> None:
    """A consumer that is often asleep past its lease, and then goes on as if nothing had been."""
    with pq.connect(arena.database) as queue:
        while True:
            jobs = queue.dequeue_many(name, 2, lease=LEASE)
            _work(arena, queue, name, jobs, seconds=arena.chance.uniform(0.1, 3.5))
            time.sleep(0.01)


def consume(arena: Arena, name: str) -> None:
    chance, next_rescue = arena.chance, 0.0
    with pq.connect(arena.database) as queue:
        queue.register_consumer(name)
        jobs: list[pq.Job] = []
        while True:
            if time.monotonic() >= next_rescue:
                queue.rescue()
                next_rescue = time.monotonic() + 0.2
            if not jobs:
                jobs = queue.dequeue_many(name, chance.choice([1, 1, 3]), lease=LEASE)
            if not jobs:
                time.sleep(0.01)
                continue
            jobs = _work(arena, queue, name, jobs)


def _begin(arena: Arena, job: pq.Job) -> None:
    assert job.started_at is not None
    claimed = job.started_at.timestamp()
    until = claimed + LEASE.total_seconds()
    arena.write(f"s {job.id} {job.token} {os.getpid()} {claimed} {until}")
    if job.parameters["poison"]:
        arena.write(f"d {os.getpid()} poison")
        os.kill(os.getpid(), signal.SIGKILL)


def _work(arena: Arena, queue: Any, name: str, jobs: list[pq.Job], *, seconds: float = 0.0) -> list[pq.Job]:
    """End these tries in one of the ways; the next jobs where they are taken in the same transaction."""
    chance = arena.chance
    for job in jobs:
        _begin(arena, job)
    time.sleep(seconds)
    if not jobs:
        return []
    if chance.random() < 0.1:
        with suppress(pq.LeaseLostError):
            queue.heartbeat(jobs[0], progress=0.5, lease=LEASE)
    kinds = ["completed"] * 20 + ["failed", "released", "snoozed"]
    outcomes = [Outcome(job, kind) for job in jobs for kind in [chance.choice(kinds)]]
    delays = {"failed": 0.05, "snoozed": 0.05}
    outcomes = [
        Outcome(
            one.job,
            one.kind,
            result=one.job.token if one.kind == "completed" else None,
            error="on purpose" if one.kind == "failed" else None,
            delay=timedelta(seconds=delays[one.kind]) if one.kind in delays else None,
        )
        for one in outcomes
    ]
    completing = [one.job for one in outcomes if one.kind == "completed"]
    for one in outcomes:
        arena.write(f"{'c?' if one.kind == 'completed' else 'g'} {one.job.id} {one.job.token}")
    take = chance.random() < 0.5
    settled = queue.settle(outcomes, consumer=name if take else None, limit=int(take), lease=LEASE)
    lost = {job.id for job in settled.lost}
    for job in completing:
        arena.write(f"c{'-' if job.id in lost else '+'} {job.id} {job.token}")
    return settled.jobs


def torment(arena: Arena, *, kills: int, jobs: int, server_kills: int, seconds: float) -> dict[str, int]:
    """Kill and stop until there were enough kills and jobs, or until the time is over."""
    sent = {"kills": 0, "stops": 0, "server_kills": 0}
    asleep: list[tuple[float, int]] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(arena.chance.expovariate(45))
        now = time.monotonic()
        for due, pid in [one for one in asleep if one[0] <= now]:
            asleep.remove((due, pid))
            if pid in arena.children:
                os.kill(pid, signal.SIGCONT)
        sent["kills"] += arena.revive()  # they killed themselves
        if (
            sent["server_kills"] < server_kills
            and sent["kills"] * server_kills >= kills * sent["server_kills"]
        ):
            arena.kill_server()
            sent["server_kills"] += 1
        victim = arena.chance.choice([pid for pid in arena.children if pid not in arena.spared])
        if victim in {pid for _, pid in asleep}:
            continue
        if arena.chance.random() < 0.92:
            again = arena.children[victim]
            arena.end(victim)
            again()
            sent["kills"] += 1
        else:
            os.kill(victim, signal.SIGSTOP)
            asleep.append((now + arena.chance.choice([0.05, 0.2, 1.5]), victim))
            sent["stops"] += 1
        if sent["kills"] >= kills and sent["kills"] % 50 == 0 and _enqueued(arena) >= jobs:
            break
    for pid in list(arena.children):
        arena.end(pid)
    return sent


def _enqueued(arena: Arena) -> int:
    with arena.history.open() as lines:
        return sum(line.startswith("e+") for line in lines)


def heal(arena: Arena) -> float:
    """Consumers without faults until all jobs have finished; the seconds that took, at most STUCK_SECONDS."""
    arena.is_wild = False
    began = time.monotonic()
    for name in NAMES:
        arena.fork(partial(consume, name=name))
    while time.monotonic() - began < STUCK_SECONDS:
        time.sleep(0.2)
        arena.revive()  # poison kills healthy ones too
        if _in_child(lambda: _is_drained(arena)):
            break
    for pid in list(arena.children):
        arena.end(pid)
    return time.monotonic() - began


def _in_child(question: Callable[[], bool]) -> bool:
    """Ask in a process of its own: this one forks, so it may not have the database open."""
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            code = 0 if question() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _is_drained(arena: Arena) -> bool:
    with pq.connect(arena.database) as queue:
        counts = queue.counts()
    return not any(counts[status] for status in ("blocked", "scheduled", "pending", "processing"))


def judge(arena: Arena) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The figures of the history, and what it broke."""
    kept, damaged = arena.place.look()
    with pq.connect(arena.database) as queue:
        counts = queue.counts()
    with arena.history.open() as lines:
        told = read(lines)
    found = violations(told, kept)
    found["damaged"] = damaged
    statuses = [job.status for job in kept.values()]
    found["counters"] = [
        f"{status}: {number} counted, {statuses.count(status)} there"
        for status, number in counts.items()
        if number != statuses.count(status)
    ]
    return {
        "jobs": len(told.enqueued),
        "completions": len(told.completed),
        "tries": sum(told.started.values()),
        "stale_refused": told.refused,
        "own_deaths": dict(sorted(told.deaths.items())),
    }, found


@contextmanager
def _mutated(name: str) -> Any:
    """pq with the guard taken out that PQ_MUTANT names, if any."""
    if name in SIMULATION_MUTANTS:
        with SIMULATION_MUTANTS[name]():
            yield
        return
    mutants.apply()
    yield


def main() -> int:
    """Run, print the figures as one line of JSON, and say whether a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.torture")
    parser.add_argument("--kills", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument("--postgresql", action="store_true", help="on a server of its own")
    parser.add_argument("--server-kills", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=900.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    gc.freeze()
    with (
        tempfile.TemporaryDirectory(prefix="pq-torture-") as folder,
        _mutated(os.environ.get("PQ_MUTANT", "")),
        (ServerPlace if options.postgresql else FilePlace)(Path(folder)) as place,
    ):
        arena = Arena(Path(folder), place, random.Random(options.seed))
        arena.log = os.open(arena.history, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        assert not _in_child(lambda: pq.connect(arena.database) is None)  # makes the file
        place.make_mortal(arena.die_perhaps)
        for _ in range(PRODUCERS):
            arena.fork(produce)
        for name in NAMES:
            arena.fork(partial(consume, name=name))
        for name in ("z1", "z2", "z3"):
            arena.fork(partial(sleep_and_settle, name=name), spared=True)
        sent = torment(
            arena,
            kills=options.kills,
            jobs=options.jobs,
            server_kills=options.server_kills,
            seconds=options.seconds,
        )
        drained = heal(arena)
        figures, found = judge(arena)
        os.close(arena.log)
    broken = {kind: len(texts) for kind, texts in found.items()}
    for kind, texts in found.items():
        for text in texts[:5]:
            print(f"{kind}: {text}", file=sys.stderr)
    print(
        json.dumps(
            {"harness": "torture", **sent, **figures, **broken}
            | {
                "seed": options.seed,
                "drain_seconds": round(drained, 1),
                "violations": sum(broken.values()),
            }
        )
    )
    return bool(sum(broken.values()))


if __name__ == "__main__":
    sys.exit(main())
