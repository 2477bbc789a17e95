"""The end of tries: what a settled or overdue try writes to its job, its attempts and the buckets."""

import json
import math
from collections import defaultdict
from datetime import timedelta
from typing import Any

from pq import values
from pq.job import Status, after_failure
from pq.records import Outcome
from pq.sqlite import sql
from pq.sqlite.session import Session

INLINE_LENGTH = 2_000
"""Longer parameters and results stand in job_values, away from the row that is claimed and listed."""

BUCKET_OF = {Status.COMPLETED: "completed", Status.FAILED: "failed", Status.CANCELLED: "cancelled"}


class Ends:
    """Tries that end in one transaction: the jobs' rows, the attempts' rows and the buckets."""

    def __init__(self, now: float) -> None:
        self.now = now
        self._completed: list[int] = []
        self._results: list[tuple[str | None, int, int]] = []
        self._jobs: list[dict[str, Any]] = []
        self._attempts: list[dict[str, Any]] = []
        self._values: list[tuple[int, str, str]] = []
        self._buckets: dict[tuple[int, str, str, str, int], list[float]] = defaultdict(lambda: [0, 0.0])

    def add(self, outcome: Outcome, lease: Any, result: str | None) -> None:
        """An outcome that its consumer tells."""
        if outcome.kind == "completed":
            self._complete(lease, result)
            return
        cancel_requested = bool(lease[5])
        delay = outcome.delay
        given_back = False
        error = None if outcome.error is None else values.error_text(outcome.error)
        if outcome.kind in ("released", "snoozed") and not cancel_requested:
            status = Status.PENDING if outcome.kind == "released" else Status.SCHEDULED
            given_back = True
        else:
            status, delay = after_failure(
                attempt=lease[3],
                max_attempts=lease[4],
                cancel_requested=cancel_requested,
                retry=outcome.retry,
                delay=delay,
            )
        trace = None if outcome.error is None else values.traceback_text(outcome.error)
        name = "cancelled" if status is Status.CANCELLED else outcome.kind
        self._end(lease, status, name, error, trace, delay, given_back=given_back)

    def add_overdue(self, lease: Any, *, died: bool) -> None:
        """A try whose consumer died (due again at once) or fell silent (with back-off)."""
        status, delay = after_failure(
            attempt=lease[3],
            max_attempts=lease[4],
            cancel_requested=bool(lease[5]),
            retry=True,
            delay=timedelta(0) if died else None,
        )
        reason = "consumer died" if died else "lease expired"
        self._end(lease, status, reason, reason, None, delay, given_back=False)

    def _complete(self, lease: Any, result: str | None) -> None:
        """The usual end; written for all such jobs at once, which takes half the time."""
        id_ = lease[0]
        self._completed.append(id_)
        if result is not None:
            if len(result) > INLINE_LENGTH:
                self._values.append((id_, "result", result))
                self._results.append((None, sql.LARGE_RESULT, id_))
            else:
                self._results.append((result, 0, id_))
        self._count(lease, "completed")

    def _end(
        self,
        lease: Any,
        status: Status,
        outcome: str,
        error: str | None,
        trace: str | None,
        delay: timedelta | None,
        *,
        given_back: bool,
    ) -> None:
        id_, token, _, attempt, _, _, started_at, consumer, _, _ = lease
        self._jobs.append(
            {
                "id": id_,
                "token": token,
                "status": status,
                "given_back": int(given_back),
                "due_at": None if delay is None else round(self.now + delay.total_seconds(), 6),
                "error": error,
                "finished_at": self.now if status in BUCKET_OF else None,
            }
        )
        if outcome == "released":
            return
        self._attempts.append(
            {
                "id": id_,
                "token": token,
                "attempt": attempt,
                "outcome": outcome,
                "consumer": consumer,
                "started_at": started_at,
                "now": self.now,
                "error": error,
                "traceback": trace,
            }
        )
        self._count(lease, BUCKET_OF.get(status, "retried"))

    def _count(self, lease: Any, outcome: str) -> None:
        """Add the try to its minute's bucket."""
        duration = max(self.now - lease[6], 0.0)
        slot = math.floor(4 * math.log2(max(duration, 0.001) / 0.001))
        bucket = self._buckets[int(self.now // 60), lease[8], lease[9], outcome, slot]
        bucket[0] += 1
        bucket[1] += duration

    def write(self, session: Session) -> None:
        """Write all that was added."""
        if len(self._completed) == 1:
            done: tuple[Any, ...] = (self.now, self._completed[0])
            session.execute(sql.COMPLETED_ATTEMPT, done)
            session.execute(sql.COMPLETE_ONE, done)
        elif self._completed:
            done = (self.now, json.dumps(self._completed))
            session.execute(sql.COMPLETED_ATTEMPTS, done)
            session.execute(sql.COMPLETE, done)
        many = session.connection.executemany
        for statement, rows in (
            (sql.PUT_RESULT, self._results),
            (sql.END_TRY, self._jobs),
            (sql.INSERT_ATTEMPT, self._attempts),
            (sql.PUT_VALUE, self._values),
            (sql.ADD_TO_BUCKET, [(*key, *sums) for key, sums in self._buckets.items()]),
        ):
            if rows:
                many(statement, rows)
