"""Moving a queue to another place with nothing lost: interrupted at any point and run again, it ends right.

Where a move stands is written in both databases. The target is marked and emptied, the source takes no new
jobs and hands none out, and when all leases have ended the source is frozen: its database refuses every
write. Rows are copied by key in durable chunks, then all are read again on both sides and compared. Then
the target opens, and last the source is marked as moved. At no point can both of them hand out a job.
"""

import hashlib
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

from pq.errors import MoveError
from pq.transfer import MOVE_IN, MOVE_OUT, TABLES, Mark, Row, Table, Transfer

Told = Callable[[str, int, int], None]
"""Called with what has been reached, and of how much: `told("copied jobs", 3000, 1000000)`."""

LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Copied:
    """A table at both ends: its rows, and the SHA-256 of all of them."""

    rows: int
    digest: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was moved; `tables` is empty where an earlier run had compared them."""

    source: str
    target: str
    jobs: dict[str, int]
    tables: dict[str, Copied]
    seconds: float


def move(source: Transfer, target: Transfer, told: Told) -> Report:
    """Move everything, or go on where an earlier run was interrupted. Raises MoveError, StorageError."""
    began = time.monotonic()
    if reason := hindrance(source, target):
        raise MoveError(reason)
    out, into = source.mark(MOVE_OUT), target.mark(MOVE_IN)
    tables: dict[str, Copied] = {}
    if out is None or out.stage != "moved":
        if out is None or into is None or into.stage != "received" or into.id != out.id:
            into = _claim_target(source, target, out)
            told("target marked", 0, 0)
            _empty(target, into)
            told("target emptied", 0, 0)
            out = _close(source, target, into)
            told("source closed", 0, 0)
            out = _freeze(source, out, told)
            told("source frozen", 0, 0)
            target.advance(source.numbers())
            told("ids advanced", 0, 0)
            for table in TABLES:
                _copy(source, target, table, out, told)
            tables = _compare(source, target, out, told)
            target.write(MOVE_IN, into.at("received"))
            told("target opened", 0, 0)
        source.write(MOVE_OUT, out.at("moved"))
        told("source marked as moved", 0, 0)
    return Report(source.url, out.place, source.queue.counts(), tables, round(time.monotonic() - began, 3))


def hindrance(source: Transfer, target: Transfer) -> str | None:
    """Why the move cannot begin, or go on; None where it can."""
    out, into = source.mark(MOVE_OUT), target.mark(MOVE_IN)
    if source.url == target.url:
        return f"cannot move {source.url} to itself"
    if out is not None and (into is None or into.id != out.id):
        state = "has moved" if out.stage == "moved" else "is being moved"
        return f"{source.url} {state} to {out.place}, and not to {target.url}"
    if into is not None and into.stage != "received" and into.place != source.url:
        return f"{target.url} is being filled from {into.place}: finish or abandon that first"
    begun = out is not None or (into is not None and into.stage != "received")
    return None if begun or _is_former(source, target) else _occupation(target)


def _is_former(source: Transfer, target: Transfer) -> bool:
    """Whether the target is what the source came from: all it holds has come along."""
    came, left = source.mark(MOVE_IN), target.mark(MOVE_OUT)
    return came is not None and left is not None and left.stage == "moved" and left.id == came.id


def _occupation(target: Transfer) -> str | None:
    out = target.mark(MOVE_OUT)
    if out is not None:
        return f"{target.url} has moved, or is being moved, to {out.place}: choose an empty queue"
    jobs = sum(target.queue.counts().values())
    if jobs:
        return f"{target.url} holds {jobs:,} jobs: a queue moves only into an empty one"
    names = [one.name for one in target.queue.consumers() if one.alive is not False]
    if names:
        return f"consumers run on {target.url} ({', '.join(names)}): stop them, they come back after the move"
    return None


def abandon(source: Transfer, target: Transfer, told: Told) -> None:
    """Give a move up that has not ended: empty the target, and open the source again."""
    out, into = source.mark(MOVE_OUT), target.mark(MOVE_IN)
    if out is None and (into is None or into.stage == "received" or into.place != source.url):
        raise MoveError(f"nothing to abandon: no move from {source.url} to {target.url} is under way")
    if out is not None and out.stage == "moved":
        raise MoveError(f"{source.url} has moved to {out.place}: move it back from there")
    if into is not None and (out is None or into.id == out.id):
        if into.stage == "received":
            raise MoveError(f"{target.url} has everything and is open: run the move again, to its end")
        target.write(MOVE_IN, into.at("erasing"))
        told("target marked", 0, 0)
        target.erase()
        target.write(MOVE_IN, None)
        told("target emptied", 0, 0)
    if out is not None:
        with source.queue.transaction():
            source.refuse("nothing")
            for name in out.paused:
                source.queue.resume(name, "the move was given up")
            source.write(MOVE_OUT, None)
    told("source opened", 0, 0)


# -- the steps --------------------------------------------------------------------------------------


def _claim_target(source: Transfer, target: Transfer, out: Mark | None) -> Mark:
    """Write into the target that it is being filled; nobody can open it from now on."""
    with target.queue.transaction():
        if reason := hindrance(source, target):
            raise MoveError(reason)
        into = target.mark(MOVE_IN)
        if into is not None and into.stage != "received" and (out is None or out.id == into.id):
            return into
        into = Mark(uuid.uuid4().hex, source.url, "erasing")
        target.refuse("nothing")
        target.write(MOVE_OUT, None)
        target.write(MOVE_IN, into)
        return into


def _empty(target: Transfer, into: Mark) -> None:
    """Begin with nothing: settings, old actions, and what a former queue had left."""
    if into.stage == "erasing":
        target.erase()
        target.write(MOVE_IN, into.at("receiving"))


def _close(source: Transfer, target: Transfer, into: Mark) -> Mark:
    """Take no new jobs, and hand none out."""
    with source.queue.transaction():
        out = source.mark(MOVE_OUT)
        if out is None:
            out = Mark(into.id, target.url, "closing")
            source.refuse("new jobs")
            source.write(MOVE_OUT, out)
        return _pause_all(source, out)


def _pause_all(source: Transfer, out: Mark) -> Mark:
    running = [state.name for state in source.queue.queues() if state.paused_at is None]
    if out.stage != "closing" or not running:
        return out
    for name in running:
        source.queue.pause(name, f"moving to {out.place}")
    out = replace(out, paused=(*out.paused, *(name for name in running if name not in out.paused)))
    source.write(MOVE_OUT, out)
    return out


def _freeze(source: Transfer, out: Mark, told: Told) -> Mark:
    """Wait until no job is leased, and refuse every write from that very moment on."""
    while out.stage == "closing":
        source.queue.rescue()
        with source.queue.transaction():
            out = _pause_all(source, out)
        leased = source.queue.counts()["processing"]
        if not leased:
            with source.queue.transaction():
                # Only now nobody can take a job any more: so it is looked at again.
                source.refuse("all writes")
                if source.queue.counts()["processing"]:
                    source.refuse("new jobs")
                    continue
                out = out.at("frozen")
                source.write(MOVE_OUT, out)
                break
        told("waiting for jobs that run", leased, leased)
        time.sleep(LOOK_SECONDS)
    return out


def _copy(source: Transfer, target: Transfer, table: Table, out: Mark, told: Told) -> None:
    done, total = target.count(table), source.count(table)
    after = target.last_key(table)
    while rows := source.dump(table, after):
        target.load(table, _moving(table, rows, out))
        after, done = table.key(rows[-1]), done + len(rows)
        told(f"copied {table.name}", done, total)


def _moving(table: Table, rows: list[Row], out: Mark) -> list[Row]:
    """The rows without the pauses that the move has made."""
    return [row for row in rows if row[0] not in out.paused] if table.name == "queues" else rows


def _compare(source: Transfer, target: Transfer, out: Mark, told: Told) -> dict[str, Copied]:
    """Read all rows of both ends again. Raises MoveError where they differ; the source stays frozen."""
    tables = {}
    for table in TABLES:
        left = _digest(source, table, out, told)
        right = _digest(target, table, out, told)
        if left != right:
            raise MoveError(
                f"table {table.name} differs: {left.rows} rows at {source.url}, {right.rows} at "
                f"{target.url}; something else has written to the target: give the move up by --abandon"
            )
        tables[table.name] = left
    if (here := source.queue.counts()) != (there := target.queue.counts()):
        raise MoveError(f"the counts differ: {here} at {source.url}, {there} at {target.url}")
    short = [name for name, last in source.numbers().items() if target.numbers()[name] < last]
    if short:
        raise MoveError(f"{target.url} would use ids of {', '.join(short)} again")
    return tables


def _digest(end: Transfer, table: Table, out: Mark, told: Told) -> Copied:
    sum_, count, after, total = hashlib.sha256(), 0, None, end.count(table)
    while rows := end.dump(table, after):
        after = table.key(rows[-1])
        moving = _moving(table, rows, out)
        count += len(moving)
        for row in moving:
            sum_.update(json.dumps(row, ensure_ascii=True).encode())
        told(f"compared {table.name}", count, total)
    return Copied(count, sum_.hexdigest())
