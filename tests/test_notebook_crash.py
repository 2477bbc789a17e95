"""Consumers that are killed at every stage of a run: no orphan, no half-published run, the job ends right."""

import json
import subprocess
import sys

import psutil
import pytest
from processes import wait_for

import pq
from notebooks import consume, files, statuses, write_notebook
from pq.notebook.runs import Draft, close_runs

CONSUMER = """
import os, signal, sys
import pq, pq.notebook.job, pq.settling
stage, path = sys.argv[1:]

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

if stage == "before the kernel":
    pq.notebook.job.open_pool = die
if stage == "between finish and settle":
    pq.settling.Books.settle = die
if stage == "between settle and publish":
    pq.settling.after_settling = die
pq.consume(path, name="doomed", display=False)
"""


@pytest.fixture
def store(tmp_path):
    with pq.connect(tmp_path / "queue.db") as queue:
        yield queue


@pytest.fixture
def doomed(store):
    started = []

    def start(stage):
        started.append(subprocess.Popen([sys.executable, "-c", CONSUMER, stage, str(store.path)]))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def pids(folder):
    return [int(path.name) for path in folder.glob("[0-9]*")]


def marking(folder, *lines):
    """A cell that writes down its kernel's pid, and starts a process of its own."""
    return "\n".join(
        [
            "import os, pathlib, subprocess, time",
            f"folder = pathlib.Path({str(folder)!r})",
            "child = subprocess.Popen(['sleep', '600'], start_new_session=True)",
            "(folder / str(os.getpid())).touch(); (folder / str(child.pid)).touch()",
            *lines,
        ]
    )


def no_orphan(folder):
    wait_for(lambda: not any(map(psutil.pid_exists, pids(folder))), limit=10, what="the end of the kernel")


def test_killed_before_the_kernel(store, doomed):
    job = store.enqueue_notebook(write_notebook(store.folder / "a.ipynb", "print(1)", parameters="x = 1"))
    assert doomed("before the kernel").wait(60) == -9
    assert files(store) != []
    consume_until_finished(store, job)
    assert store.get(job).status == "completed"
    assert files(store) == [f"{job.id}/1.ipynb", f"{job.id}/2.ipynb"]
    first = pq.open_run(job, store, attempt=1)
    assert statuses(first) == ["not run", "not run"]
    assert (first.metadata.pq.outcome, first.metadata.pq.why) == ("consumer died", "consumer died")
    assert statuses(pq.open_run(job, store)) == ["completed", "completed"]


def test_killed_mid_cell(store, doomed, tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    path = write_notebook(
        store.folder / "a.ipynb",
        "print('first')",
        marking(marks, "(folder / 'on').touch()", "time.sleep(0 if (folder / 'again').exists() else 600)"),
        "print('last')",
        parameters="x = 1",
    )
    job = store.enqueue_notebook(path)
    process = doomed("mid-cell")
    wait_for((marks / "on").exists)
    process.kill()
    process.wait()
    no_orphan(marks)
    (marks / "again").touch()
    consume_until_finished(store, job)
    first = pq.open_run(job, store, attempt=1)
    assert statuses(first) == ["completed", "completed", "interrupted", "not run"]
    assert first.cells[2].outputs[-1].ename == "consumer died"
    assert first.metadata.pq.cell == 3
    assert store.get(job).status == "completed"
    assert files(store) == [f"{job.id}/1.ipynb", f"{job.id}/2.ipynb"]
    no_orphan(marks)


def test_killed_between_finish_and_settle_the_run_that_was_not_accepted_does_not_pass(store, doomed):
    job = store.enqueue_notebook(write_notebook(store.folder / "a.ipynb", "print(1)"), max_attempts=1)
    assert doomed("between finish and settle").wait(60) == -9
    assert not [name for name in files(store) if not name.startswith(".running/")]
    store.rescue()
    close_runs(store)
    assert store.get(job).status == "failed"
    run = pq.open_run(job, store)
    assert run.metadata.pq.outcome == "consumer died"
    assert files(store) == [f"{job.id}/1.ipynb"]


def test_killed_between_settle_and_publish_the_next_consumer_publishes(store, doomed):
    job = store.enqueue_notebook(write_notebook(store.folder / "a.ipynb", "print(1)"))
    assert doomed("between settle and publish").wait(60) == -9
    assert store.get(job).status == "completed"
    consume(store)
    assert files(store) == [f"{job.id}/1.ipynb"]
    assert pq.open_run(job, store).metadata.pq.outcome == "completed"
    assert len(store.attempts(job)) == 1


def draft_path(draft, ending=".ipynb"):
    return draft.place.path(draft.name(ending))


def test_a_live_run_is_left_alone(store):
    job = store.enqueue_notebook(write_notebook(store.folder / "a.ipynb", "1"))
    taken = store.dequeue("consumer-1")
    draft = Draft.of(store.folder, taken)
    draft_path(draft).parent.mkdir(parents=True)
    draft_path(draft).write_text(json.dumps({"metadata": {}, "cells": []}))
    assert close_runs(store) == 0
    assert draft_path(draft).exists()
    store.release(taken)
    close_runs(store)
    assert files(store) == []
    assert store.get(job).status == "pending"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"metadata": 3}'])
def test_a_torn_draft_is_removed(store, content):
    store.enqueue_notebook(write_notebook(store.folder / "a.ipynb", "1"))
    taken = store.dequeue("consumer-1")
    draft = Draft.of(store.folder, taken)
    draft_path(draft).parent.mkdir(parents=True)
    draft_path(draft).write_bytes(content)
    draft_path(draft, ".4711.tmp").touch()
    store.fail(taken, "x", retry=False)
    close_runs(store)
    assert files(store) == []


def test_a_zombie_does_not_overwrite_the_run_of_the_next_attempt(store):
    """It finishes after its lease was lost: its end is not accepted, and its draft is dropped."""
    from pq.notebook.runs import COMPLETED, after_settling
    from pq.records import Outcome

    job = store.enqueue_notebook(write_notebook(store.folder / "a.ipynb", "print('true')"))
    zombie = store.dequeue("consumer-1")
    store.assign(job, None)
    consume(store)
    before = (store.folder / store.get(job).result["run"]).read_text()
    draft = Draft.of(store.folder, zombie)
    ended = {"metadata": {"pq": {"outcome": "completed"}}, "cells": []}
    draft_path(draft, COMPLETED).write_text(json.dumps(ended))
    outcome = Outcome(zombie)
    assert store.settle([outcome]).lost
    after_settling(store, outcome, accepted=False)
    assert (store.folder / store.get(job).result["run"]).read_text() == before
    assert files(store) == [f"{job.id}/2.ipynb"]


def consume_until_finished(store, job):
    while store.get(job).status not in ("completed", "failed", "cancelled"):
        consume(store, count=1)
