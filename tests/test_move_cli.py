"""`pq move` as a person calls it: a look first, a report at the end, and a way out in between."""

import json
import re
import signal
import sqlite3
import subprocess

import pytest
from command_line import PQ, CommandLine, answer
from moves import fill, pairs, places_of
from processes import wait_for

import pq


@pytest.fixture
def places(request):
    return places_of(request, getattr(request, "param", "sqlite-sqlite").split("-"))


def test_the_command_tells_first_what_it_would_move(places, tmp_path):
    old, new = places
    fill(old)
    pq_ = CommandLine(tmp_path / "unused.db")
    told = answer(pq_("move", old, new, "--dry-run", "--json"))
    assert (told["rows"]["jobs"], told["hindrance"]) == (60, None)
    said = pq_("move", old, new, "--dry-run").output
    assert f"it can move to {new}" in said
    with pytest.raises(sqlite3.OperationalError):
        sqlite3.connect(f"file:{new}?mode=ro", uri=True).execute("select 1")
    refused = pq_("move", old, new)
    assert (refused.exit_code, "needs a confirmation" in refused.output) == (1, True)


def test_the_command_moves_and_reports(places, tmp_path):
    old, new = places
    fill(old)
    pq_ = CommandLine(tmp_path / "unused.db")
    done = pq_("move", old, new, "--yes")
    assert done.exit_code == 0, done.output
    assert f"{old} has moved to {new}" in done.output
    assert "jobs                60 rows" in done.output
    again = pq_("move", old, new, "--yes", "--json")
    assert json.loads(again.stdout)["tables"] == {}
    refused = CommandLine(old)("list")
    assert (refused.exit_code, refused.output) == (1, f"pq: {old} has moved to {new}: open the queue there\n")
    nothing = pq_("move", old, new, "--abandon")
    assert (nothing.exit_code, "move it back from there" in nothing.output) == (1, True)


@pairs("postgresql-sqlite", "sqlite-postgresql")
def test_the_command_moves_from_and_to_a_server(places, tmp_path):
    old, new = places
    fill(old)
    pq_ = CommandLine(tmp_path / "unused.db")
    assert answer(pq_("move", old, new, "--dry-run", "--json"))["hindrance"] is None
    done = pq_("move", old, new, "--yes")
    assert done.exit_code == 0, done.output
    assert f"{old} has moved to {new}" in done.output
    with pytest.raises(pq.MovedError, match=re.escape(new)):
        pq.connect(old)


def test_a_password_in_the_address_is_not_shown(postgresql_url, tmp_path):
    old = tmp_path / "old.db"
    fill(old)
    secret = re.sub(r"//(\w+)(:[^@]*)?@", r"//\1:hunter2@", postgresql_url)
    pq_ = CommandLine(tmp_path / "unused.db")
    said = [pq_("move", str(old), secret, "--dry-run").output, pq_("move", str(old), secret, "--yes").output]
    said += [CommandLine(old)("list").output]
    assert "hunter2" not in "".join(said)


def test_whoever_interrupts_a_move_is_told_how_it_goes_on(places):
    old, new = places
    with pq.connect(old) as queue:
        queue.enqueue("slow")
        job = queue.dequeue("here")
        process = subprocess.Popen([*PQ, "move", old, new, "--yes"], stderr=subprocess.PIPE, text=True)
        try:
            wait_for(
                lambda: [state for state in queue.queues() if state.paused_at], what="the source to close"
            )
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 130
        assert f"the move has not ended, and {old} takes nothing new: run the same again" in said
        queue.complete(job)
        assert CommandLine(old)("move", old, new, "--abandon").exit_code == 0
        queue.enqueue("again")
