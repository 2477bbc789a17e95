"""Groups with a limit on a server, where transactions really overlap."""

from multiprocessing.pool import ThreadPool

import psycopg
import pytest
from processes import wait_for

import pq
from pq import NewJob, Outcome
from pq.records import GroupLimit

WAITERS = "select count(*) from pg_locks where not granted"


@pytest.fixture
def queue(url):
    with pq.connect(url) as opened:
        yield opened


@pytest.fixture
def somebody_waits(url):
    """Whether a transaction waits for another one."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield lambda: connection.execute(WAITERS).fetchall()[0][0] > 0


def test_two_that_end_jobs_of_two_groups_in_opposite_order_do_not_wait_for_each_other(
    url, queue, somebody_waits
):
    queue.limit_group("a", 2)
    queue.limit_group("b", 2)
    queue.enqueue_many([NewJob("stamp", group=group) for group in "abab"])
    a, b, other_a, other_b = queue.dequeue_many("c", 4)
    ends = [Outcome(job, "failed", error="no", retry=False) for job in (other_b, other_a)]
    with pq.connect(url) as other, ThreadPool(1) as pool:
        with queue.transaction():
            queue.fail(a, "no", retry=False)
            settled = pool.apply_async(other.settle, (ends,))
            wait_for(somebody_waits, what="the other to wait for the first group")
            queue.fail(b, "no", retry=False)
        assert settled.get(60).lost == []
    assert queue.counts()["failed"] == 4
    assert queue.group_limits() == [GroupLimit("a", 2, 0, 0), GroupLimit("b", 2, 0, 0)]


def test_two_places_that_come_free_at_once_let_in_two(url, queue, somebody_waits):
    queue.limit_group("a", 2)
    queue.enqueue_many([NewJob("stamp", group="a") for _ in range(5)])
    first, second = queue.dequeue_many("c", 2)
    with pq.connect(url) as other, ThreadPool(1) as pool:
        with queue.transaction():
            queue.complete(first)
            settled = pool.apply_async(other.settle, ([Outcome(second)],))
            wait_for(somebody_waits, what="the other to wait for the group")
        assert settled.get(60).lost == []
    assert queue.group_limits() == [GroupLimit("a", 2, 2, 1)]


def test_jobs_that_came_in_while_a_limit_was_set_are_fitted_by_the_next_rescue(url, queue):
    with pq.connect(url) as other:
        with queue.transaction():
            queue.enqueue_many([NewJob("stamp", group="a") for _ in range(3)])
            other.limit_group("a", 1)
        assert queue.group_limits() == [GroupLimit("a", 1, 3, 0)]
        queue.rescue()
        assert queue.group_limits() == [GroupLimit("a", 1, 1, 2)]
