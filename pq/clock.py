"""The three clocks of one host: wall time for people, monotonic time and the boot for leases."""

import time
import uuid
from functools import cache
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """What the queue asks about time; tests pass one that they move by hand."""

    def now(self) -> float:
        """Wall time in seconds since 1970, UTC: due times, schedules, history."""

    def monotonic(self) -> float:
        """Seconds that no clock change moves, the same in all processes of this boot: leases."""

    def boot(self) -> str:
        """Names the boot that `monotonic` counts from; leases of another boot are void."""


class SystemClock:
    """The host's own clocks."""

    def now(self) -> float:
        """Wall time, UTC, in whole microseconds: what a datetime can hold, so that both sort alike."""
        return round(time.time(), 6)

    def monotonic(self) -> float:
        """System-wide on Linux, macOS and Windows."""
        return time.monotonic()

    def boot(self) -> str:
        """The kernel's boot id where there is one."""
        return _boot()


@cache
def _boot() -> str:
    boot_id = Path("/proc/sys/kernel/random/boot_id")
    if boot_id.exists():
        return boot_id.read_text(encoding="ascii").strip()
    try:
        import psutil

        # Minutes, because the reckoned boot time trembles by a second on some systems.
        return f"boot-{round(psutil.boot_time() / 60)}"
    except (ImportError, OSError):
        return f"unknown-{uuid.getnode()}"
