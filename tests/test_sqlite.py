"""What only the SQLite backend promises: its gate, its presence locks, its errors, its statements."""

import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import timedelta

import psutil
import pytest
from processes import ENQUEUE_ONE, run_python, wait_for

import pq
from pq import NewJob
from pq.sql import statements
from pq.sqlite import PersistentQSQLite, presence, schema, sql
from pq.sqlite.gate import WriteGate
from pq.sqlite.session import BUSY_TIMEOUT_SECONDS

# -- the gate -------------------------------------------------------------------------------------


def test_a_timed_wait_at_the_gate_ends_with_one_clear_line(tmp_path):
    first, second = WriteGate(tmp_path / "gate"), WriteGate(tmp_path / "gate")
    first.enter(None)
    with pytest.raises(pq.StorageError, match=r"busy for 0\.1 s"):
        second.enter(0.1)
    first.leave()
    second.enter(5)
    second.leave()
    first.enter(5)
    first.close()
    second.close()


def test_a_timed_wait_gets_its_turn(tmp_path):
    first, second = WriteGate(tmp_path / "gate"), WriteGate(tmp_path / "gate")
    first.enter(None)
    threading.Timer(0.1, first.leave).start()
    second.enter(20)
    with pytest.raises(pq.StorageError):
        first.enter(0.05)
    second.close()
    first.close()


def test_a_database_that_another_program_locks_is_one_clear_error(tmp_path, monkeypatch):
    from pq.sqlite import session

    monkeypatch.setattr(session, "BUSY_TIMEOUT_SECONDS", 0.1)
    with pq.connect(tmp_path / "queue.db") as queue:
        queue.enqueue("stamp")
        other = sqlite3.connect(tmp_path / "queue.db", isolation_level=None)
        other.execute("begin immediate")
        with pytest.raises(pq.StorageError, match="another program"):
            queue.enqueue("stamp")
        assert queue.counts()["pending"] == 1
        other.execute("rollback")
        other.close()
        assert queue.enqueue("stamp").id == 2


