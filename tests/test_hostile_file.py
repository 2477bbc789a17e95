"""A database file that somebody else has made or damaged: answered in one line, and nothing runs."""

import sqlite3

import pytest
from processes import run_python

import pq


def plant(path, *statements):
    """A queue with a job, in which somebody has done this."""
    with pq.connect(path) as queue:
        queue.enqueue("stamp", {"input": "a"})
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
    return path.read_bytes()


TRIGGER = "create trigger {name} after {verb} begin select load_extension('evil'); end"
FOREIGN = {
    "a trigger": [TRIGGER.format(name="evil", verb="insert on jobs")],
    "a trigger in the place of ours": [
        "drop trigger jobs_count_insert",
        TRIGGER.format(name="jobs_count_insert", verb="insert on jobs"),
    ],
    "a trigger like those of a move": [TRIGGER.format(name="moved_jobs_insert", verb="update on settings")],
    "a view in the place of a table": [
        "alter table jobs rename to kept",
        "create view jobs as with recursive endless(id) as (values (1) union all select id from endless) "  # noqa: ISC004
        "select id from endless",
    ],
}


@pytest.mark.parametrize("statements", FOREIGN.values(), ids=FOREIGN)
def test_what_pq_did_not_put_into_its_tables_is_refused_and_kept(tmp_path, statements):
    path = tmp_path / "queue.db"
    before = plant(path, *statements)
    with pytest.raises(pq.StorageError, match=r"a (trigger|view) .* that pq did not make"):
        pq.connect(path)
    assert path.read_bytes() == before


def test_triggers_and_views_on_ones_own_tables_stay_ones_own_affair(tmp_path):
    path = tmp_path / "queue.db"
    plant(
        path,
        "create table mine (id integer, note text)",
        "create view seen as select * from mine",
        "create trigger noted after insert on mine begin update mine set note = 'n' where id = new.id; end",
    )
    with pq.connect(path) as queue, queue.transaction() as db:
        db["mine"].insert({"id": 1})
        assert list(db["seen"].rows) == [{"id": 1, "note": "n"}]


def test_a_schema_may_not_call_what_is_not_harmless(tmp_path):
    path = tmp_path / "queue.db"
    plant(path, "create table mine (id integer)", TRIGGER.format(name="evil", verb="insert on mine"))
    with (
        pq.connect(path) as queue,
        pytest.raises(sqlite3.OperationalError, match=r"unsafe use of load_extension|not authorized"),
        queue.transaction() as db,
    ):
        db["mine"].insert({"id": 1})


DAMAGE = """
import random, sys
from pathlib import Path
import pq
whole, place = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
chance = random.Random(7)
refused = 0
for number in range(int(sys.argv[3])):
    content = bytearray(whole)
    for _ in range(chance.choice([1, 10, 200])):
        at = chance.randrange(100 if chance.random() < 0.1 else len(content))
        content[at] = chance.randrange(256)
    path = place / f"{number}.db"
    path.write_bytes(content)
    try:
        with pq.connect(path) as queue:
            for job in queue.list(limit=500):
                queue.get(job)
                queue.attempts(job)
            queue.counts()
            queue.rescue()
            queue.actions(limit=500)
            queue.enqueue("stamp")
            taken = queue.dequeue("c")
            if taken is not None:
                queue.complete(taken)
    except pq.PQError as error:
        refused += 1
        assert "\\n" not in str(error)
print(refused)
"""


def test_a_file_with_damaged_bytes_never_gives_another_error_than_ours(tmp_path):
    path = tmp_path / "whole.db"
    with pq.connect(path) as queue:
        queue.enqueue_many([pq.NewJob("stamp", {"text": "x" * (n * 50)}) for n in range(100)])
        for job in queue.dequeue_many("c", 30):
            queue.fail(job, "on purpose", retry=False)
            queue.resubmit(job)
    assert int(run_python(DAMAGE, str(path), str(tmp_path), "150")) > 20
