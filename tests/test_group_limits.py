"""The contract suite, of groups with a limit: who waits blocked, who is let in, and when."""

from datetime import timedelta

import pytest

import pq
from pq import NewJob, Outcome, Status
from pq.records import GroupLimit

SECOND = timedelta(seconds=1)


def statuses(queue, group="g"):
    """The group's statuses, oldest job first."""
    return [job.status.value for job in reversed(queue.list(group=group, limit=1000))]


def fill(queue, most, *priorities):
    """A limited group with a job of each priority, which came in one after the other."""
    queue.limit_group("g", most)
    return [queue.enqueue("stamp", group="g", priority=priority) for priority in priorities]


def limits(queue):
    return {limit.group: limit.max_running for limit in queue.group_limits()}


def test_of_a_limited_group_only_so_many_are_pending_and_the_others_wait_blocked(queue):
    jobs = fill(queue, 2, 0, 0, 0, 0)
    assert [job.status for job in jobs] == ["pending", "pending", "blocked", "blocked"]
    assert jobs == [queue.get(job) for job in jobs]
    assert [job.id for job in queue.dequeue_many("c", 10)] == [job.id for job in jobs[:2]]
    assert queue.dequeue("c") is None
    assert queue.enqueue("stamp", group="g").status is Status.BLOCKED
    assert queue.enqueue("stamp", group="other").status is Status.PENDING
    assert queue.enqueue("stamp").status is Status.PENDING
    assert queue.counts()["blocked"] == 3
    assert queue.group_limits() == [GroupLimit("g", 2, 2, 3)]


def test_many_that_come_at_once_are_let_in_as_far_as_there_is_room(queue):
    queue.limit_group("g", 2)
    jobs = queue.enqueue_many([NewJob("stamp", group=group) for group in ("g", None, "g", "other", "g", "g")])
    assert [job.status.value for job in jobs] == [*["pending"] * 4, "blocked", "blocked"]
    assert jobs == [queue.get(job) for job in jobs]


LEAVINGS = {
    "complete": lambda queue, job: queue.complete(job),
    "fail": lambda queue, job: queue.fail(job, "no", retry=False),
    "fail with back-off": lambda queue, job: queue.fail(job, "no"),
    "snooze": lambda queue, job: queue.snooze(job, SECOND),
    "cancel, then fail": lambda queue, job: (queue.cancel(job), queue.fail(job, "stopped")),
    "mark_failed": lambda queue, job: queue.mark_failed(job, "by hand"),
    "settle": lambda queue, job: queue.settle([Outcome(job)]),
}


@pytest.mark.parametrize("leaving", LEAVINGS)
def test_when_a_running_job_leaves_the_first_in_line_becomes_pending(queue, leaving):
    jobs = fill(queue, 1, 0, 0, 1, 1)
    running = queue.dequeue("c")
    assert running.id == jobs[0].id
    LEAVINGS[leaving](queue, running)
    assert statuses(queue)[1:] == ["blocked", "pending", "blocked"]
    assert queue.dequeue("c").id == jobs[2].id


@pytest.mark.parametrize("verb", ["cancel", "mark_failed", "delete"])
def test_when_a_pending_job_is_taken_away_the_first_in_line_becomes_pending(queue, verb):
    first, second, third = fill(queue, 1, 0, 0, 0)
    getattr(queue, verb)(first, reason="why")
    assert [queue.get(job).status for job in (second, third)] == ["pending", "blocked"]


@pytest.mark.parametrize("verb", ["cancel", "mark_failed", "delete"])
def test_who_leaves_the_line_lets_nobody_in(queue, verb):
    first, second, third = fill(queue, 1, 0, 0, 0)
    getattr(queue, verb)(second, reason="why")
    assert [queue.get(job).status for job in (first, third)] == ["pending", "blocked"]


def test_several_that_leave_at_once_let_in_as_many(queue):
    fill(queue, 3, *[0] * 8)
    jobs = queue.dequeue_many("c", 3)
    settled = queue.settle(
        [Outcome(jobs[0]), Outcome(jobs[1], "failed", error="no", retry=False), Outcome(jobs[2])],
        consumer="c",
        limit=2,
    )
    assert [job.id for job in settled.jobs] == [jobs[2].id + 1, jobs[2].id + 2]
    assert statuses(queue)[3:] == ["processing", "processing", "pending", "blocked", "blocked"]


