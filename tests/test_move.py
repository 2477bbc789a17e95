"""A queue moves to another place: nothing is lost, nothing is handed out twice, and it may be interrupted."""

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import timedelta

import pytest
from command_line import CommandLine, answer
from processes import Consumers, wait_for

import pq
from pq import NewJob
from pq.factory import open_for_move
from pq.moving import abandon, move
from pq.transfer import OWN_SETTINGS, TABLES

LONG = "x" * 5_000

MOVE = """
import os, signal, sys
from pq.factory import open_for_move
from pq.moving import move

source, target, stage, times = sys.argv[1:]
left = int(times)

def told(what, done, total):
    global left
    print(what, flush=True)
    left -= what == stage
    if what == stage and left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

with open_for_move(source) as one, open_for_move(target) as two:
    print(move(one, two, told).jobs)
"""


def no_word(what, done, total):
    pass


def fill(place, many=50):
    """Jobs of every status with all that can hang on one; the last id was deleted, and must not come back."""
    with pq.connect(place) as queue:
        queue.enqueue("a", {"text": LONG, "number": 0.1}, tags=("x", "é"), group="g", timeout=2.5)
        queue.complete(queue.dequeue("c"), {"long": LONG})
        queue.enqueue("b", {"nul": "\0", "lone": "\ud800"}, max_attempts=1)
        queue.fail(queue.dequeue("c"), ValueError("boom"), retry=False)
        queue.enqueue("retried", max_attempts=3)
        queue.fail(queue.dequeue("c"), "again", delay=timedelta(hours=1))
        queue.cancel(queue.enqueue("c", unique_key="k"), reason="why", by="ann")
        queue.resubmit(queue.enqueue("c", unique_key="other").id - 3, reason="again")
        queue.enqueue("later", delay=3600, queue="other", priority=7)
        queue.assign(queue.enqueue("mine"), "consumer-7")
        queue.enqueue_many([NewJob("many", {"number": number}) for number in range(many)])
        queue.pause("other", "closed")
        queue.set_setting("interval", "2.5")
        last = queue.enqueue("last")
        queue.delete(last)
        return last.id


def content(place):
    """All that moves, as the rows say it."""
    with open_for_move(place) as end:
        found = {}
        for table in TABLES:
            after, rows = None, []
            while chunk := end.dump(table, after, 7):
                rows += chunk
                after = table.key(chunk[-1])
            found[table.name] = rows
    return found


def without_the_move(rows):
    """The move itself pauses queues, and says so in the actions."""
    return {name: [row for row in found if "moving to" not in str(row)] for name, found in rows.items()}


@pytest.fixture
def places(tmp_path):
    return str(tmp_path / "old.db"), str(tmp_path / "new.db")


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


def test_a_queue_moves_back_into_the_place_that_it_came_from(places):
    fill(places[0])
    for source, target in (places, places[::-1], places):
        before = content(source)
        with open_for_move(source) as one, open_for_move(target) as two:
            move(one, two, no_word)
        assert without_the_move(content(target)) == without_the_move(before)
        with pq.connect(target) as queue:
            queue.enqueue("more")


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
            with pytest.raises(pq.MovedError, match=f"^{old} has moved to {new}: open the queue there$"):
                write()
    with pytest.raises(pq.MovedError, match=new):
        pq.connect(old)


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


def test_running_jobs_end_first_and_a_dead_consumers_job_is_taken_back(places):
    old, new = places
    with pq.connect(old) as queue:
        queue.enqueue_many([NewJob("a"), NewJob("b")])
        mine = queue.dequeue("here")
        lost = queue.dequeue("gone", lease=timedelta(seconds=0.3))
        seen = []

        def told(what, done, total):
            seen.append((what, done))
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


STAGES = (
    "target marked", "target emptied", "source closed", "source frozen", "ids advanced", "copied jobs",
    "copied attempts", "copied settings", "compared jobs", "target opened", "source marked as moved",
)  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_a_move_that_was_killed_goes_on_where_it_was(places, stage):
    old, new = places
    fill(old, many=2_000)
    before = content(old)
    killed = run_move(old, new, stage)
    assert killed.returncode == -signal.SIGKILL
    closed, why = (old, new) if stage in STAGES[-2:] else (new, old)
    with pytest.raises(pq.StorageError, match=why):
        write_to(closed)
    again = run_move(old, new, "none")
    assert (again.returncode, again.stderr) == (0, "")
    assert "copied jobs" not in again.stdout or STAGES.index(stage) < STAGES.index("copied jobs") + 1
    assert without_the_move(content(new)) == before
    with pytest.raises(pq.MovedError, match="has moved to"):
        pq.connect(old)
    pq.connect(new).close()


def write_to(place):
    with pq.connect(place) as queue:
        queue.enqueue("late")


