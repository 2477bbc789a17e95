"""The contract suite: what every backend promises, one behaviour a test."""

import json
from datetime import UTC, datetime, timedelta

import pytest

import pq
from pq import NewJob, Outcome, Status
from pq.job import FINISHED, TRANSITIONS, UNFINISHED

SECOND = timedelta(seconds=1)
LEASE = timedelta(seconds=30)


def processing(queue, consumer="consumer-1", **options):
    queue.enqueue("stamp", {"path": "a"}, **options)
    return queue.dequeue(consumer)


def in_status(queue, status, clock):
    """A job that has come to `status` by the verbs alone."""
    if status is Status.SCHEDULED:
        return queue.enqueue("stamp", delay=60)
    if status is Status.PENDING:
        return queue.enqueue("stamp")
    if status is Status.BLOCKED:
        queue.limit_group("full", 1)
        queue.enqueue("stamp", group="full", queue="elsewhere")
        return queue.enqueue("stamp", group="full")
    job = processing(queue)
    if status is Status.COMPLETED:
        queue.complete(job)
    elif status is Status.FAILED:
        queue.fail(job, "no", retry=False)
    elif status is Status.CANCELLED:
        queue.cancel(job)
        queue.fail(job, "stopped")
    return job


# -- a job's life ---------------------------------------------------------------------------------


def test_an_enqueued_job_is_pending_with_what_was_given(queue, clock):
    job = queue.enqueue(
        "stamp",
        {"path": "inbox/a.txt", "deep": {"list": [1, 2.5, None, True, "ü\0\ud800"]}},
        queue="files",
        priority=7,
        max_attempts=5,
        timeout=timedelta(minutes=2),
        unique_key="a",
        tags=("x", "y"),
        group="g",
    )
    assert job == queue.get(job.id)
    assert (job.status, job.task, job.queue, job.priority) == (Status.PENDING, "stamp", "files", 7)
    assert job.parameters == {"path": "inbox/a.txt", "deep": {"list": [1, 2.5, None, True, "ü\0\ud800"]}}
    assert (job.max_attempts, job.timeout, job.unique_key) == (5, timedelta(minutes=2), "a")
    assert (job.tags, job.group, job.attempt, job.token, job.existed) == (("x", "y"), "g", 0, 0, False)
    assert job.created_at == datetime.fromtimestamp(clock.wall, UTC)


def test_ids_are_never_used_again(queue):
    first = queue.enqueue("stamp")
    queue.delete(first)
    assert queue.enqueue("stamp").id > first.id
    queue.delete_all()
    assert queue.enqueue("stamp").id > first.id + 1


def test_a_claimed_job_is_processing_under_a_new_token(queue):
    job = processing(queue)
    assert (job.status, job.attempt, job.token, job.consumer) == (Status.PROCESSING, 1, 1, "consumer-1")
    assert queue.dequeue("consumer-2") is None


def test_a_completed_job_has_its_result_and_an_attempt(queue, clock):
    job = processing(queue)
    clock.advance(2)
    queue.complete(job, {"lines": 3})
    done = queue.get(job)
    assert (done.status, done.result, done.error, done.progress) == (
        Status.COMPLETED,
        {"lines": 3},
        None,
        1.0,
    )
    (attempt,) = queue.attempts(job)
    assert (attempt.outcome, attempt.attempt, attempt.consumer) == ("completed", 1, "consumer-1")
    assert attempt.finished_at - attempt.started_at == timedelta(seconds=2)


def test_complete_with_the_same_token_is_accepted_twice(queue):
    job = processing(queue)
    queue.complete(job, 1)
    queue.complete(job, 2)
    assert queue.get(job).result == 1
    assert len(queue.attempts(job)) == 1


