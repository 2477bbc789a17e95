"""The SQLite end of a move."""

from collections.abc import Sequence

from pq.sql.rows import LARGE_PARAMETERS, LARGE_RESULT
from pq.sql.transfer import ERASE_SETTINGS, OWN, SQLTransfer, behind, dumps
from pq.sqlite.ends import INLINE_LENGTH
from pq.sqlite.session import Session, sqlite3, storage_error
from pq.sqlite.work import PersistentQSQLite
from pq.transfer import CHUNK_BYTES, CHUNK_ROWS, REFUSAL, TABLES, Refusal, Row, Table

ERASED_AT_ONCE = 1_000

_BITS = {"parameters": LARGE_PARAMETERS, "result": LARGE_RESULT}
_WHOLE = {
    name: f"case when large & {bit} then "
    f"(select value from job_values where job_id = id and name = '{name}') else {name} end"
    for name, bit in _BITS.items()
}
_DUMP = dumps(_WHOLE, {})
_LOAD = {
    table.name: f"insert into {table.name} ({', '.join(table.columns)}) "
    f"values ({', '.join('?' * len(table.columns))})"
    for table in TABLES
}
_JOB = next(table for table in TABLES if table.name == "jobs")
_LOAD_JOB = (
    f"insert into jobs ({', '.join(_JOB.columns)}, large) values ({', '.join('?' * len(_JOB.columns))}, ?)"
)
_LARGE = tuple((name, _JOB.columns.index(name), bit) for name, bit in _BITS.items())
# Attempts go with their jobs.
_ERASE = (*(f"delete from {table.name}" for table in TABLES[2:] if table.name != "settings"), ERASE_SETTINGS)

_CLOSED = ("job_values", "consumers", *(table.name for table in TABLES))
_TRIGGERS = {
    f"moved_{table}_{verb}": f"create trigger moved_{table}_{verb} before {verb} on {table} "
    + (f"when {'old' if verb == 'delete' else 'new'}.name not in ({OWN}) " if table == "settings" else "")
    + f"begin select raise(abort, '{REFUSAL}'); end"
    for table in _CLOSED
    for verb in ("insert", "update", "delete")
}
_NEW_JOBS = "moved_jobs_insert"


class SQLiteTransfer(SQLTransfer):
    """A queue file's rows."""

    queue: PersistentQSQLite

    def __init__(self, path: str) -> None:
        self.queue = PersistentQSQLite(path, even_if_moved=True)

    @property
    def _session(self) -> Session:
        return self.queue._session  # noqa: SLF001  # a part of the backend, in a file of its own

    def dump(self, table: Table, after: Row | None, limit: int = CHUNK_ROWS) -> list[Row]:
        """The next rows, as many as fit in a chunk."""
        rows: list[Row] = []
        size = 0
        try:
            cursor = self._session.execute(_DUMP[table.name, after is None], behind(table, after, limit))
            for row in cursor:
                rows.append(row)
                size += sum(len(value) for value in row if isinstance(value, str))
                if size > CHUNK_BYTES:
                    break
            cursor.close()
        except sqlite3.Error as error:
            raise storage_error(error, self.queue.path) from error
        return rows

    def load(self, table: Table, rows: Sequence[Row]) -> None:
        """Store rows; long values of jobs go to their side table, counters are kept by the triggers."""
        session = self._session
        with session.write():
            many = session.connection.executemany
            if table is not _JOB:
                many(_LOAD[table.name], rows)
                return
            jobs, apart = _split(rows)
            many(_LOAD_JOB, jobs)
            many("insert into job_values values (?, ?, ?)", apart)

    def erase(self) -> None:
        """Remove all rows; jobs in chunks, with what hangs on them."""
        session = self._session
        gone = True
        while gone:
            with session.write():
                gone = bool(
                    session.execute(
                        "delete from jobs where id in (select id from jobs order by id limit ?)",
                        (ERASED_AT_ONCE,),
                    ).rowcount
                )
        with session.write():
            for statement in _ERASE:
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
