"""The consumer on a real queue: how tries end, what it holds, and a queue in trouble."""

import logging
import signal
import sys
import threading
from datetime import timedelta

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
from pq.errors import StorageError


@pytest.fixture
def queue(tmp_path):
    with pq.connect(tmp_path / "queue.db") as opened:
        yield opened


@pytest.fixture(autouse=True)
def tasks_of_this_test(monkeypatch):
    register_tasks(monkeypatch)


@pytest.mark.parametrize("prefetch", [1, 7, 100])
@pytest.mark.parametrize("start", [consume, in_a_thread])
def test_each_job_runs_once_and_keeps_its_result(queue, prefetch, start):
    ran = []

    @pq.task("double")
    def double(context, number):
        ran.append(context.job.id)
        return {"double": 2 * number}

    jobs = queue.enqueue_many([pq.NewJob("double", {"number": n}) for n in range(50)])
    summary = start(queue, prefetch=prefetch)
    assert (summary.completed, summary.failed, summary.released, summary.lost) == (50, 0, 0, 0)
    assert summary.ended == "queue empty"
    assert ran == [job.id for job in jobs]
    assert [queue.get(job).result for job in jobs] == [{"double": 2 * n} for n in range(50)]
    assert queue.consumers() == []


def test_a_failure_is_kept_with_its_traceback_and_tried_again(queue):
    job = queue.enqueue("fail", {"text": "bad weather"}, max_attempts=2)
    assert consume(queue).failed == 1
    assert queue.get(job).status == "scheduled"
    assert queue.get(job).due_at > queue.get(job).created_at + timedelta(seconds=0.7)
    summary = consume(queue, until_empty=False, count=1)
    assert (summary.failed, summary.ended) == (1, "count reached")
    assert queue.get(job).status == "failed"
    assert [attempt.error for attempt in queue.attempts(job)] == ["ValueError: bad weather"] * 2
    assert "in fail\n" in queue.attempts(job)[0].traceback


@pytest.mark.parametrize(
    ("task", "parameters", "error"),
    [
        (
            "unheard",
            {},
            "UnknownTaskError: unknown task 'unheard'; known are fail, nothing, sleep, spin, stamp",
        ),
        (
            "fail",
            {"txt": "x"},
            "InvalidJobError: the parameters do not fit task fail: unknown txt; it takes text",
        ),
    ],
)
def test_what_cannot_run_fails_without_another_try(queue, task, parameters, error):
    job = queue.enqueue(task, parameters)
    assert consume(queue).failed == 1
    assert (queue.get(job).status, queue.get(job).error) == ("failed", error)


class Broken:
    def __eq__(self, other):
        raise RuntimeError("no comparison")

    __hash__ = None


class BrokenDict(dict):
    def __eq__(self, other):
        raise RuntimeError("no comparison")

    __hash__ = None


@pytest.mark.parametrize("prefetch", [1, 10])
@pytest.mark.parametrize("result", [{1, 2}, float("nan"), "x" * 1_000_001, (1, 2), Broken(), BrokenDict(a=1)])
def test_a_result_that_is_not_json_fails_its_job_alone(queue, prefetch, result):
    pq.task("odd")(lambda: result)
    jobs = queue.enqueue_many([pq.NewJob(task) for task in ("nothing", "odd", "nothing", "fail", "nothing")])
    summary = consume(queue, prefetch=prefetch)
    assert (summary.completed, summary.failed, summary.lost) == (3, 2, 0)
    assert [queue.get(job).status for job in jobs] == [
        "completed",
        "failed",
        "completed",
        "scheduled",
        "completed",
    ]
    assert queue.get(jobs[1]).error.startswith("InvalidJobError: ")


class Unspeakable(Exception):  # noqa: N818  # a task's own
    def __str__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "stored"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit(), "GeneratorExit"),
        (Unspeakable(), "RuntimeError: Unspeakable, whose text cannot be made"),
        (ValueError("\ud800\0"), "ValueError: \\ud800\\x00"),
        (pq.LeaseLostError("another job's"), "LeaseLostError: another job's"),
        (StorageError("the task's own"), "StorageError: the task's own"),
    ],
)
def test_whatever_a_task_raises_is_its_jobs_failure(queue, error, stored):
    @pq.task("odd")
    def odd():
        raise error

    jobs = queue.enqueue_many([pq.NewJob("odd", max_attempts=1), pq.NewJob("nothing")])
    summary = consume(queue)
    assert (summary.completed, summary.failed) == (1, 1)
    assert (queue.get(jobs[0]).status, queue.get(jobs[0]).error) == ("failed", stored)


def test_count_takes_no_job_more_than_it_runs(queue):
    queue.enqueue_many([pq.NewJob("nothing")] * 10)
    assert consume(queue, count=3, prefetch=100).completed == 3
    assert queue.counts()["pending"] == 7
    assert [job.attempt for job in queue.list(status="pending")] == [0] * 7
    assert consume(queue, count=0).completed == 0


