"""A claim that a killed server forgot: its token is not given to another, so it holds no longer."""

import pytest

import pq
from pq import NewJob

TRIES = 200


def forgotten_claim(server, queue):
    """The Job of a claim that was answered and then lost, because claims do not wait for the disk."""
    queue.enqueue_many([NewJob("work") for _ in range(TRIES)])
    for _ in range(10):
        held = [queue.dequeue("first") for _ in range(10)]
        server.kill()
        server.start()
        for job in held:
            if queue.get(job).status == "pending":
                return job
    raise AssertionError("the server has kept all claims")


def test_a_token_is_not_given_twice_though_the_server_forgot_the_claim(own_postgresql):
    with pq.connect(own_postgresql.url()) as queue:
        forgotten = forgotten_claim(own_postgresql, queue)
        again = next(job for _ in range(TRIES) for job in [queue.dequeue("second")] if job.id == forgotten.id)
        assert again.token > forgotten.token
        with pytest.raises(pq.LeaseLostError):
            queue.heartbeat(forgotten)
        with pytest.raises(pq.LeaseLostError):
            queue.complete(forgotten, "by the first")
        queue.complete(again, "by the second")
        assert queue.get(again).result == "by the second"
