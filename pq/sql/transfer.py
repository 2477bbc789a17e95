"""The statements of a move that every SQL database understands, made once from the tables' description."""

from collections.abc import Mapping
from typing import Any

from pq.sql.session import Session
from pq.transfer import OWN_SETTINGS, TABLES, Row, Table, Transfer

OWN = ", ".join(f"'{name}'" for name in OWN_SETTINGS)
_MOVES = {"settings": f"name not in ({OWN})"}


def keys(table: Table) -> str:
    """The columns that order its rows."""
    return ", ".join(table.columns[: table.keys])


def _where(table: Table, *more: str) -> str:
    parts = [*([_MOVES[table.name]] if table.name in _MOVES else []), *more]
    return f"where {' and '.join(parts)}" if parts else ""


def dumps(whole: Mapping[str, str], sources: Mapping[str, str]) -> dict[tuple[str, bool], str]:
    """By table, and by whether it begins anew, the statement that gives the next rows.

    `whole` holds what to read for a column that does not stand in its row as it is, `sources` what to read
    instead of a table.
    """
    found = {}
    for table in TABLES:
        columns = ", ".join(whole.get(name, name) for name in table.columns)
        behind = f"({keys(table)}) > ({', '.join(f':{name}' for name in table.columns[: table.keys])})"
        for first in (True, False):
            where = _where(table) if first else _where(table, behind)
            source = sources.get(table.name, table.name)
            found[table.name, first] = (
                f"select {columns} from {source} {where} order by {keys(table)} limit :limit"
            )
    return found


COUNT = {table.name: f"select count(*) from {table.name} {_where(table)}" for table in TABLES}
LAST = {
    table.name: f"select {keys(table)} from {table.name} {_where(table)} "
    f"order by {keys(table).replace(',', ' desc,')} desc limit 1"
    for table in TABLES
}
ERASE_SETTINGS = f"delete from settings where name not in ({OWN})"


class SQLTransfer(Transfer):
    """What both databases do alike."""

    @property
    def _session(self) -> Session:
        return self.queue._session  # type: ignore[attr-defined,no-any-return]  # noqa: SLF001  # a part of each backend

    def count(self, table: Table) -> int:
        """How many rows the table has."""
        return int(self._session.rows(COUNT[table.name])[0][0])

    def last_key(self, table: Table) -> Row | None:
        """The largest key."""
        rows = self._session.rows(LAST[table.name])
        return tuple(rows[0]) if rows else None


def behind(table: Table, after: Row | None, limit: int) -> dict[str, Any]:
    """The parameters of a dump."""
    return dict(zip(table.columns, after or (), strict=False)) | {"limit": limit}
