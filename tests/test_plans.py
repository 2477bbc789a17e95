"""Which index a statement reads: a wrong one is right with ten jobs and too slow with a hundred thousand."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

import pq
from pq.job import Status
from pq.listing import asked
from pq.sql import listing, statements
from pq.sqlite import PersistentQSQLite, sql

PARAMETERS = {"queue": "default", "consumer": "c", "limit": 1, "id": 1, "token": 1, "now": 0.0}
PARAMETERS |= dict.fromkeys(("task", "status", "tags", "group", "error", "before"), "x")
PARAMETERS |= dict.fromkeys(
    ("priority", "parameters", "due_at", "timeout", "max_attempts", "large", "given_back", "finished_at"), 1
)
PARAMETERS |= {"incarnation": None, "unique_key": "k", "lease_until": 1.0, "monotonic": 1.0, "dead": "[]"}


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("ANY_DUE", "jobs_due"),
        ("NEXT_DUE", "jobs_due"),
        ("PROMOTE", "jobs_due"),
        ("ANY_READY", "jobs_ready"),
        ("CLAIM", "jobs_ready"),
        ("CLAIM", "jobs_assigned"),
        ("CLAIM_ONE", "jobs_ready"),
        ("CLAIM_ONE", "jobs_assigned"),
        ("TWIN", "jobs_unique"),
        ("INSERT", "jobs_slots"),
        ("ADMIT", "jobs_slots"),
        ("ADMIT", "jobs_blocked"),
        ("TURN_OUT", "jobs_slots"),
        ("END_TRY", "jobs_slots"),
        ("FORGET_LIMITS", "jobs_group"),
        ("LIMITS", "jobs_slots"),
        ("LIMITS", "jobs_blocked"),
    ],
)
def test_a_statement_reads_its_own_index(tmp_path: Path, name: str, index: str) -> None:
    statement = getattr(sql, name, None) or getattr(statements, name)
    parameters = [1] if "?" in statement else PARAMETERS
    with pq.connect(tmp_path / "queue.db") as queue, queue.transaction() as db:
        plan = [row[3] for row in db.conn.execute(f"explain query plan {statement}", parameters)]
    assert [line for line in plan if f"INDEX {index} " in f"{line} "], plan
    assert not [line for line in plan if "jobs_status" in line or line.startswith("SCAN jobs")], plan


def test_who_comes_into_a_group_is_not_counted_unless_it_has_a_limit(tmp_path: Path) -> None:
    def steps(queue: pq.PersistentQInterface) -> int:
        """How much SQLite does to store one more job of the group, in its own unit."""
        done = 0

        def count() -> None:
            nonlocal done
            done += 1

        with queue.transaction() as db:
            queue.enqueue("stamp", group="g")  # the statement is prepared
            db.conn.set_progress_handler(count, 1)
            queue.enqueue("stamp", group="g")
            db.conn.set_progress_handler(None, 1)
        return done

    with pq.connect(tmp_path / "queue.db") as queue:
        few = steps(queue)
        queue.enqueue_many([pq.NewJob("stamp", group="g") for _ in range(500)])
        assert few * 0.8 < steps(queue) < few * 1.2


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({}, "INTEGER PRIMARY KEY (rowid<?)"),
        ({"order": "oldest"}, "INTEGER PRIMARY KEY (rowid>?)"),
        ({"status": "failed"}, "INDEX jobs_status (status=? AND id<?)"),
        ({"status": ["failed", "pending"]}, "INDEX jobs_status (status=? AND id<?)"),
        ({"group": "g"}, "INDEX jobs_group (job_group=? AND id<?)"),
        ({"order": "finished"}, "INDEX jobs_finished (status=? AND finished_at"),
        ({"order": "due"}, "INDEX jobs_due (due_at>?)"),
        ({"order": "priority"}, "INDEX jobs_priority (priority=? AND id>?)"),
        ({"order": "priority"}, "INDEX jobs_priority (priority<?)"),
        ({"order": "due", "tag": "t", "within": 9}, "INDEX jobs_due (due_at>?)"),
    ],
    ids=str,
)
def test_a_page_of_each_order_is_a_range_of_one_index_without_sorting(
    tmp_path: Path, filters: dict[str, object], index: str
) -> None:
    with pq.connect(tmp_path / "queue.db") as queue, queue.transaction() as db:
        last = {"status": Status.COMPLETED, "finished_at": datetime.now(UTC)}
        last |= {"due": {"status": Status.SCHEDULED}, "priority": {"status": Status.PENDING}}.get(
            str(filters.get("order")), {}
        )
        job = replace(queue.enqueue("stamp"), **last)
        given = dict.fromkeys(("status", "search", "finished_after", "finished_before", "within"))
        page = asked(queue.get, **{"order": "newest", "after": job, "limit": 50} | given | filters)
        plans = [
            [row[3] for row in db.conn.execute(f"explain query plan {statement}", values)]
            for statement, values in listing.statements(page, sql.FILTERS, PersistentQSQLite.with_index)
        ]
    assert any(index in line for plan in plans for line in plan), plans
    assert not [line for plan in plans for line in plan if "TEMP B-TREE" in line], plans
