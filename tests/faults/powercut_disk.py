"""A disk as a power cut may leave it: what was synced, and any part of what was not."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.recorder import NAMES, Record

Files = dict[int, bytes]
"""The content of each file that exists, by its index in recorder.NAMES."""

FOLDER = 3


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """One change that is not yet synced: of a file's content (W, T), or of the folder (O, U)."""

    kind: str
    name: int
    inode: int
    offset: int = 0
    data: bytes = b""


@dataclass(slots=True)
class Disk:
    """Replays a trace. A sync makes durable what its file had been given before the sync began."""

    chance: random.Random
    obeys: bool = True
    """False: a disk that says yes to every sync and does nothing."""
    contents: dict[int, bytearray] = field(default_factory=dict)
    entries: dict[int, int] = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)
    _inodes: dict[int, int] = field(default_factory=dict)
    _covered: dict[tuple[int, int], list[Change]] = field(default_factory=dict)
    _next: int = 1

    @classmethod
    def holding(cls, path: Path, chance: random.Random, *, obeys: bool = True) -> "Disk":
        """A disk on which the database's files, as they are now, are durable."""
        disk = cls(chance, obeys)
        for name, suffix in enumerate(NAMES[:FOLDER]):
            file = Path(f"{path}{suffix}")
            if file.exists():
                disk._inodes[file.stat().st_ino] = disk._next
                disk.contents[disk._next] = bytearray(file.read_bytes())
                disk.entries[name] = disk._next
                disk._next += 1
        return disk

    def replay(self, record: Record) -> None:
        """What the record says happens to this disk."""
        if record.kind == "O":
            self._inodes[record.inode] = self._next  # the file system uses numbers again, this model does not
            self.contents[self._next] = bytearray()
            self.pending.append(Change("O", record.name, self._next))
            self._next += 1
        elif record.kind == "U":
            self.pending.append(Change("U", record.name, 0))
        elif record.kind in "WT":
            inode = self._inodes[record.inode]
            self.pending.append(Change(record.kind, record.name, inode, record.offset, record.data))
        elif record.kind == "S":
            self._covered[record.thread, record.inode] = [
                change for change in self.pending if self._is_of(change, record)
            ]
        elif record.kind in "EX" and self.obeys:
            covered = self._covered.pop((record.thread, record.inode))
            self._settle(covered, failed=record.kind == "X")

    def _is_of(self, change: Change, record: Record) -> bool:
        if record.name == FOLDER:
            return change.kind in "OU"
        return change.kind in "WT" and change.inode == self._inodes[record.inode]

    def _settle(self, covered: Sequence[Change], *, failed: bool) -> None:
        """Make changes durable. Of a failed sync some, and the system forgets that the others are not."""
        still = set(map(id, self.pending))
        ended = [change for change in covered if id(change) in still]
        kept = [change for change in ended if not failed or self.chance.random() < 0.5]
        self.entries, self.contents = self._with(kept)
        gone = set(map(id, ended))
        self.pending = [change for change in self.pending if id(change) not in gone]

    def _with(self, changes: Sequence[Change]) -> tuple[dict[int, int], dict[int, bytearray]]:
        entries, contents = dict(self.entries), dict(self.contents)
        copied: set[int] = set()
        for change in changes:
            if change.kind == "O":
                entries[change.name] = change.inode
            elif change.kind == "U":
                entries.pop(change.name, None)
            else:
                if change.inode not in copied:
                    copied.add(change.inode)
                    contents[change.inode] = bytearray(contents[change.inode])
                _apply(contents[change.inode], change)
        return entries, contents

    def image(self, changes: Sequence[Change]) -> Files:
        """The files after a cut which these of the pending changes survived."""
        entries, contents = self._with(changes)
        return {name: bytes(contents[inode]) for name, inode in entries.items()}


def _apply(content: bytearray, change: Change) -> None:
    if change.kind == "T":
        del content[change.offset :]
        end = change.offset
    else:
        end = change.offset + len(change.data)
    content.extend(bytes(max(end - len(content), 0)))
    if change.kind == "W":
        content[change.offset : end] = change.data


def pieces(change: Change, sector: int) -> Iterator[Change]:
    """A write, cut at the borders of the disk's sectors."""
    start = change.offset
    while start < change.offset + len(change.data):
        end = start + sector - start % sector
        data = change.data[start - change.offset : end - change.offset]
        yield Change("W", change.name, change.inode, start, data)
        start = end


def _torn(sector: int) -> Callable[[Sequence[Change], random.Random], list[Change]]:
    def torn(pending: Sequence[Change], chance: random.Random) -> list[Change]:
        """Up to one write everything, of that some sectors, and of what follows it some."""
        place = chance.randrange(len(pending))
        some = [piece for piece in pieces(pending[place], sector) if chance.random() < 0.5]
        return [*pending[:place], *some, *_some(pending[place + 1 :], chance)]

    return torn


def _some(pending: Sequence[Change], chance: random.Random) -> list[Change]:
    share = chance.choice([0.0, 0.1, 0.5, 0.9])
    return [change for change in pending if chance.random() < share]


def _all_but_one(pending: Sequence[Change], chance: random.Random) -> list[Change]:
    lost = chance.randrange(len(pending))
    return [*pending[:lost], *pending[lost + 1 :]]


SURVIVORS: dict[str, Callable[[Sequence[Change], random.Random], list[Change]]] = {
    "none": lambda pending, chance: [],
    "all": lambda pending, chance: list(pending),
    "prefix": lambda pending, chance: list(pending[: chance.randrange(len(pending))]),
    "suffix": lambda pending, chance: list(pending[chance.randrange(len(pending)) :]),
    "all but one": _all_but_one,
    "only one": lambda pending, chance: [chance.choice(pending)],
    "some": _some,
    "torn at 512": _torn(512),
    "torn at 4096": _torn(4096),
}
"""Which of the pending changes a cut leaves, by the name of the way it is chosen."""
