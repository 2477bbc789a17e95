"""The form that the admin page makes from a notebook's parameters cell, and the job that comes of it."""

import pytest

import pq
from notebooks import write_notebook
from pq.widgets.actions import RefusedError
from pq.widgets.commands import Commands
from pq.widgets.hiding import HIDDEN, Hiding

CELL = """\
year: int  # which year
rate = 0.5  # type: float between 0 and 1
name: str = "ada"
names = ["a",
         "b"]  # who
password = "hunter2"
wild = None
"""


@pytest.fixture
def form(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pq.connect(tmp_path / "queue.db") as queue:
        yield Commands(queue, "ada", Hiding(), read_only=False)


def test_the_form_tells_names_types_defaults_and_what_they_mean(form, tmp_path):
    write_notebook(tmp_path / "report.ipynb", "year", parameters=CELL)
    answer = form.inspect({"path": "report.ipynb"})
    assert (answer["path"], answer["readable"]) == ("report.ipynb", True)
    told = {one.pop("name"): one for one in answer["fields"]}
    assert told["year"] == {"type": "int", "default": "", "help": "which year", "required": True}
    assert told["rate"] == {"type": "float", "default": "0.5", "help": "between 0 and 1", "required": False}
    assert told["names"]["default"] == "['a', 'b']"
    assert told["names"]["help"] == "who"
    assert told["password"]["default"] == HIDDEN
    assert (told["wild"]["type"], told["wild"]["default"]) == ("", "None")


def test_what_was_written_becomes_values_of_the_cells_types(form, tmp_path):
    write_notebook(tmp_path / "report.ipynb", "year", parameters=CELL)
    written = {"year": "2026", "name": "7", "names": '["c"]', "wild": "True", "rate": " ", "password": ""}
    message = {f"parameter:{name}": value for name, value in written.items()}
    job = form.run_notebook(message | {"path": "report.ipynb", "tags": "eu, night", "priority": "3"})
    assert job.parameters["parameters"] == {"year": 2026, "name": "7", "names": ["c"], "wild": True}
    assert (job.task, job.tags, job.priority) == ("notebook", ("eu", "night"), 3)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({}, "needs year"),
        ({"parameter:year": "soon"}, "year of report.ipynb must be int"),
        ({"parameter:year": "1", "parameter:other": "1"}, "has no parameter other"),
        ({"parameter:year": "1", "parameter:x; import os": "1"}, "must be an identifier"),
        ({"parameter:year": "1", "memory": "much"}, "memory"),
        ({"path": "../outside.ipynb"}, "outside"),
        ({"path": "link.ipynb"}, "outside"),
        ({"path": "missing.ipynb"}, "there is no notebook"),
        ({"path": "https://example.org/a.ipynb"}, "give the path of a notebook file"),
    ],
)
def test_what_cannot_run_is_refused_and_nothing_is_stored(tmp_path, monkeypatch, message, why):
    home = tmp_path / "home"
    write_notebook(home / "report.ipynb", "year", parameters=CELL)
    write_notebook(tmp_path / "outside.ipynb", "1")
    (home / "link.ipynb").symlink_to(tmp_path / "outside.ipynb")
    monkeypatch.chdir(home)
    with pq.connect(home / "queue.db") as queue:
        form = Commands(queue, "ada", Hiding(), read_only=False)
        with pytest.raises(pq.PQError, match=why):
            form.run_notebook({"path": "report.ipynb"} | message)
        assert queue.list() == []


def test_notebooks_of_the_allowed_folders_are_offered_and_runs_are_not(form, tmp_path, monkeypatch):
    for name in ("b.ipynb", "reports/a.ipynb", "runs/7/1.ipynb", ".hidden/c.ipynb"):
        write_notebook(tmp_path / name, "1")
    assert form.notebooks() == ["b.ipynb", "reports/a.ipynb"]
    monkeypatch.setenv("PQ_NOTEBOOK_ROOT", str(tmp_path / "reports"))
    assert form.notebooks() == ["reports/a.ipynb"]


def test_a_notebook_without_a_parameters_cell_takes_none(form, tmp_path):
    write_notebook(tmp_path / "plain.ipynb", "1", parameters=None)
    assert form.inspect({"path": "plain.ipynb"})["fields"] == []
    assert form.run_notebook({"path": "plain.ipynb"}).parameters["parameters"] == {}


def test_a_notebook_in_another_language_takes_json(form, tmp_path):
    path = write_notebook(tmp_path / "other.ipynb", "1", kernel="ir")
    path.write_text(path.read_text().replace('"language": "python"', '"language": "R"'))
    assert form.inspect({"path": "other.ipynb"})["readable"] is False
    job = form.run_notebook({"path": "other.ipynb", "parameters": '{"year": 2026}'})
    assert job.parameters["parameters"] == {"year": 2026}


def test_a_read_only_page_reads_no_notebook(tmp_path):
    write_notebook(tmp_path / "report.ipynb", "1")
    with pq.connect(tmp_path / "queue.db") as queue:
        form = Commands(queue, "ada", Hiding(), read_only=True)
        for ask in (form.notebooks, lambda: form.inspect({"path": "report.ipynb"}),
                    lambda: form.run_notebook({"path": "report.ipynb"})):  # fmt: skip
            with pytest.raises(RefusedError, match="read-only"):
                ask()
        assert queue.list() == []
