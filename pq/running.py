"""Running one task: its try becomes an Outcome, and it, but nothing else, can be interrupted."""

import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from types import FrameType
from typing import Any, Self

from pq.errors import CancelRequestedError, LeaseLostError, PQError, TaskTimeoutError
from pq.interface import PersistentQInterface
from pq.job import Job
from pq.records import Kind, Outcome
from pq.tasks import Context, lookup

log = logging.getLogger("pq")

# Ignored by default, so one that comes too late does no harm; nothing else uses it.
SIGNAL = getattr(signal, "SIGURG", None)
AGAIN_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class Interrupt:
    """Why a run has to end: what is raised in the task, and what the outcome is then."""

    error: BaseException
    kind: Kind
    since: float
    patience: float
    raised_at: float | None = None


@dataclass(slots=True, eq=False)
class Run:
    """One try that is under way. `settled` means the watch has ended it, because it does not stop."""

    job: Job
    began: float
    context: Context | None
    interrupt: Interrupt | None = None
    settled: bool = False


@dataclass(eq=False)
class Hand:
    """The jobs a consumer holds: taken, running, and ended but not yet settled.

    `refused` says of taken ones, by id and token, that they are lost or to be cancelled. Two threads use
    a hand; every step is one atomic operation of a deque or an attribute.
    """

    buffer: deque[Job] = field(default_factory=deque)
    run: Run | None = None
    outcomes: deque[Outcome] = field(default_factory=deque)
    settling: Sequence[Outcome] = ()
    refused: dict[tuple[int, int], str] = field(default_factory=dict)

    def give_back(self) -> None:
        """Let the next settling release the jobs that were taken and not begun."""
        while self.buffer:
            with suppress(IndexError):  # the other thread was quicker
                self.outcomes.append(Outcome(self.buffer.popleft(), "released"))

    def jobs(self) -> list[Job]:
        """All of them, for heartbeats."""
        run = self.run
        ended = [outcome.job for outcome in (*self.outcomes, *self.settling)]
        return [*([] if run is None else [run.job]), *self.buffer, *ended]


class Runner:
    """Runs jobs in the thread that entered it, as a context manager."""

    def __init__(self, queue: PersistentQInterface, hand: Hand, lease: timedelta) -> None:
        self._queue = queue
        self._hand = hand
        self._lease = lease
        self._lock = threading.Lock()
        self._thread = threading.get_ident()
        self._pid = os.getpid()
        self._by_signal = False
        self._previous: Any = None
        backend = ".".join(type(queue).__module__.split(".")[:2])
        self._shielded = tuple(name for name in (backend, "pq.tasks") if name.startswith("pq."))

    def __enter__(self) -> Self:
        self._thread = threading.get_ident()
        in_main = threading.current_thread() is threading.main_thread()
        self._by_signal = SIGNAL is not None and hasattr(signal, "pthread_kill") and in_main
        if self._by_signal:
            self._previous = signal.signal(SIGNAL, self._on_signal)  # type: ignore[arg-type]  # see above
        return self

    def __exit__(self, *_: object) -> None:
        if self._by_signal:
            signal.signal(SIGNAL, self._previous or signal.SIG_DFL)  # type: ignore[arg-type]  # see above

    def run(self, job: Job) -> Outcome | None:
        """The outcome of one try; None where the watch has settled it already."""
        try:
            task = lookup(job.task)
            keywords = task.keywords(job.parameters)
        except PQError as error:
            return Outcome(job, "failed", error=error, retry=False)
        run = Run(job, time.monotonic(), None)
        if task.takes_context:
            keywords["context"] = run.context = Context(job, self._queue, self._lease)
        self._hand.run = run
        try:
            try:
                result = _call(task.function, keywords)
            finally:
                self._close()
        except BaseException as error:  # noqa: BLE001  # whatever a task raises is the job's, SystemExit too
            self._close()
            outcome = _failure(run, error)
        else:
            outcome = Outcome(job, result=result)
        if os.getpid() != self._pid:
            os._exit(0)  # the task forked, and its child came back: the parent goes on, not both
        return outcome if run.interrupt is None else self._unless_settled(run, outcome)

    def press(self, run: Run) -> None:
        """Raise the run's error inside its task, again after a second; called often by the watch."""
        interrupt, now = run.interrupt, time.monotonic()
        if interrupt is None or self._hand.run is not run:
            return
        if self._by_signal:
            if interrupt.raised_at is None or now - interrupt.raised_at > AGAIN_SECONDS:
                signal.pthread_kill(self._thread, SIGNAL)  # type: ignore[arg-type]  # see __enter__
            return
        with self._lock:
            again = interrupt.raised_at is None or now - interrupt.raised_at > AGAIN_SECONDS
            frame = sys._current_frames().get(self._thread)  # noqa: SLF001  # the documented way to another thread's frame
            if again and self._hand.run is run and self._in_task(frame):
                interrupt.raised_at = now
                _raise_in(self._thread, type(interrupt.error))

    def give_up(self, run: Run) -> bool:
        """Claim the outcome of a run that does not stop; False if it has just ended."""
        with self._lock:
            run.settled = self._hand.run is run
            return run.settled

    def _on_signal(self, _number: int, frame: FrameType | None) -> None:
        run = self._hand.run
        if run is None or run.interrupt is None or not self._in_task(frame):
            return
        run.interrupt.raised_at = time.monotonic()
        raise run.interrupt.error

    def _in_task(self, frame: FrameType | None) -> bool:
        """Whether the frame belongs to the task, and not to the consumer or to a call of the queue.

        An error raised in the middle of a transaction could leave a lock behind; the watch tries again
        in a moment.
        """
        while frame is not None and frame.f_code is not _call.__code__:
            module = str(frame.f_globals.get("__name__"))
            waits = frame.f_code.co_name in ("wait", "wait_for_work")
            if module.startswith(self._shielded) and not waits:
                return False
            frame = frame.f_back
        return frame is not None

    def _close(self) -> None:
        if self._by_signal:
            self._hand.run = None
            return
        with self._lock:
            self._hand.run = None
            _raise_in(self._thread, None)

    def _unless_settled(self, run: Run, outcome: Outcome) -> Outcome | None:
        with self._lock:
            return None if run.settled else outcome


