"""Clocks that jump under real consumers, and a laptop that sleeps: no job is lost, none taken too early."""

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import pq
from tests.faults.clocks import HOUR, Scenario, play, scenarios

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the shim is for Linux"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler for the shim"),
]

SHORT = [
    Scenario("an hour forward", HOUR),
    Scenario("an hour back", -HOUR),
    Scenario("a suspended laptop", 0, suspends=True),
]
# A heartbeat soon after the jump would hide the defect, hence a long lease: they come in its thirds.
MUTANT = Scenario("a defect", HOUR, mutant="leases_by_the_wall_clock", lease=60)


@pytest.fixture(scope="module")
def plays():
    """They mostly wait, hence all at once."""
    with ThreadPoolExecutor(4) as pool:
        return {one.scenario.name: one for one in pool.map(play, [*SHORT, MUTANT])}


@pytest.mark.parametrize("scenario", SHORT, ids=lambda scenario: scenario.name)
def test_no_job_is_lost_or_taken_too_early(plays, scenario):
    assert plays[scenario.name].violations == []


def test_leases_by_the_wall_clock_would_be_noticed(plays):
    assert "a live consumer lost job" in " ".join(plays[MUTANT.name].violations)


@pytest.mark.deep
@pytest.mark.parametrize("scenario", scenarios(), ids=lambda scenario: scenario.name)
def test_the_full_matrix(scenario):
    assert play(scenario).violations == []


def test_leases_of_an_earlier_boot_are_void_at_once(tmp_path, clock):
    """The process that took the job did not end its lease, and the new boot's clock is behind it."""
    path = tmp_path / "queue.db"
    clock.mono = 50_000.0
    with pq.connect(path, clock=clock) as queue:
        job = queue.enqueue("t")
        queue.dequeue("c1")
    clock.mono, clock.boot_id = 5.0, "second boot"
    with pq.connect(path, clock=clock) as queue:
        assert [rescued.id for rescued in queue.rescue()] == [job.id]
