"""Planted defects of the queue: the simulation counts for something only while it finds each."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any
from unittest import mock

from pq.sqlite import presence, sql
from pq.sqlite.ends import Ends
from pq.sqlite.work import PersistentQSQLite
from tests.fake_clock import FakeClock

_end_tries = PersistentQSQLite._end_tries

CANDIDATES = """
select id from jobs
where status = 'pending' and (assigned_to is null or assigned_to = ?)
    and queue in (select value from json_each(?))
limit ?
"""
TAKE = f"""
update jobs
set status = 'processing', attempt = min(attempt + 1, max_attempts), token = token + 1, consumer = ?,
    incarnation = ?, lease_until = ?, started_at = ?
where id in (select value from json_each(?))
returning {sql.COLUMNS}
"""


def _statements(**changes: tuple[str, str]) -> Callable[[], AbstractContextManager[object]]:
    """A mutant in which a part of these statements is another."""

    @contextmanager
    def mutant() -> Iterator[None]:
        mutated = {name: getattr(sql, name).replace(old, new) for name, (old, new) in changes.items()}
        assert all(getattr(sql, name) != text for name, text in mutated.items())
        with mock.patch.multiple(sql, **mutated):
            yield

    return mutant


def _method(name: str, function: Any) -> Callable[[], AbstractContextManager[object]]:
    return lambda: mock.patch.object(PersistentQSQLite, name, function)


def _look_then_take(
    self: Any, consumer: str, limit: int, queues: Any = ("default",), lease: Any = None
) -> list[Any]:
    session = self._session
    found = session.rows(CANDIDATES, (consumer, json.dumps(list(queues)), limit))
    until, now = self.clock.monotonic() + lease.total_seconds(), self.clock.now()
    with session.write(durable=False):
        if session.execute(sql.ANY_DUE, (now,)).fetchall():
            session.execute(sql.PROMOTE, (now,))
        ids = json.dumps([id_ for (id_,) in found])
        taken = session.execute(TAKE, (consumer, self._incarnations.get(consumer), until, now, ids))
        return list(self._jobs(taken.fetchall()))


def _end_whatever_token(self: Any, session: Any, outcomes: Any, results: Any) -> Any:
    tokens = {
        id_: session.execute("select token from jobs where id = ?", (id_,)).fetchone()
        for id_ in (outcome.job.id for outcome in outcomes)
    }
    current = [
        replace(one, job=replace(one.job, token=tokens[one.job.id][0])) if tokens[one.job.id] else one
        for one in outcomes
    ]
    return _end_tries(self, session, current, results)


def _refuse_a_repeat(self: Any, session: Any, outcomes: Any, results: Any) -> Any:
    ids = json.dumps([outcome.job.id for outcome in outcomes])
    done = {row[:2] for row in session.execute(sql.LEASES, (ids,)).fetchall() if row[2] == "completed"}
    lost = _end_tries(self, session, outcomes, results)
    return lost + [one.job for one in outcomes if (one.job.id, one.job.token) in done and one.job not in lost]


def _rescue_what_was_seen(self: Any, *, expired: bool = True) -> list[Any]:
    session = self._session
    living = session.rows("select id from consumers where ended_at is null")
    dead = [id_ for (id_,) in living if not presence.alive(self._presence_path(id_))]
    overdue = {"monotonic": self.clock.monotonic() if expired else 0.0, "dead": json.dumps(dead)}
    died = dict(session.rows(sql.OVERDUE, overdue))
    if not died:
        return []
    with session.write():
        ends = Ends(self.clock.now())
        for lease in session.execute(sql.LEASES, (json.dumps(list(died)),)).fetchall():
            ends.add_overdue(lease, died=bool(died[lease[0]]))
        ends.write(session)
    return []


MUTANTS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "": nullcontext,
    "look, then take": _method("dequeue_many", _look_then_take),
    "no token at heartbeat": _statements(HEARTBEAT=("and token = :token", "")),
    "no token at heartbeat of many": _statements(EXTEND=("token = ?", "? is not null")),
    "no token at settle": _method("_end_tries", _end_whatever_token),
    "rescue without a second look": _method("rescue", _rescue_what_was_seen),
    "a repeated complete is refused": _method("_end_tries", _refuse_a_repeat),
    "attempts are not counted": _statements(
        CLAIM=("attempt = attempt + 1", "attempt = attempt"),
        CLAIM_ONE=("attempt = attempt + 1", "attempt = attempt"),
    ),
    "paused queues are emptied": _statements(
        CLAIM=("not exists (select 1 from queues where name = :queue)", "true"),
        CLAIM_ONE=("not exists (select 1 from queues where name = :queue)", "true"),
    ),
    "a full group takes one more": _statements(INSERT=("< 1", "< 0")),
    "due jobs go before their group": _statements(PROMOTE=("'blocked' else", "'pending' else")),
    "a higher limit lets nobody in": _statements(ADMIT=("coalesce(max(0,", "coalesce(min(0,")),
    "leases by the wall clock": lambda: mock.patch.object(FakeClock, "monotonic", FakeClock.now),
    "leases outlive the boot": lambda: mock.patch.object(FakeClock, "boot", return_value="always the same"),
    "the dead are not seen": lambda: mock.patch.object(presence, "alive", return_value=True),
}
