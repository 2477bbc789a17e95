"""What the shared verbs ask of a backend's connection."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol


class Cursor(Protocol):
    """The answer to a statement."""

    @property
    def rowcount(self) -> int:
        """How many rows it changed."""

    def fetchall(self) -> list[Any]:
        """All rows, as tuples."""


class Session(Protocol):
    """One thread's connection; statements have parameters by name, written `:name`."""

    def rows(self, statement: str, parameters: Mapping[str, Any] = ..., /) -> list[Any]:
        """A complete read."""

    def execute(self, statement: str, parameters: Mapping[str, Any] = ..., /) -> Cursor:
        """A statement within `write`."""

    def executemany(self, statement: str, parameters: Sequence[Mapping[str, Any]], /) -> Cursor:
        """The same statement for each; its rowcount is that of all together."""

    def write(self, *, durable: bool = True) -> AbstractContextManager[None]:
        """One transaction; within an open one a part of that."""
