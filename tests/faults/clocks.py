"""Clocks that jump under running consumers, and a laptop that sleeps.

    python -m tests.faults.clocks --deep

Real consumers run under a shim that shifts their wall clock; the monotonic clock stays, as it does on a real
host. In each scenario a long job must stay with its live consumer, the job of a killed one and the job of a
hung one must come back, and scheduled jobs must run when their time has come, and none be lost. It ends with
one line of figures, and exits with 1 where that did not hold.
"""

import argparse
import json
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pq
from pq.clock import SystemClock
from pq.job import Job
from tests.processes import TASKS

ROOT = Path(__file__).parents[2]
CONSUME = """
import sys, pq
from tests.faults import mutants
mutants.apply()
path, name, tasks, lease = sys.argv[1:]
pq.consume(path, name=name, tasks=[tasks], lease=float(lease), display=False, hard_exit=True)
"""
LEASE_SECONDS = 2.0
PATIENCE_SECONDS = 60.0
MINUTE, HOUR, DAY = 60, 3600, 86_400


@dataclass(frozen=True, slots=True)
class Scenario:
    """The wall clock begins `base` seconds away from the true time, and jumps by `jump`."""

    name: str
    jump: float
    base: float = 0.0
    zone: str | None = None
    suspends: bool = False
    mutant: str | None = None
    lease: float = LEASE_SECONDS


def _end_of_summer_time() -> float:
    """Two seconds before the hour in which Berlin's clocks are put back."""
    return datetime(2026, 10, 25, 0, 59, 58, tzinfo=UTC).timestamp() - time.time()


def scenarios() -> list[Scenario]:
    jumps = {
        "second": 1,
        "minute": MINUTE,
        "hour": HOUR,
        "day": DAY,
    }
    return [
        *(Scenario(f"a {name} forward", seconds) for name, seconds in jumps.items()),
        *(Scenario(f"a {name} back", -seconds) for name, seconds in jumps.items()),
        Scenario("to 1970", 100 - time.time()),
        Scenario("from 1970 to today", time.time() - 100, base=100 - time.time()),
        Scenario("the end of summer time", 0, base=_end_of_summer_time(), zone="Europe/Berlin"),
        Scenario("a suspended laptop", 0, suspends=True),
    ]


