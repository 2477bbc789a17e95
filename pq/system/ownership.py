"""Who runs the system on one database: a lock that the kernel gives back when its holder dies."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pq.private import opener

if TYPE_CHECKING:
    from typing import IO

POLL_SECONDS = 0.3  # only where there is no flock


@dataclass(frozen=True, slots=True)
class Owner:
    """What the holder wrote into the lock file: its process id and the marker of all that it starts."""

    pid: int
    system: str


def lock_path(url: str, folder: Path) -> Path:
    """The lock file of the system on this queue: `queue.db-run` beside the database."""
    if "://" not in url:
        return Path(f"{url}-run").absolute()
    from hashlib import sha256

    return folder.absolute() / f"pq-{sha256(url.encode()).hexdigest()[:12]}-run"


class Ownership:
    """The exclusive right to run the system; `path` is the lock file, `previous` its last holder."""

    def __init__(self, path: Path, system: str) -> None:
        self.path = path
        self.file: IO[str] = open(path, "a+", encoding="utf-8", opener=opener)  # noqa: SIM115  # its lock
        self.previous = read_owner(path)
        if not _try_lock(self.file, exclusive=True):
            self.file.close()
            raise BlockingIOError(f"{path} is locked")
        self.file.truncate(0)
        self.file.write(json.dumps({"pid": os.getpid(), "system": system}))
        self.file.flush()

    def close(self) -> None:
        """Give the right back. The file stays: removing it would let two holders in."""
        self.file.close()


def take(path: Path, system: str, *, patience_seconds: float = 5.0) -> Ownership | Owner | None:
    """The ownership, or who has it (None: cannot be told).

    The guards of an owner that was killed hold the lock for the moment they need to end everything:
    that is waited for.
    """
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            return Ownership(path, system)
        except BlockingIOError:
            owner = read_owner(path)
            if (owner and _lives(owner.pid)) or time.monotonic() > deadline:
                return owner
        time.sleep(0.05)


def read_owner(path: Path) -> Owner | None:
    """The last holder, None where the file says nothing."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Owner(int(values["pid"]), str(values["system"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def owner_is_gone(path: Path) -> bool:
    """True when nobody runs the system."""
    with open(path, "a+", encoding="utf-8", opener=opener) as file:
        return _try_lock(file, exclusive=False)


def wait_for_the_end(path: Path) -> None:
    """Sleep until the owner has died, by whatever means; the kernel tells, nobody polls."""
    with open(path, "a+", encoding="utf-8", opener=opener) as file:
        if sys.platform == "win32":
            while not _try_lock(file, exclusive=False):
                time.sleep(POLL_SECONDS)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_SH)


def _lives(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


if sys.platform == "win32":
    import msvcrt

    LOCKED_BYTE = 1 << 20  # far behind the text, which must stay readable for others

    def _try_lock(file: IO[str], *, exclusive: bool) -> bool:
        del exclusive  # this system has one kind only; a guard holds it for a moment
        file.seek(LOCKED_BYTE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(file: IO[str], *, exclusive: bool) -> bool:
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
