"""Every statement on jobs under a name, and how a row becomes a Job."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pq.job import Attempt, Job, Status
from pq.values import to_datetime

COLUMNS = (
    "id, task, queue, status, priority, parameters, tags, job_group, unique_key, assigned_to, due_at, "
    "timeout, max_attempts, attempt, token, consumer, cancel_requested, progress, message, result, error, "
    "created_at, started_at, finished_at, large"
)
LARGE_PARAMETERS, LARGE_RESULT = 1, 2

INSERT = f"""
insert into jobs (task, queue, status, priority, parameters, tags, job_group, unique_key, due_at, timeout,
    max_attempts, created_at, large)
values (:task, :queue, :status, :priority, :parameters, :tags, :group, :unique_key, :due_at, :timeout,
    :max_attempts, :now, :large)
returning {COLUMNS}
"""

TWIN = f"""
select {COLUMNS} from jobs
where unique_key = ? and unique_key is not null
    and status in ('blocked', 'scheduled', 'pending', 'processing')
"""

# `indexed by`: left alone, SQLite reads all scheduled jobs by jobs_status, 20 ms for 100,000 of them.
ANY_DUE = "select 1 from jobs indexed by jobs_due where status = 'scheduled' and due_at <= ? limit 1"

NEXT_DUE = "select min(due_at) from jobs indexed by jobs_due where status = 'scheduled'"

PROMOTE = """
update jobs
set status = 'pending'
where id in (
    select id from jobs indexed by jobs_due
    where status = 'scheduled' and due_at <= ?
    order by due_at
    limit 1000)
"""

ANY_READY = """
select 1 where not exists (select 1 from queues where name = :queue) and (
    exists (select 1 from jobs where status = 'pending' and assigned_to is null and queue = :queue)
    or exists (select 1 from jobs where status = 'pending' and assigned_to = :consumer and queue = :queue))
"""

_CLAIM = f"""
update jobs
set status = 'processing',
    attempt = attempt + 1,
    token = token + 1,
    consumer = :consumer,
    incarnation = :incarnation,
    lease_until = :lease_until,
    started_at = :now,
    progress = null,
    message = null
where id {{}}
    and not exists (select 1 from queues where name = :queue)
returning {COLUMNS}
"""
_ASSIGNED = """
        select id from jobs
        where status = 'pending' and assigned_to = :consumer and queue = :queue
        order by priority desc, id
        limit :limit"""
_READY = """
        select id from jobs
        where status = 'pending' and assigned_to is null and queue = :queue
        order by priority desc, id
        limit :limit"""

CLAIM = _CLAIM.format(f"""in (
    select id from ({_ASSIGNED})
    union all
    select id from ({_READY})
    limit :limit)""")

# A list costs a single job more than the search for it: hence one statement for one job, and one for many.
CLAIM_ONE = _CLAIM.format(f"= coalesce(({_ASSIGNED}), ({_READY}))")

HEARTBEAT = """
update jobs
set lease_until = :lease_until,
    progress = coalesce(:progress, progress),
    message = coalesce(:message, message)
where id = :id and token = :token and status = 'processing'
returning cancel_requested
"""

EXTEND = "update jobs set lease_until = ? where id = ? and token = ? and status = 'processing'"

STANDING = """
select id, token, status, cancel_requested from jobs
where id in (select value from json_each(?))
"""

_LEASES = """
select id, token, status, attempt, max_attempts, cancel_requested, started_at, consumer, queue, task from jobs
where id {}
"""
_COMPLETE = """
update jobs
set status = 'completed',
    incarnation = null,
    lease_until = null,
    cancel_requested = 0,
    assigned_to = null,
    progress = 1.0,
    result = null,
    error = null,
    large = large & 1,
    finished_at = ?
