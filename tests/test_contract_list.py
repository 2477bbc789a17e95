"""The contract of `list`: its orders and pages, the finishing time, and how far it looks."""

from datetime import timedelta

import pytest

import pq
from pq import NewJob, Outcome

SECOND = timedelta(seconds=1)


def in_every_order(queue, clock):
    """Finished, scheduled and pending jobs whose orders differ from that of their ids."""
    names = {}
    for name, options in [("slow", {}), ("quick", {"priority": 5}), ("dropped", {}), ("wrong", {})]:
        names[name] = queue.enqueue("stamp", {"name": name}, **options)
    taken = queue.dequeue_many("consumer-1", 4)
    by_name = {job.parameters["name"]: job for job in taken}
    for name in ("quick", "wrong", "slow"):
        clock.advance(0.123456)
        if name == "wrong":
            queue.fail(by_name[name], "no", retry=False)
        else:
            queue.complete(by_name[name])
    clock.advance(1)
    queue.fail(by_name["dropped"], "no", retry=False)
    for name, options in [
        ("late", {"delay": 90}),
        ("soon", {"delay": 30.5}),
        ("middle", {"delay": 60, "queue": "other"}),
        ("low", {"priority": -1}),
        ("plain", {}),
        ("high", {"priority": 9, "queue": "other"}),
        ("second", {}),
    ]:
        names[name] = queue.enqueue("stamp", {"name": name}, **options)
    return {name: job.id for name, job in names.items()}


IN_ORDER = {
    "newest": "second high plain low middle soon late wrong dropped quick slow",
    "oldest": "slow quick dropped wrong late soon middle low plain high second",
    "finished": "dropped slow wrong quick",
    "due": "soon middle late",
    "priority": "high plain second low",
}


@pytest.mark.parametrize("order", IN_ORDER)
def test_each_order_lists_its_jobs_by_pages_of_any_size(queue, clock, order):
    ids = in_every_order(queue, clock)
    expected = [ids[name] for name in IN_ORDER[order].split()]
    assert [job.id for job in queue.list(order=order)] == expected
    for size in (1, 2, 3):
        for cursor in (lambda job: job, lambda job: job.id):
            seen, after = [], None
            while page := queue.list(order=order, after=after, limit=size):
                seen += [job.id for job in page]
                after = cursor(page[-1])
            assert seen == expected, (size, cursor)
    assert list(queue.frame(order=order).index) == expected


@pytest.mark.parametrize("order", IN_ORDER)
def test_jobs_that_are_equal_in_an_order_are_on_one_page_only(queue, clock, order):
    jobs = queue.enqueue_many([NewJob("stamp", delay=60 if order == "due" else None) for _ in range(7)])
    if order == "finished":
        queue.settle([Outcome(job) for job in queue.dequeue_many("consumer-1", 7)])
    seen, after = [], None
    while page := queue.list(order=order, after=after, limit=2):
        seen += [job.id for job in page]
        after = page[-1].id
    ids = [job.id for job in jobs]
    assert seen == (ids[::-1] if order in ("newest", "finished") else ids)


def test_an_order_and_the_filters_narrow_together(queue, clock):
    ids = in_every_order(queue, clock)
    for filters, expected in [
        ({"order": "finished", "status": "failed"}, ["dropped", "wrong"]),
        ({"order": "finished", "status": ["failed", "completed"], "limit": 3}, ["dropped", "slow", "wrong"]),
        ({"order": "finished", "status": "pending"}, []),
        ({"order": "due", "queue": "other"}, ["middle"]),
        ({"order": "priority", "queue": "default"}, ["plain", "second", "low"]),
        ({"order": "priority", "search": "name"}, ["high", "plain", "second", "low"]),
        ({"order": "oldest", "status": ["pending", "scheduled"], "limit": 2}, ["late", "soon"]),
        ({"order": "finished", "search": f"id:{ids['slow']}"}, ["slow"]),
        ({"order": "due", "search": f"id:{ids['slow']}"}, []),
        ({"order": "finished", "consumer": "consumer-1", "limit": 1}, ["dropped"]),
    ]:
        assert [job.id for job in queue.list(**filters)] == [ids[name] for name in expected], filters


@pytest.mark.parametrize("order", ["newest", "oldest", "finished"])
def test_the_finishing_time_is_bounded_from_and_before(queue, clock, order):
    ids = in_every_order(queue, clock)
    first, last = queue.get(ids["wrong"]).finished_at, queue.get(ids["dropped"]).finished_at
    for bounds, expected in [
        ({"finished_after": first}, {"wrong", "slow", "dropped"}),
        ({"finished_before": first}, {"quick"}),
        ({"finished_after": first, "finished_before": last}, {"wrong", "slow"}),
        ({"finished_after": first, "finished_before": last, "status": "failed"}, {"wrong"}),
        ({"finished_after": last + SECOND}, set()),
    ]:
        wanted = [ids[name] for name in IN_ORDER[order].split() if name in expected]
        seen, after = [], None
        while page := queue.list(order=order, after=after, limit=1, **bounds):
            seen += [job.id for job in page]
            after = page[-1]
        assert seen == wanted, bounds


def test_a_page_goes_on_after_a_job_that_has_moved_or_gone(queue, clock):
    ids = in_every_order(queue, clock)
    first, second, third, _ = queue.list(order="finished")
    queue.resubmit(second)
    with pytest.raises(pq.InvalidJobError, match=f"after job {second.id} in .* finished: it is pending"):
        queue.list(order="finished", after=second.id)
    assert queue.list(order="finished", after=second)[0].id == third.id
    queue.delete(third)
    with pytest.raises(pq.JobNotFoundError, match=f"no job {third.id}"):
        queue.list(order="finished", after=third.id)
    assert [job.id for job in queue.list(order="finished", after=third)] == [ids["quick"]]
    assert queue.list(order="finished", after=first)[0].id == ids["quick"]
    # The order of the ids needs no look at the job.
    assert queue.list(after=third.id)[0].id == third.id - 1
    assert queue.list(order="oldest", after=third.id)[0].id == third.id + 1


def test_within_bounds_how_many_jobs_are_looked_at(queue, clock):
    ids = [job.id for job in queue.enqueue_many([NewJob("stamp", tags=("old",)), *[NewJob("stamp")] * 9])]
    assert queue.list(tag="old", within=9) == []
    assert [job.id for job in queue.list(tag="old", within=10)] == ids[:1]
    assert [job.id for job in queue.list(tag="old", within=3, after=ids[3])] == ids[:1]
    assert [job.id for job in queue.list(tag="old", order="oldest", within=1)] == ids[:1]
    assert queue.list(tag="old", order="priority", within=1)[0].id == ids[0]
    # The status is no look at a job, but a part of the walk.
    queue.cancel(ids[0])
    assert [job.id for job in queue.list(tag="old", status="cancelled", within=1)] == ids[:1]
