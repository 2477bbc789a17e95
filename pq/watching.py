"""The background thread of a consumer: heartbeats, time limits, cancel and stop requests, the display."""

import logging
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import Self

from pq.display import Display, plain
from pq.errors import CancelRequestedError, FileGoneError, LeaseLostError, MovedError, StorageError
from pq.interface import PersistentQInterface
from pq.notebook.runs import close_runs
from pq.records import Outcome
from pq.running import Hand, Run, Runner, cancelled, lost, stopped, time_limit
from pq.settling import Books, Stop

BUSY_SECONDS, IDLE_SECONDS = 0.05, 0.1
STANDING_SECONDS = 0.5
RESCUE_SECONDS = 1.0
BEAT_BUSY_SECONDS, BEAT_IDLE_SECONDS = 1.0, 2.0
HOARD_SECONDS = 5.0
EXIT_STUCK = 70

log = logging.getLogger("pq")


@dataclass(slots=True)
class Duty:
    """Something to be done every so many seconds."""

    every: float
    action: Callable[[], None]
    due: float = 0.0
    failing: bool = False


class Watch:
    """Looks after a consumer while its own thread runs tasks; a context manager.

    `grace` is how many seconds a running task has after a stop request. With `hard_exit` a task that
    cannot be interrupted ends the process, because nothing else ends such a task.
    """

    def __init__(
        self,
        queue: PersistentQInterface,
        identity: str,
        hand: Hand,
        runner: Runner,
        books: Books,
        stop: Stop,
        *,
        lease: timedelta,
        grace: float,
        hard_exit: bool,
        display: Display,
    ) -> None:
        self.signals: SimpleQueue[int | None] = SimpleQueue()
        self._queue = queue
        self._identity = identity
        self._hand = hand
        self._runner = runner
        self._books = books
        self._stop = stop
        self._lease = lease
        self._grace = grace
        self._hard_exit = hard_exit
        self._display = display
        self._doing, self._beaten_at = "", 0.0
        self._waiting: Outcome | None = None
        self._speed: deque[tuple[float, int]] = deque(maxlen=20)
        self._ended = False
        self._rescued_at, self._patient_until = time.monotonic(), 0.0
        self._duties = [
            Duty(0, self._look),
            Duty(BUSY_SECONDS, self._flush),
            Duty(BUSY_SECONDS, self._store_progress),
            Duty(STANDING_SECONDS, self._stand),
            Duty(lease.total_seconds() / 3, self._heartbeat),
            Duty(BEAT_BUSY_SECONDS, self._beat),
            Duty(RESCUE_SECONDS, self._rescue),
            Duty(0.5, self._show),
        ]
        self._thread = threading.Thread(target=self._watch, name="pq watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self.signals.put(None)
        self._thread.join(timeout=10)

    def facts(self) -> dict[str, object]:
        """What the display shows."""
        books, now = self._books, time.monotonic()
        self._speed.append((now, books.ended))
        since, before = self._speed[0]
        speed = (books.ended - before) / (now - since) if now > since else 0.0
        return {
            "consumer": self._now_doing(),
            "jobs": f"{books.completed:,} completed, {books.failed:,} failed, {speed:,.1f} per second",
            "last error": books.last_error,
        }

    def _watch(self) -> None:
        while not self._ended:
            busy = self._hand.is_busy()
            with suppress(Empty):
                number = self.signals.get(timeout=BUSY_SECONDS if busy else IDLE_SECONDS)
                if number is not None:
                    self._on_signal(number)
            now = time.monotonic()
            for duty in self._duties:
                if now >= duty.due and not self._ended:
                    self._attempt(duty, now)

    def _attempt(self, duty: Duty, now: float) -> None:
        """Do it; whatever goes wrong is said, and tried again in a second."""
        duty.due = now + duty.every
        try:
            duty.action()
            duty.failing = False
        except FileGoneError as error:
            self._stop.error = error
            self._stop.request(str(error))
        except MovedError as error:
            self._stop.request(str(error))
        except StorageError as error:
            if not duty.failing:
                log.warning("the queue does not answer, trying again: %s", error)
            duty.failing, duty.due = True, now + 1.0
        except Exception:
            if not duty.failing:
                log.exception("the watch of the consumer met an error, and goes on")
            duty.failing, duty.due = True, now + 1.0

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGINT and self._stop.since is not None:
            self._stop.forced = True
        self._stop.request("interrupted" if number == signal.SIGINT else signal.Signals(number).name)

    # -- the running task ---------------------------------------------------------------------------

    def _look(self) -> None:
        run, now = self._hand.run, time.monotonic()
        if run is None:
            return
        if run.interrupt is None:
            run.interrupt = time_limit(run, now) or (stopped(run, now) if self._is_over(now) else None)
        if run.interrupt is None:
            return
        self._runner.press(run)
        if now - run.interrupt.since > run.interrupt.patience:
            self._give_up(run)

    def _is_over(self, now: float) -> bool:
        """Whether the running task has had the time that a stop request leaves it."""
        stop = self._stop
        return stop.since is not None and (stop.forced or now - stop.since > self._grace)

    def _give_up(self, run: Run) -> None:
        """End a try whose task does not stop: it swallows the error, or sits in C code."""
        interrupt = run.interrupt
        if interrupt is None:
            return
        interrupt.patience = float("inf")
        if interrupt.kind == "released" and not self._hard_exit:
            log.error("job %d does not stop; waiting for it, because its task still runs", run.job.id)
            return
        if not self._runner.give_up(run):
            return
        self._hand.outcomes.append(Outcome(run.job, interrupt.kind, error=interrupt.error))
        self._hand.give_back()
        if self._hard_exit:
            self._exit(run)
        log.error(
            "%s, and its task cannot be interrupted: restart this process or kernel to end it",
            interrupt.error,
        )
        self._books.settle(patience=0)

    def _exit(self, run: Run) -> None:
        text = f"job {run.job.id} cannot be interrupted; this process ends to stop it"
        log.error(text)
        stream = sys.__stderr__ or sys.stderr
        if stream is not None:
            print(f"pq: {text}", file=stream, flush=True)
        with suppress(Exception):  # what cannot be settled now is rescued when this process is gone
            self._books.settle(patience=5)
            self._queue.unregister_consumer(self._identity)
        logging.shutdown()
        os._exit(EXIT_STUCK)

    # -- duties -------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Settle what would wait for a long task, and give back what it holds up."""
        hand, run = self._hand, self._hand.run
        holds_up = run is not None and time.monotonic() - run.began > HOARD_SECONDS
        if hand.buffer and (holds_up or self._stop.since is not None):
            hand.give_back()
            self._books.settle(patience=0)
        # The oldest is still there since the last look: the other thread is busy.
        oldest = next(iter(tuple(hand.outcomes)), None)
        if oldest is not None and oldest is self._waiting:
            self._books.settle(patience=0)
        self._waiting = oldest

    def _store_progress(self) -> None:
        run = self._hand.run
        if run is not None and run.context is not None:
            with suppress(CancelRequestedError, LeaseLostError):  # _stand answers those
                run.context.flush()

    def _stand(self) -> None:
        """See which jobs were lost, or are to be cancelled."""
        run, now = self._hand.run, time.monotonic()
        if run is not None and run.interrupt is None:
            word = self._queue.standing([run.job])[run.job.id]
            if word != "live":
                run.interrupt = lost(run, now) if word == "lost" else cancelled(run, now)
                if self._hand.run is run:
                    log.warning("%s", run.interrupt.error)
        waiting = list(self._hand.buffer)
        words = self._queue.standing(waiting) if waiting else {}
        self._hand.refused = {
            (job.id, job.token): words[job.id] for job in waiting if words[job.id] != "live"
        }

    def _heartbeat(self) -> None:
        jobs = self._hand.jobs()
        if jobs:
            self._queue.heartbeat_many(jobs, self._lease)

    def _beat(self) -> None:
        doing, now = self._now_doing(), time.monotonic()
        if doing == self._doing and self._hand.run is None and now - self._beaten_at < BEAT_IDLE_SECONDS:
            return
        if self._queue.beat_consumer(self._identity, doing):
            self._stop.request("stop requested")
        self._doing, self._beaten_at = doing, now

    def _rescue(self) -> None:
        """Rescue; but who was stopped for long itself lets the living extend their leases first."""
        now, lease = time.monotonic(), self._lease.total_seconds()
        if now - self._rescued_at > max(lease / 2, 2 * RESCUE_SECONDS):
            log.warning("this consumer stood still; expired leases are left alone for %g s", lease)
            self._patient_until = now + lease
        self._rescued_at = now
        rescued = self._queue.rescue(expired=now >= self._patient_until)
        for job in rescued:
            log.warning("job %d was taken back: %s", job.id, plain(job.error))
        if rescued:
            close_runs(self._queue)

    def _show(self) -> None:
        self._display.show(self.facts())

    def _now_doing(self) -> str:
        run = self._hand.run
        doing = "idle" if run is None else f"job {run.job.id} {run.job.task}"
        return doing if self._stop.since is None else f"stopping, {doing}"
