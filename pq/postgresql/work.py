"""What consumers do, and what differs where people act: claim, heartbeat, settle, rescue, wait."""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

from pq import values
from pq.errors import CancelRequestedError, LeaseLostError, StorageError, WaitTimeoutError
from pq.interface import DEFAULT_QUEUES, LEASE
from pq.job import FINISHED, Job
from pq.postgresql import sql
from pq.postgresql.ends import Ends
from pq.postgresql.producing import FOLD_ROWS, Producing
from pq.postgresql.session import Session
from pq.records import Outcome, Settled
from pq.sql import statements
from pq.sql.rows import checked_progress, checked_result, to_job, to_standing

SLOW_POLL_SECONDS = 1.0
SECOND_LOOK_SECONDS = 0.05
ABSENT_SECONDS = 1.0
"""How long a consumer may be without its lock, because it connects anew, before it counts as dead."""
GRACE_SECONDS = 10.0
"""After a start of the server all consumers connect anew; until then only leases tell who is gone."""
UNIQUE_VIOLATION = "23505"


class PersistentQSQLAlchemy(Producing):
    """The queue in a PostgreSQL database, by way of SQLAlchemy's pool and psycopg."""

    # -- taking -----------------------------------------------------------------------------------

    def dequeue_many(
        self, consumer: str, limit: int, queues: Sequence[str] = DEFAULT_QUEUES, lease: timedelta = LEASE
    ) -> list[Job]:
        """Take up to `limit` pending jobs; the claim is not synced, losing it in a power cut is harmless."""
        values.name(consumer, "consumer")
        queues = values.names(queues, "queue")
        limit = values.whole(limit, "limit", least=1)
        lease_seconds = values.seconds(lease, "lease", positive=True)
        self._local.waits_for = consumer, queues
        return self._claim(self._session, consumer, limit, queues, lease_seconds)

    def _claim(
        self, session: Session, consumer: str, limit: int, queues: Sequence[str], lease_seconds: float
    ) -> list[Job]:
        taken: list[Job] = []
        promoted = False
        for queue in queues:
            while len(taken) < limit:
                asked = self._claiming(consumer, queue, limit - len(taken), lease_seconds)
                asked |= {"promoted": promoted, "alone": not session.in_transaction}
                rows = session.rows(sql.CLAIM, asked)
                taken += [to_job(row[1:], {}) for row in rows if row[1] is not None]
                if promoted or not rows[0][0]:
                    break
                session.execute(sql.PROMOTE, self._clocks)
                promoted = True
        return taken

    def _claiming(self, consumer: str, queue: str, limit: int, lease_seconds: float) -> dict[str, Any]:
        return self._clocks | {
            "consumer": consumer,
            "incarnation": self._incarnations.get(consumer),
            "queue": queue,
            "limit": limit,
            "lease": lease_seconds,
        }

    # -- holding ----------------------------------------------------------------------------------

    def heartbeat(
        self,
        job: Job,
        *,
        progress: float | None = None,
        message: str | None = None,
        lease: timedelta = LEASE,
    ) -> None:
        """Extend the lease; CancelRequestedError where a person wants the job stopped."""
        session = self._session
        rows = session.rows(
            sql.HEARTBEAT,
            self._clocks
            | {
                "id": job.id,
                "token": job.token,
                "lease": values.seconds(lease, "lease", positive=True),
                "progress": checked_progress(progress),
                "message": None if message is None else values.storable(message)[: values.ERROR_LENGTH],
                "alone": not session.in_transaction,
            },
        )
        if not rows:
            raise LeaseLostError(
                f"job {job.id} is no longer leased with token {job.token}; stop working on it"
            )
        if rows[0][0]:
            raise CancelRequestedError(f"job {job.id} is to be cancelled; stop and fail it")

    def heartbeat_many(self, jobs: Sequence[Job], lease: timedelta = LEASE) -> None:
        """Extend those of the leases that are still held."""
        session = self._session
        held = {"ids": [job.id for job in jobs], "tokens": [job.token for job in jobs]}
        held |= {"lease": values.seconds(lease, "lease", positive=True)}  # type: ignore[dict-item]
        session.execute(sql.EXTEND, self._clocks | held | {"alone": not session.in_transaction})

    def standing(self, jobs: Sequence[Job]) -> dict[int, str]:
        """For each job's id: live, cancel or lost."""
        rows = self._session.rows(sql.STANDING, {"ids": [job.id for job in jobs]})
        return to_standing(jobs, rows)

    # -- ending -----------------------------------------------------------------------------------

    def settle(
        self,
        outcomes: Sequence[Outcome],
        *,
        consumer: str | None = None,
        limit: int = 0,
        queues: Sequence[str] = DEFAULT_QUEUES,
        lease: timedelta = LEASE,
    ) -> Settled:
        """End tries and take the next jobs: completed ones in one statement, others in one transaction."""
        results = [checked_result(outcome) for outcome in outcomes]
        lease_seconds = values.seconds(lease, "lease", positive=True)
        limit = limit if consumer is not None else 0
        if limit:
            self._local.waits_for = consumer, tuple(queues)
        session = self._session
        ids = {outcome.job.id for outcome in outcomes}
        if outcomes and len(ids) == len(outcomes) and all(one.kind == "completed" for one in outcomes):
            return self._complete(session, outcomes, results, consumer or "", limit, queues, lease_seconds)
        if not outcomes:
            return Settled(self._claim(session, consumer or "", limit, queues, lease_seconds), [])
        with session.write():
            lost = self._end_tries(session, outcomes, results)
            taken = self._claim(session, consumer or "", limit, queues, lease_seconds)
        return Settled(taken, lost)

    def _complete(
        self,
        session: Session,
        outcomes: Sequence[Outcome],
        results: Sequence[str | None],
        consumer: str,
        limit: int,
        queues: Sequence[str],
        lease_seconds: float,
    ) -> Settled:
        jobs = [outcome.job for outcome in outcomes]
        rows = session.rows(
            sql.SETTLE,
            self._claiming(consumer, queues[0] if queues else "", limit, lease_seconds)
            | {
                "promoted": False,
                "ids": [job.id for job in jobs],
                "tokens": [job.token for job in jobs],
                "results": list(results),
            },
        )
        due, settled = rows[0][:2]
        taken = [to_job(row[2:], {}) for row in rows if row[2] is not None]
        # What this statement itself made ready, it could not see: due jobs, and those of a limited group.
        if len(taken) < limit and (due or len(queues) > 1 or any(job.group is not None for job in jobs)):
            taken += self._claim(session, consumer, limit - len(taken), queues, lease_seconds)
        if settled == len(jobs):
            return Settled(taken, [])
        with session.write():
            # Those that were settled just now, or by a call whose answer was lost, are so with their token.
            return Settled(taken, self._end_tries(session, outcomes, results))

    def _end_tries(
        self, session: Session, outcomes: Sequence[Outcome], results: Sequence[str | None]
    ) -> list[Job]:
        """Write the outcomes whose lease is live; the jobs of the others."""
        rows = session.rows(sql.LEASES, {"ids": [outcome.job.id for outcome in outcomes]})
        ends = Ends(self._now())
        lost = ends.settle(outcomes, results, {row[0]: row for row in rows})
        ends.write(session)
        return lost

    def rescue(self, *, expired: bool = True) -> list[Job]:
        """Take back jobs of dead consumers and, with `expired`, jobs whose lease ran out."""
        session = self._session
        session.execute("select pq.fold(:least)", {"least": FOLD_ROWS})
        session.execute("select pq.fit_all()")
        dead = self._dead()
        # Leases of an earlier boot end at -1; all others are positive.
        overdue = {"monotonic": self._clocks["monotonic"] if expired else 0.0, "dead": dead}
        with session.write():
            died = dict(session.rows(sql.OVERDUE, overdue))
            if not died and not dead:
                return []
            ids = {"ids": list(died)}
            ends = Ends(self._now())
            for lease in session.rows(sql.LEASES, ids):
                ends.add_overdue(lease, died=bool(died[lease[0]]))
            ends.write(session)
            session.execute(
                "update consumers set ended_at = :now, doing = 'died' where id = any(:ended) "
                "and ended_at is null",
                {"now": ends.now, "ended": dead},
            )
            return self._jobs(session.rows(sql.GET_MANY, ids))

    def _dead(self) -> list[str]:
        """Consumers whose lock nobody holds, now and for a second on: a live one connects anew by then."""
        session = self._session
        gone = {identity for (identity,) in session.rows(sql.GONE)}
        absent = {identity for (identity,) in session.rows(sql.ABSENT)}
        if absent and session.rows(sql.UP_SECONDS)[0][0] < GRACE_SECONDS:
            absent = set()
        until = time.monotonic() + ABSENT_SECONDS
        while absent and time.monotonic() < until:
            time.sleep(ABSENT_SECONDS / 5)
            absent &= {identity for (identity,) in session.rows(sql.ABSENT)}
        return sorted(gone | absent)

    def _present(self, identities: Sequence[str]) -> Collection[str]:
        absent = {identity for (identity,) in self._session.rows(sql.ABSENT)} if identities else set()
        return set(identities) - absent

    # -- waiting ----------------------------------------------------------------------------------

    def wait_for_work(self, timeout: timedelta, stop: threading.Event | None = None) -> bool:
        """Wait for a word of the server, with a look every second in case it is missed."""
        consumer, queues = getattr(self._local, "waits_for", ("", DEFAULT_QUEUES))
        listener = self._listening()
        listener.announce(queues)
        deadline = time.monotonic() + values.seconds(timeout, "timeout")
        patience = SECOND_LOOK_SECONDS  # soon again: somebody may just have been writing
        while True:
            heard = listener.heard(queues)
            due_in = None
            for queue in queues:
                asked = self._clocks | {"queue": queue, "consumer": consumer}
                ready, due_in = self._session.rows(sql.LOOK, asked)[0]
                if ready or (due_in is not None and due_in <= 0):
                    return True
            look_at = time.monotonic() + min(patience, max(due_in or patience, 0.001))
            patience = SLOW_POLL_SECONDS
            listener.announce(queues)
            while (left := min(look_at, deadline) - time.monotonic()) > 0:
                if stop is not None and stop.is_set():
                    return False
                if listener.wait(queues, heard, min(left, 0.1)):
                    break
            if time.monotonic() >= deadline:
                return False

    def wait(self, job: Job | int, timeout: timedelta | float | None = None) -> Job:
        """Sleep until the job has finished; looks more and more rarely, ten times a second at the end."""
        deadline = None if timeout is None else time.monotonic() + values.seconds(timeout, "timeout")
        pause = 0.005
        while True:
            current = self.get(job)
            if current.status in FINISHED:
                return current
            left = pause if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeoutError(f"job {current.id} is still {current.status}")
            time.sleep(min(pause, left))
            pause = min(1.3 * pause, 0.1)

    # -- consumers --------------------------------------------------------------------------------

    def register_consumer(self, name: str, queues: Sequence[str] = DEFAULT_QUEUES) -> str:
        """Enter an incarnation; its lock is held until it is unregistered or this process dies."""
        values.name(name, "consumer")
        number = uuid.uuid4()
        identity, presence = str(number), number.int >> 65
        self._listening().hold(presence)
        self._session.execute(
            sql.REGISTER,
            {
                "id": identity,
                "name": name,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "queues": json.dumps(list(queues)),
                "now": self._clocks["now"],
                "presence": presence,
            },
        )
        self._incarnations[name] = identity
        self._presences[identity] = presence
        return identity

    def beat_consumer(self, consumer_id: str, doing: str) -> bool:
        """Store what the consumer does; True when it is asked to stop."""
        session = self._session
        rows = session.rows(
            sql.BEAT,
            self._clocks
            | {
                "id": consumer_id,
                "doing": values.storable(doing)[:500],
                "alone": not session.in_transaction,
            },
        )
        return bool(rows and rows[0][0])

    def unregister_consumer(self, consumer_id: str) -> None:
        """Mark the consumer as ended and drop its presence."""
        self._session.execute(
            "update consumers set ended_at = :now, doing = '' where id = :id and ended_at is null",
            {"now": self._now(), "id": consumer_id},
        )
        presence = self._presences.pop(consumer_id, None)
        if presence is not None:
            self._listening().drop(presence)
        self._incarnations = {name: id_ for name, id_ in self._incarnations.items() if id_ != consumer_id}

    # -- people -----------------------------------------------------------------------------------

    def get(self, job: Job | int) -> Job:
        """The job as it is now; within a transaction locked, so that what is decided on it still holds."""
        if not self._session.in_transaction:
            return super().get(job)
        id_ = values.job_id(job)
        found = self._read(f"{statements.GET} for update", {"id": id_})
        return found[0] if found else super().get(id_)

    def resubmit(self, job: Job | int, *, reason: str | None = None, by: str | None = None) -> Job:
        """As ever; a twin that came in between is met by the index, and then named."""
        try:
            return super().resubmit(job, reason=reason, by=by)
        except StorageError as error:
            if getattr(error, "code", "") != UNIQUE_VIOLATION:
                raise
        return super().resubmit(job, reason=reason, by=by)

    def _fit_group(self, session: Any, group: str | None) -> None:
        if group is not None:
            session.execute("select pq.fit(:group)", {"group": group})

    def _forget_buckets(self, session: Any, minute: int) -> None:
        session.execute("delete from pq.bucket_totals where minute < :minute", {"minute": minute})
        session.execute("delete from pq.bucket_deltas where minute < :minute", {"minute": minute})
