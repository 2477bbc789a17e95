"""From a path or an address to a queue: the one place that knows the backends."""

import os

from pq.clock import Clock
from pq.errors import StorageError
from pq.interface import PersistentQInterface
from pq.settings import read_settings


def connect(url: str | os.PathLike[str] | None = None, *, clock: Clock | None = None) -> PersistentQInterface:
    """Open a queue, and make its file or its tables where they are missing.

    `url` is a path, `sqlite:///path`, `postgresql://…`, or None for the setting PQ_URL, else QUEUE_DB_FILE,
    else queue.db. Raises StorageError with the way out.
    """
    settings = read_settings()
    place = os.fspath(settings.database if url is None else url)
    scheme, separator, rest = place.partition("://")
    if not separator:
        path = place
    elif scheme == "sqlite" and rest.startswith("/"):
        path = rest[1:]
    elif scheme in {"postgresql", "postgres", "postgresql+psycopg"}:
        from pq.postgresql import PersistentQSQLAlchemy

        return PersistentQSQLAlchemy(place, clock=clock, settings=settings)
    else:
        raise StorageError(
            f"cannot open a queue at {scheme}://…: give the path of an SQLite file, or postgresql://…"
        )
    from pq.sqlite import PersistentQSQLite

    return PersistentQSQLite(path, clock=clock, settings=settings)
