"""Settling what a consumer has done: batches, retries while the database is in trouble, and the tally."""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from pq import values
from pq.display import plain
from pq.errors import FileGoneError, InvalidJobError, MovedError, ServerAwayError, StorageError
from pq.interface import PersistentQInterface
from pq.job import Job
from pq.notebook.runs import after_settling
from pq.records import Outcome, Settled
from pq.running import Hand

PATIENCE_SECONDS, LAST_PATIENCE_SECONDS = 60.0, 10.0
ERROR_WIDTH = 500

log = logging.getLogger("pq")
Answer = TypeVar("Answer")


class Stop:
    """The wish that a consumer ends: why, since when, and whether its running task may finish."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.reason = ""
        self.since: float | None = None
        self.error: StorageError | None = None
        self.forced = False

    def request(self, reason: str) -> None:
        """The first reason stays. Not for signal handlers: an Event's lock could be held already."""
        if self.since is None:
            self.reason, self.since = reason, time.monotonic()
            log.info("stopping: %s", reason)
        self.event.set()


class Books:
    """Hands ended tries to the queue, takes the next jobs in the same transaction, and keeps count.

    Both threads of a consumer may settle; one does at a time.
    """

    def __init__(
        self,
        queue: PersistentQInterface,
        hand: Hand,
        stop: Stop,
        *,
        name: str,
        queues: Sequence[str],
        lease: timedelta,
        prefetch: int,
        count: int | None,
    ) -> None:
        self.completed = self.failed = self.released = self.lost = 0
        self.last_error = ""
        self._queue = queue
        self._hand = hand
        self._stop = stop
        self._name = name
        self._queues = queues
        self._lease = lease
        self._prefetch = prefetch
        self._count = count
        self._lock = threading.Lock()

    @property
    def ended(self) -> int:
        """How many tries came to an end of their own, which is what `count` limits."""
        return self.completed + self.failed

    def is_enough(self) -> bool:
        """Whether as many tries have ended as were asked for."""
        return self._count is not None and self.ended >= self._count

    def wait(self, timeout: timedelta) -> None:
        """Sleep until there may be work."""
        self._patiently(lambda: self._queue.wait_for_work(timeout, self._stop.event), PATIENCE_SECONDS)

    def take(self) -> list[Job]:
        """The next jobs, when nothing has to be settled."""
        limit = self._room(0)
        if not limit:
            return []
        return self._patiently(
            lambda: self._queue.dequeue_many(self._name, limit, self._queues, self._lease), PATIENCE_SECONDS
        )

    def settle(self, *, take: bool = False, patience: float | None = None) -> list[Job]:
        """End the tries that wait for it, and take the next jobs; the tries are kept if that fails.

        Raises StorageError after `patience` seconds of trying again, by default a minute.
        """
        with self._lock:
            batch = self._drain()
            limit = self._room(len(batch)) if take else 0
            if not batch and not limit:
                return []
            self._hand.settling = batch
            try:
                settled = self._patiently(
                    lambda: self._settle(batch, limit), PATIENCE_SECONDS if patience is None else patience
                )
            except BaseException:
                self._hand.outcomes.extendleft(reversed(batch))
                raise
            finally:
                self._hand.settling = ()
            self._enter(batch, {(job.id, job.token) for job in settled.lost})
            return settled.jobs

    def give_back(self) -> None:
        """Release what was taken and not begun, and settle the rest, at the end."""
        self._hand.give_back()
        try:
            self.settle(patience=LAST_PATIENCE_SECONDS)
        except StorageError as error:
            log.error("jobs could not be settled, and are rescued later: %s", error)  # noqa: TRY400  # one line

    def drop(self, job: Job) -> None:
        """Count a job whose lease was lost before it began."""
        self.lost += 1
        log.warning("job %d is no longer leased to this consumer; it was not begun", job.id)

    def _drain(self) -> list[Outcome]:
        outcomes = self._hand.outcomes
        return [outcomes.popleft() for _ in range(len(outcomes))]

    def _room(self, unsettled: int) -> int:
        if self._stop.event.is_set():
            return 0
        if self._count is None:
            return self._prefetch
        return max(min(self._prefetch, self._count - self.ended - unsettled), 0)

    def _patiently(self, ask: Callable[[], Answer], patience: float) -> Answer:
        give_up_at, pause = time.monotonic() + patience, 0.05
        while True:
            try:
                return ask()
            except (FileGoneError, MovedError):  # waiting would not bring the queue back
                raise
            except StorageError as error:
                if time.monotonic() >= self._until(error, give_up_at, patience) or self._stop.forced:
                    raise
                log.warning("the queue cannot be written, trying again: %s", error)
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def _until(self, error: StorageError, give_up_at: float, patience: float) -> float:
        """When to give up; an absent server is waited for without end, until this consumer is to stop."""
        if not isinstance(error, ServerAwayError) or patience < PATIENCE_SECONDS:
            return give_up_at
        return math.inf if self._stop.since is None else self._stop.since + LAST_PATIENCE_SECONDS

    def _settle(self, batch: list[Outcome], limit: int) -> Settled:
        try:
            return self._ask(batch, limit)
        except StorageError:
            raise
        except Exception:  # a result may raise anything when it is looked at
            storable = [_storable(outcome) for outcome in batch]
            if all(new is old for new, old in zip(storable, batch, strict=True)):
                raise
            batch[:] = storable
            return self._ask(batch, limit)

    def _ask(self, batch: list[Outcome], limit: int) -> Settled:
        return self._queue.settle(
            batch, consumer=self._name, limit=limit, queues=self._queues, lease=self._lease
        )

    def _enter(self, batch: Sequence[Outcome], lost: set[tuple[int, int]]) -> None:
        for outcome in batch:
            is_lost = bool(lost) and (outcome.job.id, outcome.job.token) in lost
            after_settling(self._queue, outcome, accepted=not is_lost)
            if is_lost:
                self.lost += 1
                log.warning(
                    "job %d was lost before its end was stored: %s was not kept", outcome.job.id, outcome.kind
                )
            elif outcome.kind == "completed":
                self.completed += 1
            elif outcome.kind == "released":
                self.released += 1
                log.info("job %d was given back", outcome.job.id)
            else:
                self._enter_failure(outcome)

    def _enter_failure(self, outcome: Outcome) -> None:
        job = outcome.job
        self.failed += 1
        error = plain(values.error_text(outcome.error or ""), ERROR_WIDTH)
        self.last_error = f"job {job.id}: {error}"
        log.warning(
            "job %d (%s) %s in attempt %d of %d: %s",
            *(job.id, plain(job.task), outcome.kind, job.attempt, job.max_attempts),
            error,
        )


def _storable(outcome: Outcome) -> Outcome:
    """The outcome, or a final failure where its result or its error cannot be stored."""
    try:
        values.to_json(outcome.result, "result")
        if outcome.error is not None:
            values.error_text(outcome.error)
            values.traceback_text(outcome.error)
    except InvalidJobError as error:
        return Outcome(outcome.job, "failed", error=error, retry=False)
    except Exception as error:  # noqa: BLE001  # see Books._settle
        refusal = InvalidJobError(f"what the task returned cannot be stored: {type(error).__name__}")
        return Outcome(outcome.job, "failed", error=refusal, retry=False)
    return outcome
