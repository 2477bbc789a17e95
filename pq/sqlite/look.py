"""What people and pages see: jobs, counts, attempts, consumers, actions."""

import builtins
import json
from collections.abc import Sequence
from datetime import datetime, timedelta

from pq import values
from pq.errors import JobNotFoundError, WaitTimeoutError
from pq.job import FINISHED, Attempt, Job, Status
from pq.listing import Order, asked, sort_key
from pq.records import Action, Bucket, Consumer, Count, QueueState
from pq.sqlite import listing, presence, sql
from pq.sqlite.work import Working
from pq.values import to_datetime

LARGEST_ID = 2**63 - 1
MOST_CONSUMERS, MOST_LIVE = 100, 10_000


class Looking(Working):
    """Reads: each one short and complete, because a reader that lingers keeps the WAL from shrinking."""

    def get(self, job: Job | int) -> Job:
        """The job as it is now."""
        session, id_ = self._session, values.job_id(job)
        rows = session.rows(sql.GET, (id_,))
        if not rows:
            raise JobNotFoundError(f"there is no job {id_}")
        return self._jobs(session, rows)[0]

    def list(
        self,
        *,
        status: str | Sequence[str] | None = None,
        queue: str | None = None,
        task: str | None = None,
        consumer: str | None = None,
        tag: str | None = None,
        group: str | None = None,
        search: str | None = None,
        order: Order = "newest",
        finished_after: datetime | None = None,
        finished_before: datetime | None = None,
        after: Job | int | None = None,
        within: int | None = None,
        limit: int = 50,
    ) -> builtins.list[Job]:
        """Jobs by keyset pages; see pq/sqlite/listing.py."""
        page = asked(
            self.get,
            status=status,
            search=search,
            order=order,
            finished_after=finished_after,
            finished_before=finished_before,
            after=after,
            within=within,
            limit=limit,
            queue=queue,
            task=task,
            consumer=consumer,
            tag=tag,
            group=group,
        )
        session = self._session
        rows = [row for statement in listing.statements(page) for row in session.rows(*statement)]
        return sorted(self._jobs(session, rows), key=sort_key(order))[: page.limit]

    def counters(self) -> builtins.list[Count]:
        """Jobs by queue, task and status, from the counters that triggers keep."""
        rows = self._session.rows("select queue, task, status, jobs from counters where jobs > 0")
        return [Count(queue, task, Status(status), jobs) for queue, task, status, jobs in rows]

    def buckets(self, since: datetime, until: datetime | None = None) -> builtins.list[Bucket]:
        """What ended per minute, oldest first."""
        rows = self._session.rows(
            "select * from buckets where minute between ? and ? order by minute",
            (
                int(values.moment(since, "since") // 60),
                LARGEST_ID if until is None else int(values.moment(until, "until") // 60),
            ),
        )
        return [Bucket(to_datetime(row[0] * 60.0), *row[1:]) for row in rows]

    def queues(self) -> builtins.list[QueueState]:
        """All queues that have jobs or are paused, by name."""
        rows = self._session.rows
        paused = {
            name: (at, reason) for name, at, reason in rows("select name, paused_at, reason from queues")
        }
        names = {row[0] for row in rows("select distinct queue from counters where jobs > 0")}
        answer = []
        for name in sorted(names | paused.keys()):
            at, reason = paused.get(name, (None, None))
            oldest = rows(sql.OLDEST_PENDING, {"queue": name})[0][0]
            answer.append(QueueState(name, to_datetime(at), reason, to_datetime(oldest)))
        return answer

    def attempts(self, job: Job | int) -> builtins.list[Attempt]:
        """The ended tries of a job, oldest first."""
        rows = self._session.rows(
            "select job_id, attempt, outcome, consumer, started_at, finished_at, error, traceback "
            "from attempts where job_id = ? order by token",
            (self.get(job).id,),
        )
        return [sql.to_attempt(row) for row in rows]

    def consumers(self, *, ended: bool = False) -> builtins.list[Consumer]:
        """Live consumers by name, and with `ended` the latest that are gone."""
        rows = self._session.rows(
            "select id, name, host, pid, queues, started_at, heartbeat_at, doing, stop_requested, ended_at "
            "from consumers where ended_at is null or ? "
            "order by ended_at is not null, ended_at desc, name, started_at limit ?",
            (ended, MOST_CONSUMERS if ended else MOST_LIVE),
        )
        return [
            Consumer(
                id=row[0],
                name=row[1],
                host=row[2],
                pid=row[3],
                queues=tuple(json.loads(row[4])),
                started_at=to_datetime(row[5]),
                heartbeat_at=to_datetime(row[6]),
                doing=row[7],
                stop_requested=bool(row[8]),
                ended_at=to_datetime(row[9]),
                alive=row[9] is None and presence.alive(self._presence_path(row[0])),
            )
            for row in rows
        ]

    def actions(self, job: Job | int | None = None, limit: int = 100) -> builtins.list[Action]:
        """What people did, newest first."""
        columns = "select id, at, who, verb, job_id, target, from_status, to_status, reason from actions"
        limit = values.whole(limit, "limit", least=1)
        if job is None:
            rows = self._session.rows(f"{columns} order by id desc limit ?", (limit,))
        else:
            rows = self._session.rows(
                f"{columns} where job_id = ? order by id desc limit ?", (values.job_id(job), limit)
            )
        return [
            Action(id_, to_datetime(at), who, verb, job_id, target, _status(before), _status(after), reason)
            for id_, at, who, verb, job_id, target, before, after, reason in rows
        ]

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


def _status(value: str | None) -> Status | None:
    return None if value is None else Status(value)
