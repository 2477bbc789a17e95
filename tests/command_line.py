"""Calls of `pq` for the tests: in this process, in one of its own, and at a terminal."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pq.cli import app
from pq.interface import PersistentQInterface

PQ = [sys.executable, "-m", "pq.cli"]


class CommandLine:
    """`pq --db DATABASE`, called with the words of a command."""

    def __init__(self, database: Path) -> None:
        self.database = database

    def __call__(self, *words: str) -> Result:
        return CliRunner().invoke(app, ["--db", str(self.database), *words])

    def process(self, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
        """The same in a process of its own, with a real stdout and stderr."""
        return subprocess.run(
            [*PQ, "--db", str(self.database), *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **options,
        )


def answer(result: Result) -> object:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def fail_one(queue: PersistentQInterface, error: BaseException | str = "boom") -> int:
    job = queue.enqueue("stamp", {"path": "inbox/a.txt"})
    taken = queue.dequeue("consumer-1")
    assert taken is not None
    assert taken.id == job.id
    queue.fail(taken, error, retry=False)
    return job.id


def in_terminal(database: Path, *words: str) -> tuple[subprocess.Popen[bytes], int]:
    """`pq` with a terminal as its stdin, stdout and stderr."""
    here, there = pty.openpty()
    process = subprocess.Popen(
        [*PQ, "--db", str(database), *words], stdin=there, stdout=there, stderr=there, start_new_session=True
    )
    os.close(there)
    return process, here


def read_until(terminal: int, text: str, limit_seconds: float = 30) -> str:
    """What came until `text` was seen; fails where it does not come."""
    deadline, seen = time.monotonic() + limit_seconds, ""
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"{text!r} did not come: {seen[-2000:]!r}"
        try:
            seen += os.read(terminal, 65_536).decode(errors="replace")
        except OSError:  # the process has ended
            pytest.fail(f"{text!r} did not come: {seen[-2000:]!r}")
    return seen


def interrupt(process: subprocess.Popen[bytes], limit_seconds: float = 30) -> int:
    """Press Ctrl-C until it is heard: one that comes just before a read begins waits for its end."""
    deadline = time.monotonic() + limit_seconds
    while True:
        process.send_signal(signal.SIGINT)
        try:
            return process.wait(0.5)
        except subprocess.TimeoutExpired:
            assert time.monotonic() < deadline, "not interrupted"


def end(process: subprocess.Popen[bytes], terminal: int) -> None:
    process.kill()
    process.wait()
    os.close(terminal)
