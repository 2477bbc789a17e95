"""Consumers of a limited group are killed: never too many run, and the places of the dead come free."""

import random
import sys
import time

import pytest
from processes import Consumers, wait_for

import pq
from pq import NewJob
from pq.records import GroupLimit

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
MOST = 2


def test_the_places_of_killed_consumers_come_free_and_never_too_many_run(place, tmp_path):
    chance = random.Random(5)
    consumers = Consumers(place, tmp_path)
    seen = []

    def completed(queue):
        """How many have completed; and one look at how many run."""
        jobs = queue.list(group="study", limit=1000)
        seen.append(sum(job.status in ("pending", "processing") for job in jobs))
        return sum(job.status == "completed" for job in jobs)

    with pq.connect(consumers.path) as queue:
        queue.limit_group("study", MOST)
        try:
            alive = [consumers.start(f"consumer-{number}") for number in range(4)]
            for number in range(4):
                new = NewJob("mark", consumers.parameters(0.05), group="study", max_attempts=1000)
                queue.enqueue_many([new] * 10)
                before = completed(queue)
                wait_for(lambda before=before: completed(queue) > before, what="work")
                time.sleep(chance.uniform(0, 0.05))
                alive[number % 4].kill()
                alive[number % 4].wait()
                alive[number % 4] = consumers.start(f"consumer-{number % 4}")
            wait_for(lambda: completed(queue) == 40, limit=120, what="all jobs to complete")
        finally:
            consumers.stop()
        assert max(seen) == MOST
        assert queue.group_limits() == [GroupLimit("study", MOST, 0, 0)]
        twice = {key: times for key, times in consumers.started().items() if times > 1}
        assert not twice, "a token began twice"
