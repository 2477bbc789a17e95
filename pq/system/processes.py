"""Ending processes so that none is left: all descendants of this one, or all that carry a marker."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

SYSTEM = "PQ_SYSTEM"  # in the environment of everything that one run of the system starts
ROLE = "PQ_ROLE"  # and in that of everything below one guard
PATIENCE_SECONDS = 10.0  # for a process in an uninterruptible call, which nothing can end


def current_umask() -> int:
    """What this process takes from the modes of new files; asking is setting it, for a moment."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def become_subreaper() -> bool:
    """From now on a descendant whose parent dies becomes a child of this process (Linux only)."""
    if sys.platform != "linux":
        return False
    import ctypes

    set_child_subreaper = 36
    return bool(ctypes.CDLL(None, use_errno=True).prctl(set_child_subreaper, 1, 0, 0, 0) == 0)


def reap_until(child: subprocess.Popen[bytes]) -> None:
    """Sleep until the child has ended, and bury the adopted orphans that end before it."""
    if sys.platform == "linux":
        try:
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)) and ended.si_pid != child.pid:
                os.waitpid(ended.si_pid, 0)
        except ChildProcessError:
            pass  # another thread was quicker
    child.wait()


def end_descendants() -> None:
    """End everything below this process; what starts meanwhile is found by the next look."""
    me = psutil.Process()
    _end(lambda: list(me.children(recursive=True)))


def end_marked(system: str, role: str | None = None) -> int:
    """End all processes of one run of the system (of one role); returns how many there were.

    This finds what a killed guard left behind, in whatever session and under whatever parent.
    """
    return _end(lambda: marked(system, role))


def marked(system: str, role: str | None = None) -> list[Any]:
    """The living processes that carry the marker, this one and its own parents apart."""
    me = psutil.Process()
    spared = {me.pid, *(parent.pid for parent in me.parents())}
    found = []
    for process in psutil.process_iter():
        if process.pid in spared:
            continue
        try:
            environment = process.environ()
        except (psutil.Error, OSError):
            continue  # another user's, or gone
        if environment.get(SYSTEM) == system and role in (None, environment.get(ROLE)):
            found.append(process)
    return found


def _end(look: Callable[[], list[Any]]) -> int:
    # All are stopped before the first is killed: one that sees another die could start a third.
    seen: set[int] = set()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        living = [process for process in look() if _lives(process)]
        if not living:
            break
        seen.update(process.pid for process in living)
        for process in living:
            _quietly(process.suspend)
        for process in living:
            _quietly(process.kill)
        time.sleep(0.005)
    return len(seen)


def _lives(process: Any) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE) and process.pid != os.getpid()
    except psutil.Error:
        return False


def _quietly(call: Callable[[], None]) -> None:
    try:
        call()
    except (psutil.Error, OSError):
        return  # it is gone, which is what was wanted
