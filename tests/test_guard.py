"""The guard: nothing that a command started outlives the command, its owner, or a stop."""

import os
import signal
import subprocess
import sys
import time
import uuid

import psutil
import pytest

from pq.system import ownership, processes
from pq.system.backoff import CRASHES, Backoff

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands orphans to a subreaper")
pytestmark = linux_only

FAMILY = "sleep 600 & setsid sleep 600 & (setsid sh -c 'sleep 600 & sleep 600' &) ; {}"
OWNER = """
import subprocess, sys, time
from pathlib import Path
from pq.system import ownership
owned = ownership.take(Path(sys.argv[1]), sys.argv[2])
assert isinstance(owned, ownership.Ownership)
child = subprocess.Popen([sys.executable, "-m", "pq.system.guard", *sys.argv[3:]])
print(child.pid, flush=True)
sys.exit(child.wait())
"""


def until(condition, seconds=20):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.02)


class Family:
    """An owner process, its guard, and what runs below it, found by a marker."""

    def __init__(self, folder):
        self.lock = folder / "queue.db-run"
        self.system = uuid.uuid4().hex
        self.environment = dict(os.environ, PQ_SYSTEM=self.system)
        self.owner = None

    def start(self, *words):
        self.owner = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(self.lock), self.system, "--lock", str(self.lock), *words],
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.guard = int(self.owner.stdout.readline())
        return self

    def sleepers(self):
        return [p for p in processes.marked(self.system) if _name(p) == "sleep"]

    def has_grown(self):
        until(lambda: len(self.sleepers()) == 4)

    def is_gone(self):
        until(lambda: not processes.marked(self.system))


def _name(process):
    try:
        return process.name()
    except psutil.Error:
        return ""


@pytest.fixture
def family(tmp_path):
    made = Family(tmp_path)
    yield made
    processes.end_marked(made.system)
    if made.owner is not None:
        made.owner.wait(10)
        made.owner.stdout.close()
    assert not processes.marked(made.system)


def test_when_the_command_ends_its_orphans_end_and_its_status_is_the_guards(family):
    family.start("--", "sh", "-c", FAMILY.format("sleep 0.5; exit 7"))

    assert family.owner.wait(20) == 7
    family.is_gone()


def test_a_command_killed_by_a_signal_gives_the_status_of_a_shell(family):
    family.start("--", "sh", "-c", "kill -9 $$")

    assert family.owner.wait(20) == 137


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_owner_dies_everything_ends(family, number):
    family.start("--", "sh", "-c", FAMILY.format("trap '' TERM HUP INT; wait"))
    family.has_grown()

    family.owner.send_signal(number)

    family.is_gone()


def test_a_guard_told_to_stop_ends_even_what_ignores_it(family):
    family.start("--grace", "0.3", "--", "sh", "-c", FAMILY.format("trap '' TERM HUP INT; wait; wait"))
    family.has_grown()

    os.kill(family.guard, signal.SIGTERM)

    family.owner.wait(20)
    family.is_gone()


def test_a_guard_told_to_stop_lets_the_command_end_by_itself(family, tmp_path):
    word = tmp_path / "word"
    family.start("--", "sh", "-c", f"trap 'echo bye > {word}; exit 3' TERM; {FAMILY.format('wait')}")
    family.has_grown()

    os.kill(family.guard, signal.SIGINT)

    assert family.owner.wait(20) == 3
    assert word.read_text() == "bye\n"
    family.is_gone()


def test_the_next_guard_of_a_role_ends_what_a_killed_guard_left(family):
    family.start("--role", "consumer-1", "--", "sh", "-c", FAMILY.format("wait"))
    family.has_grown()
    os.kill(family.guard, signal.SIGKILL)
    family.owner.wait(20)
    assert len(family.sleepers()) == 4

    family.start("--role", "consumer-1", "--", "sh", "-c", "exit 0")

    assert family.owner.wait(20) == 0
    family.is_gone()


def test_a_guard_without_an_owner_starts_nothing(tmp_path):
    started = tmp_path / "started"
    guard = [sys.executable, "-m", "pq.system.guard", "--lock", str(tmp_path / "lock")]

    done = subprocess.run([*guard, "--", "touch", str(started)], check=False, timeout=30)

    assert (done.returncode, started.exists()) == (0, False)


def test_a_guard_that_restarts_tells_the_state_and_gives_up_nothing_before_its_time(family, tmp_path):
    state, runs = tmp_path / "state", tmp_path / "runs"
    family.start(
        "--restart", str(state), "--", "sh", "-c", f"echo run >> {runs}; test $(wc -l < {runs}) -ge 3"
    )

    until(lambda: state.exists() and state.read_text() == "EXITED")

    assert runs.read_text() == "run\n" * 3
    assert family.owner.poll() is None, "the supervisor would end all the others"


def test_a_quick_success_stays_for_the_least_time_unless_it_is_told_to_stop(family, tmp_path):
    family.start("--least", "600", "--", "touch", str(tmp_path / "done"))
    until(lambda: (tmp_path / "done").exists() and not psutil.Process(family.guard).children())

    os.kill(family.guard, signal.SIGTERM)

    assert family.owner.wait(20) == 0


def test_adopted_orphans_do_not_stay_as_zombies(family):
    family.start("--", "sh", "-c", "for i in 1 2 3 4 5; do (sh -c 'sleep 0.1 &' &); done; sleep 600")
    until(lambda: len(family.sleepers()) == 1)

    until(lambda: len(psutil.Process(family.guard).children()) == 1)


def test_a_lock_has_one_owner_who_is_named_and_the_next_learns_who_was_before(tmp_path):
    path = tmp_path / "lock"
    first = ownership.take(path, "one")
    assert isinstance(first, ownership.Ownership)
    assert ownership.take(path, "two") == ownership.Owner(os.getpid(), "one")
    first.close()

    second = ownership.take(path, "two")

    assert isinstance(second, ownership.Ownership)
    assert second.previous == ownership.Owner(os.getpid(), "one")
    second.close()


def test_the_backoff_doubles_then_gives_up_and_begins_again_after_a_healthy_time():
    backoff = Backoff()

    waits = [backoff.after_a_crash(float(second)) for second in range(CRASHES)]

    assert waits == [0.5, 1, 2, 4, 8, 16, 30, None]
    assert backoff.after_a_crash(1000.0) == 0.5
