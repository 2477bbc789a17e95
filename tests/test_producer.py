"""The producer, with a real queue: random files, a watched folder, and every way it can end."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys

import pytest
from producing import LIMIT_SECONDS, paths, producing, until

import pq
from pq.producer import Summary, produce
from pq.sqlite import PersistentQSQLite


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Once a second is for people."""
    monkeypatch.setattr("pq.producer.BEAT_SECONDS", 0.05)


@pytest.fixture
def queue(tmp_path):
    with pq.connect(str(tmp_path / "queue.db")) as queue:
        yield queue


# -- random files ---------------------------------------------------------------------------------


def test_each_job_names_a_whole_file_of_its_own(queue):
    summary = produce(queue, count=5, interval=0.01, display=False)
    assert (summary.name, summary.jobs, summary.ended) == ("producer-1", 5, "count reached")
    jobs = queue.list()
    assert {(job.task, job.queue, job.tags) for job in jobs} == {("stamp", "default", ("producer-1",))}
    files = sorted(path.relative_to(queue.folder).as_posix() for path in (queue.folder / "inbox").iterdir())
    assert paths(queue) == files
    assert all((queue.folder / name).read_text().endswith("\n") for name in files)


def test_an_address_can_be_given_instead_of_a_queue(tmp_path, monkeypatch):
    assert produce(tmp_path / "queue.db", count=1, display=False).jobs == 1
    monkeypatch.setenv("PQ_URL", str(tmp_path / "queue.db"))
    assert produce(count=1, display=False).jobs == 1
    with pq.connect(tmp_path / "queue.db") as queue:
        assert queue.counts()["pending"] == 2


def test_a_queue_that_was_given_stays_open_and_the_producer_is_no_longer_listed(queue):
    produce(queue, name="p", count=1, display=False)
    assert queue.consumers() == []
    assert [one.name for one in queue.consumers(ended=True)] == ["p"]


def test_a_count_of_zero_makes_nothing(queue):
    assert produce(queue, count=0, display=False).jobs == 0
    assert queue.counts()["pending"] == 0


def test_the_jobs_go_into_the_named_queue(queue):
    produce(queue, count=1, queue="texts", display=False)
    assert queue.list()[0].queue == "texts"


def test_the_file_is_durable_before_its_job(queue, monkeypatch):
    """The order of the calls that make them durable, as the operating system sees them."""
    events = []
    really_sync, really_enqueue = os.fsync, queue.enqueue_many
    monkeypatch.setattr("pq.producer.os.fsync", lambda number: events.append("fsync") or really_sync(number))
    monkeypatch.setattr(queue, "enqueue_many", lambda jobs: events.append("enqueue") or really_enqueue(jobs))
    produce(queue, count=1, display=False)
    # the folder of inbox/, the file, inbox/ with the new name; only then the job
    assert events == ["fsync", "fsync", "fsync", "enqueue"]


@pytest.mark.parametrize(
    "options",
    [
        {"interval": 0},
        {"interval": -1},
        {"interval": float("nan")},
        {"interval": float("inf")},
        {"interval": "5"},
        {"interval": True},
        {"count": -1},
        {"count": 1.5},
        {"count": "3"},
        {"count": True},
        {"name": ""},
        {"name": "a\nb"},
        {"queue": ""},
        {"source": "no/such/folder"},
    ],
)
def test_wrong_options_are_one_clear_error_and_leave_nothing_running(queue, options):
    with pytest.raises(pq.InvalidJobError):
        produce(queue, **({"count": 1, "display": False} | options))
    assert queue.consumers() == []
    assert queue.counts()["pending"] == 0
    assert not (queue.folder / "inbox").exists()


# -- how it ends, and how its interval changes ----------------------------------------------------


def test_it_ends_when_somebody_asks_it_to(queue):
    with producing(queue, interval=1000) as summaries:
        until(lambda: queue.counts()["pending"] == 1)
        assert queue.stop_consumer("producer-1") == 1
        until(lambda: summaries)
    assert (summaries[0].jobs, summaries[0].ended) == (1, "asked to stop")