def test_a_failed_try_is_scheduled_with_back_off_until_attempts_are_used_up(queue, clock):
    job = processing(queue, max_attempts=2)
    queue.fail(job, ValueError("bad line"))
    waiting = queue.get(job)
    assert (waiting.status, waiting.error) == (Status.SCHEDULED, "ValueError: bad line")
    assert 0.75 <= waiting.due_at.timestamp() - clock.wall <= 1.25
    assert queue.dequeue("consumer-1") is None
    clock.advance(1.3)
    again = queue.dequeue("consumer-1")
    assert (again.id, again.attempt, again.token) == (job.id, 2, 2)
    queue.fail(again, "still bad")
    assert (queue.get(job).status, queue.get(job).error) == (Status.FAILED, "still bad")
    assert [attempt.outcome for attempt in queue.attempts(job)] == ["failed", "failed"]


def test_a_failure_keeps_its_traceback_apart_from_its_line(queue):
    job = processing(queue)
    try:
        json.loads("{")
    except ValueError as error:
        queue.fail(job, error)
    (attempt,) = queue.attempts(job)
    assert "json.loads" in attempt.traceback
    assert attempt.error.startswith("JSONDecodeError: ")
    assert "Traceback" not in queue.get(job).error


def test_a_final_failure_is_not_tried_again(queue):
    job = processing(queue, max_attempts=5)
    queue.fail(job, "useless", retry=False)
    assert queue.get(job).status is Status.FAILED


def test_a_released_job_gets_its_attempt_back(queue):
    job = processing(queue, max_attempts=1)
    queue.release(job)
    assert (queue.get(job).status, queue.get(job).attempt) == (Status.PENDING, 0)
    again = queue.dequeue("consumer-2")
    assert (again.attempt, again.token) == (1, 2)


def test_a_snoozed_job_comes_back_after_its_delay_with_its_attempt(queue, clock):
    job = processing(queue, max_attempts=1)
    queue.snooze(job, timedelta(minutes=5))
    assert (queue.get(job).status, queue.get(job).attempt) == (Status.SCHEDULED, 0)
    clock.advance(299)
    assert queue.dequeue("consumer-1") is None
    clock.advance(1)
    assert queue.dequeue("consumer-1").id == job.id


def test_a_delayed_job_waits_until_it_is_due(queue, clock):
    late = queue.enqueue("stamp", delay=timedelta(seconds=10))
    at = queue.enqueue("stamp", due_at=datetime.fromtimestamp(clock.wall + 5, UTC))
    past = queue.enqueue("stamp", due_at=datetime.fromtimestamp(clock.wall - 5, UTC))
    assert [late.status, at.status, past.status] == ["scheduled", "scheduled", "pending"]
    assert [queue.dequeue("c").id, queue.dequeue("c")] == [past.id, None]
    clock.advance(5)
    assert [queue.dequeue("c").id, queue.dequeue("c")] == [at.id, None]
    clock.advance(5)
    assert queue.dequeue("c").id == late.id


def test_higher_priority_first_then_the_oldest(queue):
    ids = [queue.enqueue("stamp", priority=priority).id for priority in (0, 5, 0, 5, -1)]
    taken = [queue.dequeue("c").id for _ in ids]
    assert taken == [ids[1], ids[3], ids[0], ids[2], ids[4]]


def test_a_batch_is_taken_in_the_same_order(queue):
    ids = [queue.enqueue("stamp", priority=priority).id for priority in (0, 5, 0, 5, -1)]
    assert [job.id for job in queue.dequeue_many("c", 4)] == [ids[1], ids[3], ids[0], ids[2]]


def test_queues_are_emptied_in_the_order_given(queue):
    second = queue.enqueue("stamp", queue="second", priority=9)
    first = queue.enqueue("stamp", queue="first")
    queue.enqueue("stamp", queue="third")
    jobs = queue.dequeue_many("c", 10, ("first", "second"))
    assert [job.id for job in jobs] == [first.id, second.id]


def test_settle_ends_tries_and_takes_the_next_at_once(queue):
    queue.enqueue_many([NewJob("stamp", {"i": i}) for i in range(6)])
    jobs = queue.dequeue_many("c", 3)
    settled = queue.settle(
        [Outcome(jobs[0], result=1), Outcome(jobs[1], "failed", error="no"), Outcome(jobs[2], "released")],
        consumer="c",
        limit=2,
    )
    assert [job.parameters["i"] for job in settled.jobs] == [2, 3]
    assert settled.lost == []
    expected = {"scheduled": 1, "pending": 2, "processing": 2, "completed": 1}
    assert {status: jobs for status, jobs in queue.counts().items() if jobs} == expected


