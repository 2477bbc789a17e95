"""What run_all.py shows: one screen that says what runs and where, and a status line that lives."""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console
from rich.status import Status as Line
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping

PLAIN_SECONDS = 30.0  # between two status lines where there is no terminal
CHANGE_SECONDS = 2.0  # the same when a role has changed: one that flaps must not fill the screen
ALWAYS_SHOWN = ("completed", "failed")


@dataclass
class Screen:
    """The one place that prints. Everything is plain text: nothing of a job is read as markup."""

    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))
    line: Line | None = None
    said: str = ""
    said_at: float = -PLAIN_SECONDS

    def say(self, text: str) -> None:
        """Print a line above the status line."""
        self.console.print(Text(text))
        sys.stdout.flush()

    def begin(self, rows: Mapping[str, str]) -> None:
        """Print what runs, in two columns."""
        width = max(len(name) for name in rows)
        for name, value in rows.items():
            self.say(f"  {name:<{width}}  {value}")
        if self.console.is_terminal:
            self.line = Line("starting", console=self.console, refresh_per_second=4)
            self.line.start()

    def show(self, states: Mapping[str, str], counts: Mapping[str, int], seconds: float) -> None:
        """Renew the status line; without a terminal when a role changed, and every half a minute."""
        roles = describe_states(states)
        text = f"{_clock(seconds)}  {roles}  jobs: {describe_counts(counts)}"
        if self.line is not None:
            self.line.update(Text(text))
        elif time.monotonic() > self.said_at + (CHANGE_SECONDS if roles != self.said else PLAIN_SECONDS):
            self.said, self.said_at = roles, time.monotonic()
            self.say(text)

    def end(self) -> None:
        """Take the status line away."""
        if self.line is not None:
            self.line.stop()
            self.line = None


def describe_counts(counts: Mapping[str, int]) -> str:
    """What is done first, then only what there is, so that the line fits a narrow terminal."""
    rest = (status for status in counts if status not in ALWAYS_SHOWN and counts[status])
    return " · ".join(f"{counts[status]} {status}" for status in (*ALWAYS_SHOWN, *rest))


def describe_states(states: Mapping[str, str]) -> str:
    """`4 running`, and by name those that are in trouble."""
    words = {"BACKOFF": "crashed, will be restarted", "FATAL": "given up, see its log", "EXITED": "ended"}
    tally = Counter(states.values())
    up = tally["RUNNING"] + tally["STARTING"]
    parts = [f"{up} running"] if states else ["starting"]
    for state, word in words.items():
        names = [name for name, value in states.items() if value == state]
        if names:
            parts.append(f"{', '.join(names)} {word}")
    return " · ".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
