"""The consumer: takes jobs, runs their tasks, and settles them; ends without losing one."""

import io
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from pq import values
from pq.display import open_display, plain
from pq.errors import CancelRequestedError, InvalidJobError
from pq.interface import PersistentQInterface
from pq.job import Job
from pq.kernels.choice import choose, chosen
from pq.log_file import LogFile
from pq.notebook.runs import close_runs
from pq.private import make_folder
from pq.records import Outcome
from pq.running import Hand, Runner
from pq.settings import read_settings
from pq.settling import Books, Stop
from pq.tasks import load_tasks
from pq.watching import Watch

SETTLE_SECONDS = 0.05
IDLE = timedelta(seconds=1)
LOG_BYTES, LOG_COPIES, LINE_WIDTH = 1_000_000, 3, 2_000

log = logging.getLogger("pq")


@dataclass(frozen=True, slots=True)
class Summary:
    """What a consumer did: tries by their end, how long it lived, and why it ended."""

    completed: int
    failed: int
    released: int
    lost: int
    seconds: float
    ended: str


def consume(
    db: str | os.PathLike[str] | PersistentQInterface | None = None,
    *,
    name: str = "consumer-1",
    queues: Sequence[str] = ("default",),
    tasks: Sequence[str] = (),
    prefetch: int = 1,
    lease: timedelta | float | None = None,
    count: int | None = None,
    until_empty: bool = False,
    grace: timedelta | float = 8.0,
    display: bool = True,
    hard_exit: bool = False,
    headless: bool = False,
    preload: Sequence[str] | None = None,
    cold: bool | None = None,
) -> Summary:
    """Run jobs until told to stop, or until `count` tries have ended, or with `until_empty` nothing is due.

    `tasks` are modules or .py files to load. `prefetch` jobs are taken at once, which pays for short
    tasks. `lease` None means the setting TIMEOUT_SECONDS. Ctrl-C, SIGTERM and `queue.stop_consumer` stop
    gracefully: the running task has `grace` to end, then it is interrupted and its job given back; a
    second Ctrl-C does that at once. `hard_exit` lets a task that cannot be interrupted end this process.
    `headless` shows nothing, exits hard, and sends log lines and what tasks print to logs/NAME-jobs.log.
    Kernels of notebooks have imported the modules of `preload`; `cold` starts each anew. None: the settings
    PQ_PRELOAD and PQ_COLD.
    """
    values.name(name, "consumer")
    if not values.names(queues, "queue"):
        raise InvalidJobError("name at least one queue")
    prefetch = values.whole(prefetch, "prefetch", least=1)
    if count is not None:
        values.whole(count, "count", least=0)
    held = read_settings().lease if lease is None else lease
    held = timedelta(seconds=values.seconds(held, "lease", positive=True))
    grace = values.seconds(grace, "grace")
    kernels = choose(preload, cold=cold)
    load_tasks(tasks)
    with ExitStack() as stack:
        queue = (
            db
            if isinstance(db, PersistentQInterface)
            else stack.enter_context(_connect(db, patient=headless))
        )
        if headless:
            stack.enter_context(_printing_to(queue.folder / "logs" / f"{name}-jobs.log"))
        hand, stop = Hand(), Stop()
        books = Books(queue, hand, stop, name=name, queues=queues, lease=held, prefetch=prefetch, count=count)
        runner = stack.enter_context(Runner(queue, hand, held))
        shown = stack.enter_context(open_display(enabled=display and not headless))
        identity = queue.register_consumer(name, queues)
        stack.callback(queue.unregister_consumer, identity)
        stack.callback(chosen.reset, chosen.set(kernels))
        stack.callback(_close_kernels)
        close_runs(queue)
        watch = Watch(
            *(queue, identity, hand, runner, books, stop),
            lease=held,
            grace=grace,
            hard_exit=hard_exit or headless,
            display=shown,
        )
        consumer = _Consumer(queue, hand, books, stop, runner, until_empty=until_empty)
        began = time.monotonic()
        log.info("%s takes jobs of %s in %s", name, ", ".join(queues), queue.url)
        try:
            with _signals_to(watch), watch:
                consumer.work()
        finally:
            books.give_back()
        if stop.error is not None:
            raise stop.error
        ended = stop.reason or consumer.ended
        shown.finish(watch.facts() | {"consumer": f"ended: {ended}"})
        return Summary(
            *(books.completed, books.failed, books.released, books.lost),
            seconds=round(time.monotonic() - began, 3),
            ended=ended,
        )


