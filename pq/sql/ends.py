"""The end of tries: what a settled or overdue try writes to its job, its attempts and the buckets."""

import math
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from pq import values
from pq.job import Job, Status, after_failure
from pq.records import Outcome

BUCKET_OF = {Status.COMPLETED: "completed", Status.FAILED: "failed", Status.CANCELLED: "cancelled"}


class Ends:
    """Tries that end in one transaction: the jobs' rows, the attempts' rows and the buckets.

    A lease is a row of id, token, status, attempt, max_attempts, cancel_requested, started_at, consumer,
    queue and task. Each backend writes what is collected here.
    """

    def __init__(self, now: float) -> None:
        self.now = now
        self.completed: list[int] = []
        self.tokens: dict[int, int] = {}
        self.results: list[tuple[int, str]] = []
        self.jobs: list[dict[str, Any]] = []
        self.attempts: list[dict[str, Any]] = []
        self.buckets: dict[tuple[int, str, str, str, int], list[float]] = defaultdict(lambda: [0, 0.0])

    def settle(
        self, outcomes: Sequence[Outcome], results: Sequence[str | None], leases: dict[int, Any]
    ) -> list[Job]:
        """Collect the outcomes whose lease is live; the jobs of the others."""
        lost: list[Job] = []
        for outcome, result in zip(outcomes, results, strict=True):
            lease = leases.get(outcome.job.id)
            if lease is not None and lease[1] == outcome.job.token and lease[2] == "processing":
                self.add(outcome, lease, result)
                del leases[outcome.job.id]
            elif not (
                # The answer to the first call may have been lost.
                outcome.kind == "completed"
                and lease is not None
                and tuple(lease[1:3]) == (outcome.job.token, "completed")
            ):
                lost.append(outcome.job)
        return lost

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
        self.completed.append(lease[0])
        self.tokens[lease[0]] = lease[1]
        if result is not None:
            self.results.append((lease[0], result))
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
        self.jobs.append(
            {
                "id": id_,
                "token": token,
                "status": status,
                "given_back": int(given_back),
                "due_at": None if delay is None else self.now + delay.total_seconds(),
                "error": error,
                "finished_at": self.now if status in BUCKET_OF else None,
            }
        )
        if outcome == "released":
            return
        self.attempts.append(
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
        bucket = self.buckets[int(self.now // 60), lease[8], lease[9], outcome, slot]
        bucket[0] += 1
        bucket[1] += duration
