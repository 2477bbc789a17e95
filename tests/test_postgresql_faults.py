"""A server that is killed, restarted, or hangs up, under consumers and pages that go on."""

import subprocess
import sys
import threading
import time
from multiprocessing import TimeoutError as NotYetError
from multiprocessing.pool import ThreadPool
from pathlib import Path

import psycopg
import pytest
from postgresql import empty
from processes import Consumers, wait_for
from test_crash import check_total_queue, every_job, outcomes

import pq
from pq import NewJob, settling
from pq.postgresql import work

RUN_ALL = Path(__file__).parents[1] / "run_all.py"


@pytest.fixture
def server(own_postgresql):
    return own_postgresql


class Producer:
    """Enqueues until told to stop; an unknown outcome is asked again with the same key."""

    def __init__(self, url, parameters):
        self.acknowledged: set[int] = set()
        self.troubles = 0
        self._url, self._parameters = url, parameters
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._produce)
        self._thread.start()

    def _produce(self):
        with pq.connect(self._url) as queue:
            number = 0
            while not self._stop.is_set():
                try:
                    job = queue.enqueue(
                        "mark", self._parameters, unique_key=f"key {number}", max_attempts=1000
                    )
                except pq.StorageError:
                    self.troubles += 1
                    self._stop.wait(0.05)
                    continue
                self.acknowledged.add(job.id)
                number += 1
                self._stop.wait(0.002)

    def stop(self):
        self._stop.set()
        self._thread.join()


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.deep)])
def test_nothing_is_lost_or_completed_twice_when_the_server_is_killed_under_load(server, tmp_path, kills):
    url = server.url()
    consumers = Consumers(url, tmp_path, prefetch=5, lease=3.0)
    with pq.connect(url) as page:
        producer = Producer(url, consumers.parameters(0.001))
        try:
            for name in ("consumer-1", "consumer-2"):
                consumers.start(name)
            wait_for(lambda: len(page.consumers()) == 2, what="both consumers")
            for _ in range(kills):
                done = page.counts()["completed"]
                wait_for(lambda before=done: page.counts()["completed"] > before + 20, what="work")
                server.kill()
                with pytest.raises(pq.StorageError, match="cannot use the database"):
                    page.counts()
                server.start()
                page.counts()  # the page goes on by itself
            producer.stop()
            assert producer.troubles > 0
            wait_for(
                lambda: page.counts()["completed"] == sum(page.counts().values()),
                limit=120,
                what="all jobs to complete",
            )
            assert [process.poll() for process in consumers.running] == [None, None]
        finally:
            producer.stop()
            consumers.stop()
        # A key whose job has completed meanwhile was free again: the answer to the first call was lost.
        stored = {job.id for job in every_job(page)}
        assert producer.acknowledged <= stored
        assert len(stored - producer.acknowledged) <= producer.troubles
        check_total_queue(page, consumers, stored)


def test_live_consumers_keep_their_jobs_when_the_server_hangs_up(shared_postgresql_url, tmp_path):
    consumers = Consumers(shared_postgresql_url, tmp_path)
    with pq.connect(shared_postgresql_url) as queue:
        job = queue.enqueue("mark", consumers.parameters(4))
        try:
            consumers.start("consumer-1")
            consumers.start("consumer-2")
            wait_for(lambda: queue.get(job).status == "processing", what="the job to begin")
            wait_for(lambda: len(queue.consumers()) == 2, what="both consumers")
            with psycopg.connect(shared_postgresql_url, autocommit=True) as killer:
                for _ in range(5):
                    killer.execute(
                        "select pg_terminate_backend(pid) from pg_stat_activity "
                        "where application_name like 'pq%' and datname = current_database()"
                    )
                    time.sleep(0.3)
            wait_for(lambda: _status(queue, job) == "completed", what="the job to complete")
            wait_for(lambda: all(one.alive for one in queue.consumers()), what="both to be present again")
        finally:
            consumers.stop()
        assert outcomes(queue, [job.id]) == {"completed"}
    empty(shared_postgresql_url)


def _status(queue, job):
    try:
        return queue.get(job).status
    except pq.StorageError:
        return "unknown"


def test_an_idle_connection_that_the_server_has_closed_is_not_used_again(server):
    with pq.connect(server.url()) as queue:
        queue.enqueue("stamp")
        server.kill()
        server.start()
        assert queue.enqueue("stamp").status == "pending"
        assert queue.counts()["pending"] == 2


def test_nobody_counts_as_dead_just_after_the_server_has_started(server, monkeypatch):
    monkeypatch.setattr(work, "ABSENT_SECONDS", 0.05)
    with pq.connect(server.url()) as queue:
        identity = queue.register_consumer("consumer-1")
        queue.enqueue_many([NewJob("stamp")])
        queue.dequeue("consumer-1")
        queue._listener.close()  # as when the way to the server is cut, and stays so
        wait_for(lambda: not queue.consumers()[0].alive, what="the lock to be free")
        assert queue.rescue() == []
        monkeypatch.setattr(work, "GRACE_SECONDS", 0.0)
        assert [job.error for job in queue.rescue()] == ["consumer died"]
        assert [one.id for one in queue.consumers(ended=True)] == [identity]


def test_consumers_wait_without_end_for_a_server_that_is_away_and_stop_when_told(server, monkeypatch):
    monkeypatch.setattr(settling, "PATIENCE_SECONDS", 0.2)  # of every other trouble
    monkeypatch.setattr(settling, "LAST_PATIENCE_SECONDS", 0.1)
    with pq.connect(server.url()) as queue, ThreadPool(1) as pool:
        working = pool.apply_async(pq.consume, (queue,), {"name": "c", "display": False})
        wait_for(queue.consumers, what="the consumer")
        server.kill()
        with pytest.raises(NotYetError):
            working.get(1.5)
        server.start()
        job = queue.enqueue("unknown to all")
        wait_for(lambda: queue.attempts(job), what="the consumer to go on")
        queue.stop_consumer("c")
        assert working.get(60).ended == "stop requested"


def test_who_starts_without_a_person_waits_for_the_server(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = server.url()
    server.kill()
    with pytest.raises(pq.ServerAwayError):
        pq.produce(url, count=1, interval=0.01, display=False)
    with ThreadPool(1) as pool:
        producing = pool.apply_async(pq.produce, (url,), {"count": 1, "interval": 0.01, "headless": True})
        with pytest.raises(NotYetError):
            producing.get(0.5)
        server.start()
        assert producing.get(60).jobs == 1


def test_run_all_goes_on_when_the_server_was_away(server, tmp_path):
    out = tmp_path / "out.txt"
    command = [sys.executable, RUN_ALL, "--db", server.url(), "--interval", "0.2", "--no-dashboards"]
    with out.open("w") as stream, pq.connect(server.url()) as queue:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=stream, stderr=stream)
        try:
            wait_for(lambda: queue.counts()["completed"] > 2, limit=120, what="jobs")
            server.kill()
            wait_for(lambda: "waiting for the queue" in out.read_text(), what="run_all to say so")
            server.start()
            done = queue.counts()["completed"]
            wait_for(lambda: queue.counts()["completed"] > done + 2, limit=120, what="more jobs")
        finally:
            process.terminate()
            process.wait(60)
        assert "crashed" not in out.read_text(), out.read_text()
