"""A consumer that waits, wakes and stops: requests, signals, processes."""

import signal
import subprocess
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
    start_process,
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


def test_it_wakes_for_a_job_of_another_process(queue, tmp_path):
    code = f"import pq; pq.connect({str(tmp_path / 'queue.db')!r}).enqueue('nothing')"

    def enqueue():
        wait_until(lambda: [one.doing for one in queue.consumers()] == ["idle"])
        subprocess.run([sys.executable, "-c", code], check=True, timeout=LIMIT_SECONDS)

    with meanwhile(enqueue):
        summary = consume(queue, until_empty=False, count=1)
    assert summary.completed == 1
    (job,) = queue.list()
    assert job.started_at - job.created_at < timedelta(seconds=5)


def test_an_idle_consumer_rescues_what_a_dead_one_held(queue, tmp_path):
    job = queue.enqueue("nothing")
    code = (
        "import os, pq\n"
        f"queue = pq.connect({str(tmp_path / 'queue.db')!r})\n"
        "queue.register_consumer('gone')\n"
        "assert queue.dequeue('gone')\n"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=LIMIT_SECONDS)
    assert consume(queue, until_empty=False, count=1).completed == 1
    assert [attempt.outcome for attempt in queue.attempts(job)] == ["consumer died", "completed"]


@pytest.mark.parametrize("start", [consume, in_a_thread])
def test_a_stop_request_ends_an_idle_consumer(queue, start):
    def stop():
        wait_until(queue.consumers)
        queue.stop_consumer("consumer-1")

    with meanwhile(stop):
        summary = start(queue, until_empty=False)
    assert summary.ended == "stop requested"
    assert queue.consumers() == []


def test_a_stop_request_lets_the_running_task_end_and_gives_the_rest_back_at_once(queue):
    go_on = threading.Event()
    pq.task("held")(lambda: go_on.wait(LIMIT_SECONDS))
    held, *rest = queue.enqueue_many([pq.NewJob("held"), pq.NewJob("nothing"), pq.NewJob("nothing")])

    def stop():
        wait_until(is_running(queue, rest[-1]))
        queue.stop_consumer("consumer-1")
        wait_until(status_is(queue, rest[-1], "pending"))
        assert queue.get(held).status == "processing"
        go_on.set()

    with meanwhile(stop):
        summary = consume(queue, prefetch=3)
    assert (summary.completed, summary.released) == (1, 2)
    assert queue.get(held).result is True
    assert [(queue.get(job).status, queue.get(job).attempt) for job in rest] == [("pending", 0)] * 2


@pytest.mark.parametrize(("task", "start"), [("sleep", consume), ("spin", in_a_thread)])
def test_a_task_that_outlasts_the_grace_is_interrupted_and_given_back(queue, task, start):
    job = queue.enqueue(task)

    def stop():
        wait_until(is_running(queue, job))
        queue.stop_consumer("consumer-1")

    with meanwhile(stop):
        summary = start(queue, grace=0.2)
    assert (summary.released, summary.failed, summary.ended) == (1, 0, "stop requested")
    assert (queue.get(job).status, queue.get(job).attempt) == ("pending", 0)


def test_the_second_ctrl_c_does_not_wait_for_the_task(queue):
    job = queue.enqueue("sleep")
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def interrupt():
        wait_until(is_running(queue, job))
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        wait_until(lambda: "stopping" in "".join(one.doing for one in queue.consumers()))
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    with meanwhile(interrupt):
        summary = consume(queue, grace=LIMIT_SECONDS)
    assert (summary.released, summary.ended) == (1, "interrupted")
    assert queue.get(job).attempt == 0
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


SLEEPS = "@pq.task('sleeps')\ndef sleeps(): time.sleep(60)\n"


def test_sigterm_gives_back_and_exits_with_0(queue, tmp_path):
    jobs = queue.enqueue_many([pq.NewJob("sleeps")] * 3)
    with start_process(tmp_path, "prefetch=2, grace=0.3", SLEEPS) as child:
        wait_until(is_running(queue, jobs[0]))
        child.terminate()
        text, _ = child.communicate(timeout=LIMIT_SECONDS)
    assert child.returncode == 0, text
    assert "released=2" in text
    assert "ended='SIGTERM'" in text
    assert [(queue.get(job).status, queue.get(job).attempt) for job in jobs] == [("pending", 0)] * 3


def test_a_task_in_c_code_ends_the_process_when_it_may(queue, tmp_path):
    """A signal handler that ignores ours stands for C code that does not come back."""
    task = (
        "import signal\n@pq.task('stuck')\ndef stuck():\n"
        "    signal.signal(signal.SIGURG, signal.SIG_IGN)\n    time.sleep(60)\n"
        "import pq.running; pq.running.PATIENCE_SECONDS = 0.3\n"
    )
    stuck = queue.enqueue("stuck", timeout=0.2, max_attempts=2)
    behind = queue.enqueue("stuck")
    with start_process(tmp_path, "prefetch=2, hard_exit=True", task) as child:
        text, _ = child.communicate(timeout=LIMIT_SECONDS)
    assert child.returncode == 70, text
    assert f"pq: job {stuck.id} cannot be interrupted; this process ends to stop it" in text
    assert queue.attempts(stuck)[0].outcome == "timeout"
    assert queue.get(stuck).status == "scheduled"
    assert (queue.get(behind).status, queue.get(behind).attempt) == ("pending", 0)
    assert queue.consumers() == []


def test_processes_that_a_task_forks_are_no_consumers(queue, tmp_path):
    """One comes back from the task, the other is ended as multiprocessing ends its children."""
    task = (
        "import signal\n@pq.task('forks')\ndef forks():\n"
        "    if os.fork() == 0:\n        return 'the child'\n"
        "    child = os.fork()\n"
        "    if child == 0:\n        time.sleep(60)\n"
        "    ended = (0, 0)\n"
        "    while ended == (0, 0):\n"  # Python forgets a signal that comes within its fork
        "        os.kill(child, signal.SIGTERM)\n        time.sleep(0.05)\n"
        "        ended = os.waitpid(child, os.WNOHANG)\n"
        "    return [ended[1], os.wait()[1]]\n"
    )
    job = queue.enqueue("forks")
    with start_process(tmp_path, "count=1", task) as child:
        text, _ = child.communicate(timeout=LIMIT_SECONDS)
    assert child.returncode == 0, text
    assert queue.get(job).result == [signal.SIGTERM, 0]
    assert text.count("Summary(") == 1
