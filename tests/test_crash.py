"""Consumers are killed, paused and woken; no job is lost, and none completes twice.

By hand: `make test ARGS="tests/test_crash.py --kills 1000"`.
"""

import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter

import pytest
from processes import Consumers, wait_for

import pq
from pq import NewJob

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
CONSUMERS = 3


def every_job(queue):
    after = None
    while page := queue.list(after=after, limit=1000):
        yield from page
        after = page[-1].id


def check_total_queue(queue, consumers, acknowledged):
    """In the manner of Jepsen's total-queue: lost, unexpected, duplicated."""
    jobs = {job.id: job for job in every_job(queue)}
    assert set(jobs) == acknowledged, "lost, or not enqueued"
    assert Counter(job.status.value for job in jobs.values()) == {"completed": len(acknowledged)}
    started = consumers.started()
    for id_, job in jobs.items():
        attempts = queue.attempts(id_)
        assert [attempt.outcome for attempt in attempts].count("completed") == 1, attempts
        assert (id_, job.result) in started, "completed by a token that never began"
        assert job.attempt == len(attempts)
    twice = {key: times for key, times in started.items() if times > 1}
    assert not twice, "a token began twice"
    rows = Counter(job.status.value for job in every_job(queue))
    assert rows == {status: count for status, count in queue.counts().items() if count}
    if "://" not in consumers.path:
        connection = sqlite3.connect(consumers.path)
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        connection.close()


def outcomes(queue, ids):
    return {attempt.outcome for id_ in ids for attempt in queue.attempts(id_)}


@pytest.mark.parametrize("prefetch", [1, 10])
def test_no_job_is_lost_or_completed_twice_when_consumers_are_killed(
    place, tmp_path, request, prefetch, record_property
):
    # A consumer of a server takes longer to start.
    kills = request.config.getoption("--kills") // (5 if "://" in place else 2)
    seed = random.randrange(2**32)
    record_property("seed", seed)
    chance = random.Random(seed)
    consumers = Consumers(place, tmp_path, prefetch=prefetch)
    acknowledged: set[int] = set()

    def enqueue(queue):
        seconds = chance.choice([0, 0, 0.002, 0.05])
        new = [NewJob("mark", consumers.parameters(seconds), max_attempts=1000) for _ in range(20)]
        acknowledged.update(job.id for job in queue.enqueue_many(new))

    with pq.connect(consumers.path) as queue:
        enqueue(queue)
        try:
            alive = [consumers.start(f"consumer-{number}") for number in range(CONSUMERS)]
            for _ in range(kills):
                enqueue(queue)
                completed = queue.counts()["completed"]
                victim = chance.randrange(CONSUMERS)
                # Not before somebody works again: a consumer that is killed while it starts shows nothing.
                wait_for(lambda before=completed: queue.counts()["completed"] > before, what="work")
                time.sleep(chance.uniform(0, 0.05))
                alive[victim].kill()
                alive[victim].wait()
                alive[victim] = consumers.start(f"consumer-{victim}")
            wait_for(
                lambda: queue.counts()["completed"] == len(acknowledged),
                limit=120,
                what="all jobs to complete",
            )
        finally:
            consumers.stop()
        check_total_queue(queue, consumers, acknowledged)


def test_no_job_is_completed_twice_when_consumers_are_paused_past_their_lease(place, tmp_path):
    chance = random.Random(7)
    consumers = Consumers(place, tmp_path, prefetch=3, lease=0.4)
    with pq.connect(consumers.path) as queue:
        new = [NewJob("mark", consumers.parameters(0.05), max_attempts=1000) for _ in range(500)]
        acknowledged = {job.id for job in queue.enqueue_many(new)}
        try:
            alive = [consumers.start(f"consumer-{number}") for number in range(CONSUMERS)]
            wait_for(lambda: len(queue.consumers()) == CONSUMERS, what="all consumers")
            wait_for(lambda: queue.counts()["completed"] > 0, what="work")
            for _ in range(4):
                victim = chance.choice(alive)
                victim.send_signal(signal.SIGSTOP)
                time.sleep(1.6)  # others look for expired leases once a second
                victim.send_signal(signal.SIGCONT)
                time.sleep(chance.uniform(0, 0.1))
            assert "lease expired" in outcomes(queue, acknowledged), "no pause met a running job"
            wait_for(
                lambda: queue.counts()["completed"] == len(acknowledged),
                limit=120,
                what="all jobs to complete",
            )
        finally:
            consumers.stop()
        check_total_queue(queue, consumers, acknowledged)


