"""Real consumer processes for the concurrency and crash tests, and the log that their task leaves."""

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

TASKS = '''
"""A task that writes down that it began, with its token, before it does anything else.

With `meet` it then waits until so many processes have come to such a job.
"""
import os, time
from pathlib import Path
import pq

@pq.task("mark")
def mark(context, log, seconds, meet=0):
    line = f"{context.job.id} {context.job.token}\\n".encode()
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, line)
    os.close(file)
    if meet:
        Path(f"{log}.{os.getpid()}").touch()
        while len(list(Path(log).parent.glob(f"{Path(log).name}.*"))) < meet:
            time.sleep(0.01)
    if seconds:
        time.sleep(seconds)
    return context.job.token
'''

CONSUME = """
import sys, pq
path, name, tasks, prefetch, lease = sys.argv[1:]
taking = {"prefetch": int(prefetch), "lease": float(lease)}
pq.consume(path, name=name, tasks=[tasks], display=False, hard_exit=True, **taking)
"""


class Consumers:
    """Starts consumers on the queue at `place`, and ends every one of them."""

    def __init__(self, place: str, folder: Path, *, prefetch: int = 1, lease: float = 30.0) -> None:
        self.path = place
        self.log = folder / "started.log"
        self.log.touch()
        self._tasks = folder / "marking.py"
        self._tasks.write_text(TASKS)
        self._prefetch, self._lease = prefetch, lease
        self.running: list[subprocess.Popen[bytes]] = []

    def parameters(self, seconds: float = 0.0) -> dict[str, object]:
        return {"log": str(self.log), "seconds": seconds}

    def start(self, name: str) -> subprocess.Popen[bytes]:
        arguments = [self.path, name, str(self._tasks), str(self._prefetch), str(self._lease)]
        process = subprocess.Popen([sys.executable, "-c", CONSUME, *arguments], stderr=subprocess.DEVNULL)
        self.running.append(process)
        return process

    def stop(self) -> None:
        for process in self.running:
            process.kill()
            process.wait()

    def started(self) -> Counter[tuple[int, int]]:
        """How often each (job, token) began."""
        lines = self.log.read_text().splitlines()
        return Counter((int(job), int(token)) for job, token in (line.split() for line in lines))


ENQUEUE_ONE = """
import sys, pq
queue = pq.connect(sys.argv[1])
print(queue.enqueue("stamp").id)
"""


def run_python(code: str, *arguments: str) -> str:
    """What a process of its own prints."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def wait_for(condition, limit: float = 60.0, what: str = "the condition") -> None:
    """Wait until it holds; a limit only so that a failing test ends."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"waited {limit:g} s for {what}"
        time.sleep(0.02)
