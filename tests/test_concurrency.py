"""Many processes on one queue: each job once, and nobody waits for ever."""

import subprocess
import sys

import pytest
from processes import Consumers, wait_for

import pq
from pq import NewJob
from pq.sqlite import sql


@pytest.mark.parametrize("prefetch", [1, 50])
def test_four_consumers_drain_two_thousand_jobs_each_exactly_once(place, tmp_path, prefetch):
    consumers = Consumers(place, tmp_path, prefetch=prefetch)
    with pq.connect(consumers.path) as queue:
        # The first four batches begin with a job that waits for the others, so that each has to take one.
        meeting = {0, prefetch, 2 * prefetch, 3 * prefetch}
        jobs = queue.enqueue_many([
            NewJob("mark", consumers.parameters() | ({"meet": 4} if number in meeting else {}))
            for number in range(2000)
        ])  # fmt: skip
        try:
            for number in range(4):
                consumers.start(f"consumer-{number}")
            wait_for(lambda: queue.counts()["completed"] == 2000, limit=120, what="2,000 completed jobs")
        finally:
            consumers.stop()
        assert consumers.started() == {(job.id, 1): 1 for job in jobs}
        took = queue.frame()["consumer"].value_counts()
        assert took.sum() == 2000
        assert len(took) == 4, took


ENQUEUE = """
import sys, pq
queue = pq.connect(sys.argv[1])
for number in range(int(sys.argv[2])):
    queue.enqueue("mark", {"number": number}, unique_key=f"key-{number % 10}" if len(sys.argv) > 3 else None)
"""


def enqueue_from(path, processes, jobs, *more):
    running = [
        subprocess.Popen([sys.executable, "-c", ENQUEUE, path, str(jobs), *more]) for _ in range(processes)
    ]
    assert [process.wait(timeout=120) for process in running] == [0] * processes


def test_every_job_of_four_producers_is_there(place):
    enqueue_from(place, 4, 100)
    with pq.connect(place) as queue:
        numbers = queue.frame()["parameters"].map(lambda parameters: parameters["number"]).value_counts()
        assert numbers.to_dict() == dict.fromkeys(range(100), 4)


def test_a_unique_key_holds_between_processes(place):
    enqueue_from(place, 4, 50, "unique")
    with pq.connect(place) as queue:
        assert queue.counts()["pending"] == 10
        assert len({job.unique_key for job in queue.list()}) == 10


def test_a_large_job_that_is_deleted_while_it_is_read_is_read_as_it_was(tmp_path, monkeypatch):
    with pq.connect(tmp_path / "queue.db") as queue, pq.connect(tmp_path / "queue.db") as other:
        job = queue.enqueue("mark", {"text": "x" * 10_000})
        session, execute = queue._session, queue._session.execute

        def delete_before_the_second_table_is_read(statement, parameters=()):
            if statement == sql.VALUES:
                other.delete(job)
            return execute(statement, parameters)

        monkeypatch.setattr(session, "execute", delete_before_the_second_table_is_read)
        assert queue.get(job).parameters == job.parameters
        monkeypatch.undo()
        assert queue.list() == []