ZOMBIE = """
import os, signal, sys, pq
from datetime import timedelta
queue = pq.connect(sys.argv[1])
queue.register_consumer("consumer-1")
job = queue.dequeue("consumer-1", lease=timedelta(seconds=0.2))
print("taken", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
for verb in ("heartbeat", "complete", "release"):
    try:
        getattr(queue, verb)(job)
        print(f"{verb} was accepted", flush=True)
    except pq.LeaseLostError:
        print(f"{verb} lost", flush=True)
"""


def test_a_consumer_woken_after_its_lease_is_told_and_changes_nothing(place):
    with pq.connect(place) as queue:
        job = queue.enqueue("mark")
        process = subprocess.Popen([sys.executable, "-c", ZOMBIE, place], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout.readline() == "taken\n"
            rescued = []
            wait_for(lambda: rescued.extend(queue.rescue()) or rescued, what="the lease to end")
            assert [one.id for one in rescued] == [job.id]
            wait_for(lambda: queue.dequeue_many("consumer-1", 1), what="the job to be due again")
            process.send_signal(signal.SIGCONT)
            said, _ = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
        assert said.splitlines() == ["heartbeat lost", "complete lost", "release lost"]
        assert (queue.get(job).status, queue.get(job).token) == ("processing", 2)


def test_when_all_stood_still_past_the_lease_nobody_loses_its_job(place, tmp_path):
    consumers = Consumers(place, tmp_path, lease=1.5)
    with pq.connect(consumers.path) as queue:
        job = queue.enqueue("mark", consumers.parameters(5))
        try:
            started = {name: consumers.start(name) for name in ("consumer-1", "consumer-2")}
            wait_for(lambda: queue.get(job).status == "processing", what="the job to begin")
            wait_for(lambda: len(queue.consumers()) == 2, what="both consumers")
            time.sleep(1.5)  # the idle one has looked for others' jobs at least once
            mine = started.pop(queue.get(job).consumer)
            (other,) = started.values()
            for process in (mine, other):
                process.send_signal(signal.SIGSTOP)
            time.sleep(4)
            # The idle one wakes first, and finds a lease that ended long ago.
            other.send_signal(signal.SIGCONT)
            time.sleep(0.5)
            mine.send_signal(signal.SIGCONT)
            wait_for(lambda: queue.get(job).status == "completed", what="the job to complete")
        finally:
            consumers.stop()
        assert [attempt.outcome for attempt in queue.attempts(job)] == ["completed"]


def test_a_job_that_kills_its_consumer_ends_failed_after_its_attempts(place, tmp_path):
    consumers = Consumers(place, tmp_path)
    poison = tmp_path / "poison.py"
    poison.write_text("import os, pq\n\n@pq.task('poison')\ndef poison():\n    os._exit(1)\n")
    consumers._tasks = poison
    with pq.connect(consumers.path) as queue:
        job = queue.enqueue("poison", max_attempts=3)
        try:
            for _ in range(3):
                assert consumers.start("consumer-1").wait(timeout=60) == 1
                queue.rescue()
        finally:
            consumers.stop()
        assert (queue.get(job).status, queue.get(job).error) == ("failed", "consumer died")
        assert [attempt.outcome for attempt in queue.attempts(job)] == ["consumer died"] * 3
