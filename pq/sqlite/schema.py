"""The tables, their invariants and their counters, as sqlite-utils migrations.

Times are seconds since 1970 (wall clock, UTC), but `lease_until`: seconds of the monotonic clock of the
boot that is named in `settings`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pq.errors import StorageError
from pq.transfer import REFUSAL

if TYPE_CHECKING:
    from sqlite_utils import Database
    from sqlite_utils.migrations import Migrations

TABLES = (
    "jobs",
    "job_values",
    "attempts",
    "consumers",
    "actions",
    "counters",
    "buckets",
    "queues",
    "group_limits",
    "settings",
)

FIRST = """
create table jobs (
    id integer primary key autoincrement,
    task text not null check (length(task) between 1 and 200),
    queue text not null check (length(queue) between 1 and 200),
    status text not null check (status in
        ('blocked', 'scheduled', 'pending', 'processing', 'completed', 'failed', 'cancelled')),
    priority integer not null,
    parameters text,
    tags text not null,
    job_group text,
    unique_key text,
    assigned_to text,
    due_at real not null,
    timeout real check (timeout > 0),
    max_attempts integer not null check (max_attempts >= 1),
    attempt integer not null default 0 check (attempt between 0 and max_attempts),
    token integer not null default 0 check (token >= attempt),
    consumer text,
    cancel_requested integer not null default 0 check (cancel_requested in (0, 1)),
    progress real check (progress between 0 and 1),
    message text,
    result text,
    error text,
    created_at real not null,
    started_at real,
    finished_at real,
    large integer not null default 0 check (large between 0 and 3),
    incarnation text,
    lease_until real,
    check ((status = 'processing') = (lease_until is not null)),
    check ((status in ('completed', 'failed', 'cancelled')) = (finished_at is not null)),
    check (status = 'processing' or (incarnation is null and cancel_requested = 0)),
    check (status <> 'processing' or started_at is not null)
);
create index jobs_status on jobs (status, id);
create index jobs_ready on jobs (queue, priority desc, id) where status = 'pending' and assigned_to is null;
create index jobs_assigned on jobs (assigned_to, queue, priority desc, id)
    where status = 'pending' and assigned_to is not null;
create index jobs_priority on jobs (priority desc, id) where status = 'pending';
create index jobs_due on jobs (due_at, id) where status = 'scheduled';
create index jobs_finished on jobs (status, finished_at, id) where finished_at is not null;
create unique index jobs_unique on jobs (unique_key)
    where unique_key is not null and status in ('blocked', 'scheduled', 'pending', 'processing');
create index jobs_group on jobs (job_group, id) where job_group is not null;

create table job_values (
    job_id integer not null,
    name text not null check (name in ('parameters', 'result')),
    value text not null,
    primary key (job_id, name)
) without rowid;

create table attempts (
    job_id integer not null,
    token integer not null,
    attempt integer not null,
    outcome text not null,
    consumer text,
    started_at real not null,
    finished_at real not null,
    error text,
    traceback text,
    primary key (job_id, token)
) without rowid;

create table consumers (
    id text primary key,
    name text not null,
    host text not null,
    pid integer not null,
    queues text not null,
    started_at real not null,
    heartbeat_at real not null,
    doing text not null default '',
    stop_requested integer not null default 0,
    ended_at real
);
create index consumers_live on consumers (name) where ended_at is null;

create table actions (
    id integer primary key autoincrement,
    at real not null,
    who text not null,
    verb text not null,
    job_id integer,
    target text,
    from_status text,
    to_status text,
    reason text
);
create index actions_job on actions (job_id, id) where job_id is not null;

create table counters (
    queue text not null,
    task text not null,
    status text not null,
    jobs integer not null check (jobs >= 0),
    primary key (queue, task, status)
) without rowid;

create table buckets (
    minute integer not null,
    queue text not null,
    task text not null,
    outcome text not null,
    slot integer not null,
    jobs integer not null,
    seconds real not null,
    primary key (minute, queue, task, outcome, slot)
) without rowid;

create table queues (
    name text primary key,
    paused_at real not null,
    reason text
) without rowid;

create table settings (
    name text primary key,
    value text not null
) without rowid;

create trigger jobs_count_insert after insert on jobs begin
    insert into counters values (new.queue, new.task, new.status, 1)
        on conflict do update set jobs = jobs + 1;
