"""What may be enqueued: the parameters cell, the allowed folders, names and values."""

import json
import math
import os

import pytest

import pq
from notebooks import write_notebook
from pq.notebook.inspecting import inspect_notebook

CELL = """\
year: int = 2026
rate: float = 0.5
name = "report"
tags = ["a"]
limits: dict[str, int] = {}
mode: Literal["fast", "exact"] = "fast"
last: int | None = None
anything = 2 * 3
nothing = None
flag = False
low = -1
hinted = 1  # type: float  the share
"""


@pytest.fixture
def store(tmp_path):
    with pq.connect(tmp_path / "queue.db") as queue:
        yield queue


@pytest.fixture
def notebook(tmp_path):
    return write_notebook(tmp_path / "report.ipynb", "print(year)", parameters=CELL)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"year": 1999, "rate": 1, "name": "x", "tags": [], "limits": {"a": 1}, "mode": "exact"},
        {"last": None, "anything": "text", "nothing": [1], "flag": True, "low": 3, "hinted": 0.25},
        {"last": 3},
        {"name": "secret:TOKEN", "year": "secret:YEAR"},
    ],
)
def test_parameters_that_fit_are_stored(store, notebook, values):
    job = store.enqueue_notebook(notebook, values)
    assert job.task == "notebook"
    assert job.parameters["notebook"] == "report.ipynb"
    assert job.parameters["parameters"] == values
    assert job.parameters["sha256"] == inspect_notebook(notebook).sha256


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"yaer": 1}, "has no parameter yaer; it takes year, rate"),
        ({"year": "2026"}, "year of report.ipynb must be int, not '2026'"),
        ({"year": True}, "must be int"),
        ({"year": 1.5}, "must be int"),
        ({"rate": "1"}, "must be float"),
        ({"name": 3}, "must be str"),
        ({"name": None}, "must be str"),
        ({"tags": "a"}, "must be list"),
        ({"limits": {"a": "b"}}, r"must be dict\[str, int\]"),
        ({"mode": "slow"}, r"must be Literal\['fast', 'exact'\]"),
        ({"last": "x"}, r"must be int \| None"),
        ({"flag": 1}, "must be bool"),
        ({"low": 0.5}, "must be int"),
        ({"hinted": "x"}, "must be float"),
    ],
)
def test_a_parameter_that_does_not_fit_is_refused_and_nothing_is_stored(store, notebook, values, told):
    with pytest.raises(pq.InvalidJobError, match=told):
        store.enqueue_notebook(notebook, values)
    assert store.list() == []


