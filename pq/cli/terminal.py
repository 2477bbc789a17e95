"""Text of jobs on a terminal: made harmless, shortened, and set in tables."""

import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

# Wide enough that a pipe gets whole lines, narrow enough for an editor.
PIPE_WIDTH = 240

STATUS_STYLES = {
    "blocked": "dim",
    "scheduled": "cyan",
    "pending": "blue",
    "processing": "yellow",
    "completed": "green",
    "failed": "bold red",
    "cancelled": "magenta",
    "ok": "green",
    "warning": "yellow",
    "error": "bold red",
}


def safe(value: object) -> str:
    r"""`value` as one line whose control characters, ANSI escapes and bidi marks are shown as escapes.

    A terminal obeys what it is sent: a job's text could otherwise move the cursor, rename the window
    or turn a line around. The rule is `str.isprintable`, so the escapes are those of `repr`.
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(map(_printable, text))


def block(value: object) -> str:
    """`value` made safe line by line, for tracebacks and JSON."""
    return "\n".join(safe(line.expandtabs(4)) for line in str(value).split("\n"))


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    if unicodedata.category(character) == "Zs":  # a no-break space is a space
        return " "
    return character.encode("unicode_escape").decode("ascii")


def short(value: object, width: int = 60) -> str:
    """`value` made safe and cut to `width` characters."""
    line = safe(str(value)[: 4 * width])
    return line if len(line) <= width else line[: width - 1] + "…"


def span(length: timedelta) -> str:
    """A length of time in its largest unit: 3ms, 1.5s, 12s, 5m, 3h, 7d."""
    seconds = abs(length.total_seconds())
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    return f"{seconds:.0f}s" if seconds >= 10 else f"{seconds:.1f}s"


def distance(moment: datetime | None, now: datetime) -> str:
    """How far `moment` lies from now: `in 5m`, `3h ago`, or `now`."""
    if moment is None:
        return ""
    if abs(moment - now) < timedelta(seconds=1):
        return "now"
    return f"in {span(moment - now)}" if moment > now else f"{span(now - moment)} ago"


def clock_time(moment: datetime | None) -> str:
    """`moment` to the second, in this computer's time zone, with its offset."""
    return "" if moment is None else moment.astimezone().isoformat(sep=" ", timespec="seconds")


def word(value: str) -> "Text":
    """A status or level, coloured; it is readable without the colour."""
    from rich.text import Text

    return Text(safe(value), style=STATUS_STYLES.get(value, ""))


def console(*, stderr: bool = False) -> "Console":
    """Where tables go: no markup, no emoji codes, no guessed highlights; wide when it is no terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False, soft_wrap=False)


def table(
    headings: Sequence[str], rows: Iterable[Sequence[object]], *, flexible: Sequence[str] = ()
) -> "Table":
    """A plain table of one line a row; cells are Text, or anything else, which is made safe.

    Columns of numbers stand to the right. Where the width does not suffice, the `flexible` columns
    are cut first.
    """
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", expand=False)
    lines = [[cell if isinstance(cell, Text) else Text(safe(cell)) for cell in row] for row in rows]
    for index, heading in enumerate(headings):
        right = bool(lines) and all(_is_number(line[index].plain) for line in lines)
        made.add_column(
            Text(heading, no_wrap=True, overflow="ellipsis"),
            justify="right" if right else "left",
            overflow="ellipsis",
            no_wrap=heading not in flexible,  # rich takes width from columns that may wrap first
        )
    for line in lines:
        for cell in line:
            cell.no_wrap, cell.overflow = True, "ellipsis"
        made.add_row(*line)
    return made


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).replace(",", "").rstrip("%").isdigit()


def show(*parts: "RenderableType") -> None:
    """Print rich renderables on stdout."""
    target = console()
    for part in parts:
        try:
            target.print(part)
        except SystemExit:  # rich's own answer to a reader that went away; `pq` has one for all output
            raise BrokenPipeError from None


def say(text: str, *, error: bool = False) -> None:
    """Print one line, made safe."""
    print(safe(text), file=sys.stderr if error else sys.stdout)
