"""A queue, a job and a sweep at the end of a notebook cell: what they show, and what their buttons do."""

import pytest

import pq
from notebooks import consume, run, write_notebook
from pq.widgets import JobCard, SweepCard


@pytest.fixture
def store(tmp_path):
    with pq.connect(tmp_path / "queue.db") as queue:
        yield queue


@pytest.fixture
def train(store):
    cell = "if seed == 13: raise ValueError('unlucky')"
    return write_notebook(store.folder / "train.ipynb", cell, parameters="seed: int = 0")


def test_a_queue_shows_what_it_holds_and_who_works_on_it(store):
    store.enqueue("stamp", {"path": "a"}, queue="<b>")
    store.register_consumer("<i>worker", ["default"])
    store.pause("<b>", "later")
    shown = store._repr_html_()
    assert "<td>&lt;b&gt;</td><td>0</td><td>0</td><td>1</td>" in shown
    assert "<td>paused</td>" in shown
    assert "&lt;i&gt;worker" in shown
    assert "<b>" not in shown
    assert "<i>" not in shown


def test_a_job_links_to_its_run_and_to_nothing_else(store, train, monkeypatch):
    monkeypatch.chdir(store.folder)
    job = store.enqueue_notebook(train)
    assert "href" not in job._repr_html_()
    consume(store)
    assert f'<a href="runs/{job.id}/1.ipynb"' in store.get(job)._repr_html_()
    other = store.enqueue("mine")
    store.complete(store.dequeue("c"), result={"run": "javascript:alert(1)//runs/1/1.ipynb"})
    assert "href" not in store.get(other)._repr_html_()


def test_a_jobs_card_links_from_where_the_notebook_works(store, train, monkeypatch):
    job = store.enqueue_notebook(train)
    consume(store)
    (store.folder / "analysis").mkdir()
    monkeypatch.chdir(store.folder / "analysis")
    assert f'<a href="../runs/{job.id}/1.ipynb"' in JobCard(store, job)._text.value


def test_a_job_is_cancelled_by_the_second_click_and_resubmitted_by_one(store):
    job = store.enqueue("stamp", {"path": "a"})
    card = JobCard(store, job)
    assert (card.resubmit.disabled, card.cancel.disabled) == (True, False)
    card.cancel.click()
    assert (store.get(job).status, card.cancel.description) == ("pending", "Cancel: sure?")
    card.cancel.click()
    assert (store.get(job).status, card.cancel.description) == ("cancelled", "Cancel")
    assert card._answer.value == "it is cancelled"
    assert (card.resubmit.disabled, card.cancel.disabled) == (False, True)
    card.resubmit.click()
    assert store.get(job).status == "pending"


def test_what_a_card_cannot_do_is_said_and_not_raised(store):
    job = store.enqueue("stamp", {"path": "a"})
    card = JobCard(store, job)
    store.cancel(job)
    store.delete(job)
    card.resubmit.click()
    assert card._answer.value == f"there is no job {job.id}"


def test_a_read_only_card_has_no_live_buttons(store, monkeypatch):
    monkeypatch.setenv("PQ_READ_ONLY", "1")
    card = JobCard(store, store.enqueue("stamp", {"path": "a"}))
    assert (card.resubmit.disabled, card.cancel.disabled) == (True, True)
    card.cancel.click()
    card.cancel.click()
    assert store.counts()["pending"] == 1


def test_a_sweeps_card_shows_the_progress_and_resubmits_what_failed(store, train):
    sweep = pq.sweep(store, train, {"seed": [1, 2, 13]}, max_attempts=1)
    card = SweepCard(sweep)
    assert (card.progress.value, card.progress.max, card.resubmit.disabled) == (0, 3, True)
    consume(store)
    assert not card.look()
    assert (card.progress.value, card.progress.bar_style, card.resubmit.disabled) == (3, "danger", False)
    card.resubmit.click()
    assert (sweep.counts()["pending"], card._answer.value) == (1, "1 resubmitted")
    card.cancel.click()
    card.cancel.click()
    assert sweep.counts()["cancelled"] == 1


def test_in_a_notebook_a_sweep_is_a_widget_and_a_table_elsewhere(store, train):
    sweep = pq.sweep(store, train, {"seed": [1]}, name="study", max_attempts=1)
    assert set(sweep._repr_mimebundle_()) == {"text/plain", "text/html"}
    consume(store)
    job, notebook = run(store, "import pq; s = pq.Sweep(pq.connect(), 'study')", "s", "s.watch();")
    assert job.error is None
    shown, watched = (cell.outputs[0].data for cell in notebook.cells[2:])
    assert "1 of 1" in shown["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert "application/vnd.jupyter.widget-view+json" in watched
