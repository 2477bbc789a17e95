"""A kernel and all that it started: found below it and among the orphans, and ended together."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pq.kernels import child as kernel_child
from pq.system import processes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_CGROUPS = Path("/sys/fs/cgroup")


def end(kernel: int, marker: str, others: Mapping[int, str], *, alone: bool) -> None:
    """End a kernel of this process (it may have ended) and everything that it started.

    `others` are the other kernels with their markers. An orphan that this process adopted is the
    kernel's if it carries its marker, or carries none and no other kernel is at work (`alone`).
    """
    deadline = time.monotonic() + processes.PATIENCE_SECONDS
    seen: set[int] = set()
    while time.monotonic() < deadline:
        living = [pid for pid in _family(kernel, marker, others, alone=alone) if _lives(pid)]
        seen.update(living)
        if not any(map(_lives, seen)):  # a dying one no longer shows its marker
            return
        # All are stopped before the first is killed: one that sees another die could start a third.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in living:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
        time.sleep(0.001)


def _family(kernel: int, marker: str, others: Mapping[int, str], *, alone: bool) -> Iterator[int]:
    for child in children(os.getpid()):
        if child == kernel or (child not in others and _belongs(child, marker, others, alone=alone)):
            yield child
            yield from below(child)


def _belongs(orphan: int, marker: str, others: Mapping[int, str], *, alone: bool) -> bool:
    if alone:
        return True
    found = _marker(orphan)
    return found == marker and found not in others.values()


def _marker(pid: int) -> str | None:
    prefix = f"{kernel_child.MARKER}=".encode()
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if entry.startswith(prefix):
                return entry[len(prefix) :].decode(errors="replace")
    return None


def below(pid: int) -> Iterator[int]:
    """All descendants."""
    for child in children(pid):
        yield child
        yield from below(child)


def children(pid: int) -> list[int]:
    """The children of a process; where /proc does not list them, psutil looks through all processes."""
    folder = Path(f"/proc/{pid}/task")
    found: list[int] = []
    try:
        for thread in folder.iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # the thread has just ended
                found.extend(int(word) for word in (thread / "children").read_bytes().split())
        if found or Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists():
            return found
    except OSError:
        if Path("/proc/self/task").exists():
            return []
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.Error:
        return []


def _lives(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() not in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD})
    except psutil.Error:
        return False


def killed_for_memory() -> int:
    """How many processes the system has killed for memory in our control group; 0 where it does not tell."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                file = _CGROUPS / path.lstrip("/") / "memory.events"
            elif "memory" in controllers.split(","):
                file = _CGROUPS / "memory" / path.lstrip("/") / "memory.oom_control"
            else:
                continue
            with suppress(OSError):
                words = dict(row.split(" ", 1) for row in file.read_text(encoding="ascii").splitlines())
                if "oom_kill" in words:
                    return int(words["oom_kill"])
    return 0
