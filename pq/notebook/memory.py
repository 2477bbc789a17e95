"""The memory limit of one run: how it is written, and whether the run keeps to it."""

import re
from contextlib import suppress
from typing import Any

from pq.errors import InvalidJobError

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
LEAST_BYTES = 64 * 2**20
HEADROOM_BYTES = 256 * 2**20


def memory_bytes(value: object) -> int:
    """`2G`, `500M`, or a number of bytes. Raises InvalidJobError."""
    text = str(value).strip().upper().removesuffix("IB").removesuffix("B")
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)", text)
    if isinstance(value, bool) or found is None:
        raise InvalidJobError(f"memory must be a size such as 500M or 2G, not {value!r:.50}")
    size = int(float(found[1]) * UNITS[found[2]])
    if not LEAST_BYTES <= size < 2**50:
        raise InvalidJobError(f"memory must be at least {LEAST_BYTES // 2**20}M, not {value!r:.50}")
    return size


class MemoryWatch:
    """Holds a kernel and all that it starts to a limit; there is none where `limit` is None."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._process: Any = None

    def attach(self, pid: int | None) -> None:
        """Watch this process from now on; Linux also refuses it single allocations far over the limit."""
        if self.limit is None or pid is None:
            return
        import psutil

        with suppress(psutil.Error, OSError, ValueError, AttributeError):
            self._process = psutil.Process(pid)
            # A hard stop between two looks. What the interpreter and its threads reserve needs the room.
            self._process.rlimit(psutil.RLIMIT_DATA, (self.limit + HEADROOM_BYTES,) * 2)

    def is_over(self) -> bool:
        """Whether the processes of the run hold more than the limit now."""
        if self.limit is None or self._process is None:
            return False
        import psutil

        total = 0
        with suppress(psutil.Error):
            for process in (self._process, *self._process.children(recursive=True)):
                with suppress(psutil.Error):
                    total += process.memory_info().rss
        return total > self.limit

    def told(self) -> str:
        """The limit as a person writes it."""
        return "it has" if self.limit is None else f"{self.limit / 2**20:,.0f} MB"
