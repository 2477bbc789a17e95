"""The SQLite backend; the only folder that knows sqlite-utils. Read store, work, look, act, in this order."""

from pq.sqlite.act import PersistentQSQLite

__all__ = ["PersistentQSQLite"]
