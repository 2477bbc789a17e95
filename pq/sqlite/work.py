"""What producers and consumers do: enqueue, claim, heartbeat, settle, rescue, wait."""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from pq import values
from pq.errors import CancelRequestedError, LeaseLostError, WaitTimeoutError
from pq.interface import DEFAULT_QUEUES, LEASE
from pq.job import FINISHED, Job, NewJob
from pq.records import Outcome, Settled
from pq.sql.act import Acting
from pq.sql.rows import checked_progress, checked_result, new_row, to_standing
from pq.sql.statements import TWIN
from pq.sqlite import presence, sql
from pq.sqlite.ends import INLINE_LENGTH, Ends
from pq.sqlite.session import Session
from pq.sqlite.store import Store

QUICK_POLL_SECONDS, IDLE_POLL_SECONDS = 0.005, 0.012


class PersistentQSQLite(Store, Acting):
    """The queue in one SQLite file, by way of sqlite-utils."""

    filters = sql.FILTERS
    with_index = "jobs indexed by {index}"

    def enqueue_many(self, jobs: Sequence[NewJob]) -> list[Job]:
        """Store all of the jobs, or none, in one durable transaction."""
        now = self.clock.now()
        rows = [new_row(job, now, self.settings.max_attempts) for job in jobs]
        self.check_space()
        session = self._session
        with session.write():
            return [self._insert(session, row) for row in rows]

    def _insert(self, session: Session, row: dict[str, Any]) -> Job:
        if row["unique_key"] is not None:
            twins = session.execute(TWIN, {"unique_key": row["unique_key"]}).fetchall()
            if twins:
                return self._jobs(twins, existed=True)[0]
        parameters = row["parameters"]
        is_large = len(parameters) > INLINE_LENGTH
        stored = session.execute(
            sql.INSERT, row | {"parameters": None if is_large else parameters, "large": int(is_large)}
        ).fetchall()
        if is_large:
            session.execute(sql.PUT_VALUE, (stored[0][0], "parameters", parameters))
        return self._jobs(stored)[0]

    def _read(self, statement: str, parameters: Mapping[str, Any]) -> list[Job]:
        """Jobs and their large values as they are at one moment, though they stand in two tables."""
        with self._session.snapshot():
            return super()._read(statement, parameters)

    def _apart(self, ids: Sequence[int]) -> Mapping[tuple[int, str], str]:
        """The large values of these jobs."""
        rows = self._session.rows(sql.VALUES, (json.dumps(ids),))
        return {(id_, name): value for id_, name, value in rows}

    def _forget_result(self, session: Any, id_: int) -> None:
        session.execute("delete from job_values where job_id = ? and name = 'result'", (id_,))

    def _fit_group(self, session: Any, group: str | None) -> None:
        if group is not None:
            session.execute(sql.TURN_OUT, {"group": group})
            session.execute(sql.ADMIT, {"group": group})

    def _now(self) -> float:
        return self.clock.now()

    def _present(self, identities: Sequence[str]) -> Collection[str]:
        return {one for one in identities if presence.alive(self._presence_path(one))}

    # -- taking -----------------------------------------------------------------------------------

    def dequeue_many(
        self, consumer: str, limit: int, queues: Sequence[str] = DEFAULT_QUEUES, lease: timedelta = LEASE
    ) -> list[Job]:
        """Take up to `limit` pending jobs; the claim is not synced, losing it in a power cut is harmless."""
        values.name(consumer, "consumer")
        values.names(queues, "queue")
        limit = values.whole(limit, "limit", least=1)
        lease_seconds = values.seconds(lease, "lease", positive=True)
        session = self._session
        if not session.in_transaction:
            session.seen_version = session.data_version()
        if not self._may_have_work(session, consumer, queues):
            return []
        with session.write(durable=False):
            return self._claim(session, consumer, limit, queues, lease_seconds)

    def _may_have_work(self, session: Session, consumer: str, queues: Iterable[str]) -> bool:
        """A look without the gate: idle consumers must not stand in the writers' way."""
        if session.rows(sql.ANY_DUE, (self.clock.now(),)):
            return True
        return any(session.rows(sql.ANY_READY, {"queue": queue, "consumer": consumer}) for queue in queues)

    def _claim(
        self, session: Session, consumer: str, limit: int, queues: Sequence[str], lease_seconds: float
    ) -> list[Job]:
        now = self.clock.now()
        if session.execute(sql.ANY_DUE, (now,)).fetchall():
            promoted = session.execute(sql.PROMOTE, (now,)).fetchall()
            for group in {group for (group,) in promoted if group is not None}:
                session.execute(sql.ADMIT, {"group": group})
        rows: list[Any] = []
        parameters: dict[str, Any] = {
            "consumer": consumer,
            "incarnation": self._incarnations.get(consumer),
            "lease_until": self.clock.monotonic() + lease_seconds,
            "now": now,
        }
        for queue in queues:
            room = limit - len(rows)
            parameters |= {"queue": queue, "limit": room}
            taken = session.execute(sql.CLAIM if room > 1 else sql.CLAIM_ONE, parameters).fetchall()
            # RETURNING has no order: assigned first, then priority, then age.
            taken.sort(key=lambda row: (row[9] is None, -row[4], row[0]))
            rows += taken
            if len(rows) >= limit:
                break
        return self._jobs(rows)

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
        with session.write(durable=False):
            rows = session.execute(
                sql.HEARTBEAT,
                {
                    "id": job.id,
                    "token": job.token,
                    "lease_until": self.clock.monotonic() + values.seconds(lease, "lease", positive=True),
                    "progress": checked_progress(progress),
                    "message": None if message is None else values.storable(message)[: values.ERROR_LENGTH],
                },
            ).fetchall()
        if not rows:
            raise LeaseLostError(
                f"job {job.id} is no longer leased with token {job.token}; stop working on it"
            )
        if rows[0][0]:
            raise CancelRequestedError(f"job {job.id} is to be cancelled; stop and fail it")

    def heartbeat_many(self, jobs: Sequence[Job], lease: timedelta = LEASE) -> None:
        """Extend those of the leases that are still held."""
        until = self.clock.monotonic() + values.seconds(lease, "lease", positive=True)
        session = self._session
        with session.write(durable=False):
            session.connection.executemany(sql.EXTEND, [(until, job.id, job.token) for job in jobs])

    def standing(self, jobs: Sequence[Job]) -> dict[int, str]:
        """For each job's id: live, cancel or lost."""
        rows = self._session.rows(sql.STANDING, (json.dumps([job.id for job in jobs]),))
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
        """End tries and take the next jobs in one durable transaction."""
        results = [checked_result(outcome) for outcome in outcomes]
        lease_seconds = values.seconds(lease, "lease", positive=True)
        session = self._session
        waits_later = limit and not session.in_transaction
        with session.write(durable=bool(outcomes)):
            if waits_later:
                # Within the transaction, where nobody else commits; a look of its own costs more.
                session.seen_version = session.data_version()
            lost = self._end_tries(session, outcomes, results) if outcomes else []
            taken: list[Job] = []
            if limit and consumer is not None:
                taken = self._claim(session, consumer, limit, queues, lease_seconds)
        return Settled(taken, lost)

    def _end_tries(
        self, session: Session, outcomes: Sequence[Outcome], results: list[str | None]
    ) -> list[Job]:
        """Write the outcomes whose lease is live; the jobs of the others."""
        ids = [outcome.job.id for outcome in outcomes]
        found = (
            session.execute(sql.LEASE, ids)
            if len(ids) == 1
            else session.execute(sql.LEASES, (json.dumps(ids),))
        )
        leases = {row[0]: row for row in found.fetchall()}
        ends = Ends(self.clock.now())
        lost = ends.settle(outcomes, results, leases)
        ends.write(session)
        return lost

    def rescue(self, *, expired: bool = True) -> list[Job]:
        """Take back jobs of dead consumers and, with `expired`, jobs whose lease ran out."""
        session = self._session
        dead = [
            identity
            for (identity,) in session.rows("select id from consumers where ended_at is null")
            if not presence.alive(self._presence_path(identity))
        ]
        # Leases of an earlier boot end at -1; all others are positive.
        overdue = {"monotonic": self.clock.monotonic() if expired else 0.0, "dead": json.dumps(dead)}
        if not dead and not session.rows(sql.OVERDUE, overdue):
            return []
        with session.write():
            # Looked at again inside the gate: a heartbeat may have come first.
            died = dict(session.execute(sql.OVERDUE, overdue).fetchall())
            ids = json.dumps(list(died))
            ends = Ends(self.clock.now())
            for lease in session.execute(sql.LEASES, (ids,)).fetchall():
                ends.add_overdue(lease, died=bool(died[lease[0]]))
            ends.write(session)
            # A dead consumer with more jobs than one look takes back is looked at again.
            ended = dead if len(died) < sql.OVERDUE_LIMIT else []
            for identity in ended:
                session.execute(
                    "update consumers set ended_at = ?, doing = 'died' where id = ? and ended_at is null",
                    (self.clock.now(), identity),
                )
            rescued = self._jobs(session.execute(sql.GET_MANY, (ids,)).fetchall())
        for identity in ended:
            presence.drop(self._presence_path(identity))
        return rescued

    # -- waiting ----------------------------------------------------------------------------------

    def wait_for_work(self, timeout: timedelta, stop: threading.Event | None = None) -> bool:
        """Poll SQLite's data version: 7 microseconds a look, 5 to 12 ms apart."""
        session = self._session
        deadline = time.monotonic() + values.seconds(timeout, "timeout")
        due = session.rows(sql.NEXT_DUE)[0][0]
        pause = QUICK_POLL_SECONDS
        sleep = time.sleep if stop is None else stop.wait
        while True:
            if session.data_version() != session.seen_version:
                return True
            if due is not None and due <= self.clock.now():
                return True
            left = deadline - time.monotonic()
            if left <= 0 or (stop is not None and stop.is_set()):
                return False
            sleep(min(pause, left))
            pause = min(pause * 1.02, IDLE_POLL_SECONDS)

    def wait(self, job: Job | int, timeout: timedelta | float | None = None) -> Job:
        """Sleep until the job has finished; looks again after each commit of anybody."""
        deadline = None if timeout is None else self.clock.monotonic() + values.seconds(timeout, "timeout")
        session = self._session
        while True:
            session.seen_version = session.data_version()
            current = self.get(job)
            if current.status in FINISHED:
                return current
            left = 3600.0 if deadline is None else deadline - self.clock.monotonic()
            if left <= 0:
                raise WaitTimeoutError(f"job {current.id} is still {current.status}")
            # A consumer in another thread of this process commits on a connection of its own.
            self.wait_for_work(timedelta(seconds=min(left, 1.0)))

    # -- consumers --------------------------------------------------------------------------------

    def register_consumer(self, name: str, queues: Sequence[str] = DEFAULT_QUEUES) -> str:
        """Enter an incarnation; its presence lock is held until it is unregistered or this process dies."""
        values.name(name, "consumer")
        identity = str(uuid.uuid4())
        presence.hold(self._presence_path(identity))
        session, now = self._session, self.clock.now()
        with session.write():
            session.execute(
                "insert into consumers (id, name, host, pid, queues, started_at, heartbeat_at) "
                "values (?, ?, ?, ?, ?, ?, ?)",
                (identity, name, socket.gethostname(), os.getpid(), json.dumps(list(queues)), now, now),
            )
        self._incarnations[name] = identity
        return identity

    def beat_consumer(self, consumer_id: str, doing: str) -> bool:
        """Store what the consumer does; True when it is asked to stop."""
        session = self._session
        with session.write(durable=False):
            rows = session.execute(
                "update consumers set heartbeat_at = ?, doing = ? where id = ? returning stop_requested",
                (self.clock.now(), values.storable(doing)[:500], consumer_id),
            ).fetchall()
        return bool(rows and rows[0][0])

    def unregister_consumer(self, consumer_id: str) -> None:
        """Drop its presence; the rescue that takes the jobs which it leaves behind enters it as ended."""
        try:
            session = self._session
            with session.write():
                session.execute(sql.UNREGISTER, {"now": self.clock.now(), "consumer": consumer_id})
        finally:  # the next rescue takes back what it could not give back
            presence.drop(self._presence_path(consumer_id))
            self._incarnations = {name: id_ for name, id_ in self._incarnations.items() if id_ != consumer_id}
