"""One thread's way to the server: pooled connections, transactions with savepoints, its errors as ours."""

import os
import re
import selectors
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from pq.errors import ServerAwayError, StorageError
from pq.transfer import MOVE_OUT, REFUSAL, moved_error

TABLES = "jobs|attempts|consumers|actions|counters|buckets|queues|group_limits|settings"
IDLE_CONNECTIONS, MOST_MORE_CONNECTIONS = 3, 20
PLANNING = ("set enable_seqscan = off", "set plan_cache_mode = force_generic_plan", "set jit = off")
SECRET_OPTIONS = ("password", "sslpassword")
NOTHING: Mapping[str, Any] = {}

_ADVICE = {
    "42501": "this user may not do that; it needs to own the schema `pq`",
    "53100": "the server's disk is full; accepted jobs are safe: free some space",
    "53300": "the server has too many connections; raise max_connections, or use PgBouncer",
    "57P": "the server is stopping or starting; try again",
    "25006": "it was opened to be read only, or it is a replica",
    "57014": "the read took too long and was ended; ask for less",
    "40P01": "two transactions waited for each other; try again",
}


_PASSING = (
    *("starting up", "shutting down", "recovery mode", "accepting connections"),
    *("too many", "terminating connection"),
)


# The quickest to make of those that know no largest file number; Windows has only the last.
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


@cache
def native(statement: str) -> str:
    """The shared text as psycopg takes it, with the tables in the schema `pq`."""
    named = re.sub(r"(?<!:):([a-z_]+)", r"%(\1)s", statement.replace("%", "%%"))
    return re.sub(rf"\b(from|join|into|update)(\s+)({TABLES})\b", r"\1\2pq.\3", named)


def parted(url: URL) -> tuple[URL, dict[str, str]]:
    """The address without what is secret, which is never shown then, and the secret options."""
    secrets = {name: str(url.query[name]) for name in SECRET_OPTIONS if name in url.query}
    if url.password is not None:
        secrets["password"] = str(url.password)
    options = url.difference_update_query(SECRET_OPTIONS).query
    plain = URL.create(url.drivername, url.username, None, url.host, url.port, url.database, options)
    return plain, secrets


def storage_error(error: Exception, place: str) -> StorageError:
    """The error that a person reads for one of the server's or of the way to it, on one line."""
    code = getattr(error, "sqlstate", None) or ""
    advice = next((text for start, text in _ADVICE.items() if code.startswith(start)), None)
    if advice is None:
        advice = " ".join(str(error).split())[:300] or type(error).__name__
        advice = re.sub(r"(password\s*=\s*)\S+", r"\1…", advice)
    kind = ServerAwayError if is_away(error, code) else StorageError
    result = kind(f"cannot use the database {place}: {advice}")
    result.code = code  # type: ignore[attr-defined]  # for `resubmit`, which meets twins
    return result


def is_away(error: Exception, code: str) -> bool:
    """Whether later the same may succeed: no answer, or that of a server which starts, stops or is full.

    An error of connecting has no code; a server that refuses for good says FATAL.
    """
    if code:
        return code.startswith(("57P", "53300", "08"))
    if not isinstance(error, psycopg.OperationalError):
        return False
    return "FATAL" not in str(error) or any(words in str(error) for words in _PASSING)


