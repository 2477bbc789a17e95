"""What `pq doctor` tells about a server, and copies of a queue on one."""

import os
from datetime import timedelta

import pytest
from postgresql import empty, programs

import pq
from pq.doctor import examine
from pq.doctor_server import judge_server


@pytest.fixture
def queue(shared_postgresql_url):
    with pq.connect(shared_postgresql_url) as opened:
        yield opened
    empty(shared_postgresql_url)


WELL = {"version": "18", "is_replica": False, "fsync": "on", "synchronous_commit": "on", "connections": 10,
        "max_connections": 100, "own_connections": 3, "bytes": 2**20, "server_now": 1000.0,
        "host_now": 1000.5, "idle_in_transaction": 0, "dead_rows": 5, "steps": ["one"], "expired_leases": 0,
        "dead_consumers": []}  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "check", "level", "told"),
    [
        ({"is_replica": True}, "server", "error", "takes no writes"),
        ({"fsync": "off"}, "durability", "error", "fsync is off: a power cut loses accepted jobs"),
        ({"synchronous_commit": "off"}, "durability", "error", "synchronous_commit is off"),
        ({"host_now": 1600.0}, "clock", "warning", "600 s ahead of the server"),
        ({"host_now": 400.0}, "clock", "warning", "600 s behind the server"),
        ({"connections": 95}, "connections", "warning", "95 of 100 used, 3 of them by pq"),
        ({"idle_in_transaction": 2}, "transactions", "warning", "2 stand open"),
        ({"dead_rows": 3_000_000}, "size", "warning", "3,000,000 dead rows"),
        ({"expired_leases": 4}, "leases", "warning", "4 ran out"),
        ({"dead_consumers": ["c"]}, "consumers", "warning", "1 died: c"),
    ],
)
def test_doctor_tells_what_is_wrong_with_a_server(facts, check, level, told):
    assert {finding.level for finding in judge_server(WELL)} == {"ok"}
    (found,) = [finding for finding in judge_server(WELL | facts) if finding.level != "ok"]
    assert (found.check, found.level) == (check, level)
    assert told in found.text
    assert found.mend


def test_doctor_examines_a_living_server(queue):
    queue.register_consumer("c")
    queue.enqueue("stamp")
    queue.dequeue("c", lease=timedelta(seconds=0.001))
    found = {finding.check: finding for finding in examine(queue)}
    assert found["server"].text.startswith("PostgreSQL ")
    assert found["consumers"].level == "ok"
    assert found["leases"].text.startswith("1 ran out")


def test_a_copy_needs_pg_dump_and_a_new_name(queue, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pq.StorageError, match="pg_dump is not installed"):
        queue.backup(str(tmp_path / "copy"))
    monkeypatch.setenv("PATH", f"{programs()}{os.pathsep}{os.environ['PATH']}")
    if not (programs() / "pg_dump").exists():
        return
    queue.enqueue("stamp")
    queue.backup(str(tmp_path / "copy"))
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "copy").read_bytes().startswith(b"PGDMP")
    with pytest.raises(pq.StorageError, match="it exists; choose another name"):
        queue.backup(str(tmp_path / "copy"))