def test_it_tells_what_it_does(queue):
    with producing(queue, interval=0.05):
        doing = until(lambda: next((one.doing for one in queue.consumers() if "jobs" in one.doing), None))
    assert doing.endswith("jobs, every 0.05 s")


def test_the_interval_can_be_changed_while_it_runs(queue):
    with producing(queue, interval=1000) as summaries:
        until(lambda: queue.counts()["pending"] == 1)
        queue.set_setting("interval", "0.01")
        until(lambda: queue.counts()["pending"] >= 10)
    assert summaries[0].jobs >= 10


def test_an_interval_of_an_earlier_run_does_not_count_until_it_is_set_again(queue):
    queue.set_setting("interval", "1000")
    assert produce(queue, interval=0.01, count=3, display=False).jobs == 3
    queue.set_setting("interval", "0.01")
    with producing(queue, interval=1000), producing(queue, interval=1000, name="producer-2"):
        until(lambda: queue.counts()["pending"] == 5)
        until(lambda: all(one.doing.endswith("every 1000 s") for one in queue.consumers()))
        queue.set_setting("interval", "0.01")
        until(lambda: queue.counts()["pending"] > 30)
        assert {job.tags for job in queue.list(limit=30)} == {("producer-1",), ("producer-2",)}


@pytest.mark.parametrize("text", ["soon", "", "-1", "0", "nan", "inf", "1e400"])
def test_a_wrong_interval_is_told_once_and_otherwise_ignored(queue, caplog, text):
    with producing(queue, interval=0.01):
        before = until(lambda: queue.counts()["pending"])
        queue.set_setting("interval", text)
        until(lambda: "is not a number of seconds" in caplog.text)
        until(lambda: queue.counts()["pending"] > before + 2)
    assert caplog.text.count("is not a number of seconds") == 1


SCRIPT = """
import json, sys, pq
options = json.loads(sys.argv[2])
print(pq.produce(sys.argv[1], **options))
"""


@contextlib.contextmanager
def process(queue, **options):
    command = [sys.executable, "-c", SCRIPT, str(queue.folder / "queue.db"), json.dumps(options)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


@pytest.mark.skipif(os.name == "nt", reason="signals differ there")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_gracefully_and_at_once(queue, number):
    with process(queue, interval=1000) as child:
        until(lambda: queue.counts()["pending"] == 1)
        child.send_signal(number)
        output, errors = child.communicate(timeout=LIMIT_SECONDS)
    assert (child.returncode, errors) == (0, "")
    assert "jobs=1, seconds=" in output
    assert f"ended='{number.name}'" in output
    assert queue.consumers() == []


def test_signal_handlers_are_restored(queue):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    produce(queue, count=1, display=False)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_killed_producer_leaves_only_whole_files_and_their_jobs(queue):
    with process(queue, interval=0.001) as child:
        until(lambda: queue.counts()["pending"] > 20)
        child.kill()
        child.wait()
    inbox = queue.folder / "inbox"
    for path in paths(queue):
        assert (queue.folder / path).read_text().endswith("\n")
    strays = [path for path in inbox.iterdir() if f"inbox/{path.name}" not in paths(queue)]
    assert len(strays) <= 1


# -- a full disk ----------------------------------------------------------------------------------


@pytest.fixture
def full(tmp_path):
    """A queue that believes the disk is full until `reserve_bytes` is set back."""
    with PersistentQSQLite(str(tmp_path / "queue.db")) as queue:
        queue.enough, queue.reserve_bytes = queue.reserve_bytes, 2**62
        yield queue


def test_a_full_disk_is_waited_out_with_one_file_at_most(full, caplog):
    caplog.set_level(logging.WARNING)
    with producing(full, interval=0.01) as summaries:
        until(lambda: "cannot enqueue" in caplog.text)
        until(lambda: any(one.doing == "cannot enqueue" for one in full.consumers()))
        assert len(list((full.folder / "inbox").iterdir())) == 1
        full.reserve_bytes = full.enough
        until(lambda: full.counts()["pending"] > 3)
    assert summaries[0].jobs == full.counts()["pending"] == len(list((full.folder / "inbox").iterdir()))


def test_a_summary_is_one_value(queue):
    summary = produce(queue, count=1, display=False)
    assert summary == Summary("producer-1", 1, summary.seconds, "count reached")
