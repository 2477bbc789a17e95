"""Numbers about a queue, against a real one whose clock is moved by hand."""

from datetime import UTC, datetime, timedelta

import pytest
from conftest import FakeClock

from pq import stats
from pq.interface import PersistentQInterface

COLUMNS = {
    "task": "str",
    "queue": "str",
    "status": "str",
    "consumer": "str",
    "group": "str",
    "error": "str",
    "message": "str",
    "priority": "int64",
    "attempt": "int64",
    "max_attempts": "int64",
    "progress": "float64",
    "parameters": "object",
    "result": "object",
    "tags": "object",
    "due_at": "datetime64[us, UTC]",
    "created_at": "datetime64[us, UTC]",
    "started_at": "datetime64[us, UTC]",
    "finished_at": "datetime64[us, UTC]",
}


def now(clock: FakeClock) -> datetime:
    return datetime.fromtimestamp(clock.now(), UTC)


def finish(queue: PersistentQInterface, *, fail: bool = False) -> None:
    queue.enqueue("stamp", max_attempts=1)
    job = queue.dequeue("tester")
    assert job is not None
    if fail:
        queue.fail(job, "broken")
    else:
        queue.complete(job, {"lines": 1})


def test_an_empty_frame_has_the_columns_and_dtypes_of_a_full_one(queue):
    empty = queue.frame()
    finish(queue)
    finish(queue, fail=True)
    queue.enqueue("stamp", {"path": "a.txt"}, tags=["x"], group="g", delay=60)
    full = queue.frame()
    for frame in (empty, full):
        assert {name: str(kind) for name, kind in frame.dtypes.items()} == COLUMNS
        assert frame.index.name == "id"
        assert frame.index.dtype == "int64"
    assert (len(empty), len(full)) == (0, 3)


def test_a_frame_holds_what_the_jobs_hold_and_leaves_out_what_they_lack(queue, clock):
    finish(queue)
    queue.enqueue("stamp", {"path": "a.txt"}, tags=["x", "y"], priority=7)
    frame = queue.frame()
    assert list(frame.index) == [2, 1]
    assert frame.loc[2, "parameters"] == {"path": "a.txt"}
    assert tuple(frame.loc[2, "tags"]) == ("x", "y")
    assert frame.loc[2, "priority"] == 7
    assert frame.loc[1, "result"] == {"lines": 1}
    assert frame.loc[1, "status"] == "completed"
    assert frame.loc[1, "created_at"] == now(clock)
    assert frame.loc[2, ["consumer", "group", "error", "started_at"]].isna().all()


def test_a_frame_walks_over_many_pages_and_stops_at_its_limit(queue, monkeypatch):
    monkeypatch.setattr(stats, "PAGE", 4)
    for index in range(10):
        queue.enqueue("stamp", {"index": index}, queue="a" if index % 2 else "b")
    assert list(queue.frame().index) == list(range(10, 0, -1))
    assert list(queue.frame(limit=6).index) == [10, 9, 8, 7, 6, 5]
    assert list(queue.frame(limit=0).index) == []
    assert list(queue.frame(queue="a").index) == [10, 8, 6, 4, 2]
    assert list(queue.frame(queue="a", after=8, limit=2).index) == [6, 4]


def test_a_frame_of_status_groups_and_counts(queue):
    finish(queue)
    finish(queue, fail=True)
    queue.enqueue("stamp")
    assert queue.frame()["status"].value_counts().to_dict() == {"pending": 1, "failed": 1, "completed": 1}
    assert queue.frame(status=["failed", "pending"])["status"].tolist() == ["pending", "failed"]


def test_an_unknown_filter_is_an_error_and_not_an_empty_frame(queue):
    with pytest.raises(TypeError):
        queue.frame(colour="red")


def test_throughput_has_one_point_per_minute_and_zeros_in_the_gaps(queue, clock):
    clock.wall = 1_800_000_000.0  # a full minute
    finish(queue)
    finish(queue, fail=True)
    clock.advance(120)
    finish(queue)
    clock.advance(30)
    points = stats.throughput(queue, 4, now(clock))
    start = datetime.fromtimestamp(1_800_000_000.0, UTC)
    assert points == [
        stats.Point(start - timedelta(minutes=1), 0, 0),
        stats.Point(start, 1, 1),
        stats.Point(start + timedelta(minutes=1), 0, 0),
        stats.Point(start + timedelta(minutes=2), 1, 0),
    ]


def test_what_ended_before_the_window_is_not_counted(queue, clock):
    finish(queue)
    clock.advance(600)
    assert sum(point.completed for point in stats.throughput(queue, 5, now(clock))) == 0
    assert sum(point.completed for point in stats.throughput(queue, 60, now(clock))) == 1


def test_only_what_failed_for_good_is_a_failure(queue, clock):
    queue.enqueue("stamp", max_attempts=2)
    queue.fail(queue.dequeue("tester"), "retried")
    queue.cancel(1)
    queue.enqueue("stamp")
    job = queue.dequeue("tester")
    queue.cancel(job)
    queue.fail(job, "stopped")
    summary = stats.summary(queue, now=now(clock))
    assert (summary.completed, summary.failed) == (0, 0)
    assert summary.counts["cancelled"] == 2


def test_a_summary_tells_counts_waits_pauses_and_the_share_of_failures(queue, clock):
    finish(queue)
    finish(queue)
    finish(queue)
    finish(queue, fail=True)
    queue.enqueue("stamp", queue="mail")
    clock.advance(30)
    queue.enqueue("stamp")
    queue.pause("mail", "moving")
    clock.advance(15)
    summary = stats.summary(queue, minutes=5, now=now(clock))
    assert summary.counts == queue.counts()
    assert summary.oldest_pending == timedelta(seconds=45)
    assert (summary.completed, summary.failed, summary.failed_share) == (3, 1, 0.25)
    assert summary.per_minute == pytest.approx(4 / 4.75)
    by_name = {one.name: one for one in summary.queues}
    assert list(by_name) == ["default", "mail"]
    assert (by_name["mail"].paused, by_name["mail"].reason) == (True, "moving")
    assert by_name["mail"].oldest_pending == timedelta(seconds=45)
    assert by_name["default"].oldest_pending == timedelta(seconds=15)
    assert by_name["default"].counts["completed"] == 3
    assert not by_name["default"].paused


def test_an_empty_queue_has_a_summary_too(queue):
    summary = stats.summary(queue)
    assert set(summary.counts.values()) == {0}
    assert (summary.queues, summary.oldest_pending, summary.failed_share) == ([], None, None)
    assert summary.per_minute == 0
