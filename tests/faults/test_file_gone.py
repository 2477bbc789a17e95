"""The database file is deleted, moved or replaced under those who have it open: they say so and stop."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import wait_for

import pq

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps open files")


def delete(path):
    for side in ("", "-wal", "-shm"):
        path.with_name(path.name + side).unlink()


def replace(path):
    """What somebody does who puts a backup in its place."""
    with pq.connect(path.with_name("other.db")) as other:
        other.enqueue("stamp", {"of": "another file"})
    path.with_name("other.db").rename(path)


def move(path):
    path.rename(path.with_name("moved.db"))


EVENTS = [delete, replace, move]


@pytest.mark.parametrize("event", EVENTS)
def test_every_call_says_that_the_file_is_gone(tmp_path, event):
    path = tmp_path / "queue.db"
    with pq.connect(path) as queue:
        queue.enqueue("stamp")
        queue.register_consumer("c")
        job = queue.dequeue("c")
        event(path)
        for act in (
            lambda: queue.enqueue("stamp"),
            lambda: queue.dequeue("c"),
            lambda: queue.heartbeat(job),
            lambda: queue.complete(job),
            queue.rescue,
            lambda: queue.get(job),
            queue.list,
            queue.counts,
            lambda: queue.wait(job, 1),
        ):
            with pytest.raises(pq.FileGoneError, match="was deleted, moved or replaced"):
                act()


ANOTHER = """
import sys, pq
with pq.connect(sys.argv[1]) as queue:
    queue.enqueue("stamp")
    print("enqueued", flush=True)
    sys.stdin.readline()
    queue.enqueue("stamp")
    for job in queue.dequeue_many("c", 5):
        queue.complete(job)
    print(queue.counts()["completed"], "completed")
"""


def test_closing_leaves_the_file_that_came_in_its_place_alone(tmp_path):
    path = tmp_path / "queue.db"
    queue = pq.connect(path)
    queue.enqueue("stamp")
    delete(path)
    with pytest.raises(pq.StorageError, match="close that queue first"):
        pq.connect(path)
    with subprocess.Popen(
        [sys.executable, "-c", ANOTHER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as another:
        assert another.stdout.readline() == "enqueued\n"
        queue.close()
        said, _ = another.communicate("go on\n", timeout=60)
    assert said == "2 completed\n"
    with pq.connect(path) as again:
        assert again.counts()["completed"] == 2


def test_a_file_that_is_put_back_is_used_again(tmp_path):
    path = tmp_path / "queue.db"
    with pq.connect(path) as queue:
        queue.enqueue("stamp")
        move(path)
        with pytest.raises(pq.FileGoneError):
            queue.counts()
        path.with_name("moved.db").rename(path)
        queue.complete(queue.dequeue("c"))
        assert queue.counts()["completed"] == 1


@pytest.mark.parametrize("event", [delete, replace])
def test_a_consumer_and_a_producer_end_with_one_clear_line(tmp_path, event):
    path = tmp_path / "queue.db"
    with pq.connect(path) as queue:
        processes = [
            subprocess.Popen(
                [Path(sys.executable).with_name("pq"), "--db", str(path), *words],
                stderr=subprocess.PIPE,
                text=True,
                cwd=tmp_path,
            )
            for words in (["consume", "--name", "c"], ["produce", "--name", "p", "--interval", "200ms"])
        ]
        try:
            wait_for(lambda: {one.name for one in queue.consumers()} >= {"c"}, what="the consumer")
            wait_for(lambda: queue.counts()["completed"] >= 1, what="work")
            event(path)
            said = [process.communicate(timeout=60)[1] for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
    for process, text in zip(processes, said, strict=True):
        last = text.splitlines()[-1]
        assert process.returncode == 1, text
        assert last.startswith("pq: the database")
        assert "was deleted, moved or replaced" in last
        assert "Traceback" not in text
    shutil.rmtree(tmp_path, ignore_errors=True)
