"""How PostgreSQL writes ends of tries where not all are completed; those have a statement of their own."""

from pq.postgresql import sql
from pq.postgresql.session import Session
from pq.sql.ends import Ends as SharedEnds
from pq.sql.statements import INSERT_ATTEMPT


class Ends(SharedEnds):
    """Tries that end in one transaction."""

    def write(self, session: Session) -> None:
        """Write all that was added."""
        ids = [*self.completed, *(job["id"] for job in self.jobs)]
        if len(ids) > 1:
            session.execute(sql.LOCK_LIMITS, {"ids": ids})
        if self.completed:
            results = dict(self.results)
            tokens = self.tokens
            session.execute(
                sql.COMPLETE,
                {
                    "now": self.now,
                    "ids": self.completed,
                    "tokens": [tokens[id_] for id_ in self.completed],
                    "results": [results.get(id_) for id_ in self.completed],
                },
            )
        names = ("minute", "queue", "task", "outcome", "slot", "jobs", "seconds")
        for statement, rows in (
            (sql.END_TRY, self.jobs),
            (INSERT_ATTEMPT, self.attempts),
            (sql.ADD_TO_BUCKET, [dict(zip(names, (*key, *sums), strict=True))
                                 for key, sums in self.buckets.items()]),
        ):  # fmt: skip
            if rows:
                session.executemany(statement, rows)
