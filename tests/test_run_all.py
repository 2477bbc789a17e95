"""run_all.py for real: the bounded run, every way to end it, and what survives a crash."""

import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest

import pq
from pq.system import ownership, processes
from pq.system.bounded import shares
from pq.system.programs import Place, Program
from pq.system.screen import describe_counts, describe_states
from pq.system.supervise import last_line
from pq.system.supervisors import supervisor_config

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and /proc")

RUN_ALL = Path(__file__).parents[1] / "run_all.py"


class System:
    """A running run_all.py, and a look at what it started."""

    def __init__(self, folder, *words, **settings):
        self.db = folder / "queue.db"
        self.out = folder / "out.txt"
        with self.out.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, str(RUN_ALL), "--db", str(self.db), "--interval", "0.2", *words],
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(os.environ, **settings),
            )
        self.system = None

    def wait_until_it_runs(self):
        lock = ownership.lock_path(str(self.db), self.db.parent)
        until(lambda: (owner := ownership.read_owner(lock)) and owner.pid == self.process.pid, self)
        self.system = ownership.read_owner(lock).system
        self.wait_for_jobs(1)
        return self

    def wait_for_jobs(self, more):
        with pq.connect(self.db) as queue:
            wanted = queue.counts()["completed"] + more
            until(lambda: queue.counts()["completed"] >= wanted, self)

    def kernel(self, role):
        found = [p for p in processes.marked(self.system, role) if "ipykernel" in command(p)]
        return found[0] if found else None

    def end(self, number, limit=30):
        self.process.send_signal(number)
        return self.process.wait(limit)

    def left(self):
        return [command(process) for process in processes.marked(self.system)]

    def text(self):
        return self.out.read_text()


def command(process):
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def until(condition, system=None, seconds=60):
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            raise AssertionError(f"it did not happen:\n{logs(system) if system else ''}")
        time.sleep(0.05)


def logs(system):
    files = [system.out, *(system.db.parent / "logs").glob("*.log")]
    return "\n".join(f"{file}:\n{file.read_text()[-2000:]}" for file in files)


@contextlib.contextmanager
def running(folder, *words):
    system = System(folder, *words)
    try:
        yield system.wait_until_it_runs()
    finally:
        if system.process.poll() is None:
            system.process.kill()
            system.process.wait(10)
        if system.system:
            processes.end_marked(system.system)


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """In the place of the one for all tests: a shared system replaces its children while tests go on.

    Each test looks for what is left by the marker of its system, which finds more than children.
    """
    return


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """One system under Supervisor with its dashboards, for several tests; the last one stops it."""
    with running(tmp_path_factory.mktemp("system"), "--port", "0") as system:
        yield system


def test_a_second_run_on_the_same_database_says_so_and_ends(system, tmp_path):
    other_name = tmp_path / "link.db"
    other_name.symlink_to(system.db)

    for name in (system.db, other_name):
        second = subprocess.run(
            [sys.executable, RUN_ALL, "--db", name], capture_output=True, text=True, timeout=60, check=False
        )
        assert (second.returncode, second.stdout) == (1, "")
        assert f"already runs on {system.db} (pid {system.process.pid})" in second.stderr
        assert second.stderr.count("\n") == 1


def test_the_dashboards_are_behind_a_token_that_only_this_user_can_read(system):
    until(lambda: "dashboards are ready" in system.text(), system)
    port, token = re.search(r"127\.0\.0\.1:(\d+)/ops\?token=(\S+)", system.text()).groups()

    assert get(port, "/ops")[0] == 302
    assert "login" in get(port, "/ops")[1]
    assert "login" not in get(port, f"/ops?token={token}")[1]
    file = system.db.with_name("queue.db-token")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not [words for words in system.left() if token in words]


def get(port, path):
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Location", "")


def test_the_screen_says_what_runs_and_where_and_fits_one_screen(system):
    text = system.text()

    assert "consumers: 2, kept alive by Supervisor" in text
    for path in (system.db, system.db.parent / "logs", system.db.parent / "runs"):
        assert str(path) in text
    assert len(text.splitlines()) <= 24


def test_a_killed_kernel_and_a_killed_guard_are_started_again_and_every_job_is_completed(system):
    until(lambda: system.kernel("consumer-1") and system.kernel("consumer-2"), system)
    kernel = system.kernel("consumer-1")
    guard = psutil.Process(kernel.ppid()).ppid()
    other = system.kernel("consumer-2")

    other.kill()
    os.kill(guard, signal.SIGKILL)

    until(lambda: is_another(system.kernel("consumer-1"), kernel), system)
    until(lambda: is_another(system.kernel("consumer-2"), other), system)
    assert not kernel.is_running()
    until(lambda: names_of_live_consumers(system) == ["consumer-1", "consumer-2", "producer-1"], system)
    with pq.connect(system.db) as queue:
        newest = queue.list(limit=1)[0].id
        unfinished = ["pending", "processing", "scheduled"]
        until(lambda: not [job for job in queue.list(status=unfinished) if job.id <= newest], system)
        assert queue.counts()["failed"] == 0


def is_another(kernel, before):
    return kernel is not None and kernel.pid != before.pid


def names_of_live_consumers(system):
    with pq.connect(system.db) as queue:
        return sorted(consumer.name for consumer in queue.consumers() if consumer.alive)


def test_sigterm_stops_everything_and_gives_back_what_was_running(system):
    assert system.end(signal.SIGTERM) == 0
    assert system.left() == []
    with pq.connect(system.db) as queue:
        assert queue.counts()["processing"] == 0
        assert queue.counts()["failed"] == 0
    assert "everything has stopped" in system.text()


