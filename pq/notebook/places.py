"""Where executed notebooks lie: runs/ beside the queue, or what PQ_RUNS names, a folder or an address.

An address (`s3://bucket/runs`) is written and read by fsspec; what its scheme needs (s3fs, gcsfs, …) is the
operator's to install. Names are those below the place: `7/1.ipynb` is the first attempt of job 7.
"""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pq.errors import NotebookError, UnsafePathError
from pq.private import make_folder, opener, read_below, replacing, unlinked
from pq.settings import read_settings

RUNS, RUNNING = "runs", ".running"
RUN_BYTES = 500_000_000
SLOW_SHARE = 10  # what takes long to write is written so much less often

log = logging.getLogger("pq")
Answer = TypeVar("Answer")


class CellNote(Protocol):
    """The number of the cell that runs, written apart because the whole notebook is too much for that."""

    def write(self, number: int) -> None:
        """The cell of this number runs now."""

    def flush(self) -> None:
        """Write what had to wait, if it has waited long enough."""

    def close(self) -> None:
        """No cell runs any more."""


class Place(Protocol):
    """A place of runs."""

    def address(self, name: str) -> str:
        """The whole path or address, for a person."""

    def reference(self, name: str) -> str:
        """What a job's result holds: below the queue's folder a relative path."""

    def read(self, name: str, most_bytes: int = RUN_BYTES) -> bytes:
        """Raises OSError."""

    def write(self, name: str, data: bytes, *, durable: bool = False) -> None:
        """Replace it as a whole; a reader sees the old or the new one. `durable` survives a power cut.

        What is not durable may be lost: a place far away must not end a run by failing now and then.
        """

    def note(self, name: str) -> CellNote:
        """Begin to tell which cell runs."""

    def exists(self, name: str) -> bool:
        """Whether it is there."""

    def remove(self, name: str) -> None:
        """Remove it, if it is there."""

    def rename(self, source: str, target: str) -> None:
        """Give it another name. Raises FileNotFoundError."""

    def names(self, folder: str) -> list[str]:
        """What a folder of the place holds; nothing where it is missing."""

    def sweep(self, name: str) -> None:
        """Remove what writers of this draft left that were killed in the middle."""


def place_of(folder: Path) -> Place:
    """Where the runs of a queue with this folder lie. Raises NotebookError where PQ_RUNS cannot be used."""
    wanted = read_settings().runs
    if wanted is None:
        return FolderPlace(folder / RUNS, RUNS)
    if "://" not in wanted:
        root = folder / wanted
        return FolderPlace(root, str(root))
    if wanted.startswith("file://"):
        root = Path(url2pathname(urlsplit(wanted).path))
        return FolderPlace(root, str(root))
    return RemotePlace(wanted.rstrip("/"))