@dataclass
class Host:
    """Consumers on one queue, under one clock."""

    folder: Path
    scenario: Scenario
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.path = self.folder / "queue.db"
        self.log = self.folder / "started.log"
        self.log.touch()
        (self.folder / "marking.py").write_text(TASKS)
        offset = self.folder / "offset"
        offset.write_bytes(bytes(8))
        with offset.open("r+b") as file:
            self.offset = mmap.mmap(file.fileno(), 8)
        shim = self.folder / "clocks.so"
        source = Path(__file__).with_name("clocks.c")
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(shim), str(source), "-ldl"], check=True)
        chosen = {"TZ": self.scenario.zone, "PQ_MUTANT": self.scenario.mutant}
        self.environment = {
            **os.environ,
            **{name: value for name, value in chosen.items() if value is not None},
            "LD_PRELOAD": str(shim),
            "PQ_CLOCK": str(offset),
        }

    def shift(self, seconds: float) -> None:
        self.offset[:] = struct.pack("q", int(seconds * 1e9))

    @property
    def shifted(self) -> float:
        return float(struct.unpack("q", self.offset[:])[0]) / 1e9

    def start(self, name: str) -> None:
        arguments = [str(self.path), name, str(self.folder / "marking.py"), str(self.scenario.lease)]
        self.running[name] = subprocess.Popen(
            [sys.executable, "-c", CONSUME, *arguments],
            cwd=ROOT,
            env=self.environment,
            stderr=subprocess.DEVNULL,
        )

    def send(self, number: int, *names: str | None) -> None:
        for name in names or tuple(self.running):
            self.running[str(name)].send_signal(number)

    def stop(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()
        self.offset.close()


class ShiftedClock(SystemClock):
    """The wall clock of the host's consumers, for this process."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def now(self) -> float:
        return super().now() + self._host.shifted


@contextmanager
def host(folder: Path, scenario: Scenario) -> Iterator[Host]:
    started = Host(folder, scenario)
    try:
        yield started
    finally:
        started.stop()


class Play:
    """One scenario: what happened, and how long each thing took."""

    def __init__(self, scenario: Scenario, host: Host) -> None:
        self.scenario = scenario
        self.host = host
        self.violations: list[str] = []
        self.waits: dict[str, float] = {}

    def demand(self, condition: bool, text: str) -> None:
        if not condition:
            self.violations.append(f"{self.scenario.name}: {text}")

    def wait(self, name: str, condition: Callable[[], bool]) -> None:
        """Until it holds; what never comes is a violation."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > PATIENCE_SECONDS:
                self.demand(condition=False, text=f"waited {PATIENCE_SECONDS:g} s for: {name}")
                return
            time.sleep(0.01)
        self.waits[name] = round(time.monotonic() - began, 2)

    def run(self) -> None:
        host = self.host
        host.shift(self.scenario.base)
        with pq.connect(host.path, clock=ShiftedClock(host)) as queue:
            self.queue = queue
            for name in ("c1", "c2", "c3"):
                host.start(name)
            # Idle, that is: beaten once, so that the next heartbeat comes a third of the lease from now.
            self.wait("all consumers", lambda: [one.doing for one in queue.consumers()] == ["idle"] * 3)
            if self.scenario.suspends:
                self._suspend()
            else:
                self._jump()

    def _enqueue(self, seconds: float, delay: float | None = None) -> Job:
        return self.queue.enqueue("mark", {"log": str(self.host.log), "seconds": seconds}, delay=delay)

    def _begun(self, job: Job) -> Callable[[], bool]:
        return lambda: self.queue.get(job).status == "processing"

    def _done(self, job: Job) -> Callable[[], bool]:
        return lambda: self.queue.get(job).status == "completed"

    def _jump(self) -> None:
        jump = self.scenario.jump
        long, doomed = self._enqueue(3 * LEASE_SECONDS), self._enqueue(LEASE_SECONDS)
        self.wait("both jobs begin", lambda: self._begun(long)() and self._begun(doomed)())
        soon, later = self._enqueue(0, delay=0.5), self._enqueue(0, delay=max(jump / 2, 0.5))
        self.host.shift(self.scenario.base + jump)
        if jump > 0.5:
            self.wait("a scheduled job whose time the jump passed", self._done(later))
        self.host.send(signal.SIGKILL, self.queue.get(doomed).consumer)
        self.wait("the job of the killed consumer", self._done(doomed))
        self.demand(
            [one.outcome for one in self.queue.attempts(doomed)] == ["consumer died", "completed"],
            f"the killed consumer's job: {self.queue.attempts(doomed)}",
        )
        self.wait("the long job", self._done(long))
        self._stayed(long)
        if self.violations:
            return
        self._hang()
        if jump < 0:
            self.host.shift(self.scenario.base)
        self.wait("scheduled jobs", lambda: self._done(soon)() and self._done(later)())
        self.demand(self.queue.counts()["completed"] == 5, f"not all completed: {self.queue.counts()}")

    def _hang(self) -> None:
        """A consumer that stands still loses its job after the lease, and wakes up as a stranger to it."""
        hung = self._enqueue(0.3)
        self.wait("the job to hang", lambda: self.queue.get(hung).status in ("processing", "completed"))
        name = self.queue.get(hung).consumer
        self.host.send(signal.SIGSTOP, name)
        self.wait("the job of the hung consumer", self._done(hung))
        self.host.send(signal.SIGCONT, name)

    def _stayed(self, job: Job) -> None:
        now = self.queue.get(job)
        self.demand((now.attempt, now.token) == (1, 1), f"a live consumer lost job {job.id}: {now}")

    def _suspend(self) -> None:
        """All stand still for three leases and go on: no lease is lost."""
        jobs = [self._enqueue(LEASE_SECONDS) for _ in range(2)]
        self.wait("both jobs begin", lambda: all(self._begun(job)() for job in jobs))
        self.host.send(signal.SIGSTOP)
        wakes_at = time.monotonic() + 3 * LEASE_SECONDS
        self.wait("three leases", lambda: time.monotonic() > wakes_at)
        self.host.send(signal.SIGCONT)
        self.wait("the jobs", lambda: all(self._done(job)() for job in jobs))
        for job in jobs:
            self._stayed(job)


def play(scenario: Scenario) -> Play:
    """One scenario on a host of its own."""
    with tempfile.TemporaryDirectory(prefix="pq-clocks-") as folder, host(Path(folder), scenario) as started:
        one = Play(scenario, started)
        one.run()
    return one


def main() -> int:
    """Play the scenarios and tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--deep", action="store_true")
    options = parser.parse_args()
    chosen = scenarios()
    if options.deep:  # and random ones
        chance = random.Random(options.seed)
        chosen += [
            Scenario(f"{jump:+.1f} s", jump)
            for jump in (chance.choice([-1, 1]) * 10 ** chance.uniform(-1, 6) for _ in range(8))
        ]
    began = time.monotonic()
    violations: list[str] = []
    waits: dict[str, float] = {}
    played = 0
    for scenario in chosen:
        if options.seconds is not None and time.monotonic() - began > options.seconds:
            break
        one = play(scenario)
        played += 1
        violations += one.violations
        for name, seconds in one.waits.items():
            waits[name] = max(waits.get(name, 0), seconds)
    for text in violations:
        print(text, file=sys.stderr)
    figures = {"harness": "clocks", "seed": options.seed, "scenarios": played, "longest_waits": waits}
    print(
        json.dumps(figures | {"violations": len(violations), "seconds": round(time.monotonic() - began, 1)})
    )
    return bool(violations)


if __name__ == "__main__":
    sys.exit(main())