def test_who_settles_one_takes_the_next_of_the_group_at_once(queue):
    first, second = fill(queue, 1, 0, 0)
    settled = queue.settle([Outcome(queue.dequeue("c"))], consumer="c", limit=1)
    assert [job.id for job in settled.jobs] == [second.id]
    assert queue.get(first).status is Status.COMPLETED


def test_a_released_job_keeps_its_place(queue):
    first, second = fill(queue, 1, 0, 5)
    queue.release(queue.dequeue("c"))
    assert [queue.get(job).status for job in (first, second)] == ["pending", "blocked"]


def test_an_assigned_job_keeps_its_place_and_a_blocked_one_waits_on(queue):
    first, second = fill(queue, 1, 0, 0)
    queue.dequeue("c")
    assert queue.assign(first, "other").status is Status.PENDING
    assert queue.assign(second, "other").status is Status.BLOCKED
    assert [job.id for job in queue.dequeue_many("other", 2)] == [first.id]


def test_a_scheduled_job_holds_no_place_and_stands_in_line_when_it_is_due(queue, clock):
    queue.limit_group("g", 1)
    late = queue.enqueue("stamp", group="g", delay=10)
    early = queue.enqueue("stamp", group="g")
    assert (late.status, early.status) == (Status.SCHEDULED, Status.PENDING)
    clock.advance(11)
    assert queue.dequeue("c").id == early.id
    assert queue.get(late).status is Status.BLOCKED
    queue.complete(queue.get(early))
    assert queue.dequeue("c").id == late.id


def test_of_many_that_are_due_at_once_the_first_in_line_are_let_in(queue, clock):
    queue.limit_group("g", 2)
    ids = [queue.enqueue("stamp", group="g", delay=5, priority=n % 3).id for n in range(6)]
    clock.advance(6)
    assert [job.id for job in queue.dequeue_many("c", 10)] == [ids[2], ids[5]]
    assert queue.counts()["blocked"] == 4


def test_a_failed_try_stands_behind_those_that_came_in_meanwhile_only_by_priority_and_age(queue, clock):
    first, second, _ = fill(queue, 1, 0, 0, 0)
    queue.fail(queue.dequeue("c"), "no", delay=SECOND)
    assert queue.dequeue("c").id == second.id
    clock.advance(2)
    assert queue.dequeue("c") is None
    assert queue.get(first).status is Status.BLOCKED
    queue.complete(queue.get(second))
    assert queue.dequeue("c").id == first.id


def test_a_resubmitted_job_stands_in_line(queue):
    done, _ = fill(queue, 1, 0, 0)
    queue.complete(queue.dequeue("c"))
    again = queue.resubmit(done)
    assert (again.status, again.result) == (Status.BLOCKED, None)
    assert queue.actions(done)[0].to_status is Status.BLOCKED
    queue.complete(queue.dequeue("c"))
    assert queue.dequeue("c").id == done.id


def test_a_resubmitted_job_goes_first_where_there_is_room(queue):
    (done,) = fill(queue, 1, 0)
    queue.complete(queue.dequeue("c"))
    assert queue.resubmit(done).status is Status.PENDING


def test_a_blocked_job_is_the_twin_of_its_unique_key(queue):
    fill(queue, 1, 0)
    blocked = queue.enqueue("stamp", group="g", unique_key="k")
    twin = queue.enqueue("stamp", group="g", unique_key="k")
    assert (twin.id, twin.existed, twin.status) == (blocked.id, True, Status.BLOCKED)


def test_the_place_of_a_consumer_that_fell_silent_comes_free(queue, clock):
    first, second = fill(queue, 1, 0, 0)
    queue.dequeue("c")
    clock.advance(31)
    assert [job.id for job in queue.rescue()] == [first.id]
    assert [queue.get(job).status for job in (first, second)] == ["scheduled", "pending"]


def test_a_lower_limit_blocks_pending_jobs_the_last_in_line_first(queue):
    queue.enqueue_many([NewJob("stamp", group="g", priority=priority) for priority in (0, 1, 0, 1)])
    queue.limit_group("g", 3)
    assert statuses(queue) == ["pending", "pending", "blocked", "pending"]
    queue.limit_group("g", 1)
    assert statuses(queue) == ["blocked", "pending", "blocked", "blocked"]


def test_a_lower_limit_stops_no_running_job_and_lets_none_in_before_it_is_met(queue):
    fill(queue, 3, *[0] * 5)
    jobs = queue.dequeue_many("c", 3)
    queue.limit_group("g", 1)
    assert queue.standing(jobs) == {job.id: "live" for job in jobs}
    queue.complete(jobs[0])
    assert queue.counts()["blocked"] == 2
    queue.complete(jobs[1])
    assert queue.counts()["blocked"] == 2
    queue.complete(jobs[2])
    assert statuses(queue)[3:] == ["pending", "blocked"]


