"""After a power cut at any point everything that was answered is there; the harness itself would notice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.faults import recorder  # noqa: E402  # from the repository, where the harness is started too

pytestmark = pytest.mark.skipif(bool(recorder.missing()), reason=recorder.missing() or "can be recorded")


def run_harness(module, *arguments, mutant=""):
    command = [sys.executable, "-m", f"tests.faults.{module}", *arguments]
    environment = os.environ | {"PQ_MUTANT": mutant}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "images", [2_500, pytest.param(50_000, marks=pytest.mark.deep)], ids=["short", "deep"]
)
def test_no_power_cut_loses_what_was_answered(images, record_property):
    code, figures = run_harness("powercut", "--images", str(images), "--seed", "1")
    record_property("figures", figures)
    assert (code, figures["violations"]) == (0, [])
    assert figures["images"] + figures["second_cuts"] >= images
    assert figures["migrations"] > 0


@pytest.mark.parametrize("mutant", ["sync_off", "sync_normal"])
def test_the_harness_notices_commits_that_are_not_synced(mutant):
    code, figures = run_harness("powercut", "--images", "1000", "--seed", "5", mutant=mutant)
    assert code == 1
    assert figures["lost"] > 0
    # In the WAL a commit that is not synced is lost as a whole, and takes nothing else with it.
    assert (figures["corrupt"] == 0) == (mutant == "sync_normal")


def test_the_harness_notices_a_disk_that_ignores_syncs():
    code, figures = run_harness("powercut", "--images", "500", "--seed", "5", "--lying-disk")
    assert code == 1
    assert figures["lost"] > 0
    assert figures["corrupt"] > 0


@pytest.mark.parametrize("runs", [250, pytest.param(8_000, marks=pytest.mark.deep)], ids=["short", "deep"])
def test_no_io_error_and_no_kill_in_the_middle_loses_what_was_answered(runs, record_property):
    code, figures = run_harness("io_errors", "--runs", str(runs), "--seed", "2")
    record_property("figures", figures)
    assert (code, figures["violations"]) == (0, 0), figures["first"]
    assert figures["errors"] > 0
    assert figures["failed_syncs"] > 0
    assert figures["kills"] > 0


@pytest.mark.deep
def test_the_harness_notices_that_a_failed_sync_is_forgotten():
    code, figures = run_harness(
        "io_errors", "--runs", "4000", "--seed", "2", "--kinds", "S", mutant="failed_syncs_forgotten"
    )
    assert code == 1
    assert figures["violations"] > 0
