"""A server that is away, or comes back, is told from one that refuses for good."""

import subprocess
import sys
import threading
from multiprocessing.pool import ThreadPool

import pq
from pq import NewJob


def test_who_connects_while_a_server_recovers_is_told_that_it_is_away(own_postgresql):
    url, told, over = own_postgresql.url(), [], threading.Event()

    def connect_again_and_again():
        while not over.is_set():
            try:
                pq.connect(url).close()
            except Exception as error:  # noqa: BLE001  # any other kind is the finding
                told.append(error)

    with pq.connect(url) as queue, ThreadPool(2) as pool:
        connecting = [pool.apply_async(connect_again_and_again) for _ in range(2)]
        try:
            for _ in range(3):
                queue.enqueue_many([NewJob("stamp", {"text": "x" * 2_000}) for _ in range(500)])
                own_postgresql.kill()
                own_postgresql.start()
        finally:
            over.set()
        for one in connecting:
            one.get(60)
    assert {type(error) for error in told} == {pq.ServerAwayError}


def test_the_pages_wait_for_the_server_before_they_are_served(own_postgresql, tmp_path):
    (tmp_path / "token").write_text("a-token-of-the-tests-0123456789")
    url = own_postgresql.url()
    own_postgresql.kill()
    words = ["--db", url, "--port", "0", "--token-file", "token"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pq.dashboards", *words],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert "trying again" in process.stderr.readline()
        own_postgresql.start()
        said = process.stdout.readline()
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert "http://127.0.0.1:" in said, errors
