"""The PostgreSQL end of a move."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pq.postgresql import triggers
from pq.postgresql.session import Session, native
from pq.postgresql.work import PersistentQSQLAlchemy
from pq.sql.transfer import ERASE_SETTINGS, OWN, SQLTransfer, behind, dumps
from pq.transfer import CHUNK_BYTES, CHUNK_ROWS, NUMBERED, REFUSAL, TABLES, Refusal, Row, Table

if TYPE_CHECKING:
    import psycopg

LOCK_PATIENCE = "1min"

# A frozen queue has nothing left to fold, so its buckets stand in one table; the view would sum them anew
# for every chunk.
_TABLE_OF = {"buckets": "pq.bucket_totals"}
_DUMP = {key: native(statement) for key, statement in dumps({}, _TABLE_OF).items()}
# As many as fit in a chunk; the server knows the size of a value without reading it.
_JOBS = f"""
select {{columns}} from (
    select *, sum(size) over (order by id) - size as before from (
        select *, coalesce(octet_length(parameters), 0) + coalesce(octet_length(result), 0) as size
        from ({{page}}) as page) as sized) as summed
where before <= {CHUNK_BYTES}
order by id
"""
for _first in (True, False):
    _DUMP["jobs", _first] = _JOBS.format(columns=", ".join(TABLES[0].columns), page=_DUMP["jobs", _first])
_COPY = {
    table.name: f"copy {_TABLE_OF.get(table.name, f'pq.{table.name}')} ({', '.join(table.columns)}) "
    "from stdin"
    for table in TABLES
}
_SEQUENCES = {name: f"pg_get_serial_sequence('pq.{name}', 'id')" for name in NUMBERED}
_LAST_NUMBER = {
    name: f"select last_value from pg_sequences where schemaname || '.' || sequencename = {sequence}"
    for name, sequence in _SEQUENCES.items()
}
_ADVANCE = {
    name: f"select setval({sequence}, greatest(cast(:last as bigint), coalesce((select last_value from "
    f"pg_sequences where schemaname || '.' || sequencename = {sequence}), 1)))"
    for name, sequence in _SEQUENCES.items()
}
_COUNT_LOADED = f"""
insert into pq.counter_deltas (queue, task, {triggers.COUNTER_COLUMNS})
    select queue, task, {triggers.COUNTED}
    from (select queue, task, status, 1 as n from pq.jobs where id between :first and :last) as loaded
    group by queue, task
"""
_ROWS_OF = ("jobs", "attempts", "actions", "queues", "group_limits")
_ERASE = (
    f"truncate {', '.join(f'pq.{name}' for name in _ROWS_OF)}, pq.counter_totals, pq.counter_deltas, "
    "pq.bucket_totals, pq.bucket_deltas"
)

_CLOSED = (*_ROWS_OF, "consumers", "bucket_deltas", "settings")
_LOCK = f"lock table {', '.join(f'pq.{name}' for name in _CLOSED)} in share row exclusive mode"
_FUNCTION = f"""
create or replace function pq.refuse_moved() returns trigger language plpgsql as $$
begin
    raise exception '{REFUSAL}';
end $$
"""
_REFUSES = "execute function pq.refuse_moved()"
_DROP = (
    *(f"drop trigger if exists moved on pq.{name}" for name in _CLOSED),
    "drop trigger if exists moved_delete on pq.settings",
)
_NEW_JOBS = (f"create trigger moved before insert on pq.jobs for each statement {_REFUSES}",)
_WHEN = f"for each row when ({{row}}.name not in ({OWN})) {_REFUSES}"
_ALL_WRITES = (
    *(
        f"create trigger moved before insert or update or delete on pq.{name} for each statement {_REFUSES}"
        for name in _CLOSED
        if name != "settings"
    ),
    f"create trigger moved before insert or update on pq.settings {_WHEN.format(row='new')}",
    f"create trigger moved_delete before delete on pq.settings {_WHEN.format(row='old')}",
)


class PostgreSQLTransfer(SQLTransfer):
    """The rows of the schema `pq`."""

    queue: PersistentQSQLAlchemy

    def __init__(self, url: str) -> None:
        self.queue = PersistentQSQLAlchemy(url, even_if_moved=True)

    @property
    def _session(self) -> Session:
        return self.queue._session  # noqa: SLF001  # a part of the backend, in a file of its own

    @contextmanager
    def _writing(self) -> Iterator["psycopg.Connection[Any]"]:
        """One transaction, with the connection itself."""
        session = self._session
        with session.write(), session._connected() as connection:  # noqa: SLF001  # as above
            yield connection

    def dump(self, table: Table, after: Row | None, limit: int = CHUNK_ROWS) -> list[Row]:
        """The next rows, as many as fit in a chunk."""
        with self._writing() as connection:
            rows = connection.execute(_DUMP[table.name, after is None], behind(table, after, limit))
            return rows.fetchall()

    def load(self, table: Table, rows: Sequence[Row]) -> None:
        """Copy rows in; jobs past their triggers, which would let blocked ones run: so count them here."""
        is_jobs = table.name == "jobs"
        with self._writing() as connection:
            if is_jobs:
                connection.execute("alter table pq.jobs disable trigger user")
            with connection.cursor().copy(_COPY[table.name]) as copy:
                for row in rows:
                    copy.write_row(row)
            if is_jobs:
                connection.execute("alter table pq.jobs enable trigger user")
                self._session.execute(_COUNT_LOADED, {"first": rows[0][0], "last": rows[-1][0]})

    def erase(self) -> None:
        """Remove all rows at once."""
        with self._session.write():
            self._session.execute(_ERASE)
            self._session.execute(ERASE_SETTINGS)

    def numbers(self) -> dict[str, int]:
        """The last ids given."""
        return {name: int(self._session.rows(_LAST_NUMBER[name])[0][0] or 0) for name in NUMBERED}

    def advance(self, numbers: dict[str, int]) -> None:
        """Go on behind these ids."""
        for name, last in numbers.items():
            if last:
                self._session.execute(_ADVANCE[name], {"last": last})

    def refuse(self, what: Refusal) -> None:
        """Put triggers in the way, or take them away; who writes now is waited for."""
        session = self._session
        with session.write():
            session.execute("select set_config('lock_timeout', :time, true)", {"time": LOCK_PATIENCE})
            session.execute("select pg_advisory_xact_lock(:lock)", {"lock": triggers.FOLD_LOCK})
            session.execute(_LOCK)
            session.execute(_FUNCTION)
            for statement in _DROP:
                session.execute(statement)
            if what == "all writes":
                session.execute("select pq.fold(0)")
            for statement in {"nothing": (), "new jobs": _NEW_JOBS, "all writes": _ALL_WRITES}[what]:
                session.execute(statement)
