"""Opening and closing a queue on a server; transactions, settings, copies, and what doctor reads."""

import getpass
import os
import shutil
import subprocess
import threading
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, make_url
from sqlalchemy.exc import ArgumentError

from pq import values
from pq.clock import Clock
from pq.errors import StorageError
from pq.interface import READ_SECONDS, PersistentQInterface
from pq.postgresql import schema, sql
from pq.postgresql.listening import Listener
from pq.postgresql.session import Idle, Session, connect_alone, open_engine, parted
from pq.settings import Settings, read_settings
from pq.transfer import MOVE_IN, MOVE_OUT, check_open

OLDEST_SERVER = 13


class Store(PersistentQInterface):
    """A schema `pq` in a database that many processes and threads use; a connection is only borrowed."""

    def __init__(
        self,
        url: str,
        *,
        clock: Clock | None = None,
        settings: Settings | None = None,
        even_if_moved: bool = False,
        read_only: bool = False,
        read_seconds: float | None = None,
    ) -> None:
        """Open the database at `url`, and make the tables where they are missing.

        Without `clock` all times are the server's. A password is better kept out of `url`: in
        PGPASSWORD, or in ~/.pgpass. `even_if_moved` is for `pq move`, which others must not come before.
        With `read_only` the server refuses every write once the tables are there, and ends what takes over
        `read_seconds`.
        """
        try:
            address = make_url(url).set(drivername="postgresql+psycopg")
        except (ArgumentError, ValueError):
            raise StorageError("the address cannot be read: write postgresql://USER@HOST/DATABASE") from None
        address, self._secrets = parted(address)
        self.url = address.set(drivername="postgresql").render_as_string()
        self.settings = settings or read_settings()
        self.folder = Path(self.settings.folder or ".").absolute()
        self.clock = clock
        self.actor = _user()
        self._given = url
        self._reader: Store | None = None
        self._read_only, self._read_seconds = False, None if not read_only else read_seconds
        self._engine = open_engine(address, self._secrets)
        self._idle = Idle(self._engine)
        self._engine_pid = os.getpid()
        self._local = threading.local()
        self._listener: Listener | None = None
        self._guard = threading.Lock()
        self._incarnations: dict[str, str] = {}
        self._presences: dict[str, int] = {}
        self._closed = False
        try:
            self._prepare()
            if not even_if_moved:
                check_open(self.url, self.setting(MOVE_OUT), self.setting(MOVE_IN))
            if read_only:
                self._idle.close()
                self._engine.dispose()
                self._engine = open_engine(address, self._secrets, read_only=True)
                self._read_only = True
                self._idle, self._local = Idle(self._engine), threading.local()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"PersistentQSQLAlchemy({self.url!r})"

    def _prepare(self) -> None:
        with self._session._connected() as connection:  # noqa: SLF001  # the schema is below sessions
            if connection.info.server_version < OLDEST_SERVER * 10_000:
                raise StorageError(f"{self.url} is older than PostgreSQL {OLDEST_SERVER}; upgrade the server")
            encoding = connection.execute("show server_encoding").fetchall()[0][0]
            if encoding != "UTF8":
                raise StorageError(f"{self.url} stores text as {encoding}; choose a database with UTF8")
            if not schema.is_current(connection, self.url):
                schema.migrate(connection, self.url)
        if self.clock is not None and self.setting("boot") != self.clock.boot():
            session = self._session
            with session.write():
                # Only a clock that was given can begin anew; the server's goes on for ever.
                session.execute("update jobs set lease_until = -1 where status = 'processing'")
                self.set_setting("boot", self.clock.boot())

    @property
    def _session(self) -> Session:
        """The thread's session; after a fork a new one, on connections of its own."""
        session: Session | None = getattr(self._local, "session", None)
        if session is not None and session.pid == os.getpid() and not self._closed:
            return session
        if self._closed:
            raise StorageError(f"the queue {self.url} is closed; connect again")
        if self._engine_pid != os.getpid():
            with self._guard:
                if self._engine_pid != os.getpid():
                    # The parent's connections: to close them here would end the parent's sessions.
                    self._engine.dispose(close=False)
                    self._idle = Idle(self._engine)
                    self._listener, self._engine_pid = None, os.getpid()
        self._local.session = session = Session(
            self._idle, self.url, read_only=self._read_only, read_seconds=self._read_seconds
        )
        return session

    def _listening(self) -> Listener:
        """The connection on which this object is present and waits, opened when first used."""
        if self._closed:
            raise StorageError(f"the queue {self.url} is closed; connect again")
        with self._guard:
            if self._listener is None:
                self._listener = Listener(lambda: connect_alone(self._engine, self._secrets))
            return self._listener

    def _now(self) -> float:
        return float(self._session.rows(sql.NOW)[0][0]) if self.clock is None else self.clock.now()

    @property
    def _clocks(self) -> dict[str, float | None]:
        """What the statements take for the server's clock: nothing, unless a clock was given."""
        if self.clock is None:
            return {"now": None, "monotonic": None}
        return {"now": self.clock.now(), "monotonic": self.clock.monotonic()}

    def transaction(self) -> AbstractContextManager[Connection]:
        """One transaction; the SQLAlchemy connection is for tables of your own in the same database."""
        return self._session.transaction()

    def reader(self) -> PersistentQInterface:
        """The same queue in transactions that are begun `read only`; it is closed with this one."""
        if self._read_seconds is not None:
            return self
        with self._guard:
            if self._reader is None:
                self._reader = type(self)(
                    self._given,
                    clock=self.clock,
                    settings=replace(self.settings, folder=str(self.folder)),
                    read_only=True,
                    read_seconds=READ_SECONDS,
                )
            return self._reader

    def setting(self, name: str, default: str | None = None) -> str | None:
        """A value that processes share; within a transaction others wait, so that it still holds."""
        session, named = self._session, {"name": values.name(name, "setting")}
        if session.in_transaction:
            session.execute(sql.LOCK_SETTING, named)
        rows = session.rows("select value from settings where name = :name", named)
        return rows[0][0] if rows else default

    def set_setting(self, name: str, value: str) -> None:
        """Store a shared value."""
        self._session.execute(
            "insert into settings values (:name, :value) "
            "on conflict (name) do update set value = excluded.value",
            {"name": values.name(name, "setting"), "value": values.storable(value)},
        )

    def backup(self, path: str) -> None:
        """Write a copy by pg_dump, to be read by pg_restore; StorageError where there is no pg_dump."""
        target = Path(os.path.realpath(path))
        if target.exists():
            raise StorageError(f"cannot back up to {target}: it exists; choose another name")
        program = shutil.which("pg_dump")
        if program is None:
            raise StorageError("cannot back up: pg_dump is not installed; it comes with PostgreSQL's clients")
        secret = {"PGPASSWORD": self._secrets["password"]} if "password" in self._secrets else {}
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        command = [program, "--format=custom", "--schema=pq", f"--file={target}", f"--dbname={self.url}"]
        environment = os.environ | secret
        done = subprocess.run(  # noqa: S603  # no shell; the address was parsed
            command, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            with suppress(OSError):
                target.unlink()
            raise StorageError(f"cannot back up: {' '.join(done.stderr.split())[:500]}")

    def health(self, *, full: bool = False) -> dict[str, Any]:
        """What `pq doctor` judges; the server itself looks after its pages."""
        del full
        rows = self._session.rows
        facts: dict[str, Any] = dict(zip(
            ("version", "is_replica", "fsync", "synchronous_commit", "max_connections", "connections",
             "own_connections", "bytes", "server_now", "idle_in_transaction", "dead_rows"),
            rows(sql.HEALTH)[0], strict=True))  # fmt: skip
        facts["steps"] = [name for (name,) in rows("select name from pq.migrations order by number")]
        facts["expired_leases"] = rows(sql.EXPIRED, self._clocks)[0][0]
        absent = {identity for (identity,) in rows(sql.ABSENT)}
        live = rows("select id, name from consumers where ended_at is null")
        facts["dead_consumers"] = [name for identity, name in live if identity in absent]
        return facts

    def close(self) -> None:
        """End the consumers that were registered here, and give all connections back."""
        if self._closed:
            return
        for identity in list(self._incarnations.values()):
            with suppress(StorageError):
                self.unregister_consumer(identity)
        self._closed = True
        if self._reader is not None:
            self._reader.close()
        if self._listener is not None:
            self._listener.close()
        if self._engine_pid == os.getpid():
            self._idle.close()
            self._engine.dispose()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "unknown"
