"""The stamp task: every line of a file gets the time in front, in a new file under processed/.

A line ends with a line feed; a carriage return before it, any other byte, and a missing last line feed
stay as they are. The time is UTC, taken when the 256 kB block in which the line begins is processed, so
lines of one block share it and the memory used does not depend on the length of lines.
"""

import errno
import os
import stat
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pq.errors import InvalidJobError
from pq.private import FOLDER_MODE, opener
from pq.tasks import Context, task

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK_BYTES = 256 * 1024
PROGRESS_SECONDS = 0.5
INPUT_ROOT = "PQ_INPUT_ROOT"
ELSEWHERE = "elsewhere"

# Trying again does not help against these; anything else (a full disk, too many open files) may pass.
_FINAL = {
    errno.ENOENT: "it does not exist; put it there and resubmit the job",
    errno.ENOTDIR: "a part of its path is not a folder",
    errno.EACCES: "this user may not read it; change its permissions and resubmit the job",
    errno.EPERM: "this user may not read it; change its permissions and resubmit the job",
    errno.ELOOP: "its symbolic links do not end at a file",
    errno.ENAMETOOLONG: "its path is too long",
    errno.ENXIO: "it is not a regular file",
    errno.ENODEV: "it is not a regular file",
}


@task("stamp")
def stamp(context: Context, path: str) -> dict[str, object]:
    """Write processed/NAME: the lines of `path`, each with `2026-01-31T12:00:00.123456+00:00 ` in front.

    The input is only read. The output appears whole or not at all, so another try is harmless. Raises
    InvalidJobError where another try cannot help. The result names the output (relative to the folder),
    and the lines and bytes that were read.
    """
    source = _allowed(context, path)
    with _open_input(source, path) as data:
        output = _output(context, source)
        temporary = output.with_name(f".stamp-{context.job.id}-{context.job.token}.tmp")
        _make_folder(output.parent)
        _remove_leftovers(output.parent, context)
        try:
            lines, size = _write(context, data, temporary)
            temporary.replace(output)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(output.parent)
    name = output.relative_to(context.folder.resolve()).as_posix()
    return {"output": name, "lines": lines, "bytes": size}