def open_engine(url: URL, secrets: dict[str, str], *, read_only: bool = False) -> Engine:
    """Connections that are opened when they are needed, and kept while few are idle.

    `read_only` begins each transaction so: as a setting it would go on to others behind PgBouncer.
    """
    engine = create_engine(
        url,
        pool_size=IDLE_CONNECTIONS,
        max_overflow=MOST_MORE_CONNECTIONS,
        pool_reset_on_return=None,  # none is given back within a transaction
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,  # jobs are not for error messages
        connect_args=_options(url) | secrets,
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        set_up_connection(connection)
        connection.read_only = read_only or None

    return engine


def _options(url: URL) -> dict[str, Any]:
    """How long to wait for a server, and how soon to notice that its host is gone; the address wins."""
    options = {"application_name": "pq", "connect_timeout": 10, "keepalives_idle": 15,
               "keepalives_interval": 5, "keepalives_count": 3}  # fmt: skip
    return {name: value for name, value in options.items() if name not in url.query}


def set_up_connection(connection: Any) -> None:
    """What every connection needs.

    To plan a statement takes as long as to run it: each is planned once. But a plan that was made for an
    empty table is kept while the table grows, so none may read all of it.
    """
    connection.autocommit = True
    for setting in PLANNING:
        connection.execute(setting)


def connect_alone(engine: Engine, secrets: dict[str, str]) -> psycopg.Connection[Any]:
    """A connection outside the pool."""
    arguments, options = engine.dialect.create_connect_args(engine.url)
    own = _options(engine.url) | secrets | {"application_name": "pq listener"}
    connection: Any = engine.dialect.connect(*arguments, **{**options, **own})
    set_up_connection(connection)
    return connection  # type: ignore[no-any-return]  # the psycopg dialect's


def readable(seconds: float, *sources: Any) -> list[Any]:
    """Those of the sources that have something to be read, within that time; of any number of open files."""
    with _Selector() as selector:
        for source in sources:
            selector.register(source, selectors.EVENT_READ)
        return [key.fileobj for key, _ in selector.select(seconds)]


class Idle:
    """Connections that were just given back: to ask the pool for one costs as much as a statement."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._connections: list[Any] = []

    def take(self) -> Any:
        """A connection on which the server has not hung up: an idle one has nothing to be read."""
        while True:
            try:
                pooled = self._connections.pop()
            except IndexError:
                pooled = self.engine.raw_connection()
            if not readable(0, pooled.driver_connection):
                return pooled
            pooled.invalidate()

    def give(self, pooled: Any) -> None:
        """Keep it for the next, unless there are enough, or it is broken."""
        connection = pooled.driver_connection
        if connection is None or connection.broken:
            pooled.invalidate()
        elif len(self._connections) < IDLE_CONNECTIONS:
            self._connections.append(pooled)
        else:
            pooled.close()

    def close(self) -> None:
        """Give all back."""
        while self._connections:
            self._connections.pop().close()


class Session:
    """A thread's transactions. Not shared by threads; not used after a fork."""

    def __init__(
        self, idle: Idle, place: str, *, read_only: bool = False, read_seconds: float | None = None
    ) -> None:
        """`read_only` makes the server refuse every write; a read that takes over `read_seconds` ends."""
        self._read_only = read_only
        self._read_seconds = read_seconds
        self._idle = idle
        self._place = place
        self._open: psycopg.Connection[Any] | None = None
        self._outer: Connection | None = None
        self.pid = os.getpid()

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open in this thread."""
        return self._open is not None

    def rows(self, statement: str, parameters: Mapping[str, Any] = NOTHING, /) -> list[Any]:
        """A complete read."""
        return self.execute(statement, parameters).fetchall()

    def execute(self, statement: str, parameters: Mapping[str, Any] = NOTHING, /) -> psycopg.Cursor[Any]:
        """A statement, by itself its own transaction."""
        if self._read_only and self._open is None:
            return self._only_read(statement, parameters)
        pooled: Any = None if self._open is not None else self._check_out()
        try:
            connection: psycopg.Connection[Any] = self._open or pooled.driver_connection
            return connection.execute(native(statement), parameters)
        except psycopg.Error as error:
            raise self._ours(error) from error
        finally:
            if pooled is not None:
                self._idle.give(pooled)

    def _only_read(self, statement: str, parameters: Mapping[str, Any]) -> psycopg.Cursor[Any]:
        with self._connected() as connection, connection.transaction():
            if self._read_seconds is not None:
                most = str(round(self._read_seconds * 1000))
                connection.execute("select set_config('statement_timeout', %s, true)", (most,))
            return connection.execute(native(statement), parameters)

    def executemany(self, statement: str, parameters: Sequence[Mapping[str, Any]], /) -> psycopg.Cursor[Any]:
        """The same statement for each, in one go to the server."""
        with self._connected() as connection:
            cursor = connection.cursor()
            cursor.executemany(native(statement), parameters)
            return cursor

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[None]:
        """One transaction; within an open one a savepoint, so that its failure leaves the rest whole."""
        with self._connected() as connection:
            outermost = self._open is None
            try:
                with connection.transaction():
                    self._open = connection
                    if not durable:
                        connection.execute("set local synchronous_commit = off")
                    yield
            finally:
                if outermost:
                    self._open = None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction as SQLAlchemy sees it; within an open one a part of that."""
        if self._outer is not None:
            yield self._outer
            return
        engine = self._idle.engine.execution_options(isolation_level="READ COMMITTED")
        try:
            with engine.connect() as outer, outer.begin():
                # The user's own tables are planned as ever; and only now the transaction has begun.
                outer.exec_driver_sql("set local enable_seqscan = on")
                outer.exec_driver_sql("set local plan_cache_mode = auto")
                self._outer, self._open = outer, outer.connection.driver_connection
                yield outer
        except DBAPIError as error:
            if error.connection_invalidated or is_trouble(error.orig):
                raise storage_error(error.orig or error, self._place) from None
            raise
        except psycopg.Error as error:
            raise self._ours(error) from None
        finally:
            self._outer = self._open = None

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        """The open transaction's connection, or one from the pool; the server's errors as ours."""
        pooled: Any = None if self._open is not None else self._check_out()
        try:
            yield self._open or pooled.driver_connection
        except psycopg.Error as error:
            raise self._ours(error) from error
        finally:
            if pooled is not None:
                self._idle.give(pooled)

    def _check_out(self) -> Any:
        try:
            return self._idle.take()
        except psycopg.Error as error:
            raise storage_error(error, self._place) from None
        except DBAPIError as error:  # SQLAlchemy asks the first connection for the server's version
            raise storage_error(error.orig or error, self._place) from None
        except PoolTimeoutError:
            raise StorageError(
                f"cannot use the database {self._place}: more than "
                f"{IDLE_CONNECTIONS + MOST_MORE_CONNECTIONS} threads use it at once"
            ) from None

    def _ours(self, error: Exception) -> StorageError:
        """The error of the queue that tells of this one of the server's."""
        if REFUSAL not in str(error):
            return storage_error(error, self._place)
        pooled = self._check_out()
        try:
            rows = pooled.driver_connection.execute(
                "select value from pq.settings where name = %s", (MOVE_OUT,)
            ).fetchall()
        finally:
            self._idle.give(pooled)
        return moved_error(self._place, rows[0][0] if rows else None)


def is_trouble(error: BaseException | None) -> bool:
    """Whether the server or the way to it, and not a statement, is at fault."""
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
