"""The SQLite backend; the only folder that knows sqlite-utils. Read store, then work; the rest is pq.sql."""

from pq.sqlite.work import PersistentQSQLite

__all__ = ["PersistentQSQLite"]
