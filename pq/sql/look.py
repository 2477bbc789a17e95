"""What people and pages see: jobs, counts, attempts, consumers, actions."""

import builtins
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from pq import values
from pq.errors import JobNotFoundError, StorageError
from pq.interface import PersistentQInterface
from pq.job import Attempt, Job, Status
from pq.listing import Order, asked, sort_key
from pq.records import Action, Bucket, Consumer, Count, GroupLimit, QueueState
from pq.sql import listing, statements
from pq.sql import rows as to
from pq.sql.session import Session
from pq.values import to_datetime

LARGEST_ID = 2**63 - 1
MOST_CONSUMERS, MOST_LIVE = 100, 10_000


class Looking(PersistentQInterface):
    """Reads: each one short and complete, because a reader that lingers keeps others from tidying up."""

    filters: ClassVar[Mapping[str, str]] = statements.FILTERS
    with_index: ClassVar[str] = "jobs"
    """How a statement names the table and the index to be read; the server chooses by itself."""

    # -- what a backend gives -----------------------------------------------------------------------

    @property
    @abstractmethod
    def _session(self) -> Session:
        """The thread's session."""

    @abstractmethod
    def _now(self) -> float:
        """The wall clock that all times of the queue are read from."""

    @abstractmethod
    def _present(self, identities: Sequence[str]) -> Collection[str]:
        """Those of the consumers whose presence lock is held."""

    def _apart(self, _ids: Sequence[int]) -> Mapping[tuple[int, str], str]:
        """The values that stand apart from their rows; none where the database does that by itself."""
        return {}

    # -- the verbs ----------------------------------------------------------------------------------

    def get(self, job: Job | int) -> Job:
        """The job as it is now."""
        id_ = values.job_id(job)
        found = self._read(statements.GET, {"id": id_})
        if not found:
            raise JobNotFoundError(f"there is no job {id_}")
        return found[0]

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
        """Jobs by keyset pages; see pq/sql/listing.py."""
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
        found: dict[int, Job] = {}  # one that changes its status between two reads is found by both
        for statement, parameters in listing.statements(page, self.filters, self.with_index):
            found |= {job.id: job for job in self._read(statement, parameters)}
        return sorted(found.values(), key=sort_key(order))[: page.limit]

    def _read(self, statement: str, parameters: Mapping[str, Any]) -> builtins.list[Job]:
        """Jobs as they are at one moment."""
        return self._jobs(self._session.rows(statement, parameters))

    def counters(self) -> builtins.list[Count]:
        """Jobs by queue, task and status, from the counters that triggers keep."""
        rows = self._session.rows("select queue, task, status, jobs from counters where jobs > 0")
        return [Count(queue, task, Status(status), jobs) for queue, task, status, jobs in rows]

    def buckets(self, since: datetime, until: datetime | None = None, step: int = 1) -> builtins.list[Bucket]:
        """What ended per minute, or summed over steps of several, oldest first."""
        rows = self._session.rows(
            statements.BUCKETS,
            {
                "since": int(values.moment(since, "since") // 60),
                "until": LARGEST_ID if until is None else int(values.moment(until, "until") // 60),
                "step": values.whole(step, "step", least=1),
            },
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
            oldest = rows(statements.OLDEST_PENDING, {"queue": name})[0][0]
            answer.append(QueueState(name, to_datetime(at), reason, to_datetime(oldest)))
        return answer

    def group_limits(self) -> builtins.list[GroupLimit]:
        """The groups that have a limit, by name."""
        return [GroupLimit(*row) for row in self._session.rows(statements.LIMITS)]

    def attempts(self, job: Job | int) -> builtins.list[Attempt]:
        """The ended tries of a job, oldest first."""
        rows = self._session.rows(
            "select job_id, attempt, outcome, consumer, started_at, finished_at, error, traceback "
            "from attempts where job_id = :id order by token",
            {"id": self.get(job).id},
        )
        return [to.to_attempt(row) for row in rows]

    def consumers(self, *, ended: bool = False) -> builtins.list[Consumer]:
        """Live consumers by name, and with `ended` the latest that are gone."""
        rows = self._session.rows(
            statements.CONSUMERS,
            {"ended": int(ended), "limit": MOST_CONSUMERS if ended else MOST_LIVE},
        )
        present = self._present([row[0] for row in rows if row[9] is None])
        return [to.to_consumer(row, alive=row[0] in present) for row in rows]

    def actions(self, job: Job | int | None = None, limit: int = 100) -> builtins.list[Action]:
        """What people did, newest first."""
        limit = values.whole(limit, "limit", least=1)
        if job is None:
            rows = self._session.rows(statements.ACTIONS, {"limit": limit})
        else:
            rows = self._session.rows(statements.ACTIONS_OF, {"id": values.job_id(job), "limit": limit})
        return [to.to_action(row) for row in rows]

    def _jobs(self, rows: Sequence[Any], *, existed: bool = False) -> builtins.list[Job]:
        """Rows as jobs, with the large values that stand apart from them."""
        ids = [row[0] for row in rows if row[-1]]
        large = self._apart(ids) if ids else {}
        try:
            return [to.to_job(row, large, existed=existed) for row in rows]
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise StorageError(
                f"cannot read a job of {self.url}: its row is damaged; restore a backup"
            ) from error