def input_roots(folder: Path) -> list[Path]:
    """The folders below which input may lie: the database's own and those in PQ_INPUT_ROOT, resolved."""
    named = os.environ.get(INPUT_ROOT, "").split(os.pathsep)
    return [folder.resolve(), *(Path(root).resolve() for root in named if root.strip())]


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut. Windows keeps names by itself and has no such call."""
    if os.name == "nt":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


# -- what may be read -----------------------------------------------------------------------------


def _allowed(context: Context, path: object) -> Path:
    """The real place of `path` (relative to the folder), which lies below an input root."""
    folder = context.folder
    if not isinstance(path, str) or not path:
        raise InvalidJobError(f"path must be the name of a file, not {path!r:.100}")
    try:
        source = Path(os.path.realpath(folder / path))
    except (ValueError, OSError) as error:  # a NUL, characters that no file name has, a loop of links
        raise InvalidJobError(f"cannot stamp {path!r:.300}: {error}") from None
    if not any(source.is_relative_to(root) for root in input_roots(folder)):
        raise InvalidJobError(
            f"cannot stamp {path!r:.300}: it lies outside {folder}; {INPUT_ROOT} may name more folders"
        )
    # Closing one of these files would drop the locks that this process has on it.
    if str(source).startswith(os.path.realpath(context.queue.url)):
        raise InvalidJobError(
            f"cannot stamp {path!r:.300}: it is a part of the queue; use `pq backup` for a copy"
        )
    return source


def _open_input(source: Path, path: str) -> BinaryIO:
    """Open `source` for reading if it is a regular file, without following a link planted meanwhile.

    A FIFO or a device must neither hang the consumer nor be touched by it: hence the look before the
    opening, no blocking, and the look after it.
    """
    try:
        _check_regular(source.lstat(), path)
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        number = os.open(source, flags)
    except OSError as error:
        if error.errno not in _FINAL:
            raise
        raise InvalidJobError(f"cannot stamp {path!r:.300}: {_FINAL[error.errno]}") from None
    try:
        _check_opened(number, source, path)
    except BaseException:
        os.close(number)
        raise
    return os.fdopen(number, "rb", buffering=0)


def _check_opened(number: int, source: Path, path: str) -> None:
    _check_regular(os.fstat(number), path)
    if os.path.realpath(source) != str(source):
        raise InvalidJobError(f"cannot stamp {path!r:.300}: a folder above it was made a link just now")


def _check_regular(found: os.stat_result, path: str) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise InvalidJobError(
            f"cannot stamp {path!r:.300}: it is a folder; enqueue a job for each of its files"
        )
    if not stat.S_ISREG(found.st_mode):
        raise InvalidJobError(f"cannot stamp {path!r:.300}: it is not a regular file")


# -- where it is written --------------------------------------------------------------------------


def _output(context: Context, source: Path) -> Path:
    """Where the output goes: under processed/ as under inbox/, or apart, by job, for files from elsewhere.

    A link within processed/ is refused: it could lead out of the folder, or back onto the input.
    """
    folder = context.folder.resolve()
    inbox = (folder / "inbox").resolve()
    if inbox in source.parents and source.relative_to(inbox).parts[0] != ELSEWHERE:
        output = folder / "processed" / source.relative_to(inbox)
    else:
        output = folder / "processed" / ELSEWHERE / str(context.job.id) / source.name
    if output.parent.resolve() != output.parent:
        raise InvalidJobError(f"cannot write {output}: its folder is a symbolic link; make it a folder")
    if output.is_dir() and not output.is_symlink():
        raise InvalidJobError(f"cannot write {output}: there is a folder of this name; rename one of them")
    return output


def _make_folder(folder: Path) -> None:
    """Make `folder` and its parents, durably."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    try:
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    except FileExistsError:
        raise InvalidJobError(f"cannot write into {folder}: it is not a folder; remove it") from None
    sync_folder(folder.parent)


def _remove_leftovers(folder: Path, context: Context) -> None:
    """Remove what killed tries of this job left.

    Each try has a file of its own, by its token: a try that was paused and wakes up can then neither
    write into the file of the next one nor rename it before it is whole. Later tries are left alone.
    """
    prefix = f".stamp-{context.job.id}-"
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(prefix)]
    for name in names:
        token = name.removeprefix(prefix).removesuffix(".tmp")
        if token.isdecimal() and int(token) <= context.job.token:
            (folder / name).unlink(missing_ok=True)


# -- the work -------------------------------------------------------------------------------------


def _write(context: Context, data: BinaryIO, temporary: Path) -> tuple[int, int]:
    """Write the stamped lines durably into the new file `temporary`; the lines and bytes read."""
    total = os.fstat(data.fileno()).st_size
    lines = size = 0
    report_at = time.monotonic() + PROGRESS_SECONDS
    with open(temporary, "xb", opener=opener) as file:
        for count, read, block in _stamped(data):
            file.write(block)
            lines, size = lines + count, size + read
            if time.monotonic() >= report_at:
                context.progress(min(size / max(total, 1), 1.0), f"{size:,} of {total:,} bytes")
                report_at = time.monotonic() + PROGRESS_SECONDS
        file.flush()
        os.fsync(file.fileno())
    return lines, size


def _stamped(data: BinaryIO) -> "Iterator[tuple[int, int, bytes]]":
    """For each block of `data`: how many lines begin in it, its size, and it with the time before them."""
    begins = True
    while block := data.read(BLOCK_BYTES):
        mark = f"{datetime.now(UTC).isoformat(timespec='microseconds')} ".encode()
        ends = block.endswith(b"\n")
        inner = block.count(b"\n") - ends
        body = block[:-1] if ends else block
        stamped = (mark if begins else b"") + body.replace(b"\n", b"\n" + mark) + (b"\n" if ends else b"")
        yield inner + begins, len(block), stamped
        begins = ends
