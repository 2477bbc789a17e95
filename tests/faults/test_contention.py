"""Sixteen processes at once: nobody is refused or starves, nothing is lost; without the gate it shows."""

import pytest

from tests.faults.test_powercut import run_harness


@pytest.mark.parametrize("seconds", [2, pytest.param(60, marks=pytest.mark.deep)], ids=["short", "deep"])
@pytest.mark.parametrize("options", [(), ("--hunt",)], ids=["sixteen", "all checkpoint"])
def test_nobody_is_refused_nobody_starves_and_nothing_is_lost(options, seconds, record_property):
    code, figures = run_harness("contention", *options, "--seconds", str(seconds))
    record_property("figures", figures)
    assert (code, figures["violations"]) == (0, 0), figures["first"]
    assert figures["commits"] > 100


@pytest.mark.deep  # beside other tests the processes are so slow that nobody starves
def test_the_harness_notices_that_there_is_no_gate():
    for _ in range(8):  # who starves is a matter of luck on a busy machine
        code, figures = run_harness("contention", "--seconds", "3", mutant="no_gate")
        if code:
            break
    assert code == 1
    assert figures["errors"] > 0 or figures["least_share"] < 0.1, figures
