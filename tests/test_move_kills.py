"""A move is killed, given up, or meddled with: nothing is lost, and nothing is handed out twice."""

import random
import re
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from moves import MOVE, content, fill, no_word, pairs, places_of, run_move, without_the_move
from processes import Consumers, wait_for

import pq
from pq import NewJob
from pq.factory import open_for_move
from pq.moving import abandon, move

STAGES = (
    "target marked", "source closed", "source frozen", "copied jobs", "copied settings", "compared jobs",
    "target opened", "source marked as moved",
)  # fmt: skip


@pytest.fixture
def places(request):
    return places_of(request, getattr(request, "param", "sqlite-sqlite").split("-"))


@pytest.mark.parametrize("stage", STAGES)
@pairs("sqlite-postgresql")
def test_a_move_that_was_killed_goes_on_where_it_was(places, stage):
    old, new = places
    fill(old, many=1_200)
    before = content(old)
    killed = run_move(old, new, stage)
    assert killed.returncode == -signal.SIGKILL
    closed, why = (old, new) if stage in STAGES[-2:] else (new, old)
    with pytest.raises(pq.StorageError, match=re.escape(why)):
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


@pytest.mark.parametrize("stage", ["target marked", "source closed", "copied jobs"])
@pairs("postgresql-sqlite")
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


@pairs("sqlite-postgresql")
def test_no_job_is_lost_or_run_twice_while_consumers_work_and_the_move_is_killed(
    places, tmp_path, record_property
):
    seed = random.randrange(2**32)
    record_property("seed", seed)
    consumers, later = (Consumers(place, tmp_path, prefetch=5) for place in places)
    with pq.connect(consumers.path) as queue:
        new = [NewJob("mark", consumers.parameters(0.001), max_attempts=1000) for _ in range(2_000)]
        acknowledged = {job.id for job in queue.enqueue_many(new)}
        try:
            for number in range(2):
                consumers.start(f"consumer-{number}")
            wait_for(lambda: queue.counts()["completed"] > 0, what="work")
            moves_under_fire(consumers.path, later.path, random.Random(seed), 4)
            with pytest.raises(pq.MovedError, match=re.escape(later.path)):
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


@pytest.mark.deep
@pairs("sqlite-sqlite", "sqlite-postgresql", "postgresql-sqlite")
def test_a_move_that_is_killed_and_given_up_again_and_again_ends_right(places, record_property):
    seed = random.randrange(2**32)
    record_property("seed", seed)
    chance = random.Random(seed)
    old, new = places
    fill(old, many=5_000)
    before = content(old)["jobs"]
    for _ in range(40):
        command = [sys.executable, "-c", MOVE, old, new, "none", "1"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            if chance.random() < 0.1 or "compared" in line:
                break
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        process.communicate()
        with open_for_move(old) as source, open_for_move(new) as target:
            stages = {mark.stage for mark in (source.mark("move_out"), target.mark("move_in")) if mark}
            if stages & {"moved", "received"}:
                break
            if chance.random() < 0.3 and stages:
                abandon(source, target, no_word)
                assert content(old)["jobs"] == before
    done = run_move(old, new, "none")
    assert (done.returncode, done.stderr) == (0, "")
    assert content(new)["jobs"] == before
