"""Where a lane finds its jobs: each round begins with a copy of what was filled once.

For SQLite a copy is one of a folder, for PostgreSQL a database made from a template.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import servers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Places(Protocol):
    """Gives out places by name; a contender is opened at one."""

    def fresh(self, name: str) -> str:
        """An empty place; what was there before is gone."""

    def exists(self, name: str) -> bool:
        """Whether the place was given out before."""

    def copy(self, filled: str, name: str) -> str:
        """A place like the filled one, written to the disk before the clock runs."""

    def address(self, place: str) -> str:
        """What `pq.connect` opens there."""

    def tidy(self, queue: Any) -> None:
        """What a database does by itself after a while, done now."""


class Folders:
    """Places as folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fresh(self, name: str) -> str:
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        return str(place)

    def exists(self, name: str) -> bool:
        return (self.folder / name).exists()

    def copy(self, filled: str, name: str) -> str:
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.folder / filled, place)
        for path in place.rglob("*"):
            # Or the contender's first commit would wait for the copies.
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)
            os.close(file)
        return str(place)

    def address(self, place: str) -> str:
        return f"{place}/queue.db"

    def tidy(self, queue: Any) -> None:
        queue.checkpoint()


class Databases:
    """Places as databases of one server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.made: set[str] = set()

    def fresh(self, name: str) -> str:
        return self._create(name, "template0")

    def exists(self, name: str) -> bool:
        return name in self.made

    def copy(self, filled: str, name: str) -> str:
        return self._create(name, filled)

    def address(self, place: str) -> str:
        return place

    def tidy(self, queue: Any) -> None:
        servers.execute(queue.url, "vacuum analyze", "checkpoint")

    def _create(self, name: str, template: str) -> str:
        drop = f'drop database if exists "{name}" with (force)'
        create = f'create database "{name}" template "{template}" strategy file_copy'
        servers.execute(self.url, drop, create, "checkpoint")
        self.made.add(name)
        return servers.of_database(self.url, name)


@contextmanager
def choose(backend: str, folder: Path) -> Iterator[tuple[Places, str]]:
    """The places of a backend, and what to tell of its server."""
    if backend == "sqlite":
        yield Folders(folder), ""
        return
    with servers.postgresql(folder) as url:
        yield Databases(url), f", PostgreSQL {servers.version(url)}"
