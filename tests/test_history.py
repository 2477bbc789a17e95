"""What ended over minutes to days: sums, quantiles, and that looking again reads only what is new."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from pq.history import SPANS, History, quantile


def now(clock):
    return datetime.fromtimestamp(clock.wall, UTC)


def end(queue, clock, seconds, *, fail=False, task="stamp"):
    queue.enqueue(task, max_attempts=1)
    job = queue.dequeue("tester")
    clock.advance(seconds)
    queue.fail(job, "broken") if fail else queue.complete(job)


def test_the_picture_sums_what_ended_by_step_and_by_task(queue, clock):
    history = History(queue, 60, 1)
    end(queue, clock, 2.0)
    end(queue, clock, 2.0, fail=True, task="send")
    picture = history.read(now(clock))
    assert len(picture.steps) == 60
    assert (picture.total.ended, picture.total.failed) == (2, 1)
    assert {key: tally.ended for key, tally in picture.tasks.items()} == {
        ("default", "stamp"): 1,
        ("default", "send"): 1,
    }
    assert picture.total.quantile(0.5) == pytest.approx(2.0, rel=0.1)
    assert picture.steps[-1][0] <= now(clock) < picture.steps[-1][0] + timedelta(minutes=1)


@pytest.mark.parametrize("span", SPANS)
def test_looking_again_and_again_shows_what_looking_once_shows(queue, clock, span):
    minutes, step = SPANS[span]
    again = History(queue, minutes, step)
    for round_ in range(25):
        end(queue, clock, 1.0 + round_, fail=round_ % 4 == 0)
        clock.advance(37.0 * step)
        once = History(queue, minutes, step).read(now(clock))
        assert again.read(now(clock)) == once


def test_looking_again_reads_the_last_minutes_only(queue, clock, monkeypatch):
    history = History(queue, *SPANS["7d"])
    history.read(now(clock))
    asked = []
    buckets = type(queue).buckets
    monkeypatch.setattr(type(queue), "buckets", lambda *words: asked.append(words[1]) or buckets(*words))
    clock.advance(90)
    history.read(now(clock))
    assert now(clock) - asked[0] <= timedelta(minutes=4)


def test_what_leaves_the_span_leaves_the_sums(queue, clock):
    history = History(queue, 5, 1)
    end(queue, clock, 1.0)
    assert history.read(now(clock)).total.ended == 1
    clock.advance(360)
    picture = history.read(now(clock))
    assert (picture.total.ended, picture.tasks) == (0, {})


def test_a_quantile_is_the_middle_of_its_slot():
    assert quantile(Counter(), 0.5) is None
    slots = Counter({0: 50, 40: 45, 48: 5})
    assert quantile(slots, 0.5) == pytest.approx(0.00109, rel=0.01)
    assert quantile(slots, 0.95) == pytest.approx(1.117, rel=0.01)
    assert quantile(slots, 1.0) == pytest.approx(4.467, rel=0.01)
