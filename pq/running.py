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

from pq.errors import CancelRequestedError, InvalidJobError, LeaseLostError, PQError, TaskTimeoutError
from pq.interface import PersistentQInterface
from pq.job import Job
from pq.records import Kind, Outcome
from pq.tasks import Context, lookup

log = logging.getLogger("pq")

# Ignored by default, so one that comes too late does no harm; nothing else uses it.
SIGNAL = getattr(signal, "SIGURG", None)
AGAIN_SECONDS = 1.0
PATIENCE_SECONDS = 10.0


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

    def is_busy(self) -> bool:
        """Whether it holds anything."""
        return self.run is not None or bool(self.buffer or self.outcomes or self.settling)

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
                self._close(run)
        except BaseException as error:  # noqa: BLE001  # whatever a task raises is the job's, SystemExit too
            self._close(run)
            outcome = _failure(run, error)
        else:
            outcome = Outcome(job, result=result)
        if os.getpid() != self._pid:
            os._exit(0)  # the task forked, and its child came back: the parent goes on, not both
        return outcome if run.interrupt is None else self._unless_settled(run, outcome)

    def press(self, run: Run) -> None:
        """Raise the run's error inside its task, again after a second; called often by the watch."""
        if run.interrupt is None or self._hand.run is not run or not _is_due(run.interrupt):
            return
        if run.context is not None:  # a task in a thread that calls the queue all the time hears it only so
            run.context.interrupt = run.interrupt.error
        if self._by_signal:
            signal.pthread_kill(self._thread, SIGNAL)  # type: ignore[arg-type]  # see __enter__
            return
        with self._lock:
            # The documented way to another thread's frame.
            frame = sys._current_frames().get(self._thread)  # noqa: SLF001
            if self._hand.run is run and self._place(frame) is frame is not None:
                run.interrupt.raised_at = time.monotonic()
                _raise_in(self._thread, type(run.interrupt.error))

    def give_up(self, run: Run) -> bool:
        """Claim the outcome of a run that does not stop; False if it has just ended."""
        with self._lock:
            run.settled = self._hand.run is run
            return run.settled

    def _on_signal(self, _number: int, frame: FrameType | None) -> None:
        run = self._hand.run
        place = None if run is None or not _is_due(run.interrupt) else self._place(frame)
        if run is None or run.interrupt is None or place is None:
            return
        if place is frame:
            run.interrupt.raised_at = time.monotonic()
            raise run.interrupt.error
        self._raise_on_return(run, run.interrupt, place)

    def _raise_on_return(self, run: Run, interrupt: Interrupt, place: FrameType) -> None:
        """Raise at the next step of the waiting frame, the way a debugger stops there."""
        if sys.gettrace() is not None:
            return

        def trace(_frame: FrameType, _event: str, _argument: Any) -> None:
            sys.settrace(None)
            place.f_trace = None
            if self._hand.run is run and _is_due(interrupt):
                interrupt.raised_at = time.monotonic()
                raise interrupt.error

        place.f_trace = trace
        sys.settrace(_ignore)

    def _place(self, frame: FrameType | None) -> FrameType | None:
        """Where in the task to raise: in its innermost frame, or in that which waits for a call of the queue.

        None outside of a task. An error raised in the middle of a transaction could leave a lock behind;
        one raised in contextlib on the way in, the transaction itself.
        """
        place, within = frame, True
        while frame is not None and frame.f_code is not _call.__code__:
            module = str(frame.f_globals.get("__name__"))
            waits = frame.f_code.co_name in ("wait", "wait_for_work")
            within = (module.startswith(self._shielded) and not waits) or (within and module == "contextlib")
            frame = frame.f_back
            place = frame if within else place
        return place if frame is not None else None

    def _close(self, run: Run) -> None:
        """Let no interrupt begin from here on; one that is on its way comes now, where run() catches it."""
        if self._by_signal:
            self._hand.run = None
            return
        with self._lock:
            self._hand.run = None
        if run.interrupt is not None and run.interrupt.raised_at is not None:
            # Taking it back instead would leave CPython 3.11 looking for it at every step.
            for _ in range(100):
                pass

    def _unless_settled(self, run: Run, outcome: Outcome) -> Outcome | None:
        with self._lock:
            return None if run.settled else outcome


def _is_due(interrupt: Interrupt | None) -> bool:
    """Whether it has not been raised yet, or was swallowed."""
    if interrupt is None:
        return False
    return interrupt.raised_at is None or time.monotonic() - interrupt.raised_at > AGAIN_SECONDS


def _ignore(_frame: FrameType, _event: str, _argument: Any) -> None:
    """Trace nothing in the frames that are entered."""


def _call(function: Callable[..., Any], keywords: dict[str, Any]) -> Any:
    """The only frame under which a task may be interrupted; its caller catches everything."""
    return function(**keywords)


def _failure(run: Run, error: BaseException) -> Outcome:
    interrupt = run.interrupt
    if interrupt is None or (interrupt.raised_at is None and error is not interrupt.error):
        # What is invalid stays so, whoever tries it again.
        final = isinstance(error, InvalidJobError)
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


def _raise_in(thread: int, kind: type[BaseException]) -> None:
    """Let another thread raise an error at its next step."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))


def time_limit(run: Run, now: float) -> Interrupt | None:
    """The interrupt for a run past its job's limit."""
    limit = run.job.timeout
    if limit is None or now - run.began < limit.total_seconds():
        return None
    text = f"job {run.job.id} ran longer than its limit of {limit.total_seconds():g} s"
    return Interrupt(TaskTimeoutError(text), "timeout", now, patience=PATIENCE_SECONDS)


def cancelled(run: Run, now: float) -> Interrupt:
    """The interrupt for a run that a person wants stopped."""
    return Interrupt(
        CancelRequestedError(f"job {run.job.id} was asked to stop"), "failed", now, patience=PATIENCE_SECONDS
    )


def lost(run: Run, now: float) -> Interrupt:
    """The interrupt for a run whose lease is gone; settling it only reports that."""
    text = f"job {run.job.id} is no longer leased to this consumer: it was rescued, assigned or deleted"
    return Interrupt(LeaseLostError(text), "failed", now, patience=PATIENCE_SECONDS)


def stopped(run: Run, now: float) -> Interrupt:
    """The interrupt for a run that the end of its consumer does not wait for; it is given back."""
    return Interrupt(KeyboardInterrupt(f"job {run.job.id} is given back"), "released", now, patience=1.5)