end;
create trigger jobs_count_status after update of status on jobs when old.status <> new.status begin
    update counters set jobs = jobs - 1
        where queue = old.queue and task = old.task and status = old.status;
    insert into counters values (new.queue, new.task, new.status, 1)
        on conflict do update set jobs = jobs + 1;
end;
create trigger jobs_count_delete after delete on jobs begin
    update counters set jobs = jobs - 1
        where queue = old.queue and task = old.task and status = old.status;
    delete from job_values where job_id = old.id;
    delete from attempts where job_id = old.id;
end;
"""

# Who leaves a limited group's slot lets in the first in line. Only other rows change here: a job's own
# status is set by its statement, which has to return it.
_LET_IN = """
        and old.status in ('pending', 'processing')
        and exists (select 1 from group_limits where job_group = old.job_group)
begin
    update jobs set status = 'pending' where id in (
        select id from jobs where job_group = old.job_group and status = 'blocked'
        order by priority desc, id
        limit max(0, (select max_running from group_limits where job_group = old.job_group)
            - (select count(*) from jobs
                where job_group = old.job_group and job_group is not null
                    and status in ('pending', 'processing'))));
end;
"""

SECOND = f"""
create table group_limits (
    job_group text primary key,
    max_running integer not null check (max_running >= 1),
    set_at real not null
) without rowid;
create index jobs_slots on jobs (job_group)
    where job_group is not null and status in ('pending', 'processing');
create index jobs_blocked on jobs (job_group, priority desc, id) where status = 'blocked';

create trigger jobs_leave_slot after update of status on jobs
    when old.job_group is not null and new.status not in ('pending', 'processing'){_LET_IN}
create trigger jobs_delete_slot after delete on jobs
    when old.job_group is not null{_LET_IN}"""


def statements(text: str) -> list[str]:
    """The statements of a script; `executescript` would silently commit an open transaction."""
    found: list[str] = []
    current: list[str] = []
    in_trigger = False
    for line in text.splitlines():
        if not line.strip():
            continue
        current.append(line)
        in_trigger = in_trigger or line.startswith("create trigger")
        if line.rstrip().endswith("end;" if in_trigger else ";"):
            found.append("\n".join(current))
            current, in_trigger = [], False
    return found


def migrations() -> Migrations:
    """All steps from an empty database to today's, in order; append new ones, never change old ones."""
    from sqlite_utils.migrations import Migrations

    steps = Migrations("pq")

    @steps()
    def jobs_and_all_that_serves_them(db: Database) -> None:
        for statement in statements(FIRST):
            db.conn.execute(statement)

    @steps()
    def groups_with_a_limit(db: Database) -> None:
        for statement in statements(SECOND):
            db.conn.execute(statement)

    return steps


def check_version(db: Database, path: str) -> bool:
    """Whether the schema is today's; StorageError for a newer one, or for another program's tables."""
    steps = migrations()
    known = {step.name for step in steps._migrations}  # noqa: SLF001  # there is no public list of the names
    existing = {
        row[0] for row in db.conn.execute("select name from sqlite_master where type = 'table'").fetchall()
    }
    applied: set[str] = set()
    if "_sqlite_migrations" in existing:
        rows = db.conn.execute("select name from _sqlite_migrations where migration_set = 'pq'").fetchall()
        applied = {row[0] for row in rows}
    if applied - known:
        raise StorageError(
            f"{path} was made by a newer version of pq (step {max(applied - known)}); upgrade pq"
        )
    clash = existing.intersection(TABLES)
    if not applied and clash:
        raise StorageError(
            f"{path} belongs to another program: it has a table {min(clash)}; choose another file"
        )
    _check_objects(db, path)
    return applied == known


def _check_objects(db: Database, path: str) -> None:
    """Refuse a file in which somebody else decides what happens in our tables."""
    # SQLite keeps a trigger's text as it was given, but for its first two words.
    ours = {
        text.rstrip(";").replace("create trigger", "CREATE TRIGGER", 1)
        for script in (FIRST, SECOND)
        for text in statements(script)
    }
    others = db.conn.execute(
        "select type, name, tbl_name, sql from sqlite_master where type in ('trigger', 'view')"
    ).fetchall()
    for kind, name, table, text in others:
        of_a_move = text.count(";") == 1 and text.endswith(f"begin select raise(abort, '{REFUSAL}'); end")
        if name in TABLES or (kind == "trigger" and table in TABLES and not (text in ours or of_a_move)):
            raise StorageError(
                f"{path} has a {kind} {name[:100]!r} that pq did not make, and which could change its jobs: "
                "use another file, or drop it if you know what it does"
            )
