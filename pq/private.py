"""Files and folders for this user alone, whatever the umask says, and reads that follow no link."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from pq.errors import UnsafePathError

FILE_MODE, FOLDER_MODE = 0o600, 0o700
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)


def make_folder(folder: Path) -> None:
    """Make `folder` and what is missing above it; a folder that is there keeps the mode its owner gave it."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)


def replacing(path: Path) -> BinaryIO:
    """A new private file in the place of what has this name: a link there, of either kind, is removed."""
    path.unlink(missing_ok=True)
    return open(path, "xb", opener=opener)


def opener(path: str, flags: int) -> int:
    """For `open(path, mode, opener=opener)`: a new file is private, and a link at the last name refused."""
    return os.open(path, flags | _NO_LINK, FILE_MODE)


def unlinked(path: Path, root: Path) -> Path:
    """`path`, which lies below `root`, again. Raises UnsafePathError where a folder between them is a link.

    `root` itself may be one: that is how a user puts a folder on another disk.
    """
    for folder in path.parents:
        if folder == root:
            return path
        if folder.is_symlink():
            raise UnsafePathError(f"cannot use {path}: {folder} is a symbolic link; make it a folder")
    raise UnsafePathError(f"cannot use {path}: it lies outside {root}")


def read_below(path: Path, root: Path, most_bytes: int) -> bytes:
    """What a regular file below `root` holds; links, FIFOs and devices are refused without a wait.

    Raises OSError where it cannot be read, UnsafePathError where it may not.
    """
    try:
        number = os.open(unlinked(path, root), os.O_RDONLY | _NO_LINK | _NO_WAIT | getattr(os, "O_BINARY", 0))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnsafePathError(f"cannot read {path}: it is a symbolic link") from None
        raise
    with os.fdopen(number, "rb") as file:
        facts = os.fstat(number)
        if not stat.S_ISREG(facts.st_mode):
            raise UnsafePathError(f"cannot read {path}: it is not a regular file")
        if facts.st_size > most_bytes:
            raise UnsafePathError(f"cannot read {path}: it has more than {most_bytes // 10**6} MB")
        return file.read(most_bytes)