def test_a_bounded_run_makes_exactly_its_jobs_in_a_folder_with_an_odd_name(tmp_path):
    folder = tmp_path / "50% {db} ; #1 ü"
    folder.mkdir()
    with pq.connect(folder / "queue.db") as queue:
        queue.enqueue("stamp", {"path": "inbox/none.txt"}, delay=3600)

    done = System(folder, "--jobs", "5", "--producers", "2", "--no-dashboards")

    assert done.process.wait(120) == 0, logs(done)
    assert "5 completed, 0 failed" in done.text()
    assert len(list((folder / "processed").iterdir())) == 5
    names = ["consumer-1.ipynb", "consumer-2.ipynb", "producer-1.ipynb", "producer-2.ipynb"]
    assert sorted(path.name for path in (folder / "runs").iterdir()) == names
    previous = json.loads((folder / "queue.db-run").read_text())["system"]
    assert processes.marked(previous) == []


def test_under_honcho_a_crash_is_mended_and_ctrl_c_gives_a_long_job_back(tmp_path):
    tasks = tmp_path / "naps.py"
    tasks.write_text("import time\nimport pq\n@pq.task('nap')\ndef nap(): time.sleep(600)\n")
    words = ("--no-dashboards", "--supervisor", "honcho", "--consumers", "1", "--tasks", str(tasks))
    with running(tmp_path, *words) as system, pq.connect(system.db) as queue:
        kernel = system.kernel("consumer-1")
        kernel.kill()
        until(lambda: is_another(system.kernel("consumer-1"), kernel), system)
        system.wait_for_jobs(2)
        nap = queue.enqueue("nap", priority=1)
        until(lambda: queue.get(nap).status == "processing", system)

        assert system.end(signal.SIGINT) == 0
        assert system.left() == []
        assert (queue.get(nap).status, queue.get(nap).attempt) == ("pending", 0)
        assert "kept alive by Honcho" in system.text()


def test_when_run_all_is_killed_nothing_is_left_and_the_next_run_starts(tmp_path):
    with running(tmp_path, "--no-dashboards", "--consumers", "1") as system:
        private = Path(re.search(r"--remove (\S+)", " ".join(system.left())).group(1))
        assert private.is_dir()
        system.end(signal.SIGKILL)
        until(lambda: not system.left(), system)
        until(lambda: not private.exists(), system)
    private.mkdir()  # as if the guard that removes it had been killed too

    # Here the jobs fail, which a bounded run must not pass over.
    for path in (tmp_path / "processed").iterdir():
        path.unlink()
    (tmp_path / "processed").rmdir()
    (tmp_path / "processed").touch()
    failing = System(tmp_path, "--no-dashboards", "--jobs", "1", MAX_ATTEMPTS="1")
    assert failing.process.wait(120) == 1, logs(failing)
    assert "0 completed, 1 failed" in failing.text()
    assert not private.exists()


def test_a_port_that_is_taken_is_said_before_anything_starts(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        system = System(tmp_path, "--port", str(taken.getsockname()[1]))
        assert system.process.wait(60) == 1

    assert system.text().startswith("run_all: port ")
    assert not list((tmp_path / "logs").glob("consumer*"))


def test_shares_differ_by_one_at_most_and_add_up():
    assert shares(20, 3) == [7, 7, 6]
    assert shares(1, 2) == [1, 0]


def test_trouble_is_named_in_the_status_line():
    states = {"a": "EXITED", "b": "BACKOFF", "c": "RUNNING", "d": "FATAL"}

    assert describe_states(states) == (
        "1 running · b crashed, will be restarted · d given up, see its log · a ended"
    )


def test_the_status_line_has_what_is_done_and_then_what_there_is():
    counts = {"pending": 2, "processing": 0, "completed": 7, "failed": 0}

    assert describe_counts(counts) == "7 completed · 0 failed · 2 pending"


def test_the_cause_of_a_crash_is_shown_but_not_obeyed_by_the_terminal(tmp_path):
    log = tmp_path / "consumer-1.log"
    log.write_text("Traceback\nValueError: \x1b[2J no\n\n")

    assert last_line(log) == "ValueError: ?[2J no"
    assert last_line(tmp_path / "none.log") == f"see {tmp_path / 'none.log'}"


def test_supervisor_reads_our_configuration_and_all_roles_stop_together(tmp_path):
    from supervisor.options import ServerOptions

    place = Place(str(tmp_path / "queue.db"), tmp_path, tmp_path / "queue.db-run", uuid.uuid4().hex)
    place.prepare()
    programs = [
        Program("a", ("echo", "50%", "x y"), stops_by_queue=True),
        Program("b", ("b",), stops_by_queue=False),
    ]
    path = tmp_path / "supervisord.conf"
    path.write_text(supervisor_config(place.private, programs, "secret"))
    options = ServerOptions()
    options.realize(["-n", "-c", str(path)])

    (group,) = options.process_group_configs
    assert [process.name for process in group.process_configs] == ["a", "b"]
    assert group.process_configs[0].command.endswith("-- echo 50% 'x y'")
    assert "--stop-name a" in group.process_configs[0].command
    assert stat.S_IMODE(place.private.stat().st_mode) == 0o700
    place.remove()
    assert (place.private.exists(), place.logs.is_dir()) == (False, True)


def test_without_a_home_the_roles_get_one_and_the_marker_is_not_inherited(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "missing"))
    monkeypatch.setenv(processes.ROLE, "consumer-9")
    place = Place("q.db", tmp_path, tmp_path / "q.db-run", "marker")

    environment = place.environment()

    assert environment["HOME"] == str(place.private)
    assert environment[processes.SYSTEM] == "marker"
    assert processes.ROLE not in environment