def test_a_lost_lease_does_not_stop_the_others_of_a_batch(queue):
    queue.enqueue_many([NewJob("stamp"), NewJob("stamp")])
    jobs = queue.dequeue_many("c", 2)
    queue.assign(jobs[0], "other")
    settled = queue.settle([Outcome(job) for job in jobs])
    assert [job.id for job in settled.lost] == [jobs[0].id]
    assert queue.get(jobs[1]).status is Status.COMPLETED


# -- leases ---------------------------------------------------------------------------------------

STALE_VERBS = {
    "heartbeat": lambda queue, job: queue.heartbeat(job),
    "progress": lambda queue, job: queue.heartbeat(job, progress=0.9, message="stale"),
    "complete": lambda queue, job: queue.complete(job, "stale"),
    "fail": lambda queue, job: queue.fail(job, "stale"),
    "release": lambda queue, job: queue.release(job),
    "snooze": lambda queue, job: queue.snooze(job, SECOND),
}
ENDINGS = {
    "rescued": lambda queue, job, clock: (clock.advance(31), queue.rescue()),
    "rescued and taken again by the same name": lambda queue, job, clock: (
        clock.advance(31),
        queue.rescue(),
        clock.advance(9),
        queue.dequeue("consumer-1"),
    ),
    "assigned": lambda queue, job, clock: queue.assign(job, "other"),
    "marked failed": lambda queue, job, clock: queue.mark_failed(job, "by hand"),
    "marked failed and resubmitted": lambda queue, job, clock: (
        queue.mark_failed(job, "by hand"),
        queue.resubmit(job),
    ),
    "completed and resubmitted": lambda queue, job, clock: (queue.complete(job), queue.resubmit(job)),
    "deleted with all": lambda queue, job, clock: queue.delete_all(),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("verb", STALE_VERBS)
def test_a_stale_consumer_changes_nothing(queue, clock, verb, ending):
    job = processing(queue)
    ENDINGS[ending](queue, job, clock)
    before = queue.list()
    with pytest.raises(pq.LeaseLostError, match=f"job {job.id}"):
        STALE_VERBS[verb](queue, job)
    assert queue.list() == before
    assert queue.standing([job]) == {job.id: "lost"}


def test_a_heartbeat_extends_the_lease_and_tells_progress(queue, clock):
    job = processing(queue)
    for _ in range(5):
        clock.advance(20)
        queue.heartbeat(job, progress=0.25, message="quarter")
        assert queue.rescue() == []
    assert (queue.get(job).progress, queue.get(job).message) == (0.25, "quarter")
    queue.heartbeat(job)
    assert queue.get(job).progress == 0.25
    clock.advance(31)
    assert [rescued.id for rescued in queue.rescue()] == [job.id]


def test_heartbeat_many_extends_only_what_is_held(queue, clock):
    queue.enqueue_many([NewJob("stamp"), NewJob("stamp")])
    first, second = queue.dequeue_many("c", 2)
    queue.assign(second, "other")
    clock.advance(20)
    queue.heartbeat_many([first, second])
    clock.advance(20)
    assert queue.rescue() == []
    assert queue.standing([first, second]) == {first.id: "live", second.id: "lost"}


def test_an_expired_lease_counts_as_a_failed_try(queue, clock):
    job = processing(queue, max_attempts=2)
    clock.advance(31)
    (rescued,) = queue.rescue()
    assert (rescued.status, rescued.error, rescued.attempt) == (Status.SCHEDULED, "lease expired", 1)
    clock.advance(2)
    queue.dequeue("consumer-2")
    clock.advance(31)
    assert [last.status for last in queue.rescue()] == [Status.FAILED]
    assert [attempt.outcome for attempt in queue.attempts(job)] == ["lease expired"] * 2


def test_who_was_stopped_for_long_can_leave_expired_leases_alone(connect, clock):
    queue = connect(clock)
    job = processing(queue)
    clock.advance(31)
    assert queue.rescue(expired=False) == []
    queue.heartbeat(job)
    assert queue.rescue() == []
    queue.close()
    clock.boot_id = "second boot"
    assert [rescued.id for rescued in connect(clock).rescue(expired=False)] == [job.id]


@pytest.mark.parametrize("jump", [3600, -3600, 86400, -86400])
def test_a_jump_of_the_wall_clock_neither_ends_nor_prolongs_a_lease(queue, clock, jump):
    job = processing(queue)
    clock.wall += jump
    assert queue.rescue() == []
    queue.heartbeat(job)
    clock.mono += 31
    assert [rescued.id for rescued in queue.rescue()] == [job.id]


def test_after_a_reboot_every_lease_is_void(connect, clock):
    queue = connect(clock)
    job = processing(queue)
    queue.close()
    clock.boot_id, clock.mono = "second boot", 3.0
    again = connect(clock)
    assert [rescued.id for rescued in again.rescue()] == [job.id]


def test_a_registered_consumer_keeps_its_jobs_while_it_lives(queue):
    identity = queue.register_consumer("consumer-1")
    job = processing(queue)
    assert queue.rescue() == []
    (consumer,) = queue.consumers()
    assert (consumer.id, consumer.name, consumer.alive) == (identity, "consumer-1", True)
    queue.complete(job)
    queue.unregister_consumer(identity)
    assert queue.consumers() == []
    assert [gone.name for gone in queue.consumers(ended=True)] == ["consumer-1"]


def test_a_consumer_that_ends_with_jobs_in_hand_gives_them_to_the_next_rescue(queue):
    identity = queue.register_consumer("consumer-1")
    job = processing(queue)
    queue.unregister_consumer(identity)
    assert [rescued.id for rescued in queue.rescue()] == [job.id]
    assert queue.dequeue("consumer-2").id == job.id
    assert queue.consumers() == []


def test_a_stop_request_reaches_all_of_that_name(queue):
    identity = queue.register_consumer("consumer-1")
    assert queue.beat_consumer(identity, "idle") is False
    assert queue.stop_consumer("nobody") == 0
    assert queue.stop_consumer("consumer-1", reason="update") == 1
    assert queue.beat_consumer(identity, "job 1: stamp") is True
    assert queue.consumers()[0].doing == "job 1: stamp"


# -- people ---------------------------------------------------------------------------------------

PERSON_VERBS = {
    "cancel": lambda queue, job: queue.cancel(job, reason="why"),
    "mark_failed": lambda queue, job: queue.mark_failed(job, "why"),
    "resubmit": lambda queue, job: queue.resubmit(job, reason="why"),
    "assign": lambda queue, job: queue.assign(job, "consumer-9", reason="why"),
    "delete": lambda queue, job: queue.delete(job, reason="why"),
}


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("verb", PERSON_VERBS)
def test_every_verb_of_a_person_from_every_status(queue, clock, verb, status):
    job = in_status(queue, status, clock)
    assert queue.get(job).status is status
    if status not in TRANSITIONS[verb]:
        assert not queue.get(job).can(verb)
        before = queue.get(job)
        with pytest.raises(pq.TransitionError, match=rf"job {job.id}: it is {status}; "):
            PERSON_VERBS[verb](queue, job)
        assert queue.get(job) == before
        assert queue.actions(job) == [] or status is Status.CANCELLED
        return
    after = PERSON_VERBS[verb](queue, job)
    (action, *_) = queue.actions(job)
    assert (action.verb, action.from_status, action.reason, action.job_id) == (verb, status, "why", job.id)
    assert action.who
    if verb == "delete":
        with pytest.raises(pq.JobNotFoundError):
            queue.get(job)
    else:
        assert after == queue.get(job)
        assert after.status in TRANSITIONS[verb][status]
        assert action.to_status is after.status


CONSUMER_VERBS = ("complete", "fail", "release", "snooze", "heartbeat")


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("verb", CONSUMER_VERBS)
def test_every_verb_of_a_consumer_from_every_status(queue, clock, verb, status):
    job = in_status(queue, status, clock)
    before = queue.get(job)
    if status is Status.PROCESSING:
        STALE_VERBS[verb](queue, job)
        assert queue.get(job).status in TRANSITIONS[verb][status]
    elif verb == "complete" and status is Status.COMPLETED:
        queue.complete(job)
        assert queue.get(job) == before
    else:
        with pytest.raises(pq.LeaseLostError):
            STALE_VERBS[verb](queue, job)
        assert queue.get(job) == before


def test_a_running_job_sees_the_cancel_request_and_ends_cancelled(queue):
    job = processing(queue, max_attempts=5)
    assert queue.cancel(job).cancel_requested
    assert queue.standing([job]) == {job.id: "cancel"}
    with pytest.raises(pq.CancelRequestedError, match=f"job {job.id}"):
        queue.heartbeat(job)
    queue.fail(job, "stopped")
    assert (queue.get(job).status, queue.get(job).cancel_requested) == (Status.CANCELLED, False)
    assert queue.attempts(job)[0].outcome == "cancelled"


@pytest.mark.parametrize("ending", ["release", "snooze", "rescue"])
def test_a_cancel_request_is_not_forgotten_when_the_try_ends_otherwise(queue, clock, ending):
    job = processing(queue)
    queue.cancel(job)
    if ending == "rescue":
        clock.advance(31)
        queue.rescue()
    else:
        STALE_VERBS[ending](queue, job)
    assert queue.get(job).status is Status.CANCELLED


def test_a_job_that_finished_before_it_saw_the_request_is_completed(queue):
    job = processing(queue)
    queue.cancel(job)
    queue.complete(job)
    assert queue.get(job).status is Status.COMPLETED


def test_resubmit_gives_one_more_attempt_and_keeps_the_history(queue):
    job = processing(queue, max_attempts=1)
    queue.fail(job, "no")
    again = queue.resubmit(job)
    assert (again.status, again.attempt, again.max_attempts) == (Status.PENDING, 1, 2)
    assert len(queue.attempts(job)) == 1
    taken = queue.dequeue("c")
    assert (taken.attempt, taken.token) == (2, 2)


def test_only_the_assigned_consumer_takes_the_job(queue):
    first, second = queue.enqueue("stamp"), queue.enqueue("stamp")
    queue.assign(second, "consumer-2")
    assert queue.dequeue("consumer-1").id == first.id
    assert queue.dequeue("consumer-1") is None
    assert queue.dequeue("consumer-2").id == second.id


def test_assigned_jobs_come_before_others(queue):
    queue.enqueue("stamp", priority=100)
    mine = queue.assign(queue.enqueue("stamp"), "consumer-2")
    assert queue.dequeue("consumer-2").id == mine.id


def test_assign_to_nobody_frees_the_job(queue):
    job = queue.assign(queue.enqueue("stamp"), "consumer-2")
    assert job.assigned_to == "consumer-2"
    assert queue.assign(job, None).assigned_to is None
    assert queue.dequeue("consumer-1").id == job.id


def test_assigning_a_running_last_attempt_leaves_one_for_the_other(queue):
    job = processing(queue, max_attempts=1)
    moved = queue.assign(job, "other")
    assert (moved.status, moved.max_attempts) == (Status.PENDING, 2)
    assert queue.dequeue("other").attempt == 2
    assert queue.attempts(job)[0].outcome == "reassigned"


def test_a_paused_queue_hands_out_nothing_until_it_is_resumed(queue):
    job = queue.enqueue("stamp")
    queue.pause("default", "disk")
    assert queue.dequeue("c") is None
    assert queue.settle([], consumer="c", limit=1).jobs == []
    (state,) = queue.queues()
    assert (state.name, state.reason, state.paused_at is not None) == ("default", "disk", True)
    queue.resume("default")
    assert queue.dequeue("c").id == job.id
    assert [action.verb for action in queue.actions()] == ["resume", "pause"]


# -- unique keys ----------------------------------------------------------------------------------


def test_one_unfinished_job_per_unique_key(queue):
    first = queue.enqueue("stamp", {"n": 1}, unique_key="k")
    second = queue.enqueue("stamp", {"n": 2}, unique_key="k")
    assert (second.id, second.existed, second.parameters) == (first.id, True, {"n": 1})
    job = queue.dequeue("c")
    assert queue.enqueue("stamp", unique_key="k").existed
    queue.complete(job)
    third = queue.enqueue("stamp", unique_key="k")
    assert (third.existed, third.id > first.id) == (False, True)


def test_a_resubmit_that_meets_a_live_twin_names_it(queue):
    first = processing(queue, unique_key="k")
    queue.complete(first)
    twin = queue.enqueue("stamp", unique_key="k")
    with pytest.raises(pq.DuplicateJobError, match=f"job {twin.id} is pending"):
        queue.resubmit(first)
    assert queue.get(first).status is Status.COMPLETED


# -- looking --------------------------------------------------------------------------------------


def test_pages_go_from_new_to_old_without_gaps(queue):
    ids = [job.id for job in queue.enqueue_many([NewJob("stamp") for _ in range(25)])]
    seen, after = [], None
    while page := queue.list(after=after, limit=10):
        seen += [job.id for job in page]
        after = page[-1].id
    assert seen == ids[::-1]


def test_filters_narrow_the_list(queue):
    a = queue.enqueue("alpha", {"path": "in/50%_a.txt"}, tags=("red",), group="g1")
    b = queue.enqueue("beta", {"path": "in/b.txt"}, queue="other", unique_key="key-b")
    c = queue.enqueue("alpha", {"path": "50xya.txt"}, delay=60)
    for filters, expected in [
        ({"status": "pending"}, [b, a]),
        ({"status": ["pending", "scheduled"]}, [c, b, a]),
        ({"queue": "other"}, [b]),
        ({"task": "alpha"}, [c, a]),
        ({"tag": "red"}, [a]),
        ({"group": "g1"}, [a]),
        ({"search": "b.txt"}, [b]),
        ({"search": "50%_a"}, [a]),
        ({"search": "KEY-B"}, [b]),
        ({"search": f"id:{a.id}"}, [a]),
        ({"task": "alpha", "status": "failed"}, []),
        ({"queue": "' or 1=1 --"}, []),
    ]:
        assert [job.id for job in queue.list(**filters)] == [job.id for job in expected], filters
    queue.assign(c, "consumer-5")
    assert [job.id for job in queue.list(consumer="consumer-5")] == [c.id]
    assert [job.id for job in queue.pending()] == [b.id, a.id]
    assert queue.failed() == []


def test_counts_follow_every_change(queue, clock):
    assert queue.counts() == dict.fromkeys(Status, 0)
    for status in Status:
        in_status(queue, status, clock)
    in_status(queue, Status.SCHEDULED, clock)
    # A later claim may take the pending one; the sum is what must hold, with the one that blocks another.
    assert sum(queue.counts().values()) == len(Status) + 2
    listed = {status: len(queue.list(status=status)) for status in Status}
    assert queue.counts() == listed
    assert queue.counts(task="other")["pending"] == 0
    queue.delete_all()
    assert queue.counts() == dict.fromkeys(Status, 0)


def test_buckets_hold_what_ended_per_minute(queue, clock):
    start = datetime.fromtimestamp(clock.wall, UTC)
    for seconds in (0.0, 8.0):
        job = processing(queue)
        clock.advance(seconds)
        queue.complete(job)
    queue.fail(processing(queue), "no", retry=False)
    buckets = queue.buckets(start - timedelta(minutes=1))
    assert sum(bucket.jobs for bucket in buckets if bucket.outcome == "completed") == 2
    assert sum(bucket.jobs for bucket in buckets if bucket.outcome == "failed") == 1
    assert sum(bucket.seconds for bucket in buckets) == pytest.approx(8.0)
    assert queue.buckets(start + timedelta(hours=1)) == []
    hours = queue.buckets(start - timedelta(hours=1), None, 60)
    assert {(bucket.minute.minute, type(bucket.jobs)) for bucket in hours} == {(0, int)}
    assert sum(bucket.jobs for bucket in hours) == 3


def test_queues_tell_the_oldest_pending_job_of_any_priority(queue, clock):
    old = queue.enqueue("stamp", priority=-5)
    clock.advance(60)
    queue.enqueue("stamp", priority=5)
    (state,) = queue.queues()
    assert state.oldest_pending_at == old.created_at


def test_wait_returns_the_finished_job_or_says_how_it_stands(connect):
    queue = connect()
    job = processing(queue)
    with pytest.raises(pq.WaitTimeoutError, match=f"job {job.id} is still processing"):
        queue.wait(job, timeout=0)
    queue.complete(job, 7)
    assert queue.wait(job, timeout=timedelta(seconds=5)).result == 7


def test_large_values_come_back_whole(queue):
    parameters = {"text": "x" * 300_000}
    queue.enqueue("stamp", parameters)
    job = queue.dequeue("c")
    assert job.parameters == parameters
    queue.complete(job, {"text": "y" * 300_000})
    assert queue.list()[0].result == {"text": "y" * 300_000}
    queue.resubmit(job)
    assert queue.get(job).result is None
    assert queue.dequeue("c").parameters == parameters


def test_a_small_result_replaces_a_large_one(queue):
    job = processing(queue)
    queue.complete(job, "y" * 300_000)
    queue.resubmit(job)
    queue.complete(queue.dequeue("c"), 1)
    assert queue.get(job).result == 1


# -- together -------------------------------------------------------------------------------------


def test_a_transaction_makes_calls_one_or_none(queue):
    done = processing(queue)
    with pytest.raises(pq.JobNotFoundError), queue.transaction():  # noqa: PT012  # all of it is undone
        queue.enqueue("stamp")
        queue.complete(done, 1)
        queue.get(99)
    assert queue.get(done).status is Status.PROCESSING
    assert queue.counts()["pending"] == 0
    with queue.transaction():
        queue.enqueue("stamp")
        queue.complete(done, 1)
        queue.set_setting("mark", "7")
    assert (queue.get(done).status, queue.counts()["pending"]) == (Status.COMPLETED, 1)
    assert queue.setting("mark") == "7"


def test_enqueue_many_stores_all_or_none(queue):
    with pytest.raises(pq.InvalidJobError):
        queue.enqueue_many([NewJob("stamp"), NewJob("stamp", {"x": object()})])
    assert queue.counts()["pending"] == 0
    assert queue.enqueue_many([]) == []


def test_prune_removes_only_old_finished_jobs(queue, clock):
    old = in_status(queue, Status.COMPLETED, clock)
    waiting = queue.enqueue("stamp")
    clock.advance(3600)
    recent = queue.dequeue("c")
    assert recent.id == waiting.id
    queue.complete(recent)
    running = processing(queue)
    assert queue.prune(timedelta(minutes=30)) == 1
    assert [job.id for job in queue.list()] == [running.id, recent.id]
    with pytest.raises(pq.JobNotFoundError):
        queue.attempts(old)


def test_delete_all_tells_how_many(queue):
    queue.enqueue_many([NewJob("stamp") for _ in range(2500)])
    queue.dequeue("c")
    assert queue.delete_all(reason="anew") == 2500
    assert queue.actions()[0].verb == "delete_all"


# -- bad input ------------------------------------------------------------------------------------

TUPLES = {"a": (1, 2)}
DEEP: list = []
for _ in range(100_000):
    DEEP = [DEEP]

BAD_JOBS = {
    "task of another type": {"task": 7},
    "empty task": {"task": ""},
    "long task": {"task": "x" * 201},
    "task with a control character": {"task": "a\x1b[31m"},
    "task with a lone surrogate": {"task": "a\ud800"},
    "parameters of another type": {"parameters": [1]},
    "parameters that are no JSON": {"parameters": {"a": object()}},
    "parameters with NaN": {"parameters": {"a": float("nan")}},
    "parameters that would change": {"parameters": TUPLES},
    "parameters with a key that is no text": {"parameters": {1: 2}},
    "parameters too large": {"parameters": {"a": "x" * 1_000_001}},
    "parameters too deep": {"parameters": {"a": DEEP}},
    "parameters with an endless number": {"parameters": {"a": 10**5000}},
    "negative delay": {"delay": timedelta(seconds=-1)},
    "delay of another type": {"delay": "5"},
    "delay that is no number": {"delay": float("inf")},
    "naive due time": {"due_at": datetime(2030, 1, 1)},  # noqa: DTZ001  # that is the point
    "delay and due time": {"delay": SECOND, "due_at": datetime(2030, 1, 1, tzinfo=UTC)},
    "no attempts": {"max_attempts": 0},
    "attempts of another type": {"max_attempts": 2.5},
    "huge attempts": {"max_attempts": 10**30},
    "huge priority": {"priority": 2**31},
    "priority of another type": {"priority": "high"},
    "zero time limit": {"timeout": 0},
    "tags as one text": {"tags": "abc"},
    "tag of another type": {"tags": [1]},
    "queue of another type": {"queue": None},
    "empty key": {"unique_key": ""},
}


@pytest.mark.parametrize("case", BAD_JOBS)
def test_a_bad_job_is_refused_with_one_line_and_nothing_is_stored(queue, case):
    with pytest.raises(pq.InvalidJobError) as caught:
        queue.enqueue(**{"task": "stamp"} | BAD_JOBS[case])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert queue.counts()["pending"] == 0
    assert queue.enqueue("stamp").status is Status.PENDING


@pytest.mark.parametrize("result", [object(), float("nan"), "x" * 1_000_001, {"a": (1,)}])
def test_a_bad_result_leaves_the_lease_as_it_was(queue, result):
    job = processing(queue)
    with pytest.raises(pq.InvalidJobError):
        queue.complete(job, result)
    queue.complete(job, 1)


@pytest.mark.parametrize("call", ["get", "cancel", "resubmit", "delete", "attempts"])
def test_an_unknown_id_is_named(queue, call):
    with pytest.raises(pq.JobNotFoundError, match="job 99"):
        getattr(queue, call)(99)
    with pytest.raises(pq.InvalidJobError, match="job id"):
        getattr(queue, call)("99; drop table jobs")


def test_bad_questions_are_refused(queue):
    job = processing(queue)
    for question in (
        lambda: queue.list(status="lost"),
        lambda: queue.list(limit=0),
        lambda: queue.list(search="id:x"),
        lambda: queue.list(order="random"),
        lambda: queue.list(within=0),
        lambda: queue.list(finished_after="yesterday"),
        lambda: queue.list(finished_before=datetime(2030, 1, 1)),  # noqa: DTZ001  # that is refused
        lambda: queue.dequeue(""),
        lambda: queue.dequeue_many("c", 0),
        lambda: queue.dequeue("c", queues="default"),
        lambda: queue.heartbeat(job, progress=1.5),
        lambda: queue.snooze(job, timedelta(seconds=-1)),
        lambda: queue.assign(job, ""),
        lambda: queue.prune(timedelta(seconds=-1)),
    ):
        with pytest.raises(pq.InvalidJobError):
            question()
    assert queue.get(job).status is Status.PROCESSING


HOSTILE = [
    "'; drop table jobs; --",
    "<script>alert(1)</script>",
    "\x1b[31mred",
    "a\0b",
    "\ud800",
    "\u202eabc",
    "x" * 5000,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_kept_as_text(queue, text):
    queue.enqueue("stamp", {"text": text})
    job = queue.dequeue("c")
    queue.heartbeat(job, message=text)
    queue.fail(job, text)
    queue.mark_failed(job, text, by=text)
    failed = queue.get(job)
    assert failed.parameters == {"text": text}
    assert len(failed.error) <= 2000
    assert "<script>" not in failed._repr_html_()
    assert queue.list(search=text[:20]) is not None


def test_a_closed_queue_says_so(connect):
    queue = connect()
    queue.close()
    queue.close()
    with pytest.raises(pq.StorageError, match="closed"):
        queue.enqueue("stamp")


def test_the_statuses_are_either_finished_or_unfinished():
    assert set(FINISHED) | set(UNFINISHED) == set(Status)
    assert not set(FINISHED) & set(UNFINISHED)


def test_the_reason_of_a_pause_may_be_any_text(queue):
    queue.pause("default", "a \0 and a \ud800, " + "x" * 5_000)
    (state,) = queue.queues()
    assert state.reason.startswith("a \\x00 and a \\ud800, xxx")
    assert len(state.reason) == 2_000
