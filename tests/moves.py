"""For the tests of moves: a queue with everything in it, its content, and a move in a process of its own."""

import subprocess
import sys
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

import pq
from pq import NewJob
from pq.factory import open_for_move
from pq.transfer import TABLES

LONG = "x" * 5_000

MOVE = """
import os, signal, sys
from pq.factory import open_for_move
from pq.moving import move

source, target, stage, times = sys.argv[1:]
left = int(times)

def told(what, done, total):
    global left
    print(what, flush=True)
    left -= what == stage
    if what == stage and left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

with open_for_move(source) as one, open_for_move(target) as two:
    print(move(one, two, told).jobs)
"""


def no_word(what, done, total):
    pass


def fill(place, many=50):
    """Jobs of every status with all that can hang on one; the last id was deleted, and must not come back."""
    with pq.connect(place) as queue:
        queue.enqueue("a", {"text": LONG, "number": 0.1}, tags=("x", "é"), group="g", timeout=2.5)
        queue.complete(queue.dequeue("c"), {"long": LONG})
        queue.enqueue("b", {"nul": "\0", "lone": "\ud800"}, max_attempts=1)
        queue.fail(queue.dequeue("c"), ValueError("boom"), retry=False)
        queue.enqueue("retried", max_attempts=3)
        queue.fail(queue.dequeue("c"), "again", delay=timedelta(hours=1))
        queue.cancel(queue.enqueue("c", unique_key="k"), reason="why", by="ann")
        queue.resubmit(queue.enqueue("c", unique_key="other").id - 3, reason="again")
        queue.enqueue("later", delay=3600, queue="other", priority=7)
        queue.assign(queue.enqueue("mine"), "consumer-7")
        queue.enqueue_many([NewJob("many", {"number": number}) for number in range(many)])
        queue.limit_group("narrow", 1)
        queue.enqueue_many([NewJob("narrow", group="narrow") for _ in range(3)])
        queue.pause("other", "closed")
        queue.set_setting("interval", "2.5")
        last = queue.enqueue("last")
        queue.delete(last)
        return last.id


def content(place):
    """All that moves, as the rows say it."""
    with open_for_move(place) as end:
        if "://" in place:
            with end.queue.transaction() as connection:
                connection.exec_driver_sql("select pq.fold(0)")
        found = {}
        for table in TABLES:
            after, rows = None, []
            while chunk := end.dump(table, after, 7):
                rows += chunk
                after = table.key(chunk[-1])
            found[table.name] = rows
    return found


def without_the_move(rows):
    """The move itself pauses queues, and says so in the actions."""
    return {name: [row for row in found if "moving to" not in str(row)] for name, found in rows.items()}


def run_move(old, new, stage, times=1):
    return subprocess.run(
        [sys.executable, "-c", MOVE, old, new, stage, str(times)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def places_of(request, kinds):
    """The addresses of an old and a new place, as messages name them; at most one is on a server."""
    folder = request.getfixturevalue("tmp_path")
    monkeypatch = request.getfixturevalue("monkeypatch")
    monkeypatch.setenv("PQ_FOLDER", str(folder))
    names = {"sqlite": (folder / "old.db", folder / "new.db")}
    if "postgresql" in kinds:
        address = urlsplit(request.getfixturevalue("postgresql_url"))
        if address.password:
            monkeypatch.setenv("PGPASSWORD", address.password)
        with pq.connect(address.geturl()) as queue:
            names["postgresql"] = (queue.url, queue.url)
    return tuple(str(names[kind][place]) for place, kind in enumerate(kinds))


def pairs(*kinds):
    """A test's `places`: each pair as `sqlite-postgresql`."""
    return pytest.mark.parametrize("places", kinds, indirect=True)