def _call(function: Callable[..., Any], keywords: dict[str, Any]) -> Any:
    """The only frame under which a task may be interrupted; its caller catches everything."""
    return function(**keywords)


def _failure(run: Run, error: BaseException) -> Outcome:
    interrupt = run.interrupt
    if interrupt is None or interrupt.raised_at is None:
        final = isinstance(error, PQError) and getattr(error, "retry", True) is False
        return Outcome(run.job, "failed", error=_printable(error), retry=not final)
    # The place where the task stood is in the traceback of what it raised.
    stopped = interrupt.error.with_traceback(error.__traceback__)
    return Outcome(run.job, interrupt.kind, error=stopped)


def _printable(error: BaseException) -> BaseException:
    """The error, or where its own text cannot be made, one that names its type."""
    try:
        str(error)
    except Exception:  # noqa: BLE001  # a task's own class may raise anything
        named = RuntimeError(f"{type(error).__name__}, whose text cannot be made")
        return named.with_traceback(error.__traceback__)
    return error


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Let another thread raise an error at its next step; None takes it back."""
    value = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), value)


def time_limit(run: Run, now: float) -> Interrupt | None:
    """The interrupt for a run past its job's limit."""
    limit = run.job.timeout
    if limit is None or now - run.began < limit.total_seconds():
        return None
    text = f"job {run.job.id} ran longer than its limit of {limit.total_seconds():g} s"
    return Interrupt(TaskTimeoutError(text), "timeout", now, patience=10)


def cancelled(run: Run, now: float) -> Interrupt:
    """The interrupt for a run that a person wants stopped."""
    return Interrupt(CancelRequestedError(f"job {run.job.id} was asked to stop"), "failed", now, patience=10)


def lost(run: Run, now: float) -> Interrupt:
    """The interrupt for a run whose lease is gone; settling it only reports that."""
    text = f"job {run.job.id} is no longer leased to this consumer: it was rescued, assigned or deleted"
    return Interrupt(LeaseLostError(text), "failed", now, patience=10)


def stopped(run: Run, now: float) -> Interrupt:
    """The interrupt for a run that the end of its consumer does not wait for; it is given back."""
    return Interrupt(KeyboardInterrupt(f"job {run.job.id} is given back"), "released", now, patience=1.5)
