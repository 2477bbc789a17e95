"""One thread's connection to the database: its settings, its transactions, its errors as StorageError."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pq.errors import FileGoneError, StorageError
from pq.sqlite.gate import ClosedGate, WriteGate
from pq.transfer import MOVE_OUT, REFUSAL, moved_error

if TYPE_CHECKING:
    import sqlite3 as sqlite3  # noqa: PLC0414  # re-exported

    from sqlite_utils import Database

BUSY_TIMEOUT_SECONDS = 5.0
WAL_LIMIT_BYTES = 64 * 1024 * 1024
CHECKPOINT_PAGES = 1000
BLOCK_BYTES = 1024 * 1024
STEPS_BETWEEN_LOOKS = 20_000


def load_sqlite_utils() -> ModuleType:
    """sqlite_utils without numpy and pandas: it imports them where they are installed, for 0.4 s.

    It wants their types only for columns of new tables; once they are loaded it is told about them.
    """
    if "sqlite_utils" not in sys.modules:
        absent = [name for name in ("numpy", "pandas") if name not in sys.modules]
        sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None means: not installed
        try:
            import sqlite_utils.db
        finally:
            for name in absent:
                del sys.modules[name]
    import sqlite_utils

    columns = sqlite_utils.db.COLUMN_TYPE_MAPPING
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    # A module that is being imported by another thread may not have its types yet.
    if numpy is not None and hasattr(numpy, "float64") and numpy.float64 not in columns:
        columns |= {numpy.dtype(code).type: "INTEGER" for code in numpy.typecodes["AllInteger"]}
        columns |= {numpy.dtype(code).type: "REAL" for code in "efd"}
    if pandas is not None and hasattr(pandas, "Timestamp"):
        columns.setdefault(pandas.Timestamp, "TEXT")
    return sqlite_utils


if not TYPE_CHECKING:
    load_sqlite_utils()
    from sqlite_utils.utils import sqlite3  # the one SQLite library of this process

_ADVICE = {
    "SQLITE_FULL": "the disk is full; accepted jobs are safe: free some space",
    "SQLITE_BUSY": "another program, which does not use pq's gate, holds it locked; see `pq doctor`",
    "SQLITE_LOCKED": "another program, which does not use pq's gate, holds it locked; see `pq doctor`",
    "SQLITE_INTERRUPT": "the read took too long and was ended; ask for less",
    "SQLITE_READONLY": "it, or its folder, is read-only for this user",
    "SQLITE_CANTOPEN": "it cannot be opened; check that its folder exists and may be written",
    "SQLITE_NOTADB": "it is not an SQLite database; choose another file",
    "SQLITE_CORRUPT": "it is damaged; restore a backup, or try `sqlite3 FILE .recover`",
}


def storage_error(error: Exception, path: Path) -> StorageError:
    """The error that a person reads for one of SQLite's."""
    code = getattr(error, "sqlite_errorname", "") or ""
    if isinstance(error, UnicodeDecodeError):  # of SQLite's own message: a name in it is no text
        code = "SQLITE_CORRUPT"
    advice = next((text for name, text in _ADVICE.items() if code.startswith(name)), str(error))
    result = StorageError(f"cannot use the database {path}: {advice}")
    result.code = code  # type: ignore[attr-defined]  # for the consumer, which waits for a full disk
    return result


def _code(error: Exception) -> str:
    """SQLite's name of the error, also after it has become a StorageError."""
    return getattr(error, "sqlite_errorname", None) or getattr(error, "code", None) or "SQLITE_ERROR"


