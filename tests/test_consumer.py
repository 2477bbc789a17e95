"""The consumer on a real queue: what a task's end, a wish of a person or a lost lease lead to."""

import contextlib
import logging
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest

import pq
from pq import tasks as registry
from pq.errors import StorageError

LIMIT_SECONDS = 30


@pytest.fixture
def queue(tmp_path):
    with pq.connect(tmp_path / "queue.db") as opened:
        yield opened


@pytest.fixture(autouse=True)
def tasks_of_this_test(monkeypatch):
    registry._registry.load()
    monkeypatch.setattr(registry._registry, "tasks", dict(registry._registry.tasks))
    pq.task("nothing")(lambda: None)
    pq.task("sleep")(sleep)
    pq.task("spin")(spin)
    pq.task("fail")(fail)


def sleep(seconds=LIMIT_SECONDS):
    time.sleep(seconds)
    return "slept"


def spin(seconds=LIMIT_SECONDS):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def fail(text="no"):
    raise ValueError(text)


def wait_until(condition):
    end = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


@contextlib.contextmanager
def meanwhile(action):
    """Do it in another thread; what it raises is raised at the end."""
    errors = []

    def act():
        try:
            action()
        except BaseException as error:  # noqa: BLE001  # raised again below
            errors.append(error)

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join(LIMIT_SECONDS)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def consume(queue, **options):
    return pq.consume(queue, display=False, **{"until_empty": True} | options)


def in_a_thread(queue, **options):
    """The same where signals cannot help: not in the main thread."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(consume(queue, **options)))
    thread.start()
    thread.join(LIMIT_SECONDS)
    assert not thread.is_alive()
    return answers[0]


def status_is(queue, job, status):
    return lambda: queue.get(job).status == status


def is_running(queue, job):
    return status_is(queue, job, "processing")


# -- the end of a task -----------------------------------------------------------------------------


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


# -- interrupting a task ---------------------------------------------------------------------------


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


# -- holding ---------------------------------------------------------------------------------------


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


# -- waiting and stopping --------------------------------------------------------------------------


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


def start_process(tmp_path, options, tasks=""):
    (tmp_path / "mine.py").write_text(f"import os, time, pq\n{tasks}")
    code = (
        "import logging, pq; logging.basicConfig(level='INFO')\n"
        f"print(pq.consume('queue.db', tasks=['mine.py'], {options}))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


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


# -- a queue in trouble ----------------------------------------------------------------------------


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
