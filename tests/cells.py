"""Running cells in a kernel, for tests, and a process that owns kernels and is killed."""

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from processes import wait_for

from pq.kernels.pool import KernelPool
from pq.system import processes

OWNER = """
import logging, sys, time
from pq.kernels.pool import KernelPool
logging.basicConfig()
cell, folder, cold = sys.argv[1:]
pool = KernelPool(folder=folder)
pool.__enter__()
kernel = pool.start(None, cwd=folder, cold=cold == "cold")
client = kernel.client()
client.execute(cell)
print(pool.server_pid, kernel.pid, kernel.mode, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def pool():
    with KernelPool(preload=("numpy", "pandas")) as pool:
        yield pool


@pytest.fixture
def private():
    """Sockets lie in it, and a test's own folder has a path too long for them."""
    folder = Path(tempfile.mkdtemp(prefix="pq-test-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def nothing_left_behind(request):
    """In place of conftest's: the pool of these tests may go on, with one spare kernel and nothing else."""
    pool = request.getfixturevalue("pool") if "pool" in request.fixturenames else None
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    if pool is None:
        wait_for(lambda: not _more_than(before), 10, "the end of all processes")
    else:
        wait_for(lambda: len(psutil.Process(pool.server_pid).children(recursive=True)) == 1, 10, "one spare")


def _more_than(before):
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.pid not in before and "pq." in " ".join(child.cmdline())]


@dataclass
class Said:
    """What came of one cell."""

    text: str = ""
    error: str | None = None
    reply: dict = field(default_factory=dict)


def run_cell(client, code, seconds=30):
    """Run it to its end; its output and result as text."""
    said, ident = Said(), client.execute(code)
    while True:
        message = client.get_iopub_msg(timeout=seconds)
        if message["parent_header"].get("msg_id") != ident:
            continue
        content = message["content"]
        if message["msg_type"] == "stream":
            said.text += content["text"]
        elif message["msg_type"] in ("execute_result", "display_data"):
            said.text += content["data"]["text/plain"]
        elif message["msg_type"] == "error":
            said.error = f"{content['ename']}: {content['evalue']}"
        elif message["msg_type"] == "status" and content["execution_state"] == "idle":
            break
    said.reply = client.get_shell_msg(timeout=seconds)["content"]
    return said


def run_once(pool, code, **options):
    """The text of one cell in a kernel of its own."""
    options.setdefault("cwd", Path.cwd())
    kernel = pool.start(None, **options)
    client = kernel.client()
    try:
        said = run_cell(client, code)
        assert said.error is None, said.error
        return said.text.strip().strip("'")
    finally:
        client.stop_channels()
        kernel.kill()


class Owner:
    """A process with a kernel that runs a cell; everything below it carries a marker."""

    def __init__(self, cell, folder, cold=False):
        self.system = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, cell, str(folder), "cold" if cold else "warm"],
            env=dict(os.environ, PQ_SYSTEM=self.system),
            stdout=subprocess.PIPE,
            text=True,
        )
        server, kernel, self.mode = self.process.stdout.readline().split()
        self.server, self.kernel = int(server), int(kernel)

    def processes(self):
        return processes.marked(self.system)

    def others(self):
        """All but the owner itself."""
        return [process for process in self.processes() if process.pid != self.process.pid]

    def close(self):
        processes.end_marked(self.system)
        self.process.wait(10)
        self.process.stdout.close()
