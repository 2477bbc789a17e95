"""Every statement on jobs that only SQLite understands, or that only SQLite needs, under a name."""

from pq.sql import statements
from pq.sql.statements import COLUMNS

LARGE_PARAMETERS, LARGE_RESULT = 1, 2

# Null where there is no limit; the slots are counted only where there is one.
_ROOM = """(select max_running - (
            select count(*) from jobs as one
            where one.job_group = {group} and one.job_group is not null
                and one.status in ('pending', 'processing'))
        from group_limits where job_group = {group})"""

INSERT = f"""
insert into jobs (task, queue, status, priority, parameters, tags, job_group, unique_key, due_at, timeout,
    max_attempts, created_at, large)
values (:task, :queue,
    case when :status = 'pending' and :group is not null and {_ROOM.format(group=":group")} < 1
        then 'blocked' else :status end,
    :priority, :parameters, :tags, :group, :unique_key, :due_at, :timeout,
    :max_attempts, :now, :large)
returning {COLUMNS}
"""

# `indexed by`: left alone, SQLite reads all scheduled jobs by jobs_status, 20 ms for 100,000 of them.
ANY_DUE = "select 1 from jobs indexed by jobs_due where status = 'scheduled' and due_at <= ? limit 1"

NEXT_DUE = "select min(due_at) from jobs indexed by jobs_due where status = 'scheduled'"

# A job of a limited group that is due stands in line first; `ADMIT` lets in who fits.
_IN_LINE = "case when job_group in (select job_group from group_limits) then 'blocked' else 'pending' end"

PROMOTE = f"""
update jobs
set status = {_IN_LINE}
where id in (
    select id from jobs indexed by jobs_due
    where status = 'scheduled' and due_at <= ?
    order by due_at
    limit 1000)
returning case when status = 'blocked' then job_group end
"""

# Without a limit all are let in: `limit -1` means no limit.
ADMIT = f"""
update jobs
set status = 'pending'
where id in (
    select id from jobs
    where job_group = :group and status = 'blocked'
    order by priority desc, id
    limit coalesce(max(0, {_ROOM.format(group=":group")}), -1))
"""

TURN_OUT = f"""
update jobs
set status = 'blocked'
where id in (
    select id from jobs
    where job_group = :group and job_group is not null
        and status in ('pending', 'processing') and status = 'pending'
    order by priority, id desc
    limit coalesce(max(0, -({_ROOM.format(group=":group")})), 0))
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

# After a limit was lowered more may be running than it allows; what is given back then waits.
_IF_IT_FITS = f"""case when job_group is not null and {_ROOM.format(group="jobs.job_group")} < 0
        then 'blocked' else 'pending' end"""

END_TRY = f"""
update jobs
set status = case when :status = 'pending' then {_IF_IT_FITS} else :status end,
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

UNREGISTER = """
update consumers set ended_at = :now, doing = ''
where id = :consumer and ended_at is null
    and not exists (select 1 from jobs where status = 'processing' and incarnation = :consumer)
"""

GET_MANY = f"select {COLUMNS} from jobs where id in (select value from json_each(?))"

PUT_VALUE = "insert into job_values values (?, ?, ?) on conflict do update set value = excluded.value"

VALUES = "select job_id, name, value from job_values where job_id in (select value from json_each(?))"

# SQLite reads a list as JSON, and its `like` knows no case.
FILTERS = statements.FILTERS | {
    "tag": "tags <> '[]' and exists (select 1 from json_each(tags) where value = :tag)",
    "search": "(task like :search escape '\\' or unique_key like :search escape '\\' "
    "or parameters like :search escape '\\' or error like :search escape '\\')",
}
