"""What `pq move` needs of a backend: a queue's tables, described once, as rows that go out and in."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self

from pq.errors import MovedError, StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pq.interface import PersistentQInterface

Row = tuple[Any, ...]
Refusal = Literal["nothing", "new jobs", "all writes"]

CHUNK_ROWS = 1_000
CHUNK_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Table:
    """A table as both backends give it out; its first `keys` columns order the rows."""

    name: str
    keys: int
    columns: tuple[str, ...]

    def key(self, row: Row) -> Row:
        """What tells where a row stands."""
        return row[: self.keys]


TABLES = (
    Table(
        "jobs",
        1,
        ("id", "task", "queue", "status", "priority", "parameters", "tags", "job_group", "unique_key",
         "assigned_to", "due_at", "timeout", "max_attempts", "attempt", "token", "consumer", "progress",
         "message", "result", "error", "created_at", "started_at", "finished_at"),
    ),
    Table(
        "attempts",
        2,
        ("job_id", "token", "attempt", "outcome", "consumer", "started_at", "finished_at", "error",
         "traceback"),
    ),
    Table(
        "actions",
        1,
        ("id", "at", "who", "verb", "job_id", "target", "from_status", "to_status", "reason"),
    ),
    Table("buckets", 5, ("minute", "queue", "task", "outcome", "slot", "jobs", "seconds")),
    Table("queues", 1, ("name", "paused_at", "reason")),
    Table("group_limits", 1, ("job_group", "max_running", "set_at")),
    Table("settings", 1, ("name", "value")),
)  # fmt: skip
NUMBERED = ("jobs", "actions")
"""Tables whose ids are never used again, also not after a move."""

MOVE_OUT, MOVE_IN = "move_out", "move_in"
OWN_SETTINGS = ("boot", MOVE_IN, MOVE_OUT)
"""Settings that tell of one database and do not move."""

REFUSAL = "pq: this queue moves"
"""What a closed database raises; the backend makes a MovedError of it."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The setting that tells of a move, in the source (`move_out`) and in the target (`move_in`).

    `place` is the other end. Stages of a source: closing, frozen, moved; of a target: erasing, receiving,
    received. `paused` are the queues that the move itself has paused.
    """

    id: str
    place: str
    stage: str
    paused: tuple[str, ...] = ()

    @classmethod
    def read(cls, text: str | None) -> Self | None:
        """The mark that a setting holds; None where there is none."""
        if not text:
            return None
        found = json.loads(text)
        return cls(found["id"], found["place"], found["stage"], tuple(found["paused"]))

    def text(self) -> str:
        """The setting."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def at(self, stage: str) -> Mark:
        """The same at another stage."""
        return replace(self, stage=stage)


def moved_error(url: str, move_out: str | None) -> MovedError:
    """What a producer, a consumer or a person reads who writes to a closed queue."""
    mark = Mark.read(move_out)
    if mark is None:
        return MovedError(f"{url} was closed by a move that was given up meanwhile; try again")
    if mark.stage == "moved":
        return MovedError(f"{url} has moved to {mark.place}: open the queue there")
    return MovedError(
        f"{url} is being moved to {mark.place} and takes nothing new: when that has ended, open it there"
    )


def check_open(url: str, move_out: str | None, move_in: str | None) -> None:
    """Refuse to open a queue that has moved (MovedError), or that a move still fills (StorageError)."""
    out, into = Mark.read(move_out), Mark.read(move_in)
    if out is not None and out.stage == "moved":
        raise moved_error(url, move_out)
    if into is not None and into.stage != "received":
        raise StorageError(
            f"{url} is being filled from {into.place}: run `pq move` again to its end, or with --abandon"
        )


class Transfer(ABC):
    """One end of a move: a queue and its rows, without presence, leases and the database's own settings.

    A `load` is one durable transaction, so that `last_key` tells where an interrupted copy goes on.
    """

    queue: PersistentQInterface

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.queue.close()

    @property
    def url(self) -> str:
        """The queue's address, without a password."""
        return self.queue.url

    def mark(self, name: str) -> Mark | None:
        """What is written here about a move."""
        return Mark.read(self.queue.setting(name))

    def write(self, name: str, mark: Mark | None) -> None:
        """Write it, or take it away."""
        self.queue.set_setting(name, "" if mark is None else mark.text())

    @abstractmethod
    def count(self, table: Table) -> int:
        """How many rows the table has."""

    @abstractmethod
    def dump(self, table: Table, after: Row | None, limit: int = CHUNK_ROWS) -> list[Row]:
        """The next rows in the order of their keys: fewer than `limit` when they are large, [] at the end."""

    @abstractmethod
    def last_key(self, table: Table) -> Row | None:
        """The largest key."""

    @abstractmethod
    def load(self, table: Table, rows: Sequence[Row]) -> None:
        """Store rows as `dump` gave them."""

    @abstractmethod
    def erase(self) -> None:
        """Remove all rows of all tables."""

    @abstractmethod
    def numbers(self) -> dict[str, int]:
        """The last id that each numbered table has given."""

    @abstractmethod
    def advance(self, numbers: dict[str, int]) -> None:
        """Give no id again up to these."""

    @abstractmethod
    def refuse(self, what: Refusal) -> None:
        """From now on the database itself refuses this to every client, also to those that are connected."""