class FolderPlace:
    """A folder of this machine, or one that several machines share."""

    def __init__(self, root: Path, base: str) -> None:
        self.root = root
        self._base = base

    def path(self, name: str) -> Path:
        """The file. Raises UnsafePathError where a link leads elsewhere."""
        return unlinked(self.root / name, self.root)

    def address(self, name: str) -> str:
        """The path."""
        return str(self.root / name)

    def reference(self, name: str) -> str:
        """`runs/7/1.ipynb`; the whole path where PQ_RUNS is set."""
        return f"{self._base}/{name}"

    def read(self, name: str, most_bytes: int = RUN_BYTES) -> bytes:
        """Read a regular file; a link is refused."""
        return read_below(self.path(name), self.root, most_bytes)

    def write(self, name: str, data: bytes, *, durable: bool = False) -> None:
        """Write beside it, and rename."""
        path = self.path(name)
        temporary = self.path(f"{_stem(name)}.{os.getpid()}.tmp")
        with replacing(temporary) as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)

    def note(self, name: str) -> "FolderNote":
        """An open file."""
        path = self.path(name)
        make_folder(path.parent)
        return FolderNote(path)

    def exists(self, name: str) -> bool:
        """Whether there is a file, or a link."""
        path = self.path(name)
        if path.is_symlink():
            raise UnsafePathError(f"cannot use {path}: it is a symbolic link, and no run")
        return path.exists()

    def remove(self, name: str) -> None:
        """Remove the file."""
        self.path(name).unlink(missing_ok=True)

    def rename(self, source: str, target: str) -> None:
        """Rename the file, into a new folder where need be."""
        make_folder(self.path(target).parent)
        self.path(source).replace(self.path(target))

    def names(self, folder: str) -> list[str]:
        """The names in a folder."""
        try:
            return [entry.name for entry in os.scandir(self.root / folder)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def sweep(self, name: str) -> None:
        """Remove temporary files."""
        for left in self.path(name).parent.glob(f"{PurePosixPath(name).name}.*.tmp"):
            left.unlink(missing_ok=True)


class FolderNote:
    """Two bytes in an open file: at once, and cheap."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "w", encoding="ascii", opener=opener)  # noqa: SIM115  # until the run is closed

    def write(self, number: int) -> None:
        """Write it now."""
        self._file.seek(0)
        self._file.write(f"{number}\n")
        self._file.flush()

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class RemotePlace:
    """A place that fsspec knows; a write replaces the whole object."""

    def __init__(self, url: str) -> None:
        self._url = url
        try:
            from fsspec.core import url_to_fs

            self._files, self._root = url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise NotebookError(
                f"PQ_RUNS={url} cannot be used: {error}; install fsspec and what the scheme needs, "
                "such as s3fs"
            ) from None

    def address(self, name: str) -> str:
        """The address."""
        return f"{self._url}/{name}"

    def reference(self, name: str) -> str:
        """The address."""
        return self.address(name)

    def read(self, name: str, most_bytes: int = RUN_BYTES) -> bytes:
        """Read it, if it is no larger than that."""
        data: bytes = self._ask(lambda: self._files.cat_file(self._path(name), end=most_bytes + 1))
        if len(data) > most_bytes:
            raise OSError(f"cannot read {self.address(name)}: it has more than {most_bytes // 10**6} MB")
        return data

    def write(self, name: str, data: bytes, *, durable: bool = False) -> None:
        """Put the object."""
        try:
            self._into(name, lambda: self._files.pipe_file(self._path(name), data))
        except OSError as error:
            if durable:
                raise
            log.warning("%s could not be written, and is tried again: %s", self.address(name), error)

    def note(self, name: str) -> "RemoteNote":
        """An object that is written now and then."""
        return RemoteNote(self, name)

    def exists(self, name: str) -> bool:
        """Whether there is an object."""
        return bool(self._ask(lambda: self._files.exists(self._path(name))))

    def remove(self, name: str) -> None:
        """Remove the object."""
        if self.exists(name):
            self._ask(lambda: self._files.rm_file(self._path(name)))

    def rename(self, source: str, target: str) -> None:
        """Copy it there, then remove it here: such places know no other way."""
        self._into(target, lambda: self._files.cp_file(self._path(source), self._path(target)))
        self._ask(lambda: self._files.rm_file(self._path(source)))

    def names(self, folder: str) -> list[str]:
        """The last parts of the names below."""
        try:
            found = self._ask(lambda: self._files.ls(self._path(folder), detail=False))
        except FileNotFoundError:
            return []
        return [PurePosixPath(one).name for one in found]

    def sweep(self, name: str) -> None:
        """An object is there or not, never in between."""

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _into(self, name: str, act: Callable[[], object]) -> None:
        """Do it; where places have real folders, make the one that is missing, but never the root itself."""
        try:
            self._ask(act)
        except FileNotFoundError:
            folder = self._path(name).rpartition("/")[0]
            if not self._ask(lambda: self._files.exists(self._root) and not self._files.exists(folder)):
                raise
            self._ask(lambda: self._files.makedirs(folder, exist_ok=True))
            self._ask(act)

    def _ask(self, act: Callable[[], Answer]) -> Answer:
        try:
            return act()
        except OSError:
            raise
        except Exception as error:  # each of fsspec's libraries has errors of its own
            raise OSError(f"{self._url}: {type(error).__name__}: {error}") from error


class RemoteNote:
    """The cell's number, at most a tenth of the time spent on it."""

    def __init__(self, place: RemotePlace, name: str) -> None:
        self._place = place
        self._name = name
        self._waits: int | None = None
        self._not_before = 0.0

    def write(self, number: int) -> None:
        """Write it, now or by a later flush."""
        self._waits = number
        self.flush()

    def flush(self) -> None:
        """Write what waits."""
        began = time.monotonic()
        if self._waits is not None and began >= self._not_before:
            self._place.write(self._name, f"{self._waits}\n".encode())
            self._waits = None
            self._not_before = time.monotonic() + SLOW_SHARE * (time.monotonic() - began)

    def close(self) -> None:
        """What waits is of no use any more."""
        self._waits = None


def _stem(name: str) -> str:
    """`.running/7-1-3.ended.ipynb` as `.running/7-1-3`."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition('.')[0]}"


def attempts_with_runs(place: Any, job_id: int) -> list[int]:
    """The attempts of a job that left a notebook."""
    stems = (PurePosixPath(name).stem for name in place.names(str(job_id)) if name.endswith(".ipynb"))
    return sorted(int(stem) for stem in stems if stem.isdecimal())
