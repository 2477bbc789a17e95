"""What only the SQLite backend promises: its file, its gate, its presence locks, its errors."""

import multiprocessing
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import zipfile
from datetime import timedelta
from pathlib import Path

import pytest

import pq
from pq import NewJob
from pq.sqlite import PersistentQSQLite, presence, safety, schema
from pq.sqlite.gate import WriteGate

SPAWN = multiprocessing.get_context("spawn")


def run_python(code: str, *arguments: str) -> str:
    """What a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def wait_for(condition, limit=20.0):
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


# -- opening --------------------------------------------------------------------------------------


def test_the_file_and_all_that_stands_beside_it_are_private(tmp_path):
    before = os.umask(0)
    try:
        with pq.connect(tmp_path / "queue.db") as queue:
            queue.enqueue("stamp")
            queue.register_consumer("c")
            modes = {
                path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()
            }
            assert set(modes.values()) == {0o600}
            assert {"queue.db", "queue.db-wal", "queue.db-shm", "queue.db-gate"} <= modes.keys()
    finally:
        os.umask(before)


def test_a_queue_lives_beside_tables_of_ones_own(tmp_path):
    import sqlite_utils

    mine = sqlite_utils.Database(tmp_path / "mine.db")
    mine["results"].insert({"id": 1, "value": 2.5}, pk="id")
    mine.conn.close()
    with pq.connect(tmp_path / "mine.db") as queue:
        job = queue.enqueue("stamp")
        taken = queue.dequeue("c")
        with queue.transaction() as db:
            db["results"].insert({"id": job.id + 1, "value": 7})
            queue.complete(taken)
        assert list(db["results"].rows) == [{"id": 1, "value": 2.5}, {"id": 2, "value": 7}]


def test_an_error_undoes_ones_own_rows_too_and_keeps_its_class(tmp_path):
    with pq.connect(tmp_path / "queue.db") as queue:
        with queue.transaction() as db:
            db["mine"].insert({"id": 1}, pk="id")
        with pytest.raises(sqlite3.IntegrityError), queue.transaction() as db:  # noqa: PT012
            queue.enqueue("stamp")
            db["mine"].insert({"id": 1})
        assert queue.counts()["pending"] == 0


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("these are my notes, and they are longer than a header" * 10)
    with pytest.raises(pq.StorageError, match="not an SQLite database"):
        pq.connect(path)
    assert path.read_text().startswith("these are my notes")


def test_a_database_of_another_program_is_refused_and_kept(tmp_path):
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("create table jobs (title text)")
    other.close()
    with pytest.raises(pq.StorageError, match="belongs to another program"):
        pq.connect(tmp_path / "other.db")


def test_a_database_of_a_newer_version_is_refused(tmp_path):
    pq.connect(tmp_path / "queue.db").close()
    later = sqlite3.connect(tmp_path / "queue.db")
    later.execute(
        "insert into _sqlite_migrations (migration_set, name, applied_at) values ('pq', 'zz_later', 'x')"
    )
    later.commit()
    later.close()
    with pytest.raises(pq.StorageError, match="newer version of pq"):
        pq.connect(tmp_path / "queue.db")


@pytest.mark.parametrize("place", [":memory:", "", "file:queue.db?mode=memory", "a\0b"])
def test_a_place_that_is_no_file_is_refused(place):
    with pytest.raises(pq.StorageError, match="lives in a file"):
        pq.connect(place)


def test_a_missing_folder_and_a_folder_as_file_are_named(tmp_path):
    with pytest.raises(pq.StorageError, match="does not exist"):
        pq.connect(tmp_path / "no" / "queue.db")
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(pq.StorageError, match="is not a file"):
        pq.connect(tmp_path / "folder.db")


def test_an_unknown_address_is_refused_without_its_password():
    with pytest.raises(pq.StorageError) as caught:
        pq.connect("mysql://me:secret@host/db")
    assert "secret" not in str(caught.value)


READ_ONLY = """
import os, sys, tempfile, pq
with tempfile.TemporaryDirectory() as folder:
    pq.connect(folder + "/first.db").close()  # imports all it needs, which the other user may not read
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
try:
    pq.connect(sys.argv[1] + "/queue.db")
