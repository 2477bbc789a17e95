"""Sweeps: spaces, one transaction, the same again adds only what is missing, and the table of results."""

import math

import numpy as np
import pandas as pd
import pytest

import pq
from notebooks import consume, write_notebook
from pq import Status
from pq.notebook.sweeps import parameter_sets
from pq.records import GroupLimit

CELL = "lr = 0.1\nseed = 0\nname = 'a'"


@pytest.fixture
def store(tmp_path):
    with pq.connect(tmp_path / "queue.db") as queue:
        yield queue


@pytest.fixture
def train(tmp_path):
    return write_notebook(
        tmp_path / "train.ipynb",
        "import pq\nassert seed != 13, 'unlucky'",
        "pq.record(accuracy=1 - lr * seed, seed=seed, note=name)",
        parameters=CELL,
    )


@pytest.mark.parametrize(
    ("space", "sets"),
    [
        ({"lr": [0.1, 0.2], "seed": range(2)}, [(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)]),
        ({"lr": np.array([0.1]), "seed": 3}, [(0.1, 3)]),
        ([{"lr": 0.1, "seed": 1}, {"lr": np.float64(0.2), "seed": np.int64(2)}], [(0.1, 1), (0.2, 2)]),
        (pd.DataFrame({"lr": [0.1, 0.2], "seed": [1, 2]}), [(0.1, 1), (0.2, 2)]),
    ],
)
def test_a_space_is_a_grid_a_list_or_a_frame(space, sets):
    found = parameter_sets(space)
    assert [tuple(one.values()) for one in found] == sets
    assert {type(value) for one in found for value in one.values()} <= {int, float}


@pytest.mark.parametrize("space", [{}, [], {"lr": []}, "lr", 3, [3], {"a": range(1000), "b": range(1000)}])
def test_what_is_no_space_is_refused(store, train, space):
    if space == {}:
        assert parameter_sets(space) == [{}]  # no axis: the notebook once, with its defaults
        return
    with pytest.raises(pq.InvalidJobError):
        pq.sweep(store, train, space)
    assert store.list() == []


def test_one_wrong_set_stores_none(store, train):
    with pytest.raises(pq.InvalidJobError, match=r"lr of train\.ipynb must be float"):
        pq.sweep(store, train, {"lr": [0.1, "fast"]})
    with pytest.raises(pq.InvalidJobError, match="has no parameter rl"):
        pq.sweep(store, train, {"rl": [0.1]})
    with pytest.raises(pq.InvalidJobError, match="must be JSON"):
        pq.sweep(store, train, [{"lr": 0.1}, {"lr": math.nan}])
    assert store.list() == []


def test_the_same_sweep_again_adds_only_what_is_missing(store, train):
    first = pq.sweep(store, train, {"lr": [0.1], "seed": [0, 1]}, name="study")
    assert first.added == 2
    assert pq.sweep(store, train, {"seed": [1, 0], "lr": [0.1]}, name="study").added == 0
    consume(store)
    assert pq.sweep(store, train, {"lr": [0.1], "seed": [0, 1]}, name="study").added == 0
    wider = pq.sweep(store, train, {"lr": [0.1], "seed": [0, 1, 2]}, name="study")
    assert wider.added == 1
    assert [job.parameters["parameters"]["seed"] for job in wider.jobs()] == [0, 1, 2]
    other = pq.sweep(store, train, {"lr": [0.1], "seed": [0, 1]}, name="another")
    assert other.added == 2


def test_a_sweep_without_a_name_is_known_by_its_notebook_and_space(store, train):
    one = pq.sweep(store, train, {"seed": [0, 1]})
    assert one.name.startswith("train-")
    assert pq.sweep(store, train, {"seed": [0, 1]}).name == one.name
    assert pq.sweep(store, train, {"seed": [0, 2]}).name != one.name
    assert pq.sweep(store, train, {"seed": [0, 0]}).added == 1


def test_a_sweep_within_a_transaction_is_undone_with_it(store, train):
    with pytest.raises(pq.InvalidJobError), store.transaction():  # noqa: PT012  # both are one
        pq.sweep(store, train, {"seed": [0, 1]})
        store.enqueue("")
    assert store.list() == []


