"""What the tests of the consumer share: tasks, a thread that acts meanwhile, a consumer in a process."""

import contextlib
import subprocess
import sys
import threading
import time

import pq
from pq import tasks as registry

LIMIT_SECONDS = 30


def register_tasks(monkeypatch):
    """The tasks below, for the time of one test."""
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
