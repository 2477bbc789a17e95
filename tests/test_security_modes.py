"""Whatever the umask, what pq writes is for its user alone: the whole tree of real runs is looked at."""

import contextlib
import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import pq
from notebooks import write_notebook
from pq.dashboards import read_token
from pq.doctor import examine
from pq.log_file import LogFile
from pq.system import ownership, processes

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="file modes of POSIX")
RUN_ALL = Path(__file__).parents[1] / "run_all.py"


@pytest.fixture
def temporary():
    """A folder for everything temporary, with a path short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="pqm-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def umask():
    """Sets the umask of this process for one test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def modes_below(folder):
    """The mode of everything below; what lies in a folder that nobody else can enter needs no look."""
    found = {}
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            with contextlib.suppress(FileNotFoundError):
                found[str(Path(place, name))] = Path(place, name).lstat()
    return {path: facts for path, facts in found.items() if not stat.S_ISLNK(facts.st_mode)}


def wide(found, private=()):
    """What others may enter, read or write."""
    return {
        path: oct(facts.st_mode)
        for path, facts in found.items()
        if facts.st_mode & 0o077 and not any(path.startswith(f"{folder}/") for folder in private)
    }


def private_folders(found):
    return [path for path, facts in found.items() if stat.S_ISDIR(facts.st_mode) and not facts.st_mode & 0o77]


class Run:
    """run_all.py with its whole tree watched from its start to its end."""

    def __init__(self, folder, temporary, umask, *words):
        self.folder, self.temporary = folder, temporary
        self.seen, self.seen_temporary = {}, {}
        self.out = folder.parent / "out.txt"
        environment = dict(os.environ, TMPDIR=str(temporary))
        with self.out.open("w") as out:
            command = [sys.executable, RUN_ALL, "--db", folder / "queue.db", "--interval", "0.2", *words]
            self.process = subprocess.Popen(
                command, umask=umask, env=environment, stdout=out, stderr=out, cwd=folder.parent
            )

    def watch(self, condition, seconds=90):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.out.read_text()
            assert self.process.poll() is None, self.out.read_text()
            self.look()
            time.sleep(0.05)

    def look(self):
        self.seen |= modes_below(self.folder)
        self.seen_temporary |= modes_below(self.temporary)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            owner = ownership.read_owner(self.folder / "queue.db-run")
            if owner:
                processes.end_marked(owner.system)
        self.look()


@pytest.mark.parametrize(("mask", "pages"), [(0, True), (0o077, False)], ids=["umask 000", "umask 077"])
def test_a_whole_run_writes_nothing_that_others_can_read(mask, pages, tmp_path, temporary):
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    source = write_notebook(folder / "job.ipynb", "open('of-the-job.txt', 'w').close()")
    with pq.connect(folder / "queue.db") as queue:
        job = queue.enqueue_notebook(source)
        run = Run(
            folder,
            temporary,
            mask,
            "--port",
            "0",
            "--consumers",
            "1",
            *(() if pages else ["--no-dashboards"]),
        )
        try:
            run.watch(lambda: queue.counts()["completed"] >= 2 and queue.get(job.id).status == "completed")
            if pages:
                run.watch(lambda: "dashboards are ready" in run.out.read_text())
        finally:
            run.end()
    # The job is the user's, and so is what it writes.
    assert stat.S_IMODE((folder / "of-the-job.txt").stat().st_mode) == 0o666 & ~mask
    of_pq = {p: f for p, f in run.seen.items() if Path(p).name not in {"of-the-job.txt", "job.ipynb"}}
    assert wide(of_pq) == {}
    assert wide(run.seen_temporary, private_folders(run.seen_temporary)) == {}
    names = {str(Path(path).relative_to(folder)) for path in run.seen}
    expected = {
        *("queue.db", "queue.db-wal", "queue.db-shm", "queue.db-gate", "queue.db-consumers", "queue.db-run"),
        *("inbox", "processed", "runs", "runs/.running", f"runs/{job.id}/1.ipynb", "runs/consumer-1.ipynb"),
        *(
            "logs/consumer-1.log",
            "logs/consumer-1-jobs.log",
            "logs/supervisor.log",
            "logs/supervisor-errors.log",
        ),
    }
    assert expected - names == set()
    assert not pages or "queue.db-token" in names
    assert any(stat.S_ISSOCK(facts.st_mode) for facts in run.seen_temporary.values())


def test_what_a_notebook_user_makes_without_the_system_is_private_too(umask, tmp_path):
    umask(0)
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    source = write_notebook(folder / "job.ipynb", "1 + 1")
    with pq.connect(folder / "queue.db") as queue:
        pq.produce(queue, count=1, interval=0.001, headless=True)
        queue.enqueue_notebook(source)
        pq.consume(queue, until_empty=True, headless=True)
        queue.backup(str(folder / "copy.db"))
        assert set(queue.counts().values()) == {0, 2}
        found = modes_below(folder)
    del found[str(source)]
    assert wide(found) == {}
    assert {"inbox", "processed", "runs", "logs", "copy.db"} <= {Path(path).name for path in found}


def test_a_folder_that_the_user_made_keeps_its_mode_and_doctor_warns(umask, tmp_path):
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox").chmod(0o755)
    with pq.connect(tmp_path / "queue.db") as queue:
        pq.produce(queue, count=1, interval=0.001, display=False)
        pq.consume(queue, until_empty=True, display=False)
        (finding,) = [one for one in examine(queue) if one.check == "file modes"]
    assert stat.S_IMODE((tmp_path / "inbox").stat().st_mode) == 0o755
    assert (finding.level, finding.text) == ("warning", "other users may read inbox 0755")
    assert finding.mend.startswith("`chmod go= ")


def test_a_log_is_private_after_its_rotation_too(umask, tmp_path):
    umask(0)
    log = LogFile(tmp_path / "a.log", maxBytes=100, backupCount=2)
    for number in range(20):
        log.emit(logging.makeLogRecord({"msg": f"{number} " * 10}))
    log.close()
    assert {oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()} == {"0o600"}
    assert len(list(tmp_path.iterdir())) == 3


def test_a_token_file_is_made_for_this_user_alone(umask, tmp_path):
    file = tmp_path / "token"
    umask(0)
    token = read_token(str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read_token(str(file)) == token
