"""What would break SQLite's locking, refused: a second library, a plain `open`, a network file system."""

import os
import sqlite3 as standard_sqlite3
import stat
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

from pq.errors import StorageError

MINIMUM_SQLITE = (3, 35, 0)
REMOTE_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "9p", "afs", "ceph",
                                 "glusterfs", "lustre", "drvfs", "vboxsf", "virtiofs"})  # fmt: skip
# The files on which SQLite holds locks; it takes none on the write-ahead log.
SIDES = ("", "-shm")

_protected: Counter[str] = Counter()
_names: Counter[str] = Counter()
_hook_installed = False


def check_library(sqlite3: ModuleType) -> None:
    """Refuse an SQLite too old, or one that differs from the standard library's.

    Two SQLite libraries on one file in one process drop each other's POSIX locks.
    """
    if sqlite3.sqlite_version_info < MINIMUM_SQLITE:
        raise StorageError(f"SQLite {sqlite3.sqlite_version} is too old: pq needs 3.35 or newer")
    if sqlite3 is not standard_sqlite3 and sqlite3.sqlite_version != standard_sqlite3.sqlite_version:
        raise StorageError(
            f"two SQLite libraries in one process: {sqlite3.__name__} {sqlite3.sqlite_version} and sqlite3 "
            f"{standard_sqlite3.sqlite_version}; together they lose data: "
            f"uninstall {sqlite3.__name__.split('.')[0]}"
        )


def protect(path: Path) -> None:
    """From now on refuse `open` of the database's files in this process.

    Closing any file of a process drops the process's POSIX locks on it: one backup script that reads
    the file loses committed rows (100 of 102 when it was tried).
    """
    global _hook_installed  # noqa: PLW0603  # an audit hook is for the whole process and cannot be removed
    for side in SIDES:
        _protected[f"{path}{side}"] += 1
        _names[path.name + side] += 1
    if not _hook_installed:
        _hook_installed = True
        sys.addaudithook(_refuse_open)


def unprotect(path: Path) -> None:
    """Undo one `protect`."""
    for side in SIDES:
        _protected[f"{path}{side}"] -= 1
        _names[path.name + side] -= 1


def _refuse_open(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not isinstance(arguments[0], str | bytes):
        return
    name = os.fsdecode(arguments[0])
    # The last part first: resolving every path that a process opens would be felt.
    if _names[name.rpartition(os.sep)[2]] > 0 and _protected[os.path.realpath(name)] > 0:
        raise StorageError(
            f"{name} is open as a pq queue in this process; reading the file directly would break its locks: "
            "use queue.backup(path) for a copy, os.stat for its size"
        )


def file_system(path: Path) -> str:
    """The type of the file system that `path` is on; an empty text where it cannot be told."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    for line in lines:
        left, _, right = line.partition(" - ")
        mount = left.split()[4].encode().decode("unicode_escape")
        if len(mount) >= len(best) and (path == Path(mount) or Path(mount) in path.parents):
            best, kind = mount, right.split()[0]
    return kind


def is_remote(kind: str) -> bool:
    """Whether SQLite's locks cannot be trusted on this type of file system."""
    return kind in REMOTE_FILE_SYSTEMS or kind.startswith(("fuse.sshfs", "fuse.rclone"))


def check_place(path: Path) -> None:
    """Refuse a place where a database cannot live, with what to do instead."""
    folder = path.parent
    if not folder.is_dir():
        raise StorageError(f"cannot open {path}: the folder {folder} does not exist")
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        raise StorageError(f"cannot open {path}: it is not a file")
    kind = file_system(folder)
    if is_remote(kind) and os.environ.get("PQ_ALLOW_REMOTE") != "1":
        raise StorageError(
            f"cannot open {path}: {kind} is a network file system, where SQLite's locks fail; "
            "keep the database on a local disk, or use PostgreSQL"
        )


def create_private(path: Path) -> None:
    """Make an empty file that only its owner may read, so that SQLite's side files are private too."""
    if path.exists():
        return
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return
    except StorageError:  # by the hook above
        raise StorageError(
            f"cannot create {path}: it was deleted while this process has it open; close that queue first, "
            "or restart the process or kernel"
        ) from None
    except OSError as error:
        raise StorageError(f"cannot create {path}: {error.strerror}") from None
