"""From a path or an address to a queue: the one place that knows the backends."""

import logging
import os
import time

from pq.clock import Clock
from pq.errors import ServerAwayError, StorageError
from pq.interface import PersistentQInterface
from pq.settings import read_settings
from pq.transfer import Transfer

LONGEST_PAUSE_SECONDS = 5.0

log = logging.getLogger("pq")


def connect(
    url: str | os.PathLike[str] | None = None, *, clock: Clock | None = None, read_only: bool = False
) -> PersistentQInterface:
    """Open a queue, and make its file or its tables where they are missing.

    `url` is a path, `sqlite:///path`, `postgresql://…`, or None for the setting PQ_URL, else QUEUE_DB_FILE,
    else queue.db. With `read_only` the database itself refuses every write of this object. Raises
    StorageError with the way out.
    """
    settings = read_settings()
    place = os.fspath(settings.database if url is None else url)
    if is_server(place):
        try:
            from pq.postgresql import PersistentQSQLAlchemy
        except ModuleNotFoundError as error:
            raise StorageError(
                f"PostgreSQL needs {error.name}: pip install 'pq-notebooks[postgres]'"
            ) from None
        return PersistentQSQLAlchemy(place, clock=clock, settings=settings, read_only=read_only)
    path = _file(place)
    from pq.sqlite import PersistentQSQLite

    return PersistentQSQLite(path, clock=clock, settings=settings, read_only=read_only)


def connect_for(url: str | os.PathLike[str] | None, *, patient: bool) -> PersistentQInterface:
    """As `connect`; who starts without a person is `patient` and waits for a server that does not answer."""
    pause = 0.1
    while True:
        try:
            return connect(url)
        except ServerAwayError as error:
            if not patient:
                raise
            log.warning("the queue cannot be opened, trying again: %s", error)
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def open_for_move(url: str) -> Transfer:
    """One end of a move; unlike `connect` it opens a queue that has moved, or that a move still fills."""
    if is_server(url):
        from pq.postgresql.transfer import PostgreSQLTransfer

        return PostgreSQLTransfer(url)
    path = _file(url)
    from pq.sqlite.transfer import SQLiteTransfer

    return SQLiteTransfer(path)


def is_server(place: str) -> bool:
    """Whether it is the address of a PostgreSQL server."""
    return place.startswith(("postgresql://", "postgres://", "postgresql+psycopg://"))


def _file(place: str) -> str:
    scheme, separator, rest = place.partition("://")
    if not separator:
        return place
    if scheme == "sqlite" and rest.startswith("/"):
        return rest[1:]
    raise StorageError(
        f"cannot open a queue at {scheme}://…: give the path of an SQLite file, or postgresql://…"
    )
