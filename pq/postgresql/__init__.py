"""The PostgreSQL backend; the only folder that knows SQLAlchemy and psycopg. Read store, then work."""

from pq.postgresql.work import PersistentQSQLAlchemy

__all__ = ["PersistentQSQLAlchemy"]
