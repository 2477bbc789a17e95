"""How jobs come in: one statement for one, one for many, and a second look where a unique key is met."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from pq.job import Job, NewJob
from pq.postgresql import sql
from pq.postgresql.session import Session
from pq.postgresql.store import Store
from pq.sql.act import Acting
from pq.sql.rows import new_row, to_job

FOLD_ROWS = 500
FIELDS = ("task", "queue", "priority", "parameters", "tags", "group", "unique_key", "due_at", "delay",
          "timeout", "max_attempts")  # fmt: skip


class Producing(Store, Acting):
    """Enqueuing."""

    filters = sql.FILTERS
    _unfolded = 0

    def enqueue_many(self, jobs: Sequence[NewJob]) -> list[Job]:
        """Store all of the jobs, or none, in one durable transaction."""
        rows = [self._new_row(job) for job in jobs]
        if not rows:
            return []
        session = self._session
        # Who meets a twin has to look for it, which is a second statement.
        together = len(rows) > 1 and any(row["unique_key"] is not None for row in rows)
        with session.write() if together else nullcontext():
            stored = self._insert(session, rows)
        if any(job.status == "blocked" for job in stored):
            # The trigger has let in those that fit.
            found = {job.id: job for job in self._read(sql.GET_MANY, {"ids": [job.id for job in stored]})}
            stored = [job if job.existed else found.get(job.id, job) for job in stored]
        self._fold_after(len(rows))
        return stored

    def _new_row(self, job: NewJob) -> dict[str, Any]:
        """As `new_row`, but the server adds the delay to its own clock."""
        row = new_row(job, 0.0, self.settings.max_attempts)
        absolute = job.due_at is not None
        return row | {
            "due_at": row["due_at"] if absolute else None,
            "delay": 0.0 if absolute else row["due_at"],
        }

    def _insert(self, session: Session, rows: list[dict[str, Any]]) -> list[Job]:
        """New jobs, and for those that have a twin the twin."""
        answer: dict[int, Job] = {}
        missing = list(range(len(rows)))
        while missing:
            if len(missing) == 1:
                place = missing[0]
                for row in session.rows(sql.INSERT_ONE, rows[place] | self._clocks):
                    answer[place] = _stored(rows[place], row)
            else:
                columns: dict[str, Any] = {name: [rows[place][name] for place in missing] for name in FIELDS}
                for number, *row in session.rows(sql.INSERT, columns | self._clocks):
                    place = missing[number - 1]
                    answer[place] = _stored(rows[place], row)
            missing = [place for place in missing if place not in answer]
            if missing:
                keys = [rows[place]["unique_key"] for place in missing]
                twins = {
                    job.unique_key: job
                    for job in self._jobs(session.rows(sql.TWINS, {"keys": keys}), existed=True)
                }
                answer |= {
                    place: twins[rows[place]["unique_key"]]
                    for place in missing
                    if rows[place]["unique_key"] in twins
                }
                # A twin may have finished meanwhile: then there is room for the new one.
                missing = [place for place in missing if place not in answer]
        return [answer[place] for place in range(len(rows))]

    def _fold_after(self, changes: int) -> None:
        """Now and then sum up the counters: where nobody consumes, nobody else does."""
        self._unfolded += changes
        if self._unfolded > FOLD_ROWS and not self._session.in_transaction:
            self._unfolded = 0
            self._session.execute("select pq.fold(:least)", {"least": FOLD_ROWS})


def _stored(row: dict[str, Any], answer: Sequence[Any]) -> Job:
    """The job from what was given and the little that the server adds."""
    id_, status, due_at, created_at = answer
    fields = (id_, row["task"], row["queue"], status, row["priority"], row["parameters"], row["tags"],
              row["group"], row["unique_key"], None, due_at, row["timeout"], row["max_attempts"], 0, 0,
              None, 0, None, None, None, None, created_at, None, None, 0)  # fmt: skip
    return to_job(fields, {})
