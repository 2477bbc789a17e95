"""The statements that every SQL database understands alike, with named parameters."""

COLUMNS = (
    "id, task, queue, status, priority, parameters, tags, job_group, unique_key, assigned_to, due_at, "
    "timeout, max_attempts, attempt, token, consumer, cancel_requested, progress, message, result, error, "
    "created_at, started_at, finished_at, large"
)

GET = f"select {COLUMNS} from jobs where id = :id"

TWIN = f"""
select {COLUMNS} from jobs
where unique_key = :unique_key and unique_key is not null
    and status in ('blocked', 'scheduled', 'pending', 'processing')
"""

# One constant clause per filter of `list`; each backend adds `tag` and `search`.
FILTERS = {
    "queue": "queue = :queue",
    "task": "task = :task",
    "consumer": "(consumer = :consumer or assigned_to = :consumer)",
    "group": "job_group = :group",
    "id": "id = :id",
    "finished_after": "finished_at >= :finished_after",
    "finished_before": "finished_at < :finished_before",
}

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

INSERT_ATTEMPT = """
insert into attempts (job_id, token, attempt, outcome, consumer, started_at, finished_at, error, traceback)
values (:id, :token, :attempt, :outcome, :consumer, :started_at, :now, :error, :traceback)
"""

BUCKETS = """
select minute / :step * :step, queue, task, outcome, slot, cast(sum(jobs) as bigint), sum(seconds)
from buckets
where minute between :since and :until
group by 1, queue, task, outcome, slot
order by 1
"""

CONSUMERS = """
select id, name, host, pid, queues, started_at, heartbeat_at, doing, stop_requested, ended_at from consumers
where ended_at is null or :ended = 1
order by ended_at is not null, ended_at desc, name, started_at
limit :limit
"""

_ACTIONS = "select id, at, who, verb, job_id, target, from_status, to_status, reason from actions"
ACTIONS = f"{_ACTIONS} order by id desc limit :limit"
ACTIONS_OF = f"{_ACTIONS} where job_id = :id order by id desc limit :limit"

# In a limited group a job stands in line first; `_fit_group` lets in who fits.
RESUBMIT = """
update jobs
set status = case when job_group in (select job_group from group_limits) then 'blocked' else 'pending' end,
    max_attempts = case when max_attempts > attempt then max_attempts else attempt + 1 end,
    due_at = :now,
    finished_at = null,
    progress = null,
    message = null,
    result = null,
    large = large & 1
where id = :id
"""

ASSIGN = """
update jobs
set assigned_to = :consumer,
    status = case when status = 'processing' then 'pending' else status end,
    max_attempts = case when status = 'processing' and max_attempts = attempt
        then attempt + 1 else max_attempts end,
    incarnation = null,
    lease_until = null,
    cancel_requested = 0
where id = :id
"""

FINISH = """
update jobs
set status = :status,
    error = coalesce(:error, error),
    finished_at = :now,
    incarnation = null,
    lease_until = null,
    cancel_requested = 0,
    assigned_to = null
where id = :id
"""

DELETE_CHUNK = """
delete from jobs where id in (select id from jobs where id <= :newest order by id limit :chunk)
"""

OLD = "select id from jobs where status = :status and finished_at < :before order by id"

# Looked at again: somebody may have resubmitted one.
DELETE_OLD = "delete from jobs where id = :id and finished_at < :before"

STOP = "update consumers set stop_requested = 1 where (name = :name or id = :name) and ended_at is null"

PAUSE = """
insert into queues values (:queue, :now, :reason)
on conflict (name) do update set reason = excluded.reason
"""

LIMITS = """
select job_group, max_running,
    (select count(*) from jobs
        where jobs.job_group = group_limits.job_group and jobs.job_group is not null
            and status in ('pending', 'processing')),
    (select count(*) from jobs where jobs.job_group = group_limits.job_group and status = 'blocked')
from group_limits
order by job_group
"""

SET_LIMIT = """
insert into group_limits values (:group, :most, :now)
on conflict (job_group) do update set max_running = excluded.max_running, set_at = excluded.set_at
"""

LIFT_LIMIT = "delete from group_limits where job_group = :group"

# Of groups that are gone; a limit may also have been set for jobs to come.
FORGET_LIMITS = """
delete from group_limits
where set_at < :before and not exists (select 1 from jobs where jobs.job_group = group_limits.job_group)
"""
