"""The two example notebooks run as jobs, and what they record is true."""

import json
import shutil
from pathlib import Path

import pytest

import pq
from notebooks import consume, statuses

JOBS = Path(__file__).parents[1] / "notebooks" / "jobs"


@pytest.fixture
def store(tmp_path):
    pytest.importorskip("matplotlib")
    for path in JOBS.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path / path.name)
    with pq.connect(tmp_path / "queue.db") as queue:
        yield queue


def pictures(notebook):
    return [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]


def test_the_report_counts_what_the_queue_did(store):
    for number in range(5):
        store.enqueue("stamp", {"path": f"inbox/{number}.txt"}, max_attempts=1)
    consume(store)
    job = store.enqueue_notebook(store.folder / "report.ipynb", {"hours": 1.0, "rows": 3}, max_attempts=1)
    consume(store)
    found = store.get(job)
    assert found.error is None
    records = found.result["records"]
    assert (records["tries"], records["failed"]) == (5, 5)
    assert records["ran_median"] >= 0
    notebook = pq.open_run(job, store)
    assert set(statuses(notebook)) == {"completed"}
    assert len(pictures(notebook)) == 2


def test_the_report_of_an_empty_queue_is_empty(store):
    job = store.enqueue_notebook(store.folder / "report.ipynb", max_attempts=1)
    consume(store)
    found = store.get(job)
    assert found.error is None
    assert found.result["records"] == {"tries": 0, "failed": 0, "waited_median": None, "ran_median": None}


def test_the_study_is_worth_a_sweep(store):
    pytest.importorskip("sklearn")
    space = {"trees": [5], "depth": [1, 8], "folds": [2]}
    sweep = pq.sweep(store, store.folder / "study.ipynb", space, max_attempts=1)
    consume(store)
    frame = sweep.frame()
    assert frame.error.isna().all()
    assert 0.1 < frame.accuracy.min() < frame.accuracy.max() < 1
    assert sweep.best("accuracy").parameters["parameters"]["depth"] == 8
    assert len(pictures(pq.open_run(sweep.best("accuracy"), store))) == 1


def test_the_sweep_file_fits_the_study(store):
    from pq.cli.parameter_file import read_yaml

    asked = read_yaml(store.folder / "study.yaml")
    sweep = pq.sweep(
        store, store.folder / asked["notebook"], asked["space"], name=asked["name"], **asked["options"]
    )
    assert sweep.added == 16


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.ipynb")), ids=lambda path: path.name)
def test_an_example_is_thin_and_has_no_outputs(path):
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert notebook["cells"][0]["cell_type"] == "markdown"
    assert "parameters" in code[0]["metadata"]["tags"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert "def " not in "\n".join("".join(cell["source"]) for cell in code)