def test_a_long_task_keeps_its_lease_and_those_of_the_jobs_behind_it(queue):
    jobs = queue.enqueue_many([pq.NewJob("sleep", {"seconds": 2.5}), pq.NewJob("nothing")])
    summary = consume(queue, lease=1, prefetch=2)
    assert (summary.completed, summary.lost) == (2, 0)
    assert [queue.get(job).attempt for job in jobs] == [1, 1]


def test_an_ended_try_does_not_wait_for_the_long_task_behind_it(queue):
    first, long = queue.enqueue_many([pq.NewJob("nothing"), pq.NewJob("sleep")])

    def look():
        wait_until(status_is(queue, first, "completed"))
        assert queue.get(long).status == "processing"
        queue.cancel(long)

    with meanwhile(look):
        consume(queue, prefetch=10)


def test_jobs_behind_a_long_task_go_to_other_consumers(queue, monkeypatch):
    monkeypatch.setattr("pq.watching.HOARD_SECONDS", 0.2)
    long, second = queue.enqueue_many([pq.NewJob("sleep"), pq.NewJob("nothing")])

    def another():
        wait_until(is_running(queue, second))
        wait_until(status_is(queue, second, "pending"))
        job = queue.dequeue("consumer-2")
        assert (job.id, job.attempt) == (second.id, 1)
        queue.complete(job)
        queue.cancel(long)

    with meanwhile(another):
        summary = consume(queue, prefetch=10)
    assert summary.released == 1


def test_progress_is_seen_while_the_task_runs(queue):
    seen = threading.Event()

    @pq.task("steps")
    def steps(context):
        context.progress(0.1, "first")
        context.progress(0.2, "second")
        assert seen.wait(LIMIT_SECONDS)

    job = queue.enqueue("steps")

    def look():
        wait_until(lambda: queue.get(job).message == "second")
        seen.set()

    with meanwhile(look):
        assert consume(queue).completed == 1


def test_the_consumers_table_tells_what_it_does(queue):
    job = queue.enqueue("sleep")

    def look():
        wait_until(lambda: [one.doing for one in queue.consumers()] == [f"job {job.id} sleep"])
        queue.cancel(job)

    with meanwhile(look):
        consume(queue)


def test_outcomes_are_kept_while_the_queue_cannot_be_written(queue, monkeypatch, caplog):
    job = queue.enqueue("nothing")
    settle, refusals = type(queue).settle, []

    def refuse(self, outcomes, **options):
        if outcomes and len(refusals) < 3:
            refusals.append(outcomes)
            raise StorageError("the disk is full")
        return settle(self, outcomes, **options)

    monkeypatch.setattr(type(queue), "settle", refuse)
    assert consume(queue).completed == 1
    assert queue.get(job).attempt == 1
    assert caplog.text.count("the queue cannot be written, trying again: the disk is full") == 3


def test_a_queue_that_stays_in_trouble_ends_the_consumer_with_its_error(queue, monkeypatch):
    queue.enqueue("nothing")

    def refuse(self, outcomes, **options):
        raise StorageError("the disk is full")

    monkeypatch.setattr(type(queue), "settle", refuse)
    monkeypatch.setattr("pq.settling.PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr("pq.settling.LAST_PATIENCE_SECONDS", 0.1)
    with pytest.raises(StorageError, match="the disk is full"):
        consume(queue)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_watch_outlives_every_error(queue, monkeypatch, caplog):
    def refuse(self, *arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(type(queue), "rescue", refuse)
    job = queue.enqueue("sleep", timeout=0.3, max_attempts=1)
    assert consume(queue).failed == 1
    assert queue.attempts(job)[0].outcome == "timeout"
    assert "the watch of the consumer met an error, and goes on" in caplog.text


def test_a_closed_queue_says_so(tmp_path):
    queue = pq.connect(tmp_path / "queue.db")
    queue.close()
    with pytest.raises(StorageError, match="closed"):
        consume(queue)


@pytest.mark.parametrize(
    "options",
    [
        {"name": ""},
        {"queues": ()},
        {"queues": "default"},
        {"prefetch": 0},
        {"lease": 0},
        {"lease": "soon"},
        {"count": -1},
        {"grace": -1},
        {"tasks": "mine.py"},
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_taken(queue, options):
    queue.enqueue("nothing")
    with pytest.raises(pq.InvalidJobError):
        consume(queue, **options)
    assert queue.counts()["pending"] == 1
    assert queue.consumers(ended=True) == []


def test_a_path_is_opened_and_closed(tmp_path):
    with pq.connect(tmp_path / "queue.db") as queue:
        queue.enqueue("nothing")
    assert consume(tmp_path / "queue.db").completed == 1


def test_headless_prints_nothing_and_keeps_what_tasks_print_in_the_log(queue, tmp_path, capsys):
    @pq.task("chatty")
    def chatty():
        sys.stdout.write("good morning\n")
        sys.stderr.write("bad news\n")

    queue.enqueue("chatty")
    queue.enqueue("fail", max_attempts=1)
    consume(queue, headless=True)
    assert capsys.readouterr() == ("", "")
    text = (tmp_path / "logs" / "consumer-1-jobs.log").read_text()
    assert "| good morning" in text
    assert "| bad news" in text
    assert "(fail) failed in attempt 1 of 1: ValueError: no" in text
    assert logging.getLogger("pq").handlers == []
