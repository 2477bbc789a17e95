"""`pq doctor`: each fact to its finding, and one real examination."""

import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import pq
from pq.cli import PANELS, app
from pq.doctor import Finding, examine, has_wal_reset_bug, holders, judge, worst

HEALTHY: dict[str, Any] = {
    "sqlite_version": "3.51.3",
    "library": "sqlite3",
    "journal_mode": "wal",
    "synchronous": 2,
    "page_count": 100,
    "page_size": 4096,
    "freelist_count": 0,
    "file_bytes": 409_600,
    "wal_bytes": 0,
    "wal_blocked_frames": 0,
    "quick_check": ["ok"],
    "file_system": "ext4",
    "local": True,
    "free_bytes": 10 * 2**30,
    "reserve_bytes": 64 * 2**20,
    "expired_leases": 0,
    "dead_consumers": [],
    "mode": 0o600,
    "boot_matches": True,
    "gate": "file",
    "sides": {"-wal": 0o600},
    "holders": [],
}
ILL = [
    ("integrity", "error", {"quick_check": ["row 7 missing from index x", "more"]}),
    ("file system", "error", {"file_system": "nfs4", "local": False}),
    ("file system", "warning", {"file_system": "fuse.mystery"}),
    ("free disk", "error", {"free_bytes": 2**20}),
    ("free disk", "warning", {"free_bytes": 100 * 2**20}),
    ("SQLite", "warning", {"sqlite_version": "3.40.1"}),
    ("library", "warning", {"library": "pysqlite3.dbapi2"}),
    ("journal mode", "error", {"journal_mode": "delete"}),
    ("journal mode", "error", {"synchronous": 1}),
    ("WAL", "warning", {"wal_bytes": 2**20, "wal_blocked_frames": 3, "holders": ["python (4711)"]}),
    ("WAL", "error", {"wal_bytes": 2**28, "wal_blocked_frames": 3}),
    ("WAL", "warning", {"wal_bytes": 2**28}),
    ("WAL", "warning", {"wal_blocked_frames": None}),
    ("WAL", "warning", {"read_only": True, "wal_blocked_frames": None, "wal_bytes": 2**28}),
    ("consumers", "warning", {"dead_consumers": [f"consumer-{number}" for number in range(9)]}),
    ("leases", "warning", {"expired_leases": 2}),
    ("clock", "warning", {"boot_matches": False}),
    ("file modes", "warning", {"mode": 0o644}),
    ("file modes", "warning", {"sides": {"-gate": 0o666}}),
    ("gate", "error", {"gate": "missing"}),
    ("file size", "warning", {"page_count": 100_000, "freelist_count": 90_000}),
]


def test_a_healthy_queue_gives_only_good_findings() -> None:
    findings = judge(HEALTHY)
    assert [finding for finding in findings if finding.level != "ok" or finding.mend] == []
    assert len({finding.check for finding in findings}) == len(findings)
    assert worst(findings) == "ok"


@pytest.mark.parametrize(("check", "level", "facts"), ILL)
def test_each_fault_gives_one_finding_of_its_level(check: str, level: str, facts: dict[str, Any]) -> None:
    ill = [finding for finding in judge(HEALTHY | facts) if finding.level != "ok"]
    assert [(finding.check, finding.level) for finding in ill] == [(check, level)]


def test_every_command_that_mends_exists() -> None:
    verbs = {verb for panel in PANELS.values() for verb in panel}
    for _, _, facts in ILL:
        for finding in judge(HEALTHY | facts):
            assert finding.level == "ok" or finding.mend, finding
            assert set(re.findall(r"`pq ([a-z-]+)", finding.mend or "")) <= verbs


def test_a_long_reader_is_named() -> None:
    [wal] = [one for one in judge(HEALTHY | ILL[9][2]) if one.check == "WAL"]
    assert "open in python (4711)" in wal.text


@pytest.mark.parametrize(
    ("version", "bad"),
    [
        *(("3.6.23", False), ("3.7.0", True), ("3.40.1", True), ("3.44.5", True), ("3.44.6", False)),
        *(("3.45.0", True), ("3.50.6", True), ("3.50.7", False), ("3.51", True), ("3.51.2", True)),
        *(("3.51.3", False), ("3.52.0", False), ("4.0", False)),
    ],
)
def test_the_wal_reset_bug_is_told_by_the_version(version: str, *, bad: bool) -> None:
    assert has_wal_reset_bug(version) is bad


@pytest.mark.parametrize("read_only", [False, True])
def test_a_real_queue_is_examined(tmp_path: Path, *, read_only: bool) -> None:
    path = tmp_path / "queue.db"
    with pq.connect(path) as queue, pq.connect(path, read_only=read_only) as examined:
        queue.enqueue("stamp")
        findings = examine(examined, full=True)
    bad = [
        one
        for one in findings
        if one.level != "ok" and one.check not in {"SQLite", "file system", "free disk"}
    ]
    assert bad == []
    assert {one.check for one in findings} == {one.check for one in judge(HEALTHY)}


def test_a_real_long_reader_is_found_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    with pq.connect(path) as queue:
        queue.enqueue("stamp")
        code = (
            "import sqlite3, sys\n"
            f"connection = sqlite3.connect({str(path)!r}, isolation_level=None)\n"
            "connection.execute('begin'); connection.execute('select count(*) from jobs').fetchall()\n"
            "print('reading', flush=True); sys.stdin.read()"
        )
        reader = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert reader.stdout.readline() == b"reading\n"
            queue.enqueue("stamp")
            [wal] = [one for one in examine(queue) if one.check == "WAL"]
            assert wal.level == "warning"
            assert "cannot be moved" in wal.text
            if Path("/proc/self/fd").exists():
                assert f"({reader.pid})" in wal.text
        finally:
            reader.communicate(timeout=20)
        assert [one.level for one in examine(queue) if one.check == "WAL"] == ["ok"]


def test_a_removed_gate_and_wide_modes_are_found(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    with pq.connect(path) as queue:
        Path(f"{path}-gate").unlink()
        path.chmod(0o644)
        levels = {one.check: one.level for one in examine(queue)}
    assert (levels["gate"], levels["file modes"]) == ("error", "warning")


def test_the_exit_code_is_1_only_for_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "queue.db"
    pq.connect(path).close()
    run = CliRunner().invoke
    assert run(app, ["--db", str(path), "doctor"]).exit_code == 0
    found = [Finding("a", "warning", "odd", "`pq rescue`"), Finding("b", "error", "bad\x1b", None)]
    monkeypatch.setattr("pq.doctor.examine", lambda queue, *, full: found)
    result = run(app, ["--db", str(path), "doctor"])
    assert result.exit_code == 1
    assert "to mend: `pq rescue`" in result.output
    assert "bad\\x1b" in result.output
    assert run(app, ["--db", str(path), "doctor", "--json"]).exit_code == 1


def test_a_damaged_database_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    with pq.connect(path) as queue:
        queue.enqueue_many([pq.NewJob("stamp", {"text": "x" * 300})] * 2_000)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(os.urandom(16_384))
    result = CliRunner().invoke(app, ["--db", str(path), "doctor", "--full"])
    assert result.exit_code == 1
    assert not isinstance(result.exception, sqlite3.Error)
    assert "damaged" in result.output


def test_holders_leave_this_process_out(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    with pq.connect(path):
        assert holders(path) == []