@pytest.mark.parametrize("verb", ["release", "assign"])
def test_a_job_given_back_above_a_lower_limit_waits_blocked(queue, verb):
    fill(queue, 2, 0, 0)
    first, second = queue.dequeue_many("c", 2)
    queue.limit_group("g", 1)
    (queue.release if verb == "release" else lambda job: queue.assign(job, "other"))(second)
    assert statuses(queue) == ["processing", "blocked"]
    queue.complete(first)
    assert queue.dequeue("other").id == second.id


def test_a_higher_limit_lets_more_in_and_none_lets_all_in(queue):
    fill(queue, 1, *[0] * 5)
    queue.limit_group("g", 3)
    assert statuses(queue) == ["pending"] * 3 + ["blocked"] * 2
    queue.limit_group("g", None)
    assert statuses(queue) == ["pending"] * 5
    assert queue.group_limits() == []
    queue.limit_group("g", None)
    assert queue.enqueue("stamp", group="g").status is Status.PENDING


def test_each_group_has_a_limit_of_its_own(queue):
    queue.limit_group("a", 1)
    queue.limit_group("b", 2)
    queue.enqueue_many([NewJob("stamp", group=group) for group in "ab" * 3])
    assert (statuses(queue, "a"), statuses(queue, "b")) == (
        ["pending", "blocked", "blocked"],
        ["pending", "pending", "blocked"],
    )
    assert limits(queue) == {"a": 1, "b": 2}


def test_a_change_of_a_limit_is_recorded(queue):
    queue.limit_group("g", 4, reason="memory", by="anna")
    queue.limit_group("g", None)
    later, earlier = queue.actions()
    assert (earlier.verb, earlier.who, earlier.target, earlier.reason) == (
        "limit_group",
        "anna",
        "g: at most 4",
        "memory",
    )
    assert (later.target, later.job_id, later.reason) == ("g: no limit", None, None)


@pytest.mark.parametrize(("group", "most"), [("g", 0), ("g", -1), ("g", 1.5), ("g", True), ("", 1), (7, 1)])
def test_what_is_no_limit_is_refused(queue, group, most):
    with pytest.raises(pq.InvalidJobError):
        queue.limit_group(group, most)
    assert (queue.group_limits(), queue.actions()) == ([], [])


def test_all_or_nothing_holds_for_a_limit_too(queue):
    with pytest.raises(pq.JobNotFoundError), queue.transaction():  # noqa: PT012  # all of it is undone
        fill(queue, 1, 0, 0)
        queue.get(99)
    assert (queue.group_limits(), queue.list()) == ([], [])
    with queue.transaction():
        fill(queue, 1, 0, 0)
    assert statuses(queue) == ["pending", "blocked"]


def test_prune_forgets_the_limits_of_groups_that_are_gone(queue, clock):
    fill(queue, 1, 0)
    queue.limit_group("old", 1)
    clock.advance(3600)
    queue.limit_group("to come", 1)
    queue.prune(timedelta(minutes=30))
    assert limits(queue) == {"g": 1, "to come": 1}


def test_delete_all_removes_who_waits_too(queue):
    fill(queue, 2, *[0] * 50)
    queue.dequeue("c")
    assert queue.delete_all() == 50
    assert queue.counts() == dict.fromkeys(Status, 0)


def test_a_walk_through_all_verbs_never_has_too_many_nor_leaves_room(queue, clock):
    most = 3
    fill(queue, most, *[0, 1] * 20)
    verbs = [
        *(queue.complete, queue.release),
        *(lambda job: queue.fail(job, "no", delay=SECOND), lambda job: queue.snooze(job, SECOND)),
        *(lambda job: queue.assign(job, "c"), lambda job: queue.mark_failed(job, "why")),
        lambda job: (queue.complete(job), queue.resubmit(job)),
        lambda job: (queue.cancel(job), queue.fail(job, "stopped")),
    ]
    step = 0
    while jobs := queue.dequeue_many("c", 2):
        for job in jobs:
            verbs[step % len(verbs) if step < 120 else 0](job)
            step += 1
            inside = len(queue.list(group="g", status=["pending", "processing"]))
            assert inside <= most
            assert inside == most or queue.counts()["blocked"] == 0
        clock.advance(0.5)
        if step > 1000:
            pytest.fail("it does not end")
    clock.advance(60)
    assert queue.counts()["blocked"] == 0
