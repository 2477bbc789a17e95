"""The write gate: all writers of one database, in all processes, stand in one fair line.

SQLite's own busy handler sleeps and tries again, so that one writer of eight can wait for seconds; and
SQLite 3.7.0 to 3.51.2 can lose commits when two connections checkpoint at the same time (the WAL-reset
bug, sqlite.org/wal.html). A blocking flock in front of every write transaction cures both, because
checkpoints happen within commits, inside the gate.
"""

import os
import threading
from pathlib import Path

from pq.errors import StorageError

try:
    import fcntl
except ImportError:  # Windows: SQLite's busy handler is all there is
    fcntl = None  # type: ignore[assignment]


class WriteGate:
    """One thread's place in the line; the file is never removed, because others may stand before it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self._file = self._open()

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StorageError(f"cannot open {self._path}: {error.strerror}") from None

    def enter(self, timeout_seconds: float | None) -> None:
        """Wait for the turn; StorageError after `timeout_seconds` (None: wait without end)."""
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            return
        if timeout_seconds is None:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        else:
            self._enter_within(timeout_seconds)

    def _enter_within(self, timeout_seconds: float) -> None:
        """Block in a helper thread, on a file of its own: whoever polls instead is never served."""
        waiting = self._open()
        turn, decision = threading.Event(), threading.Lock()
        given_up = False

        def stand_in_line() -> None:
            fcntl.flock(waiting, fcntl.LOCK_EX)
            with decision:
                turn.set()
                if given_up:
                    os.close(waiting)

        threading.Thread(target=stand_in_line, daemon=True, name="pq write gate").start()
        came = False
        try:
            came = turn.wait(timeout_seconds)
        finally:  # after Ctrl-C too, nobody may be left holding the gate
            with decision:
                given_up = not came
                if given_up and turn.is_set():
                    os.close(waiting)
        if came:
            os.close(self._file)
            self._file = waiting
            return
        raise StorageError(
            f"the database was busy for {timeout_seconds:g} s: another process, or another queue object of "
            "this thread, holds a transaction open; see `pq doctor`"
        )

    def leave(self) -> None:
        """Let the next one in."""
        if fcntl is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    # Of a sync that failed the system forgets what it has not written, and the next one succeeds without it.
    # The first byte of the file says so to all who come through the gate.

    def note_failed_sync(self) -> None:
        """To be called inside the gate."""
        os.pwrite(self._file, b"!", 0)

    def sync_has_failed(self) -> bool:
        """Whether what was written before may not be on the disk."""
        return os.fstat(self._file).st_size > 0

    def forget_failed_sync(self) -> None:
        """To be called inside the gate, when all is on the disk."""
        os.ftruncate(self._file, 0)

    def __del__(self) -> None:
        # A thread that ended without closing its queue leaves its session to the garbage collector.
        self.close()

    def close(self) -> None:
        """Give the file back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class ClosedGate(WriteGate):
    """Lets nobody in: the gate of a connection that only reads."""

    def _open(self) -> int:
        return -1

    def enter(self, timeout_seconds: float | None) -> None:
        """Refuse."""
        del timeout_seconds
        raise StorageError(f"cannot change the queue {self._path}: it was opened to be read only")

    def leave(self) -> None:
        """Nobody is in."""

    def close(self) -> None:
        """There is nothing to be given back."""
