"""What a person does: cancel, resubmit, mark failed, assign, delete, pause, limit; each one recorded."""

from abc import abstractmethod
from datetime import timedelta
from typing import Any

from pq import values
from pq.errors import DuplicateJobError
from pq.job import FINISHED, Job, Status, check_transition
from pq.sql import statements
from pq.sql.look import Looking
from pq.sql.session import Session

PRUNE_CHUNK = 1_000


class Acting(Looking):
    """What people do, in one transaction each; within an open one as a part of it."""

    actor: str
    """Who acts where nobody is named: the user of this process."""

    def _forget_result(self, session: Session, id_: int) -> None:
        """Remove a result that stands apart from its row."""

    def _forget_buckets(self, session: Session, minute: int) -> None:
        """Remove what ended before that minute."""
        session.execute("delete from buckets where minute < :minute", {"minute": minute})

    @abstractmethod
    def _fit_group(self, session: Session, group: str | None) -> None:
        """Block pending jobs of the group, or let blocked ones in, as its limit says."""

    def cancel(self, job: Job | int, *, reason: str | None = None, by: str | None = None) -> Job:
        """Cancel an unfinished job; a processing one is stopped by its consumer and then cancelled."""
        session = self._session
        with session.write():
            before = self._before("cancel", job)
            if before.status is Status.PROCESSING:
                session.execute("update jobs set cancel_requested = 1 where id = :id", {"id": before.id})
            else:
                self._finish(session, before.id, "cancelled", None)
            return self._recorded("cancel", before, reason, by)

    def resubmit(self, job: Job | int, *, reason: str | None = None, by: str | None = None) -> Job:
        """Make a finished job pending again, with at least one more attempt."""
        session = self._session
        with session.write():
            before = self._before("resubmit", job)
            twins = session.execute(statements.TWIN, {"unique_key": before.unique_key}).fetchall()
            if twins:
                raise DuplicateJobError(
                    f"cannot resubmit job {before.id}: job {twins[0][0]} is {twins[0][3]} "
                    f"with the same unique key {before.unique_key!r}"
                )
            session.execute(statements.RESUBMIT, {"now": self._now(), "id": before.id})
            self._fit_group(session, before.group)
            self._forget_result(session, before.id)
            return self._recorded("resubmit", before, reason, by)

    def mark_failed(self, job: Job | int, reason: str, *, by: str | None = None) -> Job:
        """Fail a job that has not completed; a running consumer loses its lease."""
        session = self._session
        error = values.storable(reason)[: values.ERROR_LENGTH]
        with session.write():
            before = self._before("mark_failed", job)
            self._end_running(session, before, "marked failed", error)
            self._finish(session, before.id, "failed", error)
            return self._recorded("mark_failed", before, reason, by)

    def assign(
        self, job: Job | int, consumer: str | None, *, reason: str | None = None, by: str | None = None
    ) -> Job:
        """Let only `consumer` take the job next; a running one loses its lease first."""
        if consumer is not None:
            values.name(consumer, "consumer")
        session = self._session
        with session.write():
            before = self._before("assign", job)
            self._end_running(session, before, "reassigned", None)
            session.execute(statements.ASSIGN, {"consumer": consumer, "id": before.id})
            self._fit_group(session, before.group)
            return self._recorded("assign", before, reason, by, target=consumer)

    def delete(self, job: Job | int, *, reason: str | None = None, by: str | None = None) -> None:
        """Remove a job that is not processing, with its attempts and values."""
        session = self._session
        with session.write():
            before = self._before("delete", job)
            session.execute("delete from jobs where id = :id", {"id": before.id})
            self._record(session, "delete", by, reason, job_id=before.id, before=before.status)

    def delete_all(self, *, reason: str | None = None, by: str | None = None) -> int:
        """Remove every job that is there now, in chunks, so that others are not kept waiting."""
        session = self._session
        bounds = {
            "newest": session.rows("select coalesce(max(id), 0) from jobs")[0][0],
            "chunk": PRUNE_CHUNK,
        }
        removed, chunk = 0, -1
        while chunk:
            with session.write():
                chunk = session.execute(statements.DELETE_CHUNK, bounds).rowcount
            removed += chunk
        with session.write():
            self._record(session, "delete_all", by, reason, target=f"{removed} jobs")
        return removed

    def prune(self, older_than: timedelta) -> int:
        """Remove finished jobs, ended consumers and buckets older than that."""
        before = self._now() - values.seconds(older_than, "older_than")
        session = self._session
        removed = 0
        for status in FINISHED:
            ids = session.rows(statements.OLD, {"status": status, "before": before})
            for start in range(0, len(ids), PRUNE_CHUNK):
                chunk = [{"id": id_, "before": before} for (id_,) in ids[start : start + PRUNE_CHUNK]]
                with session.write():
                    removed += session.executemany(statements.DELETE_OLD, chunk).rowcount
        with session.write():
            self._forget_buckets(session, int(before // 60))
            session.execute("delete from consumers where ended_at < :before", {"before": before})
            session.execute(statements.FORGET_LIMITS, {"before": before})
        return removed

    def pause(self, queue: str, reason: str | None = None, *, by: str | None = None) -> None:
        """Stop handing out jobs of this queue."""
        values.name(queue, "queue")
        why = None if reason is None else values.storable(reason)[: values.ERROR_LENGTH]
        session = self._session
        with session.write():
            session.execute(statements.PAUSE, {"queue": queue, "now": self._now(), "reason": why})
            self._record(session, "pause", by, reason, target=queue)

    def resume(self, queue: str, reason: str | None = None, *, by: str | None = None) -> None:
        """Hand out jobs of this queue again."""
        values.name(queue, "queue")
        session = self._session
        with session.write():
            session.execute("delete from queues where name = :queue", {"queue": queue})
            self._record(session, "resume", by, reason, target=queue)

    def limit_group(
        self, group: str, max_running: int | None, *, reason: str | None = None, by: str | None = None
    ) -> None:
        """Let at most that many jobs of the group be pending or processing; the others wait blocked."""
        limit = {"group": values.name(group, "group"), "now": self._now()}
        limit["most"] = None if max_running is None else values.whole(max_running, "max_running", least=1)
        session = self._session
        with session.write():
            session.execute(statements.LIFT_LIMIT if max_running is None else statements.SET_LIMIT, limit)
            self._fit_group(session, group)
            target = f"{group}: {'no limit' if max_running is None else f'at most {max_running}'}"
            self._record(session, "limit_group", by, reason, target=target)

    def stop_consumer(self, name: str, *, reason: str | None = None, by: str | None = None) -> int:
        """Ask all live consumers of this name, or the one with this uuid, to stop gracefully."""
        session = self._session
        with session.write():
            asked = session.execute(statements.STOP, {"name": values.storable(name)}).rowcount
            if asked:
                self._record(session, "stop_consumer", by, reason, target=name)
        return int(asked)

    # -- shared by the verbs above ----------------------------------------------------------------

    def _before(self, verb: str, job: Job | int) -> Job:
        """The job within the open transaction, if its status allows the verb."""
        current = self.get(job)
        check_transition(verb, current.id, current.status)
        return current

    def _finish(self, session: Session, id_: int, status: str, error: str | None) -> None:
        session.execute(statements.FINISH, {"id": id_, "status": status, "error": error, "now": self._now()})

    def _end_running(self, session: Session, job: Job, outcome: str, error: str | None) -> None:
        """Close the try that a person takes away from its consumer."""
        if job.status is not Status.PROCESSING or job.started_at is None:
            return
        session.execute(
            statements.INSERT_ATTEMPT,
            {
                "id": job.id,
                "token": job.token,
                "attempt": job.attempt,
                "outcome": outcome,
                "consumer": job.consumer,
                "started_at": job.started_at.timestamp(),
                "now": self._now(),
                "error": error,
                "traceback": None,
            },
        )

    def _recorded(
        self, verb: str, before: Job, reason: str | None, by: str | None, target: str | None = None
    ) -> Job:
        """Enter the action and give the job as it is now."""
        after = self.get(before.id)
        self._record(
            self._session,
            verb,
            by,
            reason,
            job_id=before.id,
            target=target,
            before=before.status,
            after=after.status,
        )
        return after

    def _record(
        self,
        session: Session,
        verb: str,
        by: str | None,
        reason: str | None,
        *,
        job_id: int | None = None,
        target: str | None = None,
        before: Status | None = None,
        after: Status | None = None,
    ) -> None:
        texts: dict[str, Any] = {"who": by or self.actor, "target": target, "reason": reason}
        session.execute(
            "insert into actions (at, who, verb, job_id, target, from_status, to_status, reason) "
            "values (:at, :who, :verb, :job_id, :target, :before, :after, :reason)",
            {"at": self._now(), "verb": verb, "job_id": job_id, "before": before, "after": after}
            | {
                name: None if text is None else values.storable(text)[: values.ERROR_LENGTH]
                for name, text in texts.items()
            },
        )
