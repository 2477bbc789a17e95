"""A kernel, and all that it started, ends with its owner, whatever is killed and whatever it does."""

import os
import signal
import subprocess
import sys

import cells
import psutil
import pytest
from cells import Owner
from processes import wait_for

from pq.kernels.pool import KernelPool

private, nothing_left_behind = cells.private, cells.nothing_left_behind
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="warm kernels need Linux")


@pytest.fixture
def own_by(private):
    owners = []

    def start(cell, *, cold=False):
        owners.append(Owner(cell, private, cold))
        return owners[-1]

    yield start
    for owner in owners:
        owner.close()


CHILDREN = (
    "import os, subprocess, time\n"
    "subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
    "subprocess.Popen(['sh', '-c', '(setsid sleep 600 &)'])\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork() == 0: time.sleep(600)\n"
    "    os._exit(0)\n"
)
CELLS = {
    "sleeps": "import time; time.sleep(600)",
    "is busy": "while True: pass",
    "holds the interpreter in C": "import ctypes; ctypes.PyDLL(None).sleep(600)",
    "ignores signals": (
        "import signal, time\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\ntime.sleep(600)"
    ),
    "has children": CHILDREN,
    "has children and holds the interpreter": CHILDREN + "import ctypes; ctypes.PyDLL(None).sleep(600)",
}


def _runs(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _is_at_work(owner, cell):
    wanted = 2 if "Popen" in cell else 0
    names = [process.name() for process in owner.processes() if psutil.pid_exists(process.pid)]
    return names.count("sleep") >= wanted


@pytest.mark.parametrize("doing", CELLS)
@pytest.mark.parametrize("victim", ["owner", "server"])
def test_when_the_owner_or_the_server_is_killed_nothing_is_left(own_by, private, doing, victim):
    owner = own_by(CELLS[doing])
    assert owner.mode == "warm"
    wait_for(lambda: _is_at_work(owner, CELLS[doing]))

    os.kill({"owner": owner.process.pid, "server": owner.server}[victim], signal.SIGKILL)
    if victim == "owner":
        owner.process.wait()

    wait_for(lambda: not owner.others(), 10, "the end of all processes")
    wait_for(lambda: not list(private.glob("pq-kernels-*")), 10, "the removal of the folder")


@pytest.mark.parametrize("victim", ["owner", "server", "guard"])
def test_a_cold_kernel_ends_with_its_owner_too(own_by, victim):
    owner = own_by(CELLS["has children and holds the interpreter"], cold=True)
    wait_for(lambda: _is_at_work(owner, CHILDREN))
    guard = psutil.Process(owner.server).ppid()

    os.kill({"owner": owner.process.pid, "server": owner.server, "guard": guard}[victim], signal.SIGKILL)
    if victim == "owner":
        owner.process.wait()

    wait_for(lambda: not owner.others(), 10, "the end of all processes")


def test_an_owner_killed_while_its_server_loads_leaves_no_process_and_the_next_removes_files(
    private, monkeypatch
):
    code = (
        "import sys, time; from pq.kernels.pool import KernelPool\n"
        "pool = KernelPool(folder=sys.argv[1]).__enter__()\n"
        "print(1, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(private)], stdout=subprocess.PIPE) as owner:
        owner.stdout.readline()
        below = psutil.Process(owner.pid).children(recursive=True)
        owner.kill()

    wait_for(lambda: not any(map(_runs, below)), 10, f"the end of {below}")
    monkeypatch.setattr("pq.kernels.server.LEFTOVER_SECONDS", 0)
    left = set(private.iterdir())
    with KernelPool(folder=private):
        assert not left & set(private.iterdir())
