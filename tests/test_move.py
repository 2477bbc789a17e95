"""A queue moves to another place: nothing is lost, nothing is handed out twice, and it may be interrupted."""

import re
import subprocess
import sys
from datetime import timedelta

import pytest
from moves import LONG, content, fill, no_word, pairs, places_of, without_the_move
from processes import wait_for

import pq
from pq import NewJob
from pq.factory import open_for_move
from pq.moving import move
from pq.transfer import OWN_SETTINGS, TABLES


@pytest.fixture
def places(request):
    return places_of(request, getattr(request, "param", "sqlite-sqlite").split("-"))


@pairs("sqlite-sqlite", "sqlite-postgresql", "postgresql-sqlite")
def test_everything_moves_with_its_ids(places):
    old, new = places
    last = fill(old)
    before = content(old)
    with open_for_move(old) as source, open_for_move(new) as target:
        report = move(source, target, no_word)
    assert without_the_move(content(new)) == before
    assert (report.source, report.target) == places
    assert {name: table.rows for name, table in report.tables.items()}["jobs"] == len(before["jobs"])
    with pq.connect(new) as queue:
        assert queue.counts() == report.jobs
        assert queue.get(1).parameters == {"text": LONG, "number": 0.1}
        assert queue.enqueue("next").id == last + 1
        assert {state.name: state.reason for state in queue.queues()} == {"default": None, "other": "closed"}
        assert queue.dequeue("consumer-7").task == "mine"
        assert queue.resubmit(1).status == "pending"


@pairs("sqlite-sqlite", "sqlite-postgresql")
def test_a_queue_moves_back_into_the_place_that_it_came_from(places):
    fill(places[0])
    for source, target in (places, places[::-1], places):
        before = content(source)
        with open_for_move(source) as one, open_for_move(target) as two:
            move(one, two, no_word)
        assert without_the_move(content(target)) == without_the_move(before)
        with pq.connect(target) as queue:
            queue.enqueue("more")


@pairs("sqlite-sqlite", "postgresql-sqlite")
def test_whoever_comes_to_the_old_place_is_told_the_new_one(places):
    old, new = places
    fill(old)
    producer = pq.connect(old)
    with open_for_move(old) as source, open_for_move(new) as target:
        move(source, target, no_word)
    with producer:
        for write in (
            lambda: producer.enqueue("late"),
            lambda: producer.resubmit(4),
            lambda: producer.register_consumer("c"),
            lambda: producer.set_setting("interval", "9"),
            lambda: producer.resume("default"),
            producer.delete_all,
        ):
            with pytest.raises(
                pq.MovedError, match=f"^{re.escape(old)} has moved to {re.escape(new)}: open the queue there$"
            ):
                write()
    with pytest.raises(pq.MovedError, match=re.escape(new)):
        pq.connect(old)


@pairs("sqlite-sqlite", "postgresql-sqlite")
def test_a_consumer_and_a_producer_at_the_old_place_end_with_the_new_one(places, tmp_path):
    old, new = places
    fill(old)
    programs = (
        ["consume", "--name", "c"],
        ["produce", "--interval", "0.2s"],
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "pq.cli", "--db", old, *words],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        )
        for words in programs
    ]  # fmt: skip
    try:
        with pq.connect(old) as queue:
            wait_for(lambda: len(queue.consumers()) == 2, what="both")
        with open_for_move(old) as source, open_for_move(new) as target:
            move(source, target, no_word)
        for process in running:
            _, said = process.communicate(timeout=60)
            assert process.returncode == 1, said
            assert f"pq: {old} " in said.splitlines()[-1]
            assert new in said.splitlines()[-1]
    finally:
        for process in running:
            process.kill()
            process.wait()


@pairs("sqlite-sqlite", "postgresql-sqlite")
def test_running_jobs_end_first_and_a_dead_consumers_job_is_taken_back(places):
    old, new = places
    with pq.connect(old) as queue:
        queue.enqueue_many([NewJob("a"), NewJob("b")])
        mine = queue.dequeue("here")
        lost = queue.dequeue("gone")
        seen = []

        def told(what, done, total):
            seen.append((what, done))
            if what == "waiting for jobs that run" and done == 2:
                queue.heartbeat(lost, lease=timedelta(milliseconds=1))  # its last one
            if what == "waiting for jobs that run" and done == 1:
                assert queue.dequeue("here") is None, "a closed queue hands nothing out"
                with pytest.raises(pq.MovedError, match="is being moved to"):
                    queue.enqueue("late")
                queue.complete(mine, "done")

        with open_for_move(old) as source, open_for_move(new) as target:
            move(source, target, told)
    assert ("waiting for jobs that run", 2) in seen
    with pq.connect(new) as queue:
        assert queue.get(mine).result == "done"
        assert [one.outcome for one in queue.attempts(lost)] == ["lease expired"]


@pairs("sqlite-sqlite", "sqlite-postgresql")
def test_a_target_that_is_not_empty_or_in_use_is_refused_and_nothing_changes(places):
    old, new = places
    fill(old)
    with open_for_move(old) as source, open_for_move(new) as target:
        target.queue.enqueue("foreign")
        with pytest.raises(pq.MoveError, match="holds 1 jobs"):
            move(source, target, no_word)
        target.queue.delete_all()
        target.queue.register_consumer("early")
        with pytest.raises(pq.MoveError, match=r"consumers run on .* \(early\)"):
            move(source, target, no_word)
        with pytest.raises(pq.MoveError, match="to itself"):
            move(source, source, no_word)
    with pq.connect(old) as queue:
        queue.enqueue("still open")


def test_every_table_and_column_of_a_queue_moves_or_is_known_to_stay(tmp_path):
    stay = {
        "consumers": "processes end with their place",
        "counters": "kept by triggers",
        "job_values": "goes with its job's row",
    }
    columns_that_stay = {"cancel_requested", "large", "incarnation", "lease_until"}
    with pq.connect(tmp_path / "queue.db") as queue, queue.transaction() as db:
        tables = {
            name: {row[1] for row in db.execute(f"pragma table_info({name})").fetchall()}
            for name in db.table_names()
            if not name.startswith(("sqlite_", "_sqlite"))
        }
    assert {table.name for table in TABLES} == tables.keys() - stay.keys()
    for table in TABLES:
        assert set(table.columns) == tables[table.name] - columns_that_stay
    assert OWN_SETTINGS == ("boot", "move_in", "move_out")


def test_every_column_of_a_queue_on_a_server_moves_or_is_known_to_stay(postgresql_url):
    stay = {"cancel_requested", "large", "incarnation", "lease_until"}
    statement = (
        "select column_name from information_schema.columns where table_schema = 'pq' and table_name = %s"
    )
    with pq.connect(postgresql_url) as queue, queue.transaction() as connection:
        for table in TABLES:
            rows = connection.exec_driver_sql(statement, (table.name,)).fetchall()
            assert {name for (name,) in rows} - stay == set(table.columns)


@pairs("sqlite-sqlite", "postgresql-sqlite")
def test_a_chunk_of_large_jobs_is_bounded_by_bytes(places):
    old, _ = places
    with pq.connect(old) as queue:
        queue.enqueue_many([NewJob("a", {"text": "x" * 900_000}) for _ in range(30)])
    with open_for_move(old) as end:
        sizes = []
        after = None
        while rows := end.dump(TABLES[0], after):
            sizes.append(len(rows))
            after = TABLES[0].key(rows[-1])
    assert (sum(sizes), max(sizes)) == (30, 19)
