"""Presence: a lock that the kernel drops when a consumer's process dies, however it dies.

A POSIX record lock and not flock, because a child that a task starts must not inherit it.
"""

import os
import threading
from pathlib import Path

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]
    import msvcrt

# What this process holds. It must not open these files again: closing any file of a process drops all
# record locks that the process has on it.
_held: dict[tuple[int, Path], int] = {}
_guard = threading.Lock()


def hold(path: Path) -> None:
    """Make `path` and keep its lock until `drop`, or until this process dies."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    _try_lock(file)
    with _guard:
        _held[os.getpid(), path] = file


def drop(path: Path) -> None:
    """Give the lock back and remove the file."""
    with _guard:
        file = _held.pop((os.getpid(), path), None)
    if file is not None:
        os.close(file)
    path.unlink(missing_ok=True)


def alive(path: Path) -> bool:
    """Whether some process holds the lock of `path`."""
    with _guard:
        if (os.getpid(), path) in _held:
            return True
        try:
            file = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return False
        except PermissionError:  # another user's; only its lease can tell
            return True
        try:
            return not _try_lock(file)
        finally:
            os.close(file)


def _try_lock(file: int) -> bool:
    try:
        if fcntl is not None:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    except OSError:
        return False
    return True