def is_storage_trouble(error: sqlite3.Error) -> bool:
    """Whether the database and not the statement is at fault (a user's own SQL keeps its own errors)."""
    return not _code(error).startswith(
        ("SQLITE_ERROR", "SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_RANGE", "SQLITE_MISUSE")
    )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116  # before every read: Path takes three times as long
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Session:
    """A connection that writes only inside the gate. Not shared by threads; not used after a fork."""

    def __init__(
        self,
        path: Path,
        gate: Path,
        gate_timeout_seconds: float | None,
        *,
        read_only: bool = False,
        read_seconds: float | None = None,
    ) -> None:
        """`read_only` makes SQLite refuse every write; a read that takes longer than `read_seconds` ends."""
        self.path = path
        self.read_only = read_only
        self._read_seconds = read_seconds
        self._late_at = float("inf")
        self.gate_timeout_seconds = gate_timeout_seconds
        self.in_transaction = False
        self.seen_version = -1
        self._durable = True
        self.gate = ClosedGate(path) if read_only else WriteGate(gate)
        try:
            self.connection = sqlite3.connect(
                f"{path.as_uri()}?mode=ro" if read_only else path,
                isolation_level=None,
                check_same_thread=False,
                timeout=BUSY_TIMEOUT_SECONDS,
                uri=read_only,
            )
            self.execute = self.connection.execute
            self.executemany = self.connection.executemany
            self._file = _identity(path)
            self._set_up()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            self.gate.close()
            raise storage_error(error, path) from None

    def _set_up(self) -> None:
        for pragma in (
            "trusted_schema = off",
            "cell_size_check = on",
            "synchronous = full",
            f"journal_size_limit = {WAL_LIMIT_BYTES}",
        ):
            self.execute(f"pragma {pragma}")
        if self._read_seconds is not None:
            self.connection.set_progress_handler(self._is_late, STEPS_BETWEEN_LOOKS)
        if self.read_only:
            self.execute("pragma query_only = on")
        elif self.execute("pragma journal_mode").fetchone()[0] != "wal":
            with self.turn():
                mode = self.execute("pragma journal_mode = wal").fetchone()[0]
                if mode != "wal":  # after an I/O error SQLite keeps the old mode and says nothing
                    raise StorageError(
                        f"cannot use the database {self.path}: its journal stays {mode!r} in place of WAL"
                    )

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A turn in the gate. An I/O error in it is remembered until the log is known to be on the disk."""
        try:
            self.gate.enter(self.gate_timeout_seconds)
            self._check_file()
            if self.gate.sync_has_failed():
                self._write_log_anew()
            yield
        except Exception as error:
            if _code(error).startswith("SQLITE_IOERR"):
                self.gate.note_failed_sync()
            raise
        finally:
            self.gate.leave()

    def _check_file(self) -> None:
        """Refuse to work on a file to which its name no longer leads: what goes there is lost at the end."""
        if _identity(self.path) != self._file:
            raise FileGoneError(
                f"the database {self.path} was deleted, moved or replaced while it was open here; put the "
                "file back, or restart every process that uses the queue"
            )

    def _write_log_anew(self) -> None:
        try:
            with suppress(FileNotFoundError):
                log = os.open(f"{self.path}-wal", os.O_RDWR)
                try:
                    at = 0
                    while block := os.pread(log, BLOCK_BYTES, at):
                        at += os.pwrite(log, block, at)
                    os.fsync(log)
                finally:
                    os.close(log)
            self.gate.forget_failed_sync()
        except OSError as error:
            raise StorageError(f"cannot use the database {self.path}: {error.strerror}") from error

    def _sync_log(self) -> None:
        """Closing checkpoints, and does not tell of an error; so what is not synced yet is synced before."""
        log = os.open(f"{self.path}-wal", os.O_RDWR)
        try:
            os.fsync(log)
        except OSError:
            self.gate.note_failed_sync()
        finally:
            os.close(log)

    @property
    def db(self) -> "Database":
        """The same connection as sqlite-utils sees it."""
        return load_sqlite_utils().Database(self.connection)  # type: ignore[no-any-return]

    def rows(self, statement: str, parameters: Any = ()) -> list[Any]:
        """A complete read: an unfinished cursor would keep the WAL from shrinking."""
        self._check_file()
        if self._read_seconds is not None:
            self._late_at = time.monotonic() + self._read_seconds
        try:
            return self.execute(statement, parameters).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise storage_error(error, self.path) from error

    def _is_late(self) -> bool:
        return time.monotonic() > self._late_at

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Several reads of one moment; within an open transaction, a part of that."""
        if self.in_transaction:
            yield
            return
        self.execute("begin")
        try:
            yield
        finally:
            self.execute("rollback")

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[None]:
        """One immediate transaction inside the gate; within an open one, a part of that.

        `durable` False leaves the fsync out: what it wrote may be undone by a power cut, together with
        all that came after it, but never by a crash of the process.
        """
        if self.in_transaction:
            yield
            return
        with self.turn():
            try:
                if durable is not self._durable:
                    self._sync_commits(durable=durable)
                self.execute("begin immediate")
                self.in_transaction = True
                yield
                self.execute("commit")
            except BaseException as error:
                with suppress(sqlite3.Error):
                    if self.connection.in_transaction:
                        self.execute("rollback")
                if isinstance(error, sqlite3.IntegrityError) and REFUSAL in str(error):
                    raise self._moved() from None
                if isinstance(error, sqlite3.Error) and is_storage_trouble(error):
                    raise storage_error(error, self.path) from error
                raise
            finally:
                self.in_transaction = False

    def _sync_commits(self, *, durable: bool) -> None:
        # A commit keeps quiet about errors of the checkpoint that it makes: that must find all synced.
        self.execute("pragma synchronous = full" if durable else "pragma synchronous = normal")
        self.execute(
            f"pragma wal_autocheckpoint = {CHECKPOINT_PAGES}" if durable else "pragma wal_autocheckpoint = 0"
        )
        self._durable = durable

    def _moved(self) -> StorageError:
        rows = self.rows("select value from settings where name = ?", (MOVE_OUT,))
        return moved_error(str(self.path), rows[0][0] if rows else None)

    def data_version(self) -> int:
        """A number that changes when another connection has committed."""
        return int(self.rows("pragma data_version")[0][0])

    def close(self) -> None:
        """Close inside the gate, because the last connection of a database checkpoints."""
        if self.gate_timeout_seconds is not None:
            self.gate_timeout_seconds = min(self.gate_timeout_seconds, 5.0)
        try:
            with self.turn():
                if not self._durable:
                    self._sync_log()
                self.connection.close()
        except StorageError:
            self.connection.close()
        finally:
            self.gate.close()
