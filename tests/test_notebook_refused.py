"""Runs that cannot go on, or not even begin, the next time neither: they fail at once and say why."""

import pytest

import pq
from notebooks import consume, run, statuses, write_notebook


@pytest.fixture
def store(tmp_path):
    with pq.connect(tmp_path / "queue.db") as queue:
        yield queue


ALLOCATES_BELOW = """
import subprocess, sys
code = "import time; data = bytes(1) * 400_000_000; time.sleep(60)"
subprocess.run([sys.executable, "-c", code])
"""


@pytest.mark.parametrize(
    "cell",
    ["data = [bytes(10_000_000) for _ in range(200)]", "data = bytes(2_000_000_000)", ALLOCATES_BELOW],
    ids=["bit by bit", "at once", "in a process that it started"],
)
def test_more_memory_than_the_limit_is_its_own_error_and_not_tried_again(store, cell):
    path = write_notebook(store.folder / "a.ipynb", cell, "print('never')")
    job = store.enqueue_notebook(path, memory="300M", max_attempts=3)
    consume(store, count=1)
    found = store.get(job)
    assert found.status == "failed"
    assert found.error.startswith("KernelMemoryError: cell 2 of 3")
    states = statuses(pq.open_run(job, store))
    assert states[1] in ("interrupted", "failed")
    assert states[2] == "not run"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, "missing notebook"),
        ({"notebook": 3}, "cannot run 3: it is no path"),
        ({"notebook": "b.ipynb"}, "b.ipynb"),
        ({"notebook": "a.ipynb", "parameters": [1]}, "must be an object, not [1]"),
        ({"notebook": "a.ipynb", "parameters": {"y": 1}}, "has no parameter y"),
        ({"notebook": "a.ipynb", "parameters": {"x": "one"}}, "x of a.ipynb must be int"),
        ({"notebook": "a.ipynb", "kernel": 5}, "kernel must be text, not int"),
        ({"notebook": "a.ipynb", "cell_timeout": "soon"}, "cell_timeout must be a timedelta or a number"),
        ({"notebook": "a.ipynb", "memory": "lots"}, "memory must be a size"),
        ({"notebook": "a.ipynb", "colour": "red"}, "unknown colour"),
    ],
)
def test_a_notebook_job_that_was_enqueued_by_hand_and_is_wrong_fails_at_once_and_says_why(store, asked, told):
    write_notebook(store.folder / "a.ipynb", "1", parameters="x: int = 1")
    job = store.enqueue("notebook", asked, max_attempts=3)
    consume(store)
    found = store.get(job)
    assert (found.status, found.attempt) == ("failed", 1)
    assert told in found.error


def test_a_kernel_that_is_not_there_is_told(store):
    job, notebook = run(store, "1", kernel="no-such-kernel")
    assert job.error.startswith("KernelStartError: ")
    assert "no-such-kernel" in job.error
    assert statuses(notebook) == ["not run", "not run"]


def test_a_notebook_that_vanished_is_not_tried_again(store):
    path = write_notebook(store.folder / "a.ipynb", "1")
    job = store.enqueue_notebook(path)
    path.unlink()
    consume(store)
    assert store.get(job).status == "failed"
    assert store.get(job).error.startswith("NotebookMissingError: ")


def test_the_root_of_the_consumer_holds_too(store, monkeypatch, tmp_path):
    job = store.enqueue_notebook(write_notebook(store.folder / "a.ipynb", "1"))
    monkeypatch.setenv("PQ_NOTEBOOK_ROOT", str(tmp_path / "elsewhere"))
    consume(store)
    assert "it lies outside" in store.get(job).error


def test_a_second_database_in_the_folder_gets_no_runs_and_closes_none_of_the_first(store, monkeypatch):
    from pq.notebook.runs import Draft, close_runs

    path = write_notebook(store.folder / "a.ipynb", "1")
    store.enqueue_notebook(path)
    consume(store)
    store.enqueue_notebook(path)
    running = Draft.of(store.folder, store.dequeue("c"))
    running.write(".ipynb", "{}")
    with pq.connect(store.folder / "second.db") as second:
        for enqueue in (second.enqueue_notebook, lambda path: pq.sweep(second, path, [{}])):
            with pytest.raises(pq.NotebookError, match=r"has the runs of queue\.db, and the ids of second"):
                enqueue(path)
        job = second.enqueue("notebook", {"notebook": "a.ipynb"}, max_attempts=1)
        consume(second)
        assert "has the runs of queue.db" in second.get(job).error
        assert close_runs(second) == 0
        assert running.latest() is not None
        monkeypatch.setenv("PQ_RUNS", "second-runs")
        job = second.enqueue_notebook(path)
        consume(second)
        assert second.get(job).result["run"].endswith(f"second-runs/{job.id}/1.ipynb")


def test_the_runs_of_a_database_that_is_gone_are_taken_over(store):
    path = write_notebook(store.folder / "a.ipynb", "1")
    store.enqueue_notebook(path)
    consume(store)
    note = store.folder / "runs" / ".queue"
    assert note.read_text() == "queue.db"
    note.write_text("was-renamed.db")
    job = store.enqueue_notebook(path)
    consume(store)
    assert (store.get(job).status, note.read_text()) == ("completed", "queue.db")
