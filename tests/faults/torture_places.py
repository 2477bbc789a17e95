"""Where the torture takes place: a file, or a PostgreSQL server of its own, which may be killed too."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pq
from tests.faults import mutants
from tests.faults.checker import Kept

COLUMNS = "status, attempt, max_attempts, token, error"
IN_A_FILE = f"""
select id, json_extract(parameters, '$.key'), {COLUMNS},
    (select json_group_array(token) from attempts where job_id = jobs.id and outcome = 'completed')
from jobs
"""
ON_A_SERVER = f"""
select id, cast(parameters as json) ->> 'key', {COLUMNS},
    (select cast(coalesce(json_agg(token), '[]') as text) from pq.attempts
        where job_id = jobs.id and outcome = 'completed')
from pq.jobs
"""

Die = Callable[[str], None]
Found = tuple[dict[int, Kept], list[str]]


class FilePlace:
    """A database file."""

    def __init__(self, folder: Path) -> None:
        self.url = str(folder / "queue.db")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def make_mortal(self, die: Die) -> None:
        """Every transaction of this process may end it, before it, in it, and after its commit."""

        def around(execute: Callable[..., Any], statement: str, parameters: Any) -> Any:
            if statement not in ("begin immediate", "commit"):
                return execute(statement, parameters)
            die(f"before {statement}")
            answer = execute(statement, parameters)
            die(f"after {statement}")
            return answer

        mutants.intercept(around)

    def look(self) -> Found:
        """All jobs, and what is damaged."""
        with pq.connect(self.url) as queue, queue.transaction() as db:
            kept = _kept(db.execute(IN_A_FILE).fetchall())
            integrity = [row[0] for row in db.execute("pragma integrity_check").fetchall()]
        return kept, [text for text in integrity if text != "ok"]


class ServerPlace:
    """A database on a server; a consumer may not be told of its commit, and a claim may be forgotten."""

    def __init__(self, folder: Path) -> None:
        # Here, so that no process that is forked later has to do it.
        import pq.postgresql  # noqa: F401
        from tests.postgresql import SMALL, Server

        os.environ["PQ_FOLDER"] = str(folder)
        self._server = Server()
        few, many = SMALL[-1], "max_connections=300"
        self._server._options = tuple(many if one == few else one for one in self._server._options)
        self.url = self._server.url()

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def kill(self) -> None:
        """SIGKILL to all of the server; then it starts again."""
        self._server.kill()
        self._server.start()

    def make_mortal(self, die: Die) -> None:
        """Every statement of this process may end it, before it and after it."""
        from pq.postgresql.session import Session

        plain = Session.execute

        def execute(session: Any, *arguments: Any) -> Any:
            die("before a statement")
            answer = plain(session, *arguments)
            die("after a statement")
            return answer

        Session.execute = execute  # type: ignore[method-assign]

    def look(self) -> Found:
        """All jobs; a server looks after its files itself."""
        with pq.connect(self.url) as queue:
            return _kept(queue._session.rows(ON_A_SERVER)), []


Place = FilePlace | ServerPlace


def _kept(rows: list[Any]) -> dict[int, Kept]:
    return {row[0]: Kept(*row[1:7], completed=tuple(json.loads(row[7]))) for row in rows}