def test_a_thousand_jobs_are_one_call(store, train):
    sweep = pq.sweep(store, train, {"seed": range(1_000)}, base={"lr": 0.5}, priority=3)
    assert sweep.added == 1_000
    assert sweep.counts()["pending"] == 1_000
    assert {job.priority for job in sweep.jobs()} == {3}
    assert sweep.cancel(reason="enough") == 1_000
    assert sweep.counts()["cancelled"] == 1_000


def test_results_come_as_one_frame(store, train, capsys):
    sweep = pq.sweep(store, train, {"lr": [0.1, 0.01], "seed": [2, 13]}, max_attempts=1)
    consume(store)
    frame = sweep.watch(timeout=10).frame()
    assert list(frame.columns) == [
        *("lr", "seed", "accuracy", "record.seed", "note"),
        *("status", "attempt", "seconds", "run", "error"),
    ]
    assert list(frame.status) == ["completed", "failed", "completed", "failed"]
    assert frame.lr.dtype == "float64"
    assert frame.seed.dtype == "int64"
    assert frame.attempt.dtype == "int64"
    assert frame.seconds.dtype == "float64"
    assert frame.accuracy[frame.status == "completed"].tolist() == [0.8, 0.98]
    assert frame.accuracy.isna().tolist() == [False, True, False, True]
    assert frame.run.iloc[0] == f"runs/{frame.index[0]}/1.ipynb"
    assert "unlucky" in frame.error.iloc[1]
    assert sweep.best("accuracy").id == frame.index[2]
    assert sweep.best("accuracy", lowest=True).id == frame.index[0]
    with pytest.raises(pq.InvalidJobError, match="has recorded a number 'loss'"):
        sweep.best("loss")
    assert [job.id for job in sweep.failed()] == [frame.index[1], frame.index[3]]


def test_failed_ones_are_resubmitted(store, train, tmp_path):
    sweep = pq.sweep(store, train, {"seed": [1, 13]}, max_attempts=1)
    consume(store)
    assert sweep.counts()["failed"] == 1
    write_notebook(tmp_path / "train.ipynb", "import pq\npq.record(accuracy=1)", parameters=CELL)
    assert sweep.resubmit_failed() == 1
    consume(store)
    assert pq.Sweep(store, sweep.name).counts()["completed"] == 2


def test_a_sweep_shows_itself_without_markup_of_others(store, train):
    sweep = pq.sweep(store, train, {"seed": [1]}, name="<script>")
    assert "<script>" not in sweep._repr_html_()
    assert "0 of 1" in sweep._repr_html_()


def test_of_a_limited_sweep_only_so_many_go_on_at_a_time(store, train):
    sweep = pq.sweep(store, train, {"seed": range(5)}, name="study", max_running=2)
    assert sweep.counts() == dict.fromkeys(Status, 0) | {"pending": 2, "blocked": 3}
    pq.sweep(store, train, {"seed": range(5)}, name="study")
    assert store.group_limits() == [GroupLimit("study", 2, 2, 3)]
    assert len(store.actions()) == 1
    pq.sweep(store, train, {"seed": range(6)}, name="study", max_running=3)
    assert sweep.counts() == dict.fromkeys(Status, 0) | {"pending": 3, "blocked": 3}
    assert "<th>limit</th><td>3 at a time</td>" in sweep._repr_html_()
    consume(store)
    assert sweep.counts()["completed"] == 6


@pytest.mark.parametrize("most", [0, -1, 2.5, "4", True])
def test_a_sweep_with_a_limit_that_is_none_stores_nothing(store, train, most):
    with pytest.raises(pq.InvalidJobError, match="max_running"):
        pq.sweep(store, train, {"seed": [1]}, max_running=most)
    assert (store.list(), store.group_limits()) == ([], [])


def test_an_empty_sweep_has_a_frame(store):
    frame = pq.Sweep(store, "nothing").frame()
    assert frame.empty
    assert list(frame.columns) == ["status", "attempt", "seconds", "run", "error"]
