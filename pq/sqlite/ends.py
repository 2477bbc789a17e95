"""How SQLite writes the ends of tries: one job by itself, many by their JSON list."""

import json
from typing import Any

from pq.sql.ends import Ends as SharedEnds
from pq.sql.statements import INSERT_ATTEMPT
from pq.sqlite import sql
from pq.sqlite.session import Session

INLINE_LENGTH = 2_000
"""Longer parameters and results stand in job_values, away from the row that is claimed and listed."""


class Ends(SharedEnds):
    """Tries that end in one transaction."""

    def write(self, session: Session) -> None:
        """Write all that was added."""
        if len(self.completed) == 1:
            done: tuple[Any, ...] = (self.now, self.completed[0])
            session.execute(sql.COMPLETED_ATTEMPT, done)
            session.execute(sql.COMPLETE_ONE, done)
        elif self.completed:
            done = (self.now, json.dumps(self.completed))
            session.execute(sql.COMPLETED_ATTEMPTS, done)
            session.execute(sql.COMPLETE, done)
        for statement, rows in (
            (sql.PUT_RESULT, [_inline(id_, text) for id_, text in self.results]),
            (sql.END_TRY, self.jobs),
            (INSERT_ATTEMPT, self.attempts),
            (sql.PUT_VALUE, [(id_, "result", text) for id_, text in self.results if _is_large(text)]),
            (sql.ADD_TO_BUCKET, [(*key, *sums) for key, sums in self.buckets.items()]),
        ):
            if rows:
                session.executemany(statement, rows)


def _is_large(text: str) -> bool:
    return len(text) > INLINE_LENGTH


def _inline(id_: int, text: str) -> tuple[str | None, int, int]:
    return (None, sql.LARGE_RESULT, id_) if _is_large(text) else (text, 0, id_)
