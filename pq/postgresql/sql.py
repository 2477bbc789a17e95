"""Every statement that only PostgreSQL understands, or that only it needs, under a name.

Each that reads the clock asks the server's, unless a clock was given: `:now` and `:monotonic` are then
not null. A claim and a heartbeat alone do not wait for the disk: to lose one is harmless, because each epoch
between two crashes of the server has tokens of its own.
"""

from pq.sql import statements
from pq.sql.statements import COLUMNS

# Not clock_timestamp(), which is another within a statement, so that no index can be read by it.
_SERVER = "date_part('epoch', statement_timestamp())"
NOW = f"select {_SERVER}"

# Not the row: a setting may not be there yet.
LOCK_SETTING = "select pg_advisory_xact_lock(hashtext('pq.settings'), hashtext(:name))"

# A list comes as JSON, and `ilike` knows no case.
#
# A range of (status, id): given one status and an order of ids, the planner would rather walk all jobs by
# their ids than believe that those of the status lie together, however far back the first of them is.
FILTERS = statements.FILTERS | {
    "newest of a status": "(status, id) >= (:status, 0) and (status, id) < (:status, cast(:after as bigint))",
    "oldest of a status": "(status, id) > (:status, cast(:after as bigint)) "
    "and (status, id) <= (:status, 9223372036854775807)",
    "tag": "tags <> '[]' and "
    "exists (select 1 from json_array_elements_text(cast(tags as json)) as one where one = :tag)",
    "search": r"(task ilike :search escape '\' or unique_key ilike :search escape '\' "
    r"or parameters ilike :search escape '\' or error ilike :search escape '\')",
}

_MOMENT = f"""
moment as materialized (
    select
        coalesce(cast(:now as double precision), {_SERVER}) as now,
        coalesce(cast(:monotonic as double precision), {_SERVER}) as monotonic"""

_UNSYNCED = "case when :alone then set_config('synchronous_commit', 'off', true) end as unsynced"

_STORED = """
    insert into jobs (task, queue, status, priority, parameters, tags, job_group, unique_key, due_at,
        timeout, max_attempts, created_at{id_column})
    {source}
    on conflict (unique_key)
        where unique_key is not null and status in ('blocked', 'scheduled', 'pending', 'processing')
        do nothing
    returning id, status, due_at, created_at"""

_STATUS = """case
            when {due} > {now} then 'scheduled'
            when {group} is not null and {group} in (select job_group from group_limits) then 'blocked'
            else 'pending'
        end"""

_NOW = f"coalesce(cast(:now as double precision), {_SERVER})"
_DUE_AT = f"coalesce(cast(:due_at as double precision), {_NOW} + cast(:delay as double precision))"

# The plainest form for one: what a batch needs would double its time.
INSERT_ONE = _STORED.format(
    id_column="",
    source=f"""values (:task, :queue, {_STATUS.format(due=_DUE_AT, now=_NOW, group="cast(:group as text)")},
        :priority, :parameters, :tags, :group, :unique_key, {_DUE_AT}, :timeout, :max_attempts, {_NOW})""",
)

_STORED_MANY = _STORED.format(
    id_column=", id",
    source=f"""select task, queue, {_STATUS.format(due="due", now="moment.now", group="job_group")},
        priority, parameters, tags, job_group, unique_key, due, timeout, max_attempts, moment.now, id
    from given, moment
    order by id""",
)

# Ids are given in the order of the batch; of which none comes back, was not stored.
INSERT = f"""
with {_MOMENT}),
given as materialized (
    select nextval('pq.jobs_id_seq') as id, coalesce(due_at, moment.now + delay) as due, fields.*
    from moment, unnest(cast(:task as text[]), cast(:queue as text[]), cast(:priority as integer[]),
        cast(:parameters as text[]), cast(:tags as text[]), cast(:group as text[]),
        cast(:unique_key as text[]), cast(:due_at as double precision[]),
        cast(:delay as double precision[]), cast(:timeout as double precision[]),
        cast(:max_attempts as integer[])) with ordinality
        as fields (task, queue, priority, parameters, tags, job_group, unique_key, due_at, delay, timeout,
            max_attempts, place)),
stored as ({_STORED_MANY})
select given.place, stored.* from given join stored using (id)
"""

TWINS = f"""
select {COLUMNS} from jobs
where unique_key = any(:keys) and unique_key is not null
    and status in ('blocked', 'scheduled', 'pending', 'processing')
"""

