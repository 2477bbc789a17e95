"""Interrupting a running task: its time limit, a cancel, a lost lease; and nothing but the task."""

import contextlib
import threading
import time

import pytest
from consuming import (
    LIMIT_SECONDS,
    consume,
    in_a_thread,
    is_running,
    meanwhile,
    register_tasks,
    status_is,
    wait_until,
)

import pq


@pytest.fixture
def queue(tmp_path):
    with pq.connect(tmp_path / "queue.db") as opened:
        yield opened


@pytest.fixture(autouse=True)
def tasks_of_this_test(monkeypatch):
    register_tasks(monkeypatch)


@pytest.mark.parametrize(("task", "start"), [("sleep", consume), ("spin", consume), ("spin", in_a_thread)])
def test_a_task_that_takes_too_long_is_interrupted_and_the_next_one_runs(queue, task, start):
    late = queue.enqueue(task, timeout=0.2, max_attempts=1)
    next_one = queue.enqueue("nothing")
    summary = start(queue)
    assert (summary.completed, summary.failed) == (1, 1)
    assert queue.get(late).status == "failed"
    assert queue.get(late).error == f"TaskTimeoutError: job {late.id} ran longer than its limit of 0.2 s"
    (attempt,) = queue.attempts(late)
    assert attempt.outcome == "timeout"
    assert f"in {task}\n" in attempt.traceback
    assert queue.get(next_one).status == "completed"


def test_a_task_that_swallows_the_interrupt_is_interrupted_again(queue):
    @pq.task("stubborn")
    def stubborn():
        for _ in range(2):
            with contextlib.suppress(Exception):
                time.sleep(LIMIT_SECONDS)
        time.sleep(LIMIT_SECONDS)

    job = queue.enqueue("stubborn", timeout=0.1, max_attempts=1)
    assert consume(queue).failed == 1
    assert queue.attempts(job)[0].outcome == "timeout"


def test_a_task_may_answer_its_time_limit_with_a_result(queue):
    @pq.task("partial")
    def partial():
        try:
            time.sleep(LIMIT_SECONDS)
        except pq.TaskTimeoutError:
            return "as far as it came"

    job = queue.enqueue("partial", timeout=0.1)
    assert consume(queue).completed == 1
    assert queue.get(job).result == "as far as it came"


@pytest.mark.parametrize("start", [consume, in_a_thread])
def test_no_interrupt_ever_leaves_the_task(queue, start):
    """Limits that end together with the tasks: whatever comes first, each job ends and the loop goes on."""
    pq.task("brief")(lambda: time.sleep(0.05))
    jobs = queue.enqueue_many([pq.NewJob("brief", timeout=0.05, max_attempts=1)] * 30)
    summary = start(queue)
    assert summary.completed + summary.failed == 30
    assert {queue.get(job).status.value for job in jobs} <= {"completed", "failed"}


def test_a_task_busy_with_the_queue_is_not_interrupted_within_a_transaction(queue):
    @pq.task("writer")
    def writer(context):
        while True:
            context.queue.enqueue("nothing", queue="other")

    job = queue.enqueue("writer", timeout=0.3, max_attempts=1)
    assert consume(queue).failed == 1
    assert queue.attempts(job)[0].outcome == "timeout"
    queue.enqueue("nothing")
    assert consume(queue).completed == 1


@pytest.mark.parametrize("start", [consume, in_a_thread])
def test_an_interrupt_undoes_the_transaction_that_it_meets(queue, start):
    @pq.task("pairs")
    def pairs(context):
        while True:
            with context.queue.transaction():
                context.queue.enqueue("left", queue="other")
                context.queue.enqueue("right", queue="other")
            context.progress(0.5)

    queue.enqueue_many([pq.NewJob("pairs", timeout=0.06, max_attempts=1)] * 8)
    assert start(queue).failed == 8
    assert queue.counts(task="left") == queue.counts(task="right")
    assert queue.counts(queue="default")["failed"] == 8


@pytest.mark.parametrize(("task", "start"), [("sleep", consume), ("spin", in_a_thread)])
def test_a_running_job_can_be_cancelled(queue, task, start):
    job = queue.enqueue(task)

    def cancel():
        wait_until(is_running(queue, job))
        queue.cancel(job, reason="no need")

    with meanwhile(cancel):
        summary = start(queue)
    assert summary.failed == 1
    assert queue.get(job).status == "cancelled"
    assert queue.attempts(job)[0].outcome == "cancelled"


@pytest.mark.parametrize(("task", "start"), [("sleep", consume), ("spin", in_a_thread)])
def test_a_consumer_that_lost_its_job_stops_it_and_says_so(queue, tmp_path, caplog, task, start):
    job = queue.enqueue(task)

    def assign():
        wait_until(is_running(queue, job))
        with pq.connect(tmp_path / "queue.db") as other:
            other.assign(job, "consumer-2")

    with meanwhile(assign):
        summary = start(queue)
    assert (summary.completed, summary.failed, summary.lost) == (0, 0, 1)
    assert (queue.get(job).status, queue.get(job).assigned_to) == ("pending", "consumer-2")
    assert f"job {job.id} is no longer leased to this consumer" in caplog.text


def test_taken_jobs_that_are_cancelled_or_assigned_do_not_begin(queue):
    began = []
    pq.task("note")(lambda context: began.append(context.job.id))
    first, cancelled, assigned, last = queue.enqueue_many(
        [pq.NewJob("sleep", {"seconds": 2}), *[pq.NewJob("note")] * 3]
    )

    def change():
        wait_until(is_running(queue, last))
        queue.cancel(cancelled)
        queue.assign(assigned, "consumer-2")

    with meanwhile(change):
        summary = consume(queue, prefetch=10)
    assert began == [last.id]
    assert (summary.completed, summary.failed, summary.lost) == (2, 1, 1)
    assert queue.get(cancelled).status == "cancelled"
    assert queue.get(first).status == "completed"


def test_an_interrupted_task_that_cannot_be_stopped_is_settled_anyway(queue, monkeypatch, caplog):
    monkeypatch.setattr("pq.running.Runner.press", lambda self, run: None)  # as if it sat in C code
    monkeypatch.setattr("pq.running.PATIENCE_SECONDS", 0.2)
    ended = threading.Event()
    pq.task("deaf")(lambda: ended.wait(LIMIT_SECONDS) and "too late")
    job = queue.enqueue("deaf", timeout=0.1, max_attempts=1)

    def let_it_end():
        wait_until(status_is(queue, job, "failed"))
        ended.set()

    with meanwhile(let_it_end):
        summary = consume(queue)
    assert (summary.failed, summary.completed, summary.lost) == (1, 0, 0)
    assert queue.get(job).result is None
    assert "its task cannot be interrupted: restart this process or kernel" in caplog.text