except pq.StorageError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
@pytest.mark.parametrize("exists", [True, False])
def test_a_read_only_folder_is_named(exists):
    # Not below pytest's own folder, which another user may not enter.
    folder = Path(os.path.realpath("/tmp")) / f"pq-read-only-{os.getpid()}"
    folder.mkdir()
    try:
        if exists:
            pq.connect(folder / "queue.db").close()
            for path in folder.iterdir():
                path.chmod(0o444)
        folder.chmod(0o555)
        said = run_python(READ_ONLY, str(folder))
        assert "read-only" in said or "cannot be opened" in said or "Permission denied" in said
        assert "\n" not in said
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


OPEN_NEW = """
import sys, pq
queue = pq.connect(sys.argv[1])
print(queue.enqueue("stamp").id)
"""


def test_processes_that_open_a_new_file_at_once_agree(tmp_path):
    path = str(tmp_path / "queue.db")
    processes = [
        subprocess.Popen([sys.executable, "-c", OPEN_NEW, path], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    ids = sorted(int(process.communicate(timeout=60)[0]) for process in processes)
    assert ids == [1, 2, 3, 4]


# -- what would break its locks -------------------------------------------------------------------

READERS = {
    "open": lambda path: open(path, "rb"),  # noqa: PTH123, SIM115
    "os.open": lambda path: os.open(path, os.O_RDONLY),
    "Path.read_bytes": lambda path: Path(path).read_bytes(),
    "shutil.copy": lambda path: shutil.copy(path, path + ".copy"),
    "zipfile": lambda path: zipfile.ZipFile(path + ".zip", "w").write(path),
    "relative": lambda path: open(os.path.relpath(path), "rb"),  # noqa: PTH123, SIM115
}


@pytest.mark.parametrize("side", ["", "-wal", "-shm"])
@pytest.mark.parametrize("reader", READERS)
def test_a_plain_open_of_a_live_database_is_refused(tmp_path, reader, side):
    path = str(tmp_path / "queue.db")
    with pq.connect(path) as queue:
        queue.enqueue("stamp")
        with pytest.raises(pq.StorageError, match=r"queue\.backup"):
            READERS[reader](path + side)
    Path(path).read_bytes()


def test_two_sqlite_libraries_in_one_process_are_refused():
    class Other:
        __name__ = "pysqlite3.dbapi2"
        sqlite_version = "3.99.0"
        sqlite_version_info = (3, 99, 0)

    with pytest.raises(pq.StorageError, match="uninstall pysqlite3"):
        safety.check_library(Other())


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "fuse.sshfs"])
def test_a_network_file_system_is_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(safety, "file_system", lambda _path: kind)
    with pytest.raises(pq.StorageError, match=f"{kind} is a network file system"):
        pq.connect(tmp_path / "queue.db")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_after_a_fork_the_child_opens_a_connection_of_its_own(tmp_path):
    with pq.connect(tmp_path / "queue.db") as queue:
        queue.enqueue("stamp")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if queue.enqueue("stamp").id == 2 else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert queue.enqueue("stamp").id == 3
        assert queue.counts()["pending"] == 3


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
    from pq.sqlite import sql

    with PersistentQSQLite(tmp_path / "queue.db") as queue:
        rows = queue._session.rows
        names = {"consumer": "c", "queue": "q", "limit": 1, "incarnation": None, "lease_until": 0, "now": 0}
        plan = " | ".join(row[3] for row in rows(f"explain query plan {sql.CLAIM}", names))
        assert "jobs_ready" in plan
        assert "jobs_assigned" in plan
        assert "SCAN jobs" not in plan
        assert "USE TEMP B-TREE" not in plan
        for statement, parameters in [
            (sql.LIST + " and status = :status order by id desc limit 50", {"after": 9, "status": "failed"}),
            (sql.NEXT_DUE, {}),
            (sql.ANY_DUE, (0,)),
            (sql.TWIN, ("k",)),
            (sql.OVERDUE, {"monotonic": 0, "dead": "[]"}),
        ]:
            plan = " | ".join(row[3] for row in rows(f"explain query plan {statement}", parameters))
            assert "SCAN jobs" not in plan, statement
            assert "USE TEMP B-TREE" not in plan, statement


def test_the_schema_is_split_into_whole_statements():
    parts = schema.statements(schema.FIRST)
    assert all(sqlite3.complete_statement(part) for part in parts)
    assert len(parts) == sum(part.startswith("create ") for part in parts) == 20


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


def test_another_process_wakes_a_waiting_consumer(tmp_path):
    path = str(tmp_path / "queue.db")
    with pq.connect(path) as queue:
        assert queue.dequeue("c") is None
        assert queue.wait_for_work(timedelta(0)) is False
        run_python(OPEN_NEW, path)
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
