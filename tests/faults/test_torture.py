"""Processes that are killed and stopped break no promise, and the harness notices planted defects."""

import pytest

from tests.faults.checker import Kept, read, violations
from tests.faults.test_powercut import run_harness


@pytest.mark.parametrize(
    ("kills", "jobs", "seed"),
    [(200, 500, 1), pytest.param(10_000, 50_000, 2, marks=pytest.mark.deep)],
    ids=["short", "deep"],
)
def test_kills_and_pauses_lose_nothing_and_complete_nothing_twice(kills, jobs, seed, record_property):
    arguments = ("--kills", str(kills), "--jobs", str(jobs), "--seed", str(seed))
    code, figures = run_harness("torture", *arguments)
    record_property("figures", figures)
    assert (code, figures["violations"]) == (0, 0)
    assert figures["kills"] >= kills
    assert figures["jobs"] >= jobs
    assert all(figures["own_deaths"][point] for point in ("before commit", "after commit", "poison"))


@pytest.mark.deep
def test_the_same_on_a_server_that_is_killed_too(record_property):
    limits = ("--kills", "1000", "--jobs", "5000", "--server-kills", "20")
    code, figures = run_harness("torture", "--postgresql", *limits)
    record_property("figures", figures)
    assert (code, figures["violations"]) == (0, 0)
    assert figures["server_kills"] == 20
    assert figures["jobs"] >= 5000


@pytest.mark.parametrize(
    ("mutant", "kinds"),
    [
        ("no token at settle", {"stale_accepted", "completed_unstarted"}),
        pytest.param("look, then take", {"leased_twice"}, marks=pytest.mark.deep),
        pytest.param("undone_commits", {"lost", "completions_lost"}, marks=pytest.mark.deep),
        pytest.param("attempts are not counted", {"stuck", "wrong_end"}, marks=pytest.mark.deep),
    ],
)
def test_the_harness_notices(mutant, kinds):
    limits = ("--kills", "1000000", "--seconds", "8", "--seed", "1")
    code, figures = run_harness("torture", *limits, mutant=mutant)
    assert code == 1
    assert any(figures[kind] for kind in kinds), figures


GOOD = ("e? a", "e+ a 1", "s 1 1 10 5.0 6.0", "c? 1 1", "c+ 1 1")
KEPT = {1: Kept("a", "completed", 1, 3, 1, None, (1,))}


@pytest.mark.parametrize(
    ("history", "kept", "kind"),
    [
        (GOOD, KEPT, None),
        (GOOD, {}, "lost"),
        (GOOD[2:], KEPT, "unexpected"),
        ((*GOOD, "e? b"), KEPT | {2: Kept("a", "completed", 1, 3, 1, None, (1,))}, "enqueued_twice"),
        (GOOD, {1: Kept("a", "failed", 3, 3, 3, "x", ())}, "completions_lost"),
        (GOOD, {1: Kept("a", "completed", 2, 3, 2, None, (1, 2))}, "completed_twice"),
        ((*GOOD[:3], "s 1 2 11 7.0 8.0", *GOOD[3:]), KEPT, "stale_accepted"),
        ((*GOOD[:3], "s 1 2 11 5.5 6.5", *GOOD[3:]), KEPT, "leased_twice"),
        ((*GOOD, GOOD[2]), KEPT, "started_twice"),
        (GOOD[:2], KEPT, "completed_unstarted"),
        (GOOD[:2], {1: Kept("a", "processing", 1, 3, 1, None, ())}, "stuck"),
        (GOOD[:2], {1: Kept("a", "failed", 1, 3, 1, None, ())}, "wrong_end"),
    ],
)
def test_the_checker_tells_each_broken_promise(history, kept, kind):
    found = violations(read(history), kept)
    assert found[kind] if kind else not any(found.values())


def test_a_job_may_be_taken_at_once_when_its_consumer_was_killed_or_gave_it_back():
    for between in ("k 10", "d 10 before commit", "g 1 1"):
        history = (*GOOD[:3], between, "s 1 2 11 5.5 6.5")
        assert not read(history).stolen
