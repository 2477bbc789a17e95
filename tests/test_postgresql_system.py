"""The whole system on a server: run_all.py with producer, consumers and pages, and the command line."""

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from postgresql import empty
from processes import wait_for

import pq

RUN_ALL = Path(__file__).parents[1] / "run_all.py"
SECRET = "open-sesame"


@pytest.fixture
def url(shared_postgresql_url):
    yield shared_postgresql_url
    empty(shared_postgresql_url)


def test_the_whole_system_runs_on_a_server_and_shows_no_password(url, tmp_path):
    """The server trusts whoever comes by its socket, so that any password is a right one."""
    secret = url.replace("postgres@", f"postgres:{SECRET}@")
    words = ["--db", secret, "--interval", "0.1", "--port", "0"]
    out = tmp_path / "out.txt"
    with out.open("w") as stream, pq.connect(url) as queue:
        process = subprocess.Popen(
            [sys.executable, RUN_ALL, *words], cwd=tmp_path, stdout=stream, stderr=stream
        )
        try:
            wait_for(lambda: "dashboards are ready" in out.read_text(), limit=120, what="the pages")
            wait_for(lambda: queue.counts()["completed"] >= 10, what="ten jobs")
            for page in re.findall(r"http://\S+/(?:ops|admin)\?token=\S+", out.read_text()):
                with urllib.request.urlopen(page, timeout=60) as answer:
                    assert answer.status == 200
            assert {one.name for one in queue.consumers()} == {"consumer-1", "consumer-2", "producer-1"}
        finally:
            process.terminate()
            process.wait(60)
        assert queue.consumers() == []
        left = {status: count for status, count in queue.counts().items() if count}
        assert left.keys() <= {"completed", "pending"}  # the producer may have been the last to stop
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.parts[len(tmp_path.parts)] for path in written} >= {"runs", "logs", "inbox", "processed"}
    assert not [path for path in written if SECRET in path.read_text(errors="replace")]


def pq_command(url, *words, code=0):
    command = [sys.executable, "-c", "from pq.cli import main; main()", "--db", url, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_the_command_line_works_on_a_server(url, tmp_path):
    for _ in range(2):
        assert json.loads(pq_command(url, "enqueue", "nothing", "--json"))["status"] == "pending"
    with pq.connect(url) as queue:
        taken = queue.dequeue("c")
        queue.fail(taken, "no", retry=False)
        waiting = queue.enqueue("waiting", priority=-1)
        done = queue.dequeue("c")
        queue.complete(done)
    assert "1 failed" in pq_command(url, "resubmit", "--status", "failed", "--yes", "--dry-run")
    # One of a batch refuses, and the others are changed: each verb has a savepoint of its own.
    said = pq_command(url, "cancel", *map(str, [done.id, waiting.id]), "--yes")
    assert f"cannot cancel job {done.id}" in said
    with pq.connect(url) as queue:
        assert queue.counts()["cancelled"] == 1
    assert "fsync" in pq_command(url, "doctor", code=1 if "off" in _fsync(url) else 0)
    assert "write-ahead log" in pq_command(url, "checkpoint", code=1)
    assert "0 jobs taken back" in pq_command(url, "rescue")


def _fsync(url):
    with pq.connect(url) as queue:
        return queue.health()["fsync"]


def test_files_lie_in_the_working_folder_or_where_pq_folder_says(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pq.connect(url) as queue:
        assert queue.folder == tmp_path
    monkeypatch.setenv("PQ_FOLDER", str(tmp_path / "elsewhere"))
    with pq.connect(url) as queue:
        assert queue.folder == tmp_path / "elsewhere"
    assert list(tmp_path.iterdir()) == []
