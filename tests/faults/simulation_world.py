"""A simulated host: one thread, a clock moved by hand, and processes that change places between transactions.

The queue itself is the real one, on a real file. Every state change is one immediate transaction, so it is
enough to change places in front of the write gate and after a commit: that covers every interleaving.
"""

import os
import random
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from greenlet import getcurrent, greenlet

from pq.errors import StorageError
from pq.settings import Settings
from pq.sqlite import PersistentQSQLite, presence
from pq.sqlite.gate import WriteGate
from pq.sqlite.session import Session

LEASE_SECONDS = 10.0


class Died(BaseException):
    """The simulated process ends here, as by SIGKILL: nothing of it may write after this."""


@dataclass
class Clock:
    """The three clocks of the simulated host."""

    wall: float = 1_800_000_000.0
    mono: float = 1_000.0
    boot_id: str = "boot 0"

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.mono

    def boot(self) -> str:
        return self.boot_id

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.mono += seconds


class Process:
    """One simulated process: its own queue object, and the moment at which it goes on."""

    def __init__(self, world: "World", name: str, work: "Callable[[Process], None]") -> None:
        self.world = world
        self.name = name
        self.work = work
        self.wakes_at = world.clock.mono
        self.is_dead = False
        self.held: list[Path] = []
        self.verb = "open"
        self.told: dict[tuple[int, int], str] = {}
        self.live: set[tuple[int, int]] = set()
        self.queue: PersistentQSQLite | None = None
        self.greenlet = greenlet(self._run)
        self.greenlet.process = self

    def _run(self) -> None:
        with suppress(Died, StorageError):  # an error of the storage that nobody answers ends it too
            self.queue = self.world.open()
            self.work(self)
        self.is_dead = True
        self._bury()

    def _bury(self) -> None:
        """What the kernel does for a process that is gone: its files are closed and its locks dropped."""
        for path in self.held:
            self.world.living.discard(path.name)
            file = presence._held.pop((os.getpid(), path), None)
            if file is not None:
                os.close(file)
        if self.queue is not None:
            self.queue._incarnations.clear()
            self.queue.close()

    def sleep(self, seconds: float) -> None:
        """Let others go on for so long."""
        self.wakes_at = self.world.clock.mono + seconds
        self.world.main.switch()
        if self.is_dead:
            raise Died

    def kill(self) -> None:
        """End it where it stands."""
        self.is_dead = True
        with suppress(Died):  # of one that had not begun
            self.greenlet.throw(Died)

    def call(self, verb: str, *arguments: Any, **options: Any) -> Any:
        """Call the queue, so that the checker knows who does what."""
        self.verb, self.told, self.live = verb, {}, set()
        if verb == "settle":
            self.told = {(one.job.id, one.job.token): one.kind for one in arguments[0]}
        elif verb in ("heartbeat", "heartbeat_many"):
            jobs = arguments[0] if verb == "heartbeat_many" else [arguments[0]]
            self.told = {(job.id, job.token): "heartbeat" for job in jobs}
        self.world.note(f"{self.name} {verb}")
        return getattr(self.queue, verb)(*arguments, **options)


@dataclass
class World:
    """The host with its processes; a seed makes everything that happens on it."""

    seed: int
    folder: Path
    checker: Any = None
    clock: Clock = field(default_factory=Clock)
    processes: list[Process] = field(default_factory=list)
    living: set[str] = field(default_factory=set)
    is_healing: bool = False
    steps: int = 0
    trace: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.main = getcurrent()
        self.path = self.folder / "queue.db"
        self.settings = Settings(str(self.path), 3, timedelta(seconds=LEASE_SECONDS), timedelta(seconds=5))

    def note(self, line: str) -> None:
        """One line of what happened, to read after a violation and to compare two runs of a seed."""
        self.trace.append(f"{self.clock.mono:.3f} {line}")

    def open(self) -> PersistentQSQLite:
        return PersistentQSQLite(self.path, clock=self.clock, settings=self.settings, reserve_bytes=0)

    def start(self, name: str, work: Callable[[Process], None], after: float = 0.0) -> Process:
        process = Process(self, name, work)
        process.wakes_at += after
        self.processes.append(process)
        return process

    def step(self) -> Process | None:
        """Let one process that is ready run to its next place of change; that one, if it has ended."""
        ready = [one for one in self.processes if one.wakes_at <= self.clock.mono]
        if not ready:
            first = min(one.wakes_at for one in self.processes)
            self.clock.advance(first - self.clock.mono + 1e-6)
            return None
        self.steps += 1
        self.clock.advance(self.random.random() * 0.02)
        process = self.random.choice(ready)
        process.greenlet.switch()
        return self._gone(process)

    def _gone(self, process: Process) -> Process | None:
        if not process.greenlet.dead:
            return None
        self.processes.remove(process)
        return process

    def kill(self, process: Process) -> None:
        self.note(f"{process.name} is killed")
        process.kill()
        self._gone(process)

    def reboot(self) -> None:
        """All processes are gone, and the monotonic clock begins anew."""
        self.note("reboot")
        for process in list(self.processes):
            process.kill()
        self.processes.clear()
        self.clock.boot_id = f"boot {self.steps}"
        self.clock.wall += 30
        self.clock.mono = self.random.choice([5.0, 500.0, 50_000.0])

    def fate(self) -> str:
        """How a transaction ends: mostly well."""
        if self.is_healing or self.random.random() > 0.03:
            return ""
        return self.random.choice(["die before", "die after", "error before", "error after"])


def _meet(fate: str, moment: str) -> None:
    if fate == f"die {moment}":
        raise Died
    if fate == f"error {moment}":
        raise StorageError("cannot use the database: the commit was not answered")


def _process() -> Process | None:
    return getattr(getcurrent(), "process", None)


_real_enter, _real_write, _real_hold = WriteGate.enter, Session.write, presence.hold


def _hold(path: Path) -> None:
    _real_hold(path)
    process = _process()
    if process is not None:
        process.held.append(path)
        process.world.living.add(path.name)


def _enter(gate: WriteGate, timeout_seconds: float | None) -> None:
    """Whoever comes to the gate may find others before it."""
    process = _process()
    if process is not None and not process.is_dead:
        process.sleep(0)
    _real_enter(gate, timeout_seconds)


@contextmanager
def _write(session: Session, *, durable: bool = True) -> Iterator[None]:
    process = _process()
    if process is None or session.in_transaction:
        with _real_write(session, durable=durable):
            yield
        return
    if process.is_dead:
        raise Died
    world = process.world
    fate = world.fate()
    with _real_write(session, durable=durable):
        yield
        _meet(fate, "before")
    world.checker.committed(process, session)
    _meet(fate, "after")
    if world.random.random() < 0.3:
        process.sleep(0)


def place() -> str | None:
    """A folder in memory where there is one: no simulated fault needs a disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a folder of its own in it


@contextmanager
def simulated() -> Iterator[Path]:
    """The queue's places of change go to the scheduler; gives a folder with an empty queue to copy."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=place(), prefix="pq-simulation-")))
        template = folder / "template.db"
        PersistentQSQLite(template, clock=Clock(), reserve_bytes=0).close()
        for owner, name, replacement in (
            (WriteGate, "enter", _enter),
            (Session, "write", _write),
            (presence, "hold", _hold),
            (uuid, "uuid4", lambda: uuid.UUID(int=random.getrandbits(128))),
        ):
            stack.enter_context(mock.patch.object(owner, name, replacement))
        yield folder
