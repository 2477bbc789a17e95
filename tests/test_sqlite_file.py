"""The database file: how it is opened, what is refused, and what would break its locks."""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import pytest
from processes import ENQUEUE_ONE, run_python

import pq
from pq.sqlite import safety, session

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


def test_a_database_that_stays_without_its_log_is_refused(tmp_path, monkeypatch):
    execute = session.sqlite3.Connection.execute

    class Stubborn(session.sqlite3.Connection):
        def execute(self, statement, *parameters):
            kept = statement.replace("journal_mode = wal", "journal_mode = delete")
            return execute(self, kept, *parameters)

    monkeypatch.setattr(session.sqlite3, "connect", partial(session.sqlite3.connect, factory=Stubborn))
    with pytest.raises(pq.StorageError, match="stays 'delete' in place of WAL"):
        pq.connect(tmp_path / "queue.db")
    monkeypatch.undo()
    with pq.connect(tmp_path / "queue.db") as queue:
        queue.enqueue("stamp")


def test_after_a_failed_sync_the_next_writer_writes_the_log_anew(tmp_path, monkeypatch):
    with pq.connect(tmp_path / "queue.db") as queue, pq.connect(tmp_path / "queue.db") as other:
        queue.enqueue("stamp")
        queue._session.gate.note_failed_sync()
        synced = []
        monkeypatch.setattr(
            session.os, "fsync", lambda file: synced.append(Path(f"/proc/self/fd/{file}").readlink())
        )
        other.enqueue("stamp")
        assert [path.name for path in synced] == ["queue.db-wal"]
        assert not queue._session.gate.sync_has_failed()
        other.enqueue("stamp")
        assert len(synced) == 1
        assert other.counts()["pending"] == 3


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


def test_processes_that_open_a_new_file_at_once_agree(tmp_path):
    path = str(tmp_path / "queue.db")
    processes = [
        subprocess.Popen([sys.executable, "-c", ENQUEUE_ONE, path], stdout=subprocess.PIPE, text=True)
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


@pytest.mark.parametrize("side", ["", "-shm"])
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


NUMBERS = """
import sys, pq
with pq.connect(sys.argv[1]) as queue:
    assert not {"numpy", "pandas"} & sys.modules.keys()
    import numpy, pandas
    with queue.transaction() as db:
        row = {"n": numpy.int64(7), "x": numpy.float64(0.5), "at": pandas.Timestamp("2026-01-31")}
        db["mine"].insert(row)
        print([column.type for column in db["mine"].columns], list(db["mine"].rows)[0]["x"])
"""


def test_the_queue_loads_neither_numpy_nor_pandas_and_stores_their_values_all_the_same(tmp_path):
    assert run_python(NUMBERS, str(tmp_path / "queue.db")) == "['INTEGER', 'REAL', 'TEXT'] 0.5"
