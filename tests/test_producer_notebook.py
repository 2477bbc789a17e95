"""notebooks/producer.ipynb as papermill runs it: by its command, headless, until its count or a stop."""

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pq

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "producer.ipynb"
LIMIT_SECONDS = 60


@contextlib.contextmanager
def papermill(folder, **parameters):
    """The command in a process of its own; ended, with its kernel, when the block is left."""
    (folder / "runs").mkdir()
    command = [sys.executable, "-m", "papermill", str(NOTEBOOK), "runs/producer-1.ipynb", "--no-progress-bar"]
    for name, value in parameters.items():
        command += ["-p", name, str(value)]
    child = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()  # the kernel sees that its parent is gone
        child.communicate(timeout=LIMIT_SECONDS)


def outputs_of(folder):
    cells = json.loads((folder / "runs" / "producer-1.ipynb").read_text())["cells"]
    return [output for cell in cells for output in cell.get("outputs", [])]


def test_papermill_runs_it_to_its_count(tmp_path):
    with papermill(tmp_path, db="queue.db", count=3, interval=0.1) as child:
        text, _ = child.communicate(timeout=LIMIT_SECONDS)
    assert child.returncode == 0, text
    with pq.connect(tmp_path / "queue.db") as queue:
        paths = {job.parameters["path"] for job in queue.list()}
    assert len(paths) == 3
    assert all((tmp_path / path).is_file() for path in paths)
    assert "jobs=3" in str(outputs_of(tmp_path)[-1])


def test_the_executed_notebook_does_not_grow_with_the_jobs(tmp_path):
    with papermill(tmp_path, db="queue.db", count=600, interval=0.002) as child:
        text, _ = child.communicate(timeout=LIMIT_SECONDS)
    assert child.returncode == 0, text
    outputs = outputs_of(tmp_path)
    assert [output["output_type"] for output in outputs] == ["display_data", "execute_result"]
    assert len(json.dumps(outputs)) < 2000


def test_a_stop_request_ends_it_through_papermill(tmp_path):
    with (
        pq.connect(tmp_path / "queue.db") as queue,
        papermill(tmp_path, db="queue.db", interval=1000, name="texts") as child,
    ):
        end = time.monotonic() + LIMIT_SECONDS
        while queue.counts()["pending"] == 0:
            assert time.monotonic() < end
            assert child.poll() is None
            time.sleep(0.02)
        assert queue.stop_consumer("texts") == 1
        text, _ = child.communicate(timeout=LIMIT_SECONDS)
        assert child.returncode == 0, text
        assert queue.consumers() == []
    assert "asked to stop" in str(outputs_of(tmp_path)[-1])


def test_it_is_thin_and_has_no_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["metadata"].get("tags") for cell in code] == [["parameters"], None, None]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert "def " not in "".join("".join(cell["source"]) for cell in code)