# Not `exists`: the planner would guess that any index finds one soon, and read all scheduled jobs.
_DUE = f"coalesce((select min(due_at) from jobs where status = 'scheduled') <= {_NOW}, false)"

# `any(array(…))`: the row is found by its key, whatever the planner thinks of how many there are.
_CLAIM = f"""
open as materialized (
    select 1 from moment
    where (:promoted or not moment.due) and not exists (select 1 from queues where name = :queue)),
assigned as materialized (
    select id from jobs
    where status = 'pending' and assigned_to = :consumer and queue = :queue and exists (select 1 from open)
    order by priority desc, id
    limit cast(:limit as bigint)
    for update skip locked),
ready as materialized (
    select id from jobs
    where status = 'pending' and assigned_to is null and queue = :queue and exists (select 1 from open)
    order by priority desc, id
    limit cast(:limit as bigint) - (select count(*) from assigned)
    for update skip locked),
claimed as (
    update jobs
    set status = 'processing',
        attempt = attempt + 1,
        token = greatest(token + 1, (select epoch from moment) * 1000000 + 1),
        consumer = :consumer,
        incarnation = :incarnation,
        lease_until = (select monotonic from moment) + cast(:lease as double precision),
        started_at = (select now from moment),
        progress = null,
        message = null
    where id = any(array(select id from assigned union all select id from ready))
    returning {COLUMNS})
"""

CLAIM = f"""
with {_MOMENT}, {_DUE} as due, {_UNSYNCED}, pq.epoch() as epoch),
{_CLAIM}
select moment.due, claimed.* from moment left join claimed on true
order by claimed.assigned_to is null, claimed.priority desc, claimed.id
"""

_BUCKET = """
    insert into pq.bucket_deltas
    select cast(floor(finished_at / 60) as bigint), queue, task, 'completed',
        cast(floor(4 / ln(cast(2 as double precision))
            * ln(greatest(finished_at - started_at, 0.001) / 0.001)) as integer),
        1, greatest(finished_at - started_at, 0)
    from ended"""

_ENDED = """
given as materialized (
    select * from unnest(cast(:ids as bigint[]), cast(:tokens as bigint[]), cast(:results as text[]))
        as fields (id, token, result)),
ended as (
    update jobs
    set status = 'completed',
        incarnation = null,
        lease_until = null,
        cancel_requested = 0,
        assigned_to = null,
        progress = 1.0,
        result = given.result,
        error = null,
        finished_at = (select now from moment)
    from given
    where jobs.id = given.id and jobs.token = given.token and jobs.status = 'processing'
    returning jobs.id, jobs.token, jobs.attempt, jobs.consumer, jobs.started_at, jobs.finished_at,
        jobs.queue, jobs.task),
kept as (
    insert into attempts (job_id, token, attempt, outcome, consumer, started_at, finished_at)
    select id, token, attempt, 'completed', consumer, started_at, finished_at from ended)
"""

# The usual end of tries and the next claim, in one statement: one way to the server and back, one commit.
SETTLE = f"""
with {_MOMENT}, {_DUE} as due, pq.epoch() as epoch),
{_ENDED},
counted as ({_BUCKET}),
{_CLAIM}
select moment.due, (select count(*) from ended) as settled, claimed.*
from moment left join claimed on true
order by claimed.assigned_to is null, claimed.priority desc, claimed.id
"""

COMPLETE = f"""
with moment as (select cast(:now as double precision) as now),
{_ENDED}
select count(*) from ended
"""

PROMOTE = f"select pq.promote(coalesce(cast(:now as double precision), {_SERVER}))"

# Whether a claim may find something, and in how many seconds the next job is due. Not `exists`, for which
# the planner may read all jobs at once.
LOOK = f"""
with {_MOMENT})
select
    (select 1 from queues where name = :queue) is null and (
        (select 1 from jobs
            where status = 'pending' and assigned_to is null and queue = :queue limit 1) is not null
        or (select 1 from jobs
            where status = 'pending' and assigned_to = :consumer and queue = :queue limit 1) is not null),
    (select min(due_at) from jobs where status = 'scheduled') - moment.now
from moment
"""

HEARTBEAT = f"""
with {_MOMENT}, {_UNSYNCED})
update jobs
set lease_until = moment.monotonic + cast(:lease as double precision),
    progress = coalesce(:progress, progress),
    message = coalesce(:message, message)
from moment
where id = :id and token = :token and status = 'processing'
returning cancel_requested
"""

