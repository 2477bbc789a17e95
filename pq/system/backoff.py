"""How long to wait before a crashed role is started again, where pq and not Supervisor restarts it."""

from collections import deque
from dataclasses import dataclass, field

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 30.0
HEALTHY_SECONDS = 60.0  # a role that lived so long begins again with the shortest wait
CRASHES = 8  # so many in a row, none of them after a healthy time, and the role is given up


@dataclass
class Backoff:
    """Doubling waits: 0.5, 1, 2 … 30 seconds; after eight crashes in a row it is over."""

    crashes: deque[float] = field(default_factory=deque)

    def after_a_crash(self, now: float) -> float | None:
        """Seconds to wait, or None when the role is given up."""
        if self.crashes and now - self.crashes[-1] > HEALTHY_SECONDS:
            self.crashes.clear()
        self.crashes.append(now)
        if len(self.crashes) >= CRASHES:
            return None
        return min(FIRST_SECONDS * 2.0 ** (len(self.crashes) - 1), LONGEST_SECONDS)
