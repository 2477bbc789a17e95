"""What may be stored: checks and conversions between callers' values and columns, without a database."""

import json
import math
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, overload

from pq.errors import InvalidJobError
from pq.job import NewJob, Status

NAME_LENGTH = 200
VALUE_BYTES = 1_000_000
ERROR_LENGTH = 2_000
TRACEBACK_LENGTH = 20_000
LARGEST_INTEGER = 2**31 - 1
LONGEST_SECONDS = 100 * 366 * 86_400.0


def name(value: object, what: str) -> str:
    """`value` as a name (task, queue, consumer, tag, group, key): 1 to 200 printable characters."""
    if not isinstance(value, str):
        raise InvalidJobError(f"{what} must be text, not {type(value).__name__}")
    if not 1 <= len(value) <= NAME_LENGTH:
        raise InvalidJobError(f"{what} must have 1 to {NAME_LENGTH} characters; this has {len(value)}")
    if not value.isprintable():
        raise InvalidJobError(f"{what} {value!r} has characters that cannot be printed")
    return value


def names(values: object, what: str) -> tuple[str, ...]:
    """`values` as names; a lone string is refused, because it would be read letter by letter."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise InvalidJobError(f"{what} must be a list of texts, not {type(values).__name__}")
    return tuple(name(value, what) for value in values)


def whole(value: object, what: str, *, least: int = -LARGEST_INTEGER) -> int:
    """`value` as a whole number from `least` to 2**31 - 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidJobError(f"{what} must be a whole number, not {type(value).__name__}")
    if not least <= value <= LARGEST_INTEGER:
        raise InvalidJobError(f"{what} must be from {least} to {LARGEST_INTEGER}")
    return value


def job_id(value: object) -> int:
    """`value`, or the id of the job that it is."""
    if hasattr(value, "id"):
        value = value.id
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise InvalidJobError(f"a job id is a whole number, not {str(value)[:50]!r}")
    return value


def seconds(value: object, what: str, *, positive: bool = False) -> float:
    """A timedelta, or a number of seconds, as seconds: not negative, at most a hundred years."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidJobError(f"{what} must be a timedelta or a number of seconds, not {value!r:.50}")
    if value < 0 or value > LONGEST_SECONDS or (positive and value == 0):
        raise InvalidJobError(
            f"{what} must be {'more than' if positive else 'at least'} 0 and under 100 years: {value} s"
        )
    return float(value)


def moment(value: object, what: str) -> float:
    """An aware datetime as seconds since 1970."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidJobError(f"{what} must be a datetime with a time zone, not {value!r:.60}")
    return value.timestamp()


@overload
def to_datetime(value: float) -> datetime: ...
@overload
def to_datetime(value: None) -> None: ...
@overload
def to_datetime(value: float | None) -> datetime | None: ...
def to_datetime(value: float | None) -> datetime | None:
    """Seconds since 1970 as an aware datetime."""
    return None if value is None else datetime.fromtimestamp(value, UTC)


def status(value: object) -> Status:
    """`value` as a status."""
    try:
        return Status(value)  # type: ignore[arg-type]
    except ValueError:
        raise InvalidJobError(f"unknown status {value!r:.50}; one of {', '.join(Status)}") from None


def to_json(value: object, what: str) -> str:
    """`value` as JSON text of at most 1 MB; refused where reading it back would not give the same value."""
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
        exact = json.loads(text) == value
        size = len(text.encode())
    except UnicodeEncodeError:  # a lone surrogate: JSON can hold it only escaped
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
        exact, size = json.loads(text) == value, len(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidJobError(f"{what} must be JSON: {error}") from None
    if not exact:
        raise InvalidJobError(
            f"{what} must be JSON: it has tuples, or keys that are no text, and would change"
        )
    if size > VALUE_BYTES:
        raise InvalidJobError(
            f"{what} must have at most {VALUE_BYTES:,} bytes as JSON, not {size:,}: pass the path of a file"
        )
    return text


def parameters(value: object) -> str:
    """A job's parameters as JSON text: an object whose keys are texts."""
    if not isinstance(value, Mapping):
        raise InvalidJobError(f"parameters must be a mapping, not {type(value).__name__}")
    return to_json(value if isinstance(value, dict) else dict(value), "parameters")


def due_seconds(job: NewJob, now: float) -> float:
    """The moment from which a new job may run, in seconds since 1970."""
    if job.due_at is not None and job.delay is not None:
        raise InvalidJobError("give delay or due_at, not both")
    if job.due_at is not None:
        return moment(job.due_at, "due_at")
    return now if job.delay is None else round(now + seconds(job.delay, "delay"), 6)


def error_text(error: BaseException | str) -> str:
    """The line that is stored and listed, at most 2,000 characters."""
    if isinstance(error, BaseException):
        error = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return storable(error)[:ERROR_LENGTH]


def traceback_text(error: BaseException | str) -> str | None:
    """The end of the traceback, where the cause stands; None for a plain text."""
    if not isinstance(error, BaseException) or error.__traceback__ is None:
        return None
    return storable("".join(traceback.format_exception(error)))[-TRACEBACK_LENGTH:]


def storable(text: str) -> str:
    """`text` without what a database text cannot hold: NUL and lone surrogates become escapes."""
    return str(text).encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def written(text: str) -> Any:
    """A value as a person wrote it: JSON, or Python's True, False, None as papermill has them, or a text."""
    python = {"True": True, "False": False, "None": None}
    if text in python:
        return python[text]
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def _no_constant(name: str) -> None:
    """NaN and Infinity are no JSON; as a parameter they are text."""
    raise ValueError(name)