EXTEND = f"""
with {_MOMENT}, {_UNSYNCED})
update jobs
set lease_until = moment.monotonic + cast(:lease as double precision)
from moment, unnest(cast(:ids as bigint[]), cast(:tokens as bigint[])) as held (id, token)
where jobs.id = held.id and jobs.token = held.token and status = 'processing'
"""

STANDING = "select id, token, status, cancel_requested from jobs where id = any(:ids)"

LEASES = """
select id, token, status, attempt, max_attempts, cancel_requested, started_at, consumer, queue, task from jobs
where id = any(:ids)
order by id
for update
"""

# Each try that ends locks the limit of its group; in the order of their names nobody waits for each other.
LOCK_LIMITS = """
select 1 from group_limits
where job_group in (select job_group from jobs where id = any(:ids))
order by job_group
for update
"""

END_TRY = """
update jobs
set status = :status,
    incarnation = null,
    lease_until = null,
    cancel_requested = 0,
    attempt = attempt - :given_back,
    due_at = coalesce(:due_at, due_at),
    assigned_to = case when :status in ('failed', 'cancelled') then null else assigned_to end,
    consumer = case when :given_back = 1 then null else consumer end,
    result = null,
    error = case when :given_back = 1 then error else :error end,
    finished_at = :finished_at
where id = :id and token = :token and status = 'processing'
"""

ADD_TO_BUCKET = """
insert into pq.bucket_deltas
values (:minute, :queue, :task, :outcome, :slot, :jobs, :seconds)
"""

OVERDUE_LIMIT = 1000

OVERDUE = f"""
select id, coalesce(incarnation = any(:dead), false) from jobs
where status = 'processing'
    and (lease_until < coalesce(cast(:monotonic as double precision), {_SERVER})
        or incarnation = any(:dead))
limit {OVERDUE_LIMIT}
for update skip locked
"""

GET_MANY = f"select {COLUMNS} from jobs where id = any(:ids) order by id"

REGISTER = f"""
insert into consumers (id, name, host, pid, queues, started_at, heartbeat_at, presence)
select :id, :name, :host, :pid, :queues, now, now, :presence
from (select coalesce(cast(:now as double precision), {_SERVER}) as now) as moment
"""

# Who was taken for dead while the way to the server was cut, and beats again, is not.
# Who was taken for dead while the way to the server was cut, and beats again, is not.
BEAT = f"""
with {_MOMENT}, {_UNSYNCED})
update consumers set heartbeat_at = moment.now, doing = :doing, ended_at = null
from moment
where id = :id
returning stop_requested
"""

# A lock that can be had is held by nobody; had for an instant, and shared, so that askers do not meet.
# A replica knows nothing of the primary's locks.
ABSENT = """
select id from consumers
where ended_at is null and not pg_is_in_recovery()
    and case when pg_try_advisory_lock_shared(presence) then pg_advisory_unlock_shared(presence)
        else false end
"""

# Consumers that said goodbye, or were found dead, with jobs in hand.
GONE = """
select distinct incarnation from jobs
where status = 'processing' and incarnation in (select id from consumers where ended_at is not null)
"""

UP_SECONDS = "select extract(epoch from clock_timestamp() - pg_postmaster_start_time())"

EXPIRED = f"""
select count(*) from jobs
where status = 'processing' and lease_until < coalesce(cast(:monotonic as double precision), {_SERVER})
"""

HEALTH = f"""
select
    current_setting('server_version'), pg_is_in_recovery(), current_setting('fsync'),
    current_setting('synchronous_commit'), cast(current_setting('max_connections') as integer),
    (select count(*) from pg_stat_activity where backend_type = 'client backend'),
    (select count(*) from pg_stat_activity where application_name in ('pq', 'pq listener')
        and datname = current_database()),
    (select sum(pg_total_relation_size(oid)) from pg_class
        where relnamespace = 'pq'::regnamespace and relkind = 'r')::bigint,
    {_SERVER},
    (select count(*) from pg_stat_activity
        where datname = current_database() and state = 'idle in transaction'
            and clock_timestamp() - xact_start > interval '1 minute'),
    (select coalesce(sum(n_dead_tup), 0)::bigint from pg_stat_user_tables where schemaname = 'pq')
"""