HOSTILE = [
    "x = 1; import os; y",
    "x\nimport os",
    "x#",
    "a b",
    "",
    "class",
    "None",
    "ﬁn",  # a ligature, which Python would read as "fin"
    "x.y",
    "x[0]",
    "1x",
    "x\0",
    "'",
    "{x}",
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("language", ["python", "julia"])
def test_a_name_that_is_no_identifier_is_refused(store, tmp_path, name, language):
    path = write_notebook(tmp_path / "a.ipynb", "1", parameters="x = 1")
    document = json.loads(path.read_text())
    document["metadata"]["kernelspec"]["language"] = language
    path.write_text(json.dumps(document))
    with pytest.raises(pq.InvalidJobError, match="must be an identifier"):
        store.enqueue_notebook(path, {name: 1})
    assert store.list() == []


@pytest.mark.parametrize(
    "value",
    [(1, 2), {1: "a"}, {1, 2}, b"x", math.nan, math.inf, 1j, object(), [(1,)], {"a": {2: 3}}, range(3)],
)
def test_a_value_that_json_would_change_is_refused(store, notebook, value):
    with pytest.raises(pq.InvalidJobError, match="must be JSON"):
        store.enqueue_notebook(notebook, {"nothing": value})
    assert store.list() == []


@pytest.mark.parametrize("value", ["secret:", "secret:a b", "secret:X\n", "secret:$(id)", "secret:../x"])
def test_a_secret_that_names_no_variable_is_refused(store, notebook, value):
    with pytest.raises(pq.InvalidJobError, match="a secret is named"):
        store.enqueue_notebook(notebook, {"name": value})


@pytest.mark.parametrize("value", ["$(run(`id`))", "#{1}", ["`id`"], {"a$b": 1}])
def test_texts_that_another_language_would_run_are_refused(store, tmp_path, value):
    path = write_notebook(tmp_path / "a.ipynb", "1", parameters="x = 1")
    document = json.loads(path.read_text())
    document["metadata"]["kernelspec"] = {"name": "julia", "language": "julia"}
    path.write_text(json.dumps(document))
    with pytest.raises(pq.InvalidJobError, match="julia would run or change"):
        store.enqueue_notebook(path, {"x": value})
    assert store.enqueue_notebook(path, {"x": "plain", "not_in_the_cell": 1}).status == "pending"


def test_a_required_parameter_must_be_given(store, tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", "x", parameters="x: int\ny = 1")
    with pytest.raises(pq.InvalidJobError, match="needs x"):
        store.enqueue_notebook(path, {"y": 2})
    assert store.enqueue_notebook(path, {"x": 2}).id


def test_a_notebook_without_a_parameters_cell_takes_none(store, tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", "1", parameters=None)
    with pytest.raises(pq.InvalidJobError, match="give the cell that sets them the tag `parameters`"):
        store.enqueue_notebook(path, {"x": 2})
    assert store.enqueue_notebook(path).id


def test_magics_in_the_parameters_cell_do_no_harm(store, tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", "1", parameters="%matplotlib inline\n!true\nx = 1")
    assert store.enqueue_notebook(path, {"x": 2}).id


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "there is no notebook"),
        ("print(1)", "it is no notebook"),
        ("[]", "it is no notebook"),
        ('{"a": 1}', "it is no notebook"),
        ('{"nbformat": 3, "worksheets": []}', "save it"),
        ('{"nbformat": 4, "cells": 3}', "save it"),
        ('{"nbformat": 4, "cells": [3]}', "save it"),
        ("[" * 100_000, "it is no notebook"),
    ],
)
def test_what_is_no_notebook_is_refused(store, tmp_path, content, told):
    path = tmp_path / "a.ipynb"
    if content is not None:
        path.write_text(content)
    with pytest.raises(pq.NotebookError, match=told):
        store.enqueue_notebook(path)
    assert store.list() == []


@pytest.mark.parametrize("path", ["s3://bucket/a.ipynb", "http://localhost/a.ipynb", "-", "", "a\0.ipynb"])
def test_addresses_are_no_paths(store, path):
    with pytest.raises(pq.NotebookError, match="give the path"):
        store.enqueue_notebook(path)


def test_a_notebook_outside_the_root_is_refused_by_any_way_in(store, tmp_path, monkeypatch):
    outside = write_notebook(tmp_path / "outside" / "a.ipynb", "1")
    root = tmp_path / "root"
    inside = write_notebook(root / "b.ipynb", "1")
    link = root / "link.ipynb"
    link.symlink_to(outside)
    monkeypatch.setenv("PQ_NOTEBOOK_ROOT", str(root))
    for path in (outside, root / ".." / "outside" / "a.ipynb", link):
        with pytest.raises(pq.NotebookError, match="it lies outside"):
            store.enqueue_notebook(path)
    assert store.list() == []
    assert store.enqueue_notebook(inside).id
    monkeypatch.setenv("PQ_NOTEBOOK_ROOT", os.pathsep.join([str(root), str(tmp_path / "outside")]))
    assert store.enqueue_notebook(link).id


def test_without_a_root_the_database_folder_and_the_current_one_are_allowed(tmp_path, monkeypatch):
    here, there, other = tmp_path / "here", tmp_path / "there", tmp_path / "other"
    for folder in (here, there, other):
        write_notebook(folder / f"{folder.name}.ipynb", "1")
    monkeypatch.chdir(here)
    with pq.connect(there / "queue.db") as queue:
        assert queue.enqueue_notebook("here.ipynb").parameters["notebook"] == str(here / "here.ipynb")
        assert queue.enqueue_notebook("there.ipynb").parameters["notebook"] == "there.ipynb"
        with pytest.raises(pq.NotebookError, match="set PQ_NOTEBOOK_ROOT to allow its folder"):
            queue.enqueue_notebook(other / "other.ipynb")


def test_run_options_are_checked(store, notebook):
    job = store.enqueue_notebook(notebook, memory="1.5G", cell_timeout=3, kernel="python3", cold=True)
    assert {"memory": 1_610_612_736, "cell_timeout": 3.0, "kernel": "python3", "cold": True}.items() <= (
        job.parameters.items()
    )
    for options in ({"memory": "much"}, {"memory": 1}, {"cell_timeout": 0}, {"kernel": ""}):
        with pytest.raises(pq.InvalidJobError):
            store.enqueue_notebook(notebook, **options)