class _Consumer:
    """The loop of the calling thread."""

    def __init__(
        self,
        queue: PersistentQInterface,
        hand: Hand,
        books: Books,
        stop: Stop,
        runner: Runner,
        *,
        until_empty: bool,
    ) -> None:
        self.ended = "count reached"
        self._queue = queue
        self._hand = hand
        self._books = books
        self._stop = stop
        self._runner = runner
        self._until_empty = until_empty
        self._nothing_left = False

    def work(self) -> None:
        """Run jobs until it is time to end."""
        hand, books, stopping, run = self._hand, self._books, self._stop.event.is_set, self._run
        since = 0.0
        while not stopping() and not books.is_enough():
            try:
                job = hand.buffer.popleft()
            except IndexError:
                if not self._take():
                    return
                continue
            outcome = run(job)
            if outcome is not None:
                if not hand.outcomes:
                    since = time.monotonic()
                hand.outcomes.append(outcome)
            if not hand.buffer:
                taken = books.settle(take=True)
                hand.buffer.extend(taken)
                self._nothing_left = not taken
            elif time.monotonic() - since > SETTLE_SECONDS:
                books.settle()

    def _take(self) -> bool:
        """Fill the empty buffer, or wait for work; False when it is time to end."""
        if not self._nothing_left:
            self._hand.buffer.extend(self._books.take())
            if self._hand.buffer:
                return True
        if self._until_empty:
            self.ended = "queue empty"
            return False
        self._books.wait(IDLE)
        self._nothing_left = False
        return True

    def _run(self, job: Job) -> Outcome | None:
        if self._hand.refused:
            word = self._hand.refused.get((job.id, job.token))
            if word == "lost":
                self._books.drop(job)
                return None
            if word == "cancel":
                return Outcome(job, "failed", error=CancelRequestedError(f"job {job.id} was asked to stop"))
        return self._runner.run(job)


@contextmanager
def _signals_to(watch: Watch) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM stop gracefully; from the third Ctrl-C on it is KeyboardInterrupt again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pid, interrupts = os.getpid(), 0

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal interrupts
        if os.getpid() != pid:  # a process that a task forked: it obeys as if there were no consumer
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        interrupts += number == signal.SIGINT
        if interrupts > 2:
            raise KeyboardInterrupt
        watch.signals.put(number)  # the one thing that is safe in a signal handler

    before: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[int(number)] = signal.signal(number, handle)
        yield
    finally:
        for signal_number, handler in before.items():
            signal.signal(signal_number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def _printing_to(path: Path) -> Iterator[None]:
    """Send log lines and prints to a rotated file: an output notebook would keep them all, for ever."""
    make_folder(path.parent)
    handler = LogFile(path, maxBytes=LOG_BYTES, backupCount=LOG_COPIES, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level, propagates = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    lines = _Lines()
    try:
        with redirect_stdout(lines), redirect_stderr(lines):
            yield
    finally:
        log.removeHandler(handler)
        handler.close()
        log.setLevel(level)
        log.propagate = propagates


class _Lines(io.TextIOBase):
    """A stream whose lines become log lines."""

    def __init__(self) -> None:
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        *lines, self._rest = (self._rest + text)[-100_000:].split("\n")
        for line in lines:
            log.info("| %s", plain(line, LINE_WIDTH))
        return len(text)


def _close_kernels() -> None:
    """End the kernels that notebook jobs have used here."""
    module = sys.modules.get("pq.notebook.job")
    if module is not None:
        module.close_pool()


def _connect(db: str | os.PathLike[str] | None, *, patient: bool) -> PersistentQInterface:
    from pq.factory import connect_for

    return connect_for(db, patient=patient)
