"""The recorder in recorder.c, from Python: built, preloaded, switched on, and its trace read."""

import ctypes
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
NAMES = ("", "-wal", "-journal", "folder")
SHORT, KILL = -1, -9
_HEAD = struct.Struct("<IIQQqq")


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that happened: O created, W wrote, T truncated, U unlinked, S began a sync, E ended it, X
    failed at it, M a mark of the workload. `name` is an index of NAMES."""

    kind: str
    name: int
    thread: int
    inode: int
    offset: int
    data: bytes


def missing() -> str:
    """Why there can be no recording here, or nothing."""
    if not sys.platform.startswith("linux"):
        return "the recorder is preloaded into Linux processes"
    if shutil.which("cc") is None:
        return "there is no C compiler for the recorder"
    import sqlite3

    sqlite3.connect(":memory:").close()
    if "libsqlite3.so" not in Path("/proc/self/maps").read_text():
        return "this Python carries SQLite within itself, where nothing can be put between it and the system"
    return ""


def preload(module: str) -> None:
    """Start this harness anew with the recorder in it, unless it is already there."""
    if os.environ.get("PQ_RECORDER"):
        return
    if reason := missing():
        raise SystemExit(reason)
    folder = Path(tempfile.mkdtemp(prefix="pq-recorder-"))
    library = folder / "recorder.so"
    try:
        build = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl", "-pthread"]
        subprocess.run(build, check=True)
        environment = os.environ | {"LD_PRELOAD": str(library), "PQ_RECORDER": "1"}
        command = [sys.executable, "-m", module, *sys.argv[1:]]
        raise SystemExit(subprocess.run(command, env=environment, check=False).returncode)
    finally:
        shutil.rmtree(folder)


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def start(database: Path, trace: Path | None) -> None:
    """Record what this process does to the database; after a fork each child starts for itself."""
    _library().recorder_start(os.fsencode(database), None if trace is None else os.fsencode(trace))


def stop() -> None:
    """Record no more."""
    _library().recorder_stop()


def mark(text: str) -> None:
    """Enter a line of the workload's own."""
    _library().recorder_mark(text.encode())


def fault(kinds: str, at: int, action: int, *, sticky: bool = False) -> None:
    """Make the `at`th operation of these kinds fail with an errno, fall SHORT, or KILL; 0 counts only."""
    library = _library()
    library.recorder_fault.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int]
    library.recorder_fault(kinds.encode(), at, action, int(sticky))


def counted() -> int:
    """Operations of the kinds that `fault` named, since then."""
    _library().recorder_counted.restype = ctypes.c_long
    return int(_library().recorder_counted())


def read(trace: Path) -> Iterator[Record]:
    """The records in their order."""
    content = trace.read_bytes()
    position = 0
    while position < len(content):
        kind, name, thread, inode, offset, length = _HEAD.unpack_from(content, position)
        position += _HEAD.size
        yield Record(chr(kind), name, thread, inode, offset, content[position : position + length])
        position += length
