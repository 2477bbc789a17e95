"""One call of the command line: which queue it means, and how its answer is written."""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pq.cli.terminal import safe
from pq.errors import InvalidJobError, PQError, StorageError
from pq.listing import Order

if TYPE_CHECKING:
    from pq.interface import PersistentQInterface
    from pq.job import Job
    from pq.transfer import Transfer

AsJson = Annotated[bool, typer.Option("--json", help="Answer with one JSON document on stdout.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for a confirmation.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count what would change.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Why; kept with the action.", metavar="TEXT")]
Statuses = Annotated[list[str] | None, typer.Option("--status", help="Only this status; may be repeated.")]
OfQueue = Annotated[str | None, typer.Option("--queue", help="Only this queue.")]
OfTask = Annotated[str | None, typer.Option("--task", help="Only this task.")]
OfConsumer = Annotated[str | None, typer.Option("--consumer", help="Only jobs of this consumer.")]
OfTag = Annotated[str | None, typer.Option("--tag", help="Only jobs with this tag.")]
OfGroup = Annotated[str | None, typer.Option("--group", help="Only this group.")]
Search = Annotated[
    str | None, typer.Option("--search", help="Only with this text in parameters, error, task or key.")
]
ToQueue = Annotated[str, typer.Option("--queue", help="The queue.")]
Priority = Annotated[int, typer.Option("--priority", help="Higher runs first.")]
Delay = Annotated[str | None, typer.Option("--delay", help="Due after 30s, 5m, 2h.", metavar="TIME")]
MaxAttempts = Annotated[int | None, typer.Option("--max-attempts", help="Attempts before it is failed.")]
Timeout = Annotated[str | None, typer.Option("--timeout", help="Time limit of one attempt.", metavar="TIME")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="A tag; may be repeated.")]
Ordered = Annotated[
    Order,
    typer.Option("--order", help="Of all jobs, or of those that have finished, are due, or pending."),
]
_WHEN = "as 2h (that long ago) or 2030-01-31T18:00"
FinishedAfter = Annotated[str | None, typer.Option(help=f"Finished then or later, {_WHEN}.", metavar="TIME")]
FinishedBefore = Annotated[str | None, typer.Option(help=f"Finished earlier, {_WHEN}.", metavar="TIME")]
Pause = Annotated[float, typer.Option("--every", min=0.1, help="Seconds between two pictures.")]

PAGE = 1_000
DURATION_PART = r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|w|$)"
SCALARS: tuple[tuple[type[Any], Callable[[Any], Any]], ...] = (
    (Enum, lambda value: value.value),
    (datetime, datetime.isoformat),
    (timedelta, timedelta.total_seconds),
    (Path, str),
)
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True)
class Invocation:
    """What stands before the command: the database, None for the settings' own."""

    database: str | None

    def open(self, *, create: bool = False) -> "PersistentQInterface":
        """The queue. One that is not there is made only where jobs can come in (`create`)."""
        from pq.factory import connect

        return connect(self._place(create=create))

    def open_for_move(self, *, create: bool = False) -> "Transfer":
        """The queue as one end of a move."""
        from pq.factory import open_for_move

        return open_for_move(self._place(create=create))

    def _place(self, *, create: bool) -> str:
        from pq.settings import read_settings

        place = read_settings().database if self.database is None else self.database
        path = database_file(place)
        if path is not None and not create and not _exists(path):
            raise StorageError(
                f"there is no queue at {place}: name one with --db or QUEUE_DB_FILE; "
                "`pq enqueue` makes a new one"
            )
        return place


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise StorageError(f"cannot open {path}: {error.strerror}") from None


def database_file(place: str) -> Path | None:
    """The file that `place` names, None where it is a server's address."""
    if place.startswith("sqlite://"):
        return Path(place.removeprefix("sqlite://").removeprefix("/"))
    return None if "://" in place else Path(place)


def opened(context: typer.Context, *, create: bool = False) -> "PersistentQInterface":
    """The queue of this call."""
    invocation = context.find_object(Invocation)
    return (invocation or Invocation(None)).open(create=create)


def every_job(queue: "PersistentQInterface", **filters: Any) -> "Iterator[Job]":
    """All jobs that the filters leave, newest first, page by page."""
    after: int | None = None
    while page := queue.list(after=after, limit=PAGE, **filters):
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].id


def duration(text: str, what: str) -> timedelta:
    """`30s`, `5m`, `2h`, `7d`, `1h30m`, or a plain number of seconds."""
    sign, rest = (-1, text.strip()[1:]) if text.strip().startswith("-") else (1, text.strip())
    if not re.fullmatch(f"(?:{DURATION_PART})+", rest):
        raise InvalidJobError(f"{what} must be a time such as 30s, 5m, 2h or 7d, not {text!r:.50}")
    parts = re.findall(DURATION_PART, rest)
    try:
        return sign * timedelta(seconds=sum(float(number) * UNITS[unit or "s"] for number, unit in parts))
    except OverflowError:
        raise InvalidJobError(f"{what} is too long: {text!r:.50}") from None


def moment(text: str, what: str) -> datetime:
    """An ISO 8601 time; without an offset it is meant in this computer's time zone."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise InvalidJobError(
            f"{what} must be a time such as 2030-01-31T18:00 or 2030-01-31T18:00:00+00:00, not {text!r:.50}"
        ) from None


def past(text: str | None, what: str) -> datetime | None:
    """`2h` (that long ago), or a time as `moment` takes it."""
    if text is None:
        return None
    if re.fullmatch(r"[0-9].*[smhdw]", text):
        return datetime.now(UTC) - duration(text, what)
    return moment(text, what)


def plain(value: Any) -> Any:
    """`value` as JSON has it: records as objects, datetimes as ISO 8601, lengths of time as seconds."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    for kind, convert in SCALARS:
        if isinstance(value, kind):
            return convert(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def write_json(value: Any) -> None:
    """Print the one JSON document of a command; ASCII alone, so that no terminal can be led astray."""
    text = json.dumps(plain(value), indent=2).replace("\x7f", "\\u007f")
    print(text)  # noqa: T201  # the program's own output


class NotConfirmedError(PQError, RuntimeError):
    """A person said no, or nobody was there to ask; nothing was changed."""


def confirmed(question: str, *, yes: bool) -> None:
    """Return after a yes. Raises NotConfirmedError."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise NotConfirmedError(
            f"{question}: this needs a confirmation; add --yes, or --dry-run to look first"
        )
    print(f"{safe(question)}? [y/N]: ", end="", file=sys.stderr, flush=True)  # noqa: T201  # a question
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise NotConfirmedError("nothing was changed")
