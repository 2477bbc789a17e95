"""notebooks/consumer.ipynb as papermill runs it: by its command, headless, until its count or a stop."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

import pq

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "consumer.ipynb"
LIMIT_SECONDS = 60
MINE = "import os, time, pq\n@pq.task('sleeps')\ndef sleeps(seconds): time.sleep(seconds)\n"


@pytest.fixture
def queue(tmp_path):
    with pq.connect(tmp_path / "queue.db") as opened:
        yield opened


@contextlib.contextmanager
def papermill(folder, **parameters):
    """The command in a process of its own; ended, with its kernel, when the block is left."""
    (folder / "runs").mkdir()
    command = [sys.executable, "-m", "papermill", str(NOTEBOOK), "runs/consumer-1.ipynb", "--no-progress-bar"]
    for name, value in parameters.items():
        command += ["-p", name, str(value)]
    child = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()  # the kernel sees that its parent is gone
        child.communicate(timeout=LIMIT_SECONDS)


def wait_until(condition, child):
    end = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        assert child.poll() is None, child.communicate()[0]
        time.sleep(0.02)


def outputs_of(folder):
    cells = json.loads((folder / "runs" / "consumer-1.ipynb").read_text())["cells"]
    return [output for cell in cells for output in cell.get("outputs", [])]


def test_papermill_runs_it_to_its_count(queue, tmp_path):
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "a.txt").write_text("one\ntwo\n")
    job = queue.enqueue("stamp", {"path": "inbox/a.txt"})
    queue.enqueue_many([pq.NewJob("unheard"), pq.NewJob("unheard")])
    with papermill(tmp_path, db="queue.db", name="consumer-1", count=3) as child:
        text, _ = child.communicate(timeout=LIMIT_SECONDS)
    assert child.returncode == 0, text
    assert queue.get(job).status == "completed"
    assert (tmp_path / "inbox" / "a.txt").read_text() == "one\ntwo\n"
    (output,) = outputs_of(tmp_path)
    shown = "".join(output["data"]["text/plain"])
    assert "completed=1, failed=2" in shown
    assert "ended='count reached'" in shown


def test_the_executed_notebook_does_not_grow_with_the_jobs(queue, tmp_path):
    (tmp_path / "mine.py").write_text("import pq\n@pq.task('chatty')\ndef chatty(): print('x' * 1000)\n")
    queue.enqueue_many([pq.NewJob("chatty")] * 300 + [pq.NewJob("unheard")] * 300)
    with papermill(tmp_path, db="queue.db", tasks="mine.py", prefetch=10, until_empty=True) as child:
        text, _ = child.communicate(timeout=LIMIT_SECONDS)
    assert child.returncode == 0, text
    assert (queue.counts()["completed"], queue.counts()["failed"]) == (300, 300)
    assert len(json.dumps(outputs_of(tmp_path))) < 1000
    assert (tmp_path / "logs" / "consumer-1-jobs.log").read_text().count("unknown task") == 300


def test_a_stop_request_ends_it_through_papermill(queue, tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    jobs = queue.enqueue_many([pq.NewJob("sleeps", {"seconds": 3}), pq.NewJob("sleeps", {"seconds": 3})])
    with papermill(tmp_path, db="queue.db", tasks="mine.py", prefetch=2) as child:
        wait_until(lambda: queue.get(jobs[0]).status == "processing", child)
        assert queue.stop_consumer("consumer-1") == 1
        text, _ = child.communicate(timeout=LIMIT_SECONDS)
    assert child.returncode == 0, text
    assert [queue.get(job).status for job in jobs] == ["completed", "pending"]
    assert queue.get(jobs[1]).attempt == 0
    assert "ended='stop requested'" in str(outputs_of(tmp_path)[-1])
    assert queue.consumers() == []


def test_an_interrupted_kernel_gives_back_and_ends_its_cell_without_an_error(queue, tmp_path):
    with papermill(tmp_path, db="queue.db") as child:
        wait_until(queue.consumers, child)
        psutil.Process(queue.consumers()[0].pid).send_signal(signal.SIGINT)
        text, _ = child.communicate(timeout=LIMIT_SECONDS)
    assert child.returncode == 0, text
    assert "ended='interrupted'" in str(outputs_of(tmp_path)[-1])


def test_a_killed_kernel_loses_no_job(queue, tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    job = queue.enqueue("sleeps", {"seconds": 60})
    with papermill(tmp_path, db="queue.db", tasks="mine.py") as child:
        wait_until(lambda: queue.get(job).status == "processing", child)
        psutil.Process(queue.consumers()[0].pid).kill()
        child.communicate(timeout=LIMIT_SECONDS)
    assert child.returncode != 0
    assert [rescued.id for rescued in queue.rescue()] == [job.id]


def test_opened_by_hand_it_shows_its_progress_in_one_output(queue, tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    queue.enqueue_many([pq.NewJob("sleeps", {"seconds": 1}), pq.NewJob("<b>unheard</b>")])
    with papermill(tmp_path, db="queue.db", tasks="mine.py", headless=False, until_empty=True) as child:
        text, _ = child.communicate(timeout=LIMIT_SECONDS)
    assert child.returncode == 0, text
    shown = [one for one in outputs_of(tmp_path) if one["output_type"] == "display_data"]
    assert len(shown) == 1
    assert "1 completed, 1 failed" in "".join(shown[0]["data"]["text/plain"])
    html = "".join(shown[0]["data"]["text/html"])
    assert "&lt;b&gt;unheard&lt;/b&gt;" in html
    assert "<b>" not in html


def test_it_is_thin_and_has_no_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].source.startswith("# Consumer\n")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.metadata.get("tags") for cell in code] == [["parameters"], None, None]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert "def " not in "".join(cell.source for cell in code)
