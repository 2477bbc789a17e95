"""Simulated histories break no promise, a seed replays exactly, and planted defects are found."""

import pytest

from tests.faults.simulation import play, play_many
from tests.faults.simulation_mutants import MUTANTS
from tests.faults.simulation_world import simulated

# Seeds whose histories once broke a promise, or showed the simulation itself to be wrong.
REGRESSIONS = (4, 18, 1698, 2144, 2304, 2615, 4372)


def violations(histories):
    return [history.violation for history in histories if history.violation]


def test_a_hundred_histories_break_no_promise():
    histories = play_many(list(range(1, 101)))
    assert violations(histories) == []
    assert sum(history.jobs for history in histories) > 1000


@pytest.mark.deep
def test_five_thousand_histories_break_no_promise():
    assert violations(play_many(list(range(10_000, 15_000)))) == []


def test_histories_that_once_failed_stay_well():
    assert violations(play_many(list(REGRESSIONS))) == []


def test_a_seed_replays_exactly():
    with simulated() as folder:
        first = play(7, folder, keep_trace=True)
        assert play(7, folder, keep_trace=True) == first
        assert play(8, folder).digest != first.digest


@pytest.mark.parametrize("name", [name for name in MUTANTS if name])
def test_a_planted_defect_is_found(name):
    assert violations(play_many(list(range(1, 101)), name, until_violation=True))
