"""A disk that is really full: accepted jobs finish, nothing that was answered is lost, space mends it."""

import os
import subprocess
import sys

import pytest

import pq
from pq import NewJob
from pq.sqlite import PersistentQSQLite

MEGABYTE = 2**20


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root may mount a file system that can be filled")
    folder = tmp_path / "small disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder]
    mount = subprocess.run(command, capture_output=True, text=True, check=False)
    if mount.returncode:
        pytest.skip(f"only root may mount, and here not even root: {mount.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(folder, leaving):
    """Let so many bytes stay free."""
    found = os.statvfs(folder)
    with (folder / "ballast").open("ab") as ballast:
        ballast.write(b"x" * max(found.f_bavail * found.f_frsize - leaving, 0))


def enqueue_until_refused(queue, match):
    """The ids of the accepted jobs, each with 20 kB of parameters."""
    accepted = []
    with pytest.raises(pq.StorageError, match=match):  # noqa: PT012  # at some time
        for number in range(10_000):
            new = [NewJob("stamp", {"number": number, "text": "x" * 20_000}) for _ in range(1 + number % 3)]
            accepted += [job.id for job in queue.enqueue_many(new)]
    return accepted


def complete_all(queue):
    completed = []
    while jobs := queue.dequeue_many("c", 3):
        for job in jobs:
            queue.heartbeat(job, progress=0.5, message="half of it")
            queue.complete(job, {"of": job.id})
            completed.append(job.id)
    return completed


def integrity(queue):
    return queue.health(full=True)["quick_check"]


def test_above_the_reserve_every_accepted_job_completes(small_disk):
    with PersistentQSQLite(small_disk / "queue.db", reserve_bytes=2 * MEGABYTE) as queue:
        accepted = enqueue_until_refused(queue, "kept for accepted jobs to finish")
        assert len(accepted) > 20
        fill(small_disk, 2 * MEGABYTE)
        assert sorted(complete_all(queue)) == accepted
        assert integrity(queue) == ["ok"]


def test_on_a_disk_full_to_the_last_byte_calls_fail_and_nothing_that_was_answered_is_lost(small_disk):
    path = small_disk / "queue.db"
    with PersistentQSQLite(path, reserve_bytes=0) as queue:
        queue.enqueue("stamp", queue="first")
        running = queue.dequeue("c", queues=["first"])
        fill(small_disk, MEGABYTE)
        accepted = enqueue_until_refused(queue, "the disk is full; accepted jobs are safe")
        fill(small_disk, 0)
        for act in (lambda: queue.enqueue("stamp"), lambda: queue.heartbeat(running)):
            with pytest.raises(pq.StorageError, match="the disk is full"):  # noqa: PT012
                for _ in range(1_000):  # the log may have room that it was given before
                    act()
        assert queue.get(accepted[-1]).status == "pending"
        (small_disk / "ballast").unlink()
        queue.complete(running)
        ids = {job.id for job in queue.list(limit=10_000)}
        assert ids >= set(accepted)
        assert set(complete_all(queue)) >= set(accepted)
        assert integrity(queue) == ["ok"]
    with pq.connect(path) as again:
        assert again.counts()["pending"] == again.counts()["processing"] == 0


CONSUME = """
import sys, pq
queue = pq.connect(sys.argv[1])

@pq.task("work")
def work(wait):
    if wait:
        print("working", flush=True)
        sys.stdin.readline()
    return "x" * 5_000

pq.consume(queue, until_empty=True, display=False)
"""


def test_a_consumer_waits_for_space_and_then_ends_what_it_had(small_disk):
    path = small_disk / "queue.db"
    with PersistentQSQLite(path, reserve_bytes=0) as queue:
        new = [NewJob("work", {"wait": number == 0}) for number in range(60)]
        accepted = {job.id for job in queue.enqueue_many(new)}
        with subprocess.Popen(
            [sys.executable, "-c", CONSUME, str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as consumer:  # fmt: skip
            assert consumer.stdout.readline() == "working\n"
            fill(small_disk, 0)
            consumer.stdin.write("go on\n")
            consumer.stdin.flush()
            waited = any("the disk is full" in line for line in consumer.stderr)
            (small_disk / "ballast").unlink()
            _, rest = consumer.communicate(timeout=120)
        assert waited
        assert consumer.returncode == 0, rest
        jobs = queue.list(status="completed", limit=1000)
        assert ({job.id for job in jobs}, {job.attempt for job in jobs}) == (accepted, {1})
        assert integrity(queue) == ["ok"]