where id {}
"""
_COMPLETED_ATTEMPTS = """
insert into attempts (job_id, token, attempt, outcome, consumer, started_at, finished_at)
select id, token, attempt, 'completed', consumer, started_at, ? from jobs
where id {}
"""
_ONE, _MANY = "= ?", "in (select value from json_each(?))"
LEASE, LEASES = _LEASES.format(_ONE), _LEASES.format(_MANY)
COMPLETE_ONE, COMPLETE = _COMPLETE.format(_ONE), _COMPLETE.format(_MANY)
COMPLETED_ATTEMPT, COMPLETED_ATTEMPTS = (_COMPLETED_ATTEMPTS.format(which) for which in (_ONE, _MANY))

PUT_RESULT = "update jobs set result = ?, large = large | ? where id = ?"

END_TRY = """
update jobs
set status = :status,
    incarnation = null,
    lease_until = null,
    cancel_requested = 0,
    attempt = attempt - :given_back,
    due_at = coalesce(:due_at, due_at),
    assigned_to = case when :status in ('failed', 'cancelled') then null else assigned_to end,
    consumer = case when :given_back then null else consumer end,
    result = null,
    error = case when :given_back then error else :error end,
    large = large & 1,
    finished_at = :finished_at
where id = :id and token = :token and status = 'processing'
"""

INSERT_ATTEMPT = """
insert into attempts (job_id, token, attempt, outcome, consumer, started_at, finished_at, error, traceback)
values (:id, :token, :attempt, :outcome, :consumer, :started_at, :now, :error, :traceback)
"""

ADD_TO_BUCKET = """
insert into buckets values (?, ?, ?, ?, ?, ?, ?)
on conflict do update set jobs = jobs + excluded.jobs, seconds = seconds + excluded.seconds
"""

OVERDUE_LIMIT = 1000

OVERDUE = f"""
select id, coalesce(incarnation in (select value from json_each(:dead)), 0) from jobs
where status = 'processing'
    and (lease_until < :monotonic or incarnation in (select value from json_each(:dead)))
limit {OVERDUE_LIMIT}
"""

GET = f"select {COLUMNS} from jobs where id = ?"

GET_MANY = f"select {COLUMNS} from jobs where id in (select value from json_each(?))"

PUT_VALUE = "insert into job_values values (?, ?, ?) on conflict do update set value = excluded.value"

VALUES = "select job_id, name, value from job_values where job_id in (select value from json_each(?))"

OLDEST_PENDING = """
with recursive levels(priority) as (
    select max(priority) from jobs
    where status = 'pending' and assigned_to is null and queue = :queue
    union all
    select (
        select max(priority) from jobs
        where status = 'pending' and assigned_to is null and queue = :queue and priority < levels.priority)
    from levels
    where levels.priority is not null)
select min((
    select created_at from jobs
    where status = 'pending' and assigned_to is null and queue = :queue and priority = levels.priority
    order by id
    limit 1))
from levels
where levels.priority is not null
"""


def to_job(row: Any, large: Mapping[tuple[int, str], str], *, existed: bool = False) -> Job:
    """A row of COLUMNS as a Job; `large` holds the values that stand in `job_values`."""
    (
        id_, task, queue, status, priority, parameters, tags, group, key, assigned, due, timeout, most,
        attempt, token, consumer, cancel, progress, message, result, error, created, started, finished, sides,
    ) = row  # fmt: skip
    if sides:
        if sides & LARGE_PARAMETERS:
            parameters = large[id_, "parameters"]
        if sides & LARGE_RESULT:
            result = large[id_, "result"]
    return Job(
        id_,
        task,
        queue,
        Status(status),
        priority,
        json.loads(parameters) if parameters is not None else {},
        tuple(json.loads(tags)) if tags != "[]" else (),
        group,
        key,
        assigned,
        to_datetime(due),
        None if timeout is None else timedelta(seconds=timeout),
        most,
        attempt,
        token,
        consumer,
        bool(cancel),
        progress,
        message,
        None if result is None else json.loads(result),
        error,
        to_datetime(created),
        to_datetime(started),
        to_datetime(finished),
        existed,
    )


def to_attempt(row: Any) -> Attempt:
    """A row of attempts as an Attempt."""
    job_id, attempt, outcome, consumer, started, finished, error, traceback = row
    return Attempt(
        job_id, attempt, outcome, consumer, to_datetime(started), to_datetime(finished), error, traceback
    )