def test_threads_share_a_queue(tmp_path):
    with pq.connect(tmp_path / "queue.db") as queue:
        ids: list[int] = []

        def enqueue():
            ids.extend(queue.enqueue("stamp").id for _ in range(50))

        threads = [threading.Thread(target=enqueue) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(ids) == list(range(1, 201))


# -- presence -------------------------------------------------------------------------------------

HOLD = """
import sys, time, pq
queue = pq.connect(sys.argv[1])
queue.register_consumer("consumer-1")
job = queue.dequeue("consumer-1")
print(job.id, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_jobs_of_a_killed_consumer_are_back_at_once_and_of_a_paused_one_are_not(tmp_path):
    path = str(tmp_path / "queue.db")
    with pq.connect(path) as queue:
        job = queue.enqueue("stamp")
        process = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline().strip() == str(job.id)
        process.send_signal(signal.SIGSTOP)
        assert queue.rescue() == []
        assert queue.consumers()[0].alive
        process.kill()
        process.wait()
        process.stdout.close()
        (rescued,) = queue.rescue()
        assert (rescued.id, rescued.status, rescued.error) == (job.id, "scheduled", "consumer died")
        assert queue.dequeue("consumer-2").id == job.id
        assert queue.consumers() == []
        assert list((tmp_path / "queue.db-consumers").iterdir()) == []


def test_a_dead_consumer_with_more_jobs_than_one_rescue_takes_is_rescued_to_the_end(tmp_path):
    path = str(tmp_path / "queue.db")
    with pq.connect(path) as queue:
        queue.enqueue_many([pq.NewJob("t")] * (sql.OVERDUE_LIMIT + 1))
        run_python(
            "import os, sys, pq; queue = pq.connect(sys.argv[1]); queue.register_consumer('c'); "
            "assert len(queue.dequeue_many('c', 5000)) > 1000; os._exit(0)",
            path,
        )
        assert [len(queue.rescue()) for _ in range(3)] == [sql.OVERDUE_LIMIT, 1, 0]
        assert queue.consumers() == []


def test_presence_is_not_inherited_by_a_child(tmp_path):
    path = tmp_path / "presence" / "x"
    presence.hold(path)
    assert presence.alive(path)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    presence.drop(path)
    assert not presence.alive(path)
    child.kill()
    child.wait()


# -- space, damage, size --------------------------------------------------------------------------


def test_enqueue_refuses_below_the_reserve_and_accepted_jobs_go_on(tmp_path):
    with PersistentQSQLite(tmp_path / "queue.db") as queue:
        queue.enqueue("stamp")
        queue.reserve_bytes = 2**62
        with pytest.raises(pq.StorageError, match="kept for accepted jobs"):
            queue.enqueue("stamp")
        job = queue.dequeue("c")
        queue.heartbeat(job)
        queue.complete(job)
        assert queue.counts()["completed"] == 1


def test_a_full_disk_is_one_clear_error_and_the_queue_goes_on_when_there_is_space(tmp_path):
    with PersistentQSQLite(tmp_path / "queue.db") as queue:
        pages = queue._session.rows("pragma page_count")[0][0]
        queue._session.execute(f"pragma max_page_count = {pages + 8}")
        with pytest.raises(pq.StorageError, match="the disk is full"):
            queue.enqueue_many([NewJob("stamp", {"text": "x" * 900}) for _ in range(1000)])
        assert queue.counts()["pending"] == 0
        queue._session.execute("pragma max_page_count = 1000000")
        assert queue.enqueue("stamp").status == "pending"


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "queue.db"
    with pq.connect(path) as queue:
        queue.enqueue_many([NewJob("stamp", {"text": "x" * 900}) for _ in range(500)])
    content = bytearray(path.read_bytes())
    content[4096 * 3 :] = os.urandom(len(content) - 4096 * 3)
    path.write_bytes(content)
    with pytest.raises(pq.StorageError, match="damaged"):  # noqa: PT012  # whichever read meets it
        damaged = pq.connect(path)
        try:
            damaged.list(limit=1000)
            damaged.counts()
        finally:
            damaged.close()


def test_a_backup_is_complete_and_never_overwrites(tmp_path):
    with pq.connect(tmp_path / "queue.db") as queue:
        queue.enqueue_many([NewJob("stamp") for _ in range(100)])
        queue.backup(str(tmp_path / "copy.db"))
        with pytest.raises(pq.StorageError, match="it exists"):
            queue.backup(str(tmp_path / "copy.db"))
    with pq.connect(tmp_path / "copy.db") as copy:
        assert copy.counts()["pending"] == 100


def test_health_is_read_from_the_file(tmp_path):
    with PersistentQSQLite(tmp_path / "queue.db") as queue:
        queue.enqueue("stamp")
        health = queue.health(full=True)
        assert (health["journal_mode"], health["quick_check"], health["mode"]) == ("wal", ["ok"], 0o600)
        assert health["boot_matches"]
        assert health["expired_leases"] == 0
        assert queue.checkpoint() == 0


# -- statements -----------------------------------------------------------------------------------


def test_a_claim_and_a_page_read_an_index_and_sort_nothing(tmp_path):
    with PersistentQSQLite(tmp_path / "queue.db") as queue:
        rows = queue._session.rows
        names = {"consumer": "c", "queue": "q", "limit": 1, "incarnation": None, "lease_until": 0, "now": 0}
        plan = " | ".join(row[3] for row in rows(f"explain query plan {sql.CLAIM}", names))
        assert "jobs_ready" in plan
        assert "jobs_assigned" in plan
        assert "SCAN jobs" not in plan
        assert "USE TEMP B-TREE" not in plan
        for statement, parameters in [
            (sql.NEXT_DUE, {}),
            (sql.ANY_DUE, (0,)),
            (statements.TWIN, {"unique_key": "k"}),
            (sql.OVERDUE, {"monotonic": 0, "dead": "[]"}),
        ]:
            plan = " | ".join(row[3] for row in rows(f"explain query plan {statement}", parameters))
            assert "SCAN jobs" not in plan, statement
            assert "USE TEMP B-TREE" not in plan, statement


def test_the_schema_is_split_into_whole_statements():
    parts = schema.statements(schema.FIRST)
    assert all(sqlite3.complete_statement(part) for part in parts)
    assert len(parts) == sum(part.startswith("create ") for part in parts) == 22


IMPOSSIBLE = [
    "update jobs set status = 'lost'",
    "update jobs set status = 'processing'",
    "update jobs set status = 'completed'",
    "update jobs set attempt = 4",
    "update jobs set progress = 2",
    "update jobs set lease_until = 5",
    "update jobs set max_attempts = 0",
    "update jobs set task = ''",
    "update jobs set cancel_requested = 1",
    "update counters set jobs = -1",
]


@pytest.mark.parametrize("statement", IMPOSSIBLE)
def test_the_schema_refuses_what_cannot_be(tmp_path, statement):
    with pq.connect(tmp_path / "queue.db") as queue:
        queue.enqueue("stamp")
        with pytest.raises(sqlite3.IntegrityError), queue.transaction() as db:
            db.conn.execute(statement)


def test_a_reader_does_not_keep_the_wal_from_shrinking(tmp_path):
    with (
        PersistentQSQLite(tmp_path / "queue.db") as queue,
        PersistentQSQLite(tmp_path / "queue.db") as reader,
    ):
        queue.enqueue_many([NewJob("stamp") for _ in range(500)])
        reader.list(limit=100)
        reader.counts()
        assert queue.checkpoint() == 0


def test_a_checkpoint_does_not_keep_the_writers_waiting_for_a_long_reader(tmp_path):
    with pq.connect(tmp_path / "queue.db") as queue, pq.connect(tmp_path / "queue.db") as reader:
        queue.enqueue("stamp")
        with reader._session.snapshot():
            reader._session.rows("select * from jobs")
            queue.enqueue("stamp")
            began = time.monotonic()
            assert queue.checkpoint() > 0
            assert time.monotonic() - began < BUSY_TIMEOUT_SECONDS
        assert queue._session.rows("pragma busy_timeout")[0][0] == BUSY_TIMEOUT_SECONDS * 1000
        assert queue.checkpoint() == 0


def test_another_process_wakes_a_waiting_consumer(tmp_path):
    path = str(tmp_path / "queue.db")
    with pq.connect(path) as queue:
        assert queue.dequeue("c") is None
        assert queue.wait_for_work(timedelta(0)) is False
        run_python(ENQUEUE_ONE, path)
        assert queue.wait_for_work(timedelta(seconds=20)) is True
        assert queue.dequeue("c").id == 1


def test_a_waiting_consumer_wakes_when_a_job_is_due_and_when_told_to_stop(tmp_path):
    with pq.connect(tmp_path / "queue.db") as queue:
        queue.enqueue("stamp", delay=0.05)
        assert queue.dequeue("c") is None
        assert queue.wait_for_work(timedelta(seconds=20)) is True
        wait_for(lambda: queue.dequeue("c") is not None)
        stop = threading.Event()
        stop.set()
        assert queue.dequeue("c") is None
        assert queue.wait_for_work(timedelta(seconds=20), stop) is False


def test_threads_that_come_and_go_leave_no_more_and_more_files_open(tmp_path):
    def come_and_go(times):
        for _ in range(times):
            thread = threading.Thread(target=queue.enqueue, args=("stamp",))
            thread.start()
            thread.join()
            gc.collect()
        return psutil.Process().num_fds()

    with pq.connect(tmp_path / "queue.db") as queue:
        queue.counts()
        # SQLite keeps closed files for its next connection, because closing them would drop its locks.
        first, second = come_and_go(5), come_and_go(20)
        assert second <= first + 2
        assert queue.counts()["pending"] == 25
