"""The SQLite end of a move."""

from collections.abc import Sequence

from pq.sql.rows import LARGE_PARAMETERS, LARGE_RESULT
from pq.sqlite.ends import INLINE_LENGTH
from pq.sqlite.session import Session, sqlite3, storage_error
from pq.sqlite.work import PersistentQSQLite
from pq.transfer import CHUNK_BYTES, CHUNK_ROWS, OWN_SETTINGS, REFUSAL, TABLES, Refusal, Row, Table, Transfer

ERASED_AT_ONCE = 1_000

_OWN = ", ".join(f"'{name}'" for name in OWN_SETTINGS)
_MOVES = {"settings": f"name not in ({_OWN})"}
_WHOLE = {
    name: f"case when large & {bit} then "
    f"(select value from job_values where job_id = id and name = '{name}') else {name} end"
    for name, bit in (("parameters", LARGE_PARAMETERS), ("result", LARGE_RESULT))
}


def _keys(table: Table) -> str:
    return ", ".join(table.columns[: table.keys])


def _dump(table: Table, after: str) -> str:
    columns = ", ".join(_WHOLE.get(name, name) for name in table.columns)
    where = " and ".join(part for part in (after, _MOVES.get(table.name, "")) if part)
    return (
        f"select {columns} from {table.name} {f'where {where}' if where else ''} "
        f"order by {_keys(table)} limit ?"
    )


def _where(table: Table) -> str:
    return f"where {_MOVES[table.name]}" if table.name in _MOVES else ""


_FIRST = {table.name: _dump(table, "") for table in TABLES}
_NEXT = {table.name: _dump(table, f"({_keys(table)}) > ({', '.join('?' * table.keys)})") for table in TABLES}
_COUNT = {table.name: f"select count(*) from {table.name} {_where(table)}" for table in TABLES}
_LAST = {
    table.name: f"select {_keys(table)} from {table.name} {_where(table)} "
    f"order by {_keys(table).replace(',', ' desc,')} desc limit 1"
    for table in TABLES
}
_ERASE = {
    table.name: f"delete from {table.name} {_where(table)}"
    for table in TABLES
    if table.name not in ("jobs", "attempts")
}
_LOAD = {
    table.name: f"insert into {table.name} ({', '.join(table.columns)}) "
    f"values ({', '.join('?' * len(table.columns))})"
    for table in TABLES
    if table.name != "jobs"
}
_JOB = next(table for table in TABLES if table.name == "jobs")
_LOAD_JOB = (
    f"insert into jobs ({', '.join(_JOB.columns)}, large) values ({', '.join('?' * len(_JOB.columns))}, ?)"
)
_LARGE = tuple(
    (name, _JOB.columns.index(name), bit)
    for name, bit in (("parameters", LARGE_PARAMETERS), ("result", LARGE_RESULT))
)

_CLOSED = ("jobs", "job_values", "attempts", "consumers", "actions", "buckets", "queues", "group_limits",
           "settings")  # fmt: skip
_TRIGGERS = {
    f"moved_{table}_{verb}": f"create trigger moved_{table}_{verb} before {verb} on {table} "
    + (f"when {'old' if verb == 'delete' else 'new'}.name not in ({_OWN}) " if table == "settings" else "")
    + f"begin select raise(abort, '{REFUSAL}'); end"
    for table in _CLOSED
    for verb in ("insert", "update", "delete")
}
_NEW_JOBS = "moved_jobs_insert"


class SQLiteTransfer(Transfer):
    """A queue file's rows."""

    queue: PersistentQSQLite

    def __init__(self, path: str) -> None:
        self.queue = PersistentQSQLite(path, even_if_moved=True)

    @property
    def _session(self) -> Session:
        return self.queue._session  # noqa: SLF001  # a part of the backend, in a file of its own

    def count(self, table: Table) -> int:
        """How many rows the table has."""
        return int(self._session.rows(_COUNT[table.name])[0][0])

    def dump(self, table: Table, after: Row | None, limit: int = CHUNK_ROWS) -> list[Row]:
        """The next rows, as many as fit in a chunk."""
        statement = _FIRST[table.name] if after is None else _NEXT[table.name]
        rows: list[Row] = []
        size = 0
        try:
            cursor = self._session.execute(statement, (*(after or ()), limit))
            for row in cursor:
                rows.append(row)
                size += sum(len(value) for value in row if isinstance(value, str))
                if size > CHUNK_BYTES:
                    break
            cursor.close()
        except sqlite3.Error as error:
            raise storage_error(error, self.queue.path) from error
        return rows

    def last_key(self, table: Table) -> Row | None:
        """The largest key."""
        rows = self._session.rows(_LAST[table.name])
        return rows[0] if rows else None

    def load(self, table: Table, rows: Sequence[Row]) -> None:
        """Store rows; long values of jobs go to their side table, counters are kept by the triggers."""
        session = self._session
        with session.write():
            many = session.connection.executemany
            if table.name != "jobs":
                many(_LOAD[table.name], rows)
                return
            jobs, apart = _split(rows)
            many(_LOAD_JOB, jobs)
            many("insert into job_values values (?, ?, ?)", apart)

    def erase(self) -> None:
        """Remove all rows; jobs in chunks, with what hangs on them."""
        session = self._session
        while True:
            with session.write():
                gone = session.execute(
                    "delete from jobs where id in (select id from jobs order by id limit ?)",
                    (ERASED_AT_ONCE,),
                ).rowcount
            if not gone:
                break
        with session.write():
            for statement in _ERASE.values():
                session.execute(statement)

    def numbers(self) -> dict[str, int]:
        """The last ids given."""
        rows = self._session.rows("select name, seq from sqlite_sequence where name in ('jobs', 'actions')")
        return {"jobs": 0, "actions": 0} | dict(rows)

    def advance(self, numbers: dict[str, int]) -> None:
        """Go on behind these ids."""
        session = self._session
        with session.write():
            for name, last in numbers.items():
                session.execute(
                    "insert into sqlite_sequence (name, seq) select ?, 0 "
                    "where not exists (select 1 from sqlite_sequence where name = ?)",
                    (name, name),
                )
                session.execute("update sqlite_sequence set seq = max(seq, ?) where name = ?", (last, name))

    def refuse(self, what: Refusal) -> None:
        """Put triggers in the way, or take them away."""
        session = self._session
        with session.write():
            for name, statement in _TRIGGERS.items():
                session.execute(f"drop trigger if exists {name}")
                if what == "all writes" or (what == "new jobs" and name == _NEW_JOBS):
                    session.execute(statement)


def _split(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The jobs' rows without long values, and the long values apart."""
    jobs, apart = [], []
    for row in rows:
        values, large = list(row), 0
        for name, place, bit in _LARGE:
            if values[place] is not None and len(values[place]) > INLINE_LENGTH:
                apart.append((row[0], name, values[place]))
                values[place] = None
                large |= bit
        jobs.append((*values, large))
    return jobs, apart
