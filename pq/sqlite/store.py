"""Opening and closing a queue file; transactions, settings, copies, and what doctor reads."""

import getpass
import os
import shutil
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pq import values
from pq.clock import Clock, SystemClock
from pq.errors import StorageError
from pq.interface import READ_SECONDS, PersistentQInterface
from pq.settings import Settings, read_settings
from pq.sqlite import presence, safety, schema
from pq.sqlite.session import (
    BUSY_TIMEOUT_SECONDS,
    WAL_LIMIT_BYTES,
    Session,
    load_sqlite_utils,
    sqlite3,
    storage_error,
)
from pq.transfer import MOVE_IN, MOVE_OUT, check_open

if TYPE_CHECKING:
    from sqlite_utils import Database

GATE_TIMEOUT_SECONDS = 60.0
SHORT_PATIENCE = "pragma busy_timeout = 100"
PATIENCE = f"pragma busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000:g}"
RESERVE_BYTES = WAL_LIMIT_BYTES


class Store(PersistentQInterface):
    """A database file that several processes and threads may have open; each thread has its own session."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock | None = None,
        settings: Settings | None = None,
        reserve_bytes: int = RESERVE_BYTES,
        even_if_moved: bool = False,
        read_only: bool = False,
        read_seconds: float | None = None,
    ) -> None:
        """Open `path`, and make it and its tables where they are missing.

        `reserve_bytes` of free disk are kept for accepted jobs to finish: below that `enqueue` refuses.
        `even_if_moved` is for `pq move`, which others must not come before. With `read_only` SQLite refuses
        every write once the tables are there, and ends what takes over `read_seconds`.
        """
        safety.check_library(sqlite3)
        name = os.fspath(path)
        if not name or name.startswith((":memory:", "file:")) or "\0" in name:
            raise StorageError(f"cannot open {name!r}: a queue lives in a file; give its path")
        self.path = Path(os.path.realpath(name))
        safety.check_place(self.path)
        self.url = str(self.path)
        self.folder = self.path.parent
        self.clock = clock or SystemClock()
        self.settings = settings or read_settings()
        self.reserve_bytes = reserve_bytes
        self.actor = _user()
        self._gate_path = Path(f"{self.path}-gate")
        self._presence_folder = Path(f"{self.path}-consumers")
        self._incarnations: dict[str, str] = {}
        self._local = threading.local()
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._sessions_guard = threading.Lock()
        self._closed = False
        self._read_only = False
        self._read_seconds: float | None = None
        self._reader: Store | None = None
        # Before the first connection: its side files take their mode from the file.
        safety.create_private(self.path)
        safety.create_private(self._gate_path)
        safety.protect(self.path)
        try:
            self._prepare()
            if not even_if_moved:
                check_open(self.url, self.setting(MOVE_OUT), self.setting(MOVE_IN))
            if read_only:
                self._session.close()
                self._read_only, self._read_seconds = True, read_seconds
                self._local = threading.local()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"PersistentQSQLite({self.url!r})"

    def _prepare(self) -> None:
        session = self._session
        try:
            current = schema.check_version(session.db, self.url)
        except sqlite3.Error as error:
            raise storage_error(error, self.path) from None
        if not current:
            with session.write():
                # Looked at again inside the gate: another process may have just made them.
                if not schema.check_version(session.db, self.url):
                    schema.migrations().apply(session.db)
        boot = self.clock.boot()
        if self.setting("boot") != boot:
            with session.write():
                if self.setting("boot") != boot:
                    # The monotonic clock began anew, and no consumer lived through that.
                    session.execute("update jobs set lease_until = -1 where status = 'processing'")
                    self.set_setting("boot", boot)

    @property
    def _session(self) -> Session:
        """The thread's session, opened when first used; after a fork a new one."""
        session: Session | None = getattr(self._local, "session", None)
        if session is not None and self._local.pid == os.getpid() and not self._closed:
            return session
        if self._closed:
            raise StorageError(f"the queue {self.url} is closed; connect again")
        if session is not None:
            # The parent's connection: using it, or even closing it, would break the parent's locks.
            _abandoned.append(session)
        session = Session(
            self.path,
            self._gate_path,
            GATE_TIMEOUT_SECONDS,
            read_only=self._read_only,
            read_seconds=self._read_seconds,
        )
        self._local.session, self._local.pid = session, os.getpid()
        with self._sessions_guard:
            self._sessions.add(session)
        return session

    @contextmanager
    def transaction(self) -> Iterator["Database"]:
        """One immediate, durable transaction; `db` is a sqlite_utils.Database on the same connection."""
        session = self._session
        with session.write():
            yield session.db

    def reader(self) -> PersistentQInterface:
        """The same queue on connections with `mode=ro` and `query_only`; it is closed with this one."""
        if self._read_seconds is not None:
            return self
        with self._sessions_guard:
            if self._reader is None:
                self._reader = type(self)(
                    self.path,
                    clock=self.clock,
                    settings=self.settings,
                    read_only=True,
                    read_seconds=READ_SECONDS,
                )
            return self._reader

    def setting(self, name: str, default: str | None = None) -> str | None:
        """A value that processes share through the queue."""
        rows = self._session.rows(
            "select value from settings where name = ?", (values.name(name, "setting"),)
        )
        return rows[0][0] if rows else default

    def set_setting(self, name: str, value: str) -> None:
        """Store a shared value."""
        session = self._session
        with session.write():
            session.execute(
                "insert into settings values (?, ?) on conflict do update set value = excluded.value",
                (values.name(name, "setting"), values.storable(value)),
            )

    def check_space(self) -> None:
        """Refuse new jobs while the disk is nearly full, so that accepted ones can still finish."""
        free = shutil.disk_usage(self.folder).free
        if free < self.reserve_bytes:
            raise StorageError(
                f"cannot enqueue: only {free // 2**20} MB are free on the disk of {self.url}, and "
                f"{self.reserve_bytes // 2**20} MB are kept for accepted jobs to finish; free some space"
            )

    def backup(self, path: str) -> None:
        """Write a consistent copy by SQLite's backup, while work goes on."""
        target = Path(os.path.realpath(path))
        if target.exists():
            raise StorageError(f"cannot back up to {target}: it exists; choose another name")
        safety.check_place(target)
        safety.create_private(target)
        session = self._session
        try:
            copy = sqlite3.connect(target, isolation_level=None)
            try:
                session.connection.backup(copy)
                if (found := copy.execute("pragma quick_check").fetchall()) != [("ok",)]:
                    raise StorageError(f"the copy {target} is damaged: {found[0][0]}")
            finally:
                copy.close()
        except BaseException as error:
            with suppress(OSError):
                target.unlink()
            if isinstance(error, sqlite3.Error):
                raise storage_error(error, target) from None
            raise

    def checkpoint(self) -> int:
        """Move the WAL into the database and empty it; the bytes that a long reader keeps in it."""
        session = self._session
        with session.turn():
            # All writers stand behind this one meanwhile: it may wait for a short reader, not for a long one.
            session.rows(SHORT_PATIENCE)
            try:
                session.rows("pragma wal_checkpoint(truncate)")
            finally:
                session.rows(PATIENCE)
        return _size(f"{self.path}-wal")

    def health(self, *, full: bool = False) -> dict[str, Any]:
        """What `pq doctor` judges; `full` reads every page of the database."""
        rows = self._session.rows

        def pragma(name: str) -> Any:
            return rows(f"pragma {name}")[0][0]

        kind = safety.file_system(self.folder)
        return {
            "sqlite_version": sqlite3.sqlite_version,
            "library": sqlite3.__name__,
            "journal_mode": pragma("journal_mode"),
            "synchronous": pragma("synchronous"),
            "page_count": pragma("page_count"),
            "page_size": pragma("page_size"),
            "freelist_count": pragma("freelist_count"),
            "file_bytes": _size(str(self.path)),
            "wal_bytes": _size(f"{self.path}-wal"),
            "read_only": self._session.read_only,
            "wal_blocked_frames": self._blocked_frames(),
            "quick_check": [
                row[0] for row in rows("pragma integrity_check" if full else "pragma quick_check")
            ],
            "file_system": kind,
            "local": not safety.is_remote(kind),
            "free_bytes": shutil.disk_usage(self.folder).free,
            "reserve_bytes": self.reserve_bytes,
            "expired_leases": rows(
                "select count(*) from jobs where status = 'processing' and lease_until < ?",
                (self.clock.monotonic(),),
            )[0][0],
            "dead_consumers": [
                name
                for identity, name in rows("select id, name from consumers where ended_at is null")
                if not presence.alive(self._presence_path(identity))
            ],
            "mode": self.path.stat().st_mode & 0o777,
            "boot_matches": self.setting("boot") == self.clock.boot(),
        }

    def _blocked_frames(self) -> int | None:
        """WAL frames that a checkpoint cannot move because somebody reads an older state."""
        session = self._session
        if session.read_only:
            return None
        with session.turn():
            busy, frames, moved = session.rows("pragma wal_checkpoint(passive)")[0]
        return None if busy else max(frames - moved, 0)

    def _presence_path(self, identity: str) -> Path:
        return self._presence_folder / identity

    def close(self) -> None:
        """Close the sessions of all threads, and end the consumers that were registered here."""
        if self._closed:
            return
        for identity in list(self._incarnations.values()):
            with suppress(StorageError):
                self.unregister_consumer(identity)
        self._closed = True
        if self._reader is not None:
            self._reader.close()
        with self._sessions_guard:
            sessions = list(self._sessions)
        if getattr(self._local, "pid", os.getpid()) == os.getpid():
            for session in sessions:
                session.close()
        safety.unprotect(self.path)


_abandoned: list[Session] = []


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except FileNotFoundError:
        return 0


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "unknown"


__all__ = ["Store", "load_sqlite_utils"]
