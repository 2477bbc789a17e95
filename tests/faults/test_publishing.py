"""An executed notebook is published whole and only for an accepted end; checks that notice when it is not."""

import json
import subprocess
import sys

import pytest

import pq
from notebooks import consume, write_notebook
from pq.notebook import runs
from pq.records import Outcome

CONSUMER = """
import os, signal, sys
import pq
from pq.notebook.places import FolderPlace
from pq.private import make_folder
way, path = sys.argv[1:]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def write_in_place(place, source, target):
    content = place.path(source).read_bytes()
    make_folder(place.path(target).parent)
    with open(place.path(target), "wb") as file:
        file.write(content[: len(content) // 2])
        file.flush()
        die()

plain = FolderPlace.rename
ways = {
    "before": lambda *_: die(),
    "after": lambda *names: (plain(*names), die()),
    "planted: written in place": write_in_place,
}
FolderPlace.rename = ways[way]
pq.consume(path, name="doomed", display=False)
"""


@pytest.fixture
def store(tmp_path):
    with pq.connect(tmp_path / "queue.db") as queue:
        yield queue


def torn(store):
    """The published runs that are not whole."""
    found = []
    for path in (store.folder / "runs").glob("[0-9]*/*.ipynb"):
        try:
            json.loads(path.read_text())
        except ValueError:
            found.append(path.name)
    return found


@pytest.mark.parametrize(
    "way", ["before", pytest.param("after", marks=pytest.mark.deep), "planted: written in place"]
)
def test_a_kill_in_the_middle_of_publishing_leaves_no_half_of_a_run(store, way):
    job = store.enqueue_notebook(write_notebook(store.folder / "a.ipynb", "print(1)"))
    command = [sys.executable, "-c", CONSUMER, way, str(store.path)]
    assert subprocess.run(command, timeout=120, check=False).returncode == -9
    assert store.get(job).status == "completed"
    assert torn(store) == (["1.ipynb"] if way.startswith("planted") else [])
    consume(store)
    assert torn(store) == []
    assert pq.open_run(job, store).metadata.pq.outcome == "completed"


@pytest.mark.parametrize("way", ["as it is", "planted: whatever the queue said"])
def test_the_run_of_an_attempt_whose_end_was_refused_is_not_published(store, monkeypatch, way):
    if way.startswith("planted"):
        plain = runs._after_settling
        monkeypatch.setattr(
            runs, "_after_settling", lambda queue, outcome, *, accepted: plain(queue, outcome, accepted=True)
        )
    job = store.enqueue_notebook(write_notebook(store.folder / "a.ipynb", "print(1)"))
    stale = store.dequeue("consumer-1")
    store.assign(job, None)
    draft = runs.Draft.of(store.folder, stale)
    ended = draft.place.path(draft.name(runs.COMPLETED))
    ended.parent.mkdir(parents=True)
    ended.write_text(json.dumps({"metadata": {}, "cells": []}))
    assert store.settle([Outcome(stale)]).lost
    runs.after_settling(store, Outcome(stale), accepted=False)
    published = [path.name for path in (store.folder / "runs").glob("[0-9]*/*.ipynb")]
    assert published == (["1.ipynb"] if way.startswith("planted") else [])
