"""What the server itself does when jobs change: counts, limits of groups, waking, folding."""

FOLD_LOCK = 0x7071_0002
WAITING = 0x7071
"""The first half of the advisory locks by which a queue object says that it waits for work."""

STATUSES = ("blocked", "scheduled", "pending", "processing", "completed", "failed", "cancelled")
COUNTER_COLUMNS = ", ".join(STATUSES)
SUMS = ", ".join(f"sum({status})::bigint as {status}" for status in STATUSES)
_ADDED = ", ".join(f"{status} = counter_totals.{status} + excluded.{status}" for status in STATUSES)
COUNTED = ", ".join(
    f"coalesce(sum(n) filter (where status = '{status}'), 0) as {status}" for status in STATUSES
)
_ANY = " or ".join(f"{status} <> 0" for status in STATUSES)

FUNCTIONS = f"""
-- Lets in, or turns out, as many jobs of a group as its limit says. The lock on the limit's row makes two
-- that finish at once take turns; each statement of the function then sees what the other has committed.
create function pq.fit(wanted text) returns void language plpgsql as $$
declare
    room bigint;
begin
    perform 1 from pq.group_limits where job_group = wanted for update;
    select max_running - (
            select count(*) from pq.jobs
            where job_group = wanted and job_group is not null and status in ('pending', 'processing'))
        into room
        from pq.group_limits where job_group = wanted;
    if room is null or room > 0 then
        update pq.jobs set status = 'pending' where id = any(array(
            select id from pq.jobs where job_group = wanted and status = 'blocked'
            order by priority desc, id limit room for update skip locked));
    elsif room < 0 then
        update pq.jobs set status = 'blocked' where id = any(array(
            select id from pq.jobs where job_group = wanted and status = 'pending'
            order by priority, id desc limit -room for update skip locked));
    end if;
end $$;

-- Wakes who waits for this queue. NOTIFY makes all commits of a database take turns, so nobody notifies
-- while nobody waits; who waits holds this lock shared, so that it cannot be had.
create function pq.wake(name text) returns void language plpgsql as $$
begin
    if pg_try_advisory_lock({WAITING}, hashtext(name)) then
        perform pg_advisory_unlock({WAITING}, hashtext(name));
    else
        perform pg_notify('pq', name);
    end if;
end $$;

create function pq.jobs_inserted() returns trigger language plpgsql as $$
declare
    one text;
    another text;
    entered boolean;
    woken boolean;
begin
    insert into pq.counter_deltas (queue, task, {COUNTER_COLUMNS})
        select queue, task, {COUNTED}
        from (select queue, task, status, 1 as n from new_jobs) as changes
        group by queue, task;
    select
        bool_or(status = 'blocked'),
        min(queue) filter (where status = 'pending'), max(queue) filter (where status = 'pending')
        into entered, one, another from new_jobs;
    if entered then
        perform pq.fit(job_group) from (
            select distinct job_group from new_jobs where status = 'blocked' order by 1) as groups;
    end if;
    -- As in `wake`, without the price of a call.
    if one = another and pg_try_advisory_lock({WAITING}, hashtext(one)) then
        woken := pg_advisory_unlock({WAITING}, hashtext(one));
    elsif one is not null then
        perform pq.wake(queue) from (select distinct queue from new_jobs where status = 'pending') as fresh;
    end if;
    return null;
end $$;
create trigger jobs_inserted after insert on pq.jobs
    referencing new table as new_jobs for each statement execute function pq.jobs_inserted();

create function pq.jobs_updated() returns trigger language plpgsql as $$
begin
    insert into pq.counter_deltas (queue, task, {COUNTER_COLUMNS})
        select * from (
            select queue, task, {COUNTED}
            from (
                select queue, task, status, 1 as n from new_jobs
                union all
                select queue, task, status, -1 from old_jobs) as changes
            group by queue, task) as sums
        where {_ANY};
    if exists (select 1 from pq.group_limits) then
        perform pq.fit(job_group) from (
            select distinct before.job_group
            from old_jobs as before join new_jobs as after using (id)
            where exists (select 1 from pq.group_limits as limits where limits.job_group = before.job_group)
                and before.status <> after.status
                and (after.status = 'blocked'
                    or (before.status in ('pending', 'processing') and after.status <> 'processing'))
            order by 1) as moved;
    end if;
    if exists (select 1 from new_jobs where status = 'pending') then
        perform pq.wake(queue) from (
            select distinct after.queue
            from old_jobs as before join new_jobs as after using (id)
            where after.status = 'pending'
                and (before.status <> 'pending'
                    or before.assigned_to is distinct from after.assigned_to)) as fresh;
    end if;
    return null;
end $$;
create trigger jobs_updated after update on pq.jobs
    referencing old table as old_jobs new table as new_jobs
    for each statement execute function pq.jobs_updated();

create function pq.jobs_deleted() returns trigger language plpgsql as $$
begin
    insert into pq.counter_deltas (queue, task, {COUNTER_COLUMNS})
        select queue, task, {COUNTED}
        from (select queue, task, status, -1 as n from old_jobs) as changes
        group by queue, task;
    delete from pq.attempts where job_id = any(array(select id from old_jobs));
    perform pq.fit(job_group) from (
        select distinct job_group from old_jobs
        where status in ('pending', 'processing') and job_group in (select job_group from pq.group_limits)
        order by 1) as left_over;
    return null;
end $$;
create trigger jobs_deleted after delete on pq.jobs
    referencing old table as old_jobs for each statement execute function pq.jobs_deleted();

-- Scheduled jobs that are due, a thousand at a time, become pending, or stand in line.
create function pq.promote(moment double precision) returns void language sql as $$
    update pq.jobs
    set status = case when job_group in (select job_group from pq.group_limits) then 'blocked'
        else 'pending' end
    where id = any(array(
        select id from pq.jobs where status = 'scheduled' and due_at <= moment
        order by due_at limit 1000 for update skip locked));
$$;

-- Sums up what was appended; one at a time, and nobody waits for it.
create function pq.fold(fewest bigint) returns void language plpgsql as $$
begin
    if (select count(*) from (select 1 from pq.counter_deltas limit fewest) as few) < fewest
            and (select count(*) from (select 1 from pq.bucket_deltas limit fewest) as few) < fewest
            or not pg_try_advisory_xact_lock({FOLD_LOCK}) then
        return;
    end if;
    with gone as (delete from pq.counter_deltas returning *)
    insert into pq.counter_totals
        select queue, task, {SUMS} from gone group by queue, task
        on conflict (queue, task) do update set {_ADDED};
    with gone as (delete from pq.bucket_deltas returning *)
    insert into pq.bucket_totals
        select minute, queue, task, outcome, slot, sum(jobs), sum(seconds) from gone
        group by minute, queue, task, outcome, slot
        on conflict (minute, queue, task, outcome, slot) do update
        set jobs = bucket_totals.jobs + excluded.jobs, seconds = bucket_totals.seconds + excluded.seconds;
end $$;

-- Groups in which a job waits although there is room, or runs although there is none: a limit that was set
-- while others wrote may not have seen them.
create function pq.fit_all() returns void language sql as $$
    select pq.fit(job_group) from (
        select job_group, max_running - (
            select count(*) from pq.jobs where jobs.job_group = limits.job_group
                and job_group is not null and status in ('pending', 'processing')) as room
        from pq.group_limits as limits order by job_group) as rooms
    where room < 0 and exists (
            select 1 from pq.jobs where jobs.job_group = rooms.job_group and status = 'pending')
        or room > 0 and exists (
            select 1 from pq.jobs where jobs.job_group = rooms.job_group and status = 'blocked');
$$;
"""