def run_move(old, new, stage, times=1):
    return subprocess.run(
        [sys.executable, "-c", MOVE, old, new, stage, str(times)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("stage", ["target marked", "source closed", "copied jobs", "compared jobs"])
def test_a_move_that_is_given_up_leaves_the_source_as_it_was(places, stage):
    old, new = places
    fill(old)
    before = content(old)
    run_move(old, new, stage)
    with open_for_move(old) as source, open_for_move(new) as target:
        abandon(source, target, no_word)
        with pytest.raises(pq.MoveError, match="nothing to abandon"):
            abandon(source, target, no_word)
    pause = set(content(old)["actions"]) - set(before["actions"])
    assert {row[3] for row in pause} <= {"pause", "resume"}
    assert content(old) | {"actions": []} == before | {"actions": []}
    with pq.connect(old) as queue, pq.connect(new) as empty:
        assert sum(empty.counts().values()) == 0
        queue.enqueue("open again")
        empty.enqueue("open too")


def test_a_move_whose_target_is_open_is_not_given_up(places):
    old, new = places
    fill(old)
    run_move(old, new, "target opened")
    with open_for_move(old) as source, open_for_move(new) as target:
        with pytest.raises(pq.MoveError, match="run the move again"):
            abandon(source, target, no_word)
        with pytest.raises(pq.MoveError, match="is being moved to"), open_for_move(new + "2") as other:
            move(source, other, no_word)


def test_a_target_that_was_written_to_is_found_out(places):
    old, new = places
    fill(old)
    run_move(old, new, "copied settings")
    connection = sqlite3.connect(new)
    connection.execute("update attempts set error = 'other' where job_id = 2")
    connection.commit()
    connection.close()
    done = run_move(old, new, "none")
    assert "MoveError: table attempts differs" in done.stderr
    with pytest.raises(pq.StorageError):
        pq.connect(new)


def moves_under_fire(old, new, chance, kills):
    """Kill the move at random moments until it comes to its end."""
    for _ in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-c", MOVE, old, new, "none", "1"], stdout=subprocess.PIPE
        )
        process.stdout.readline()
        time.sleep(chance.uniform(0, 0.2))
        process.kill()
        process.communicate()
    assert run_move(old, new, "none").returncode == 0


def test_no_job_is_lost_or_run_twice_while_consumers_work_and_the_move_is_killed(tmp_path, record_property):
    seed = random.randrange(2**32)
    record_property("seed", seed)
    (tmp_path / "new").mkdir()
    consumers = Consumers(tmp_path, prefetch=5)
    later = Consumers(tmp_path / "new", prefetch=5)
    later.log = consumers.log
    with pq.connect(consumers.path) as queue:
        new = [NewJob("mark", consumers.parameters(0.001), max_attempts=1000) for _ in range(2_500)]
        acknowledged = {job.id for job in queue.enqueue_many(new)}
        try:
            for number in range(2):
                consumers.start(f"consumer-{number}")
            wait_for(lambda: queue.counts()["completed"] > 0, what="work")
            moves_under_fire(consumers.path, later.path, random.Random(seed), 4)
            with pytest.raises(pq.MovedError, match=later.path):
                queue.enqueue("late")
            left_behind = queue.counts()["completed"]
            later.start("consumer-9")
            with pq.connect(later.path) as moved:
                assert left_behind < len(acknowledged), "the move came too late to show anything"
                wait_for(lambda: moved.counts()["completed"] == len(acknowledged), 120, "all to complete")
                assert set(ids(moved)) == acknowledged
        finally:
            consumers.stop()
            later.stop()
    assert max(consumers.started().values()) == 1


def ids(queue):
    after = None
    while page := queue.list(after=after, limit=1000):
        yield from (job.id for job in page)
        after = page[-1].id


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


# -- the command ------------------------------------------------------------------------------------


def test_the_command_tells_first_what_it_would_move(places, tmp_path):
    old, new = places
    fill(old)
    pq_ = CommandLine(tmp_path / "unused.db")
    told = answer(pq_("move", old, new, "--dry-run", "--json"))
    assert (told["rows"]["jobs"], told["hindrance"]) == (57, None)
    said = pq_("move", old, new, "--dry-run").output
    assert f"it can move to {new}" in said
    with pytest.raises(sqlite3.OperationalError):
        sqlite3.connect(f"file:{new}?mode=ro", uri=True).execute("select 1")
    refused = pq_("move", old, new)
    assert (refused.exit_code, "needs a confirmation" in refused.output) == (1, True)


def test_the_command_moves_and_reports(places, tmp_path):
    old, new = places
    fill(old)
    pq_ = CommandLine(tmp_path / "unused.db")
    done = pq_("move", old, new, "--yes")
    assert done.exit_code == 0, done.output
    assert f"{old} has moved to {new}" in done.output
    assert "jobs                57 rows" in done.output
    again = pq_("move", old, new, "--yes", "--json")
    assert json.loads(again.stdout)["tables"] == {}
    refused = CommandLine(old)("list")
    assert (refused.exit_code, refused.output) == (1, f"pq: {old} has moved to {new}: open the queue there\n")
    nothing = pq_("move", old, new, "--abandon")
    assert (nothing.exit_code, "move it back from there" in nothing.output) == (1, True)
