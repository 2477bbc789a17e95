"""The contract of a queue, complete in this one file; every backend passes tests/test_contract.py."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from pq.job import Attempt, Job, NewJob, Status
from pq.records import Action, Bucket, Consumer, Count, GroupLimit, Outcome, QueueState

if TYPE_CHECKING:
    import builtins
    import os
    import threading
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime
    from pathlib import Path

    import pandas as pd

    from pq.listing import Order
    from pq.records import Settled

LEASE, READ_SECONDS = timedelta(seconds=30), 5.0
DEFAULT_QUEUES = ("default",)
NO_PARAMETERS: Mapping[str, Any] = {}


class PersistentQInterface(ABC):
    """A durable queue of jobs. Safe to use from several threads; not across a fork without reopening.

    A write that returned has survived a crash of the process and a power cut. `job` may be a Job or an
    id where a person acts; where a consumer acts it is the Job that `dequeue` gave, with its token:
    another token, or a status other than processing, raises LeaseLostError and changes nothing.
    """

    url: str
    """Where the queue lives, as `pq.connect` takes it, without a password."""
    folder: Path
    """The folder of inbox/, processed/, runs/ and logs/: the database file's own."""

    # -- a producer -------------------------------------------------------------------------------

    def enqueue(
        self,
        task: str,
        parameters: Mapping[str, Any] = NO_PARAMETERS,
        *,
        queue: str = "default",
        priority: int = 0,
        delay: timedelta | float | None = None,
        due_at: datetime | None = None,
        max_attempts: int | None = None,
        timeout: timedelta | float | None = None,
        unique_key: str | None = None,
        tags: Sequence[str] = (),
        group: str | None = None,
    ) -> Job:
        """Store a job as pending, scheduled (due later) or blocked (a full group); higher priority first.
        `max_attempts` None means the setting MAX_ATTEMPTS (3). Where an unfinished job has the same
        `unique_key`, that one is returned with `existed` True. Raises InvalidJobError, StorageError.
        """
        new = NewJob(
            task,
            parameters,
            queue=queue,
            priority=priority,
            delay=delay,
            due_at=due_at,
            max_attempts=max_attempts,
            timeout=timeout,
            unique_key=unique_key,
            tags=tags,  # type: ignore[arg-type]  # checked and made a tuple below
            group=group,
        )
        return self.enqueue_many([new])[0]

    def enqueue_notebook(
        self, path: str | os.PathLike[str], parameters: Mapping[str, Any] = NO_PARAMETERS, **options: Any
    ) -> Job:
        """Store a job that runs a notebook; the options are those of `enqueue`, and those of a run.
        Raises InvalidJobError for what does not fit its parameters cell, NotebookError where there is none.
        """
        from pq.notebook.job import enqueue_notebook

        return enqueue_notebook(self, path, parameters, **options)

    @abstractmethod
    def enqueue_many(self, jobs: Sequence[NewJob]) -> list[Job]:
        """Store all of the jobs, or none, in one transaction; the answer is in their order."""

    # -- a consumer -------------------------------------------------------------------------------

    def dequeue(
        self, consumer: str, queues: Sequence[str] = DEFAULT_QUEUES, lease: timedelta = LEASE
    ) -> Job | None:
        """Take the next pending job into processing under a lease, or return None.

        Jobs assigned to it come first, then the highest priority, then the oldest; queues in their order.
        """
        jobs = self.dequeue_many(consumer, 1, queues, lease)
        return jobs[0] if jobs else None

    @abstractmethod
    def dequeue_many(
        self,
        consumer: str,
        limit: int,
        queues: Sequence[str] = DEFAULT_QUEUES,
        lease: timedelta = LEASE,
    ) -> list[Job]:
        """Take up to `limit` pending jobs into processing, in one transaction."""

    @abstractmethod
    def heartbeat(
        self,
        job: Job,
        *,
        progress: float | None = None,
        message: str | None = None,
        lease: timedelta = LEASE,
    ) -> None:
        """Extend the lease, and store the progress (0 to 1) and a line on it where given.

        Raises CancelRequestedError when a person wants the job stopped.
        """

    @abstractmethod
    def heartbeat_many(self, jobs: Sequence[Job], lease: timedelta = LEASE) -> None:
        """Extend those of the leases that are still held; `standing` tells which are not."""

    @abstractmethod
    def standing(self, jobs: Sequence[Job]) -> dict[int, str]:
        """For each job's id: live, cancel (a person wants it stopped) or lost. Only reads."""

    def complete(self, job: Job, result: Any = None) -> None:
        """Leave processing for completed, with a JSON result; a repeat with the same token is accepted."""
        self._settle_one(Outcome(job, "completed", result=result))

    def fail(
        self,
        job: Job,
        error: BaseException | str,
        *,
        retry: bool = True,
        delay: timedelta | None = None,
    ) -> None:
        """Leave processing for scheduled while attempts are left, else for failed.

        `delay` replaces the back-off. A job that was asked to cancel becomes cancelled.
        """
        self._settle_one(Outcome(job, "failed", error=error, retry=retry, delay=delay))

    def release(self, job: Job) -> None:
        """Leave processing for pending, or blocked above its limit, and give the attempt back."""
        self._settle_one(Outcome(job, "released"))

    def snooze(self, job: Job, delay: timedelta) -> None:
        """Leave processing for scheduled, due after `delay`, and give the attempt back."""
        self._settle_one(Outcome(job, "snoozed", delay=delay))

    def _settle_one(self, outcome: Outcome) -> None:
        from pq.errors import LeaseLostError

        if self.settle([outcome]).lost:
            raise LeaseLostError(
                f"job {outcome.job.id} is no longer leased with token {outcome.job.token}: "
                "it was rescued, assigned, finished or deleted; stop working on it"
            )

    @abstractmethod
    def settle(
        self,
        outcomes: Sequence[Outcome],
        *,
        consumer: str | None = None,
        limit: int = 0,
        queues: Sequence[str] = DEFAULT_QUEUES,
        lease: timedelta = LEASE,
    ) -> Settled:
        """End several tries and take up to `limit` next jobs for `consumer`, in one durable transaction.

        Lost leases do not stop the others; they are in the answer.
        """

    @abstractmethod
    def rescue(self, *, expired: bool = True) -> list[Job]:
        """Take back jobs whose lease ran out or whose consumer died: like `fail`, with that error.

        With `expired` False only those of dead consumers and of an earlier boot: who was stopped itself
        for long first lets the living extend their leases.
        """

    @abstractmethod
    def wait_for_work(self, timeout: timedelta, stop: threading.Event | None = None) -> bool:
        """Sleep until `stop`, `timeout`, or there may be work (True): a write, or a scheduled job is due."""

    @abstractmethod
    def register_consumer(self, name: str, queues: Sequence[str] = DEFAULT_QUEUES) -> str:
        """Enter an incarnation, return its uuid; its jobs are kept while this process lives, then rescued."""

    @abstractmethod
    def beat_consumer(self, consumer_id: str, doing: str) -> bool:
        """Store what the consumer does now; True when somebody asked it to stop."""

    @abstractmethod
    def unregister_consumer(self, consumer_id: str) -> None:
        """Mark the consumer as ended; jobs that it still holds are taken back by the next `rescue`."""

    @abstractmethod
    def stop_consumer(self, name: str, *, reason: str | None = None, by: str | None = None) -> int:
        """Ask all live consumers of this name (or uuid) to stop gracefully; returns how many."""

    # -- looking ----------------------------------------------------------------------------------

    @abstractmethod
    def get(self, job: Job | int) -> Job:
        """The job as it is now. Raises JobNotFoundError."""

    @abstractmethod
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
        """Jobs, newest first; the next page is `after` the last one.
        `search` is `id:7`, or text within parameters, error, task or key. Other orders: `oldest`; `finished`,
        latest first; `due`, the scheduled ones; `priority`, the pending ones, highest first. The finishing
        time is from `finished_after` on, and before `finished_before`. At most `within` jobs from `after` on
        are looked at: 100,000 when searching. Where `after` is an id and the order is no longer that job's,
        JobNotFoundError or InvalidJobError says so; a Job knows its place by itself.
        """

    def pending(self, limit: int = 50) -> builtins.list[Job]:
        """The newest pending jobs."""
        return self.list(status=Status.PENDING, limit=limit)

    def failed(self, limit: int = 50) -> builtins.list[Job]:
        """The newest failed jobs."""
        return self.list(status=Status.FAILED, limit=limit)

    def counts(self, *, queue: str | None = None, task: str | None = None) -> dict[str, int]:
        """Jobs by status, every status present."""
        totals: dict[str, int] = {status.value: 0 for status in Status}
        for count in self.counters():
            if queue in (None, count.queue) and task in (None, count.task):
                totals[count.status.value] += count.jobs
        return totals

    @abstractmethod
    def counters(self) -> builtins.list[Count]:
        """Jobs by queue, task and status; as quick at a million jobs as at ten."""

    @abstractmethod
    def buckets(self, since: datetime, until: datetime | None = None, step: int = 1) -> builtins.list[Bucket]:
        """What ended per minute, or summed over steps of several minutes, for charts, oldest first."""

    @abstractmethod
    def queues(self) -> builtins.list[QueueState]:
        """All queues that have jobs or are paused."""

    @abstractmethod
    def group_limits(self) -> builtins.list[GroupLimit]:
        """The groups that have a limit, by name; quick while few of a group wait."""

    @abstractmethod
    def attempts(self, job: Job | int) -> builtins.list[Attempt]:
        """The ended tries of a job, oldest first."""

    @abstractmethod
    def consumers(self, *, ended: bool = False) -> builtins.list[Consumer]:
        """Live consumers by name, and with `ended` the last hundred that are gone."""

    @abstractmethod
    def actions(self, job: Job | int | None = None, limit: int = 100) -> builtins.list[Action]:
        """What people did, newest first."""

    @abstractmethod
    def wait(self, job: Job | int, timeout: timedelta | float | None = None) -> Job:
        """Sleep until the job has finished and return it. Raises WaitTimeoutError."""

    def frame(self, *, limit: int | None = None, **filters: Any) -> pd.DataFrame:
        """Jobs as a DataFrame, filtered and in the order that `list` is asked for.

        Columns: id (int64, the index); task, queue, status, consumer, group, error, message (str);
        priority, attempt, max_attempts (int64); progress (float64); parameters, result, tags (object);
        due_at, created_at, started_at, finished_at (datetime64, UTC).
        """
        from pq.stats import frame

        return frame(self, limit=limit, **filters)

    # -- a person ---------------------------------------------------------------------------------
    # Each of these records who (`by`, else the user of this process), when, from which status to
    # which, and the reason; each raises JobNotFoundError, or TransitionError with what to do instead.

    @abstractmethod
    def cancel(self, job: Job | int, *, reason: str | None = None, by: str | None = None) -> Job:
        """Leave any unfinished status for cancelled; a processing job is first stopped by its consumer."""

    @abstractmethod
    def resubmit(self, job: Job | int, *, reason: str | None = None, by: str | None = None) -> Job:
        """Leave a finished status for pending or blocked, with one more attempt at least; history stays.

        Raises DuplicateJobError naming the unfinished job that has the same unique key.
        """

    @abstractmethod
    def mark_failed(self, job: Job | int, reason: str, *, by: str | None = None) -> Job:
        """Leave any status but completed and failed for failed; a running consumer loses its lease."""

    @abstractmethod
    def assign(
        self, job: Job | int, consumer: str | None, *, reason: str | None = None, by: str | None = None
    ) -> Job:
        """Let only `consumer` take the unfinished job next (None: any); a running one loses its lease."""

    @abstractmethod
    def delete(self, job: Job | int, *, reason: str | None = None, by: str | None = None) -> None:
        """Remove a job that is not processing, with its attempts and values; its id is not used again."""

    @abstractmethod
    def delete_all(self, *, reason: str | None = None, by: str | None = None) -> int:
        """Remove every job, running ones too (they lose their lease); returns how many."""

    @abstractmethod
    def prune(self, older_than: timedelta) -> int:
        """Remove finished jobs, ended consumers and buckets older than that; returns how many jobs."""

    @abstractmethod
    def pause(self, queue: str, reason: str | None = None, *, by: str | None = None) -> None:
        """Stop handing out jobs of this queue; running ones go on."""

    @abstractmethod
    def resume(self, queue: str, reason: str | None = None, *, by: str | None = None) -> None:
        """Hand out jobs of this queue again."""

    @abstractmethod
    def limit_group(
        self, group: str, max_running: int | None, *, reason: str | None = None, by: str | None = None
    ) -> None:
        """Let at most that many jobs of the group be pending or processing; the others wait blocked.
        When one leaves, the blocked job with the highest priority, of these the oldest, becomes pending.
        A scheduled job takes no part until it is due. A lower limit blocks pending jobs, a running one
        only if it is given back. None lifts the limit. It holds for jobs to come.
        """

    # -- the queue itself -------------------------------------------------------------------------

    @abstractmethod
    def transaction(self) -> AbstractContextManager[Any]:
        """`with queue.transaction() as db:` makes all calls within one durable transaction.
        `db` is the backend's own handle (sqlite_utils.Database), for tables of your own beside the
        jobs. An exception undoes everything. Keep it short: all other writers wait.
        """

    @abstractmethod
    def reader(self) -> PersistentQInterface:
        """The same queue to look at: the database refuses every write, and ends a read after 5 seconds."""

    @abstractmethod
    def setting(self, name: str, default: str | None = None) -> str | None:
        """A value that processes share through the queue, such as a producer's interval."""

    @abstractmethod
    def set_setting(self, name: str, value: str) -> None:
        """Store a shared value."""

    @abstractmethod
    def backup(self, path: str) -> None:
        """Write a consistent copy while work goes on. Raises StorageError where the path exists."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back; a closed queue raises StorageError."""

    def __enter__(self) -> Self:
        return self

    def _repr_html_(self) -> str:
        from pq.showing import queue_html

        return queue_html(self)

    def __exit__(self, *error: object) -> None:
        self.close()
