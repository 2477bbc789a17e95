"""What the list of the admin page lets through: qualifiers, times, pages, all that match."""

from datetime import UTC, datetime, timedelta

import pytest

import pq
from pq.errors import InvalidJobError
from pq.widgets.filters import Filter, Listing, first_since, moment


def ids(queue, /, **message):
    return [job.id for job in Listing(queue, Filter.of(message)).page(None, 50)]


def test_qualifiers_of_a_search_narrow_like_the_filters_do(queue):
    mail = queue.enqueue("send", {"to": "needle"}, queue="mail", tags=("eu",), group="g 1").id
    stamp = queue.enqueue("stamp", {"path": "needle.txt"}).id
    queue.enqueue("stamp", {"path": "other.txt"})
    assert ids(queue, search="needle") == [stamp, mail]
    assert ids(queue, search="queue:mail needle") == [mail]
    assert ids(queue, search="task:stamp  needle") == [stamp]
    assert ids(queue, search='group:"g 1"') == [mail]
    assert ids(queue, search="tag:eu status:pending") == [mail]
    assert ids(queue, search=f"id:{mail}") == [mail]
    assert ids(queue, search=f"id:{mail} task:stamp") == []
    assert ids(queue, queue="default", search="queue:mail") == [mail]
    assert ids(queue, search="status:failed") == []


@pytest.mark.parametrize(
    "message",
    [
        {"status": "done"},
        {"search": "status:done"},
        {"search": "id:x"},
        {"search": "since:yesterday"},
        {"until": "25:00"},
        {"tag": 7},
        {"queue": "x" * 201},
        {"search": "x" * 501},
    ],
)
def test_a_filter_that_cannot_be_is_refused(message):
    with pytest.raises(InvalidJobError):
        Filter.of(message)


def test_times_are_written_as_ages_or_dates():
    now = datetime.now(UTC)
    assert abs(moment("2h") - (now - timedelta(hours=2))) < timedelta(seconds=5)
    assert moment("2026-01-31") == datetime(2026, 1, 31, tzinfo=UTC)
    assert moment("2026-01-31T12:30+02:00") == datetime(2026, 1, 31, 10, 30, tzinfo=UTC)


def test_the_first_job_since_a_moment_is_found_by_halving(queue, clock):
    start = clock.wall
    made = []
    for _ in range(40):
        made.append(queue.enqueue("stamp"))
        clock.advance(60)
    for gone in (made[3], made[20], made[21]):
        queue.delete(gone)
    for minutes in range(-1, 42):
        bound = datetime.fromtimestamp(start + minutes * 60 - 30, UTC)
        left = [
            job.id for job in made if job.created_at >= bound and job not in (made[3], made[20], made[21])
        ]
        first = first_since(queue, bound)
        assert [job.id for job in reversed(queue.list(limit=50)) if job.id >= first] == left


def test_an_empty_queue_has_no_first_job(queue):
    assert first_since(queue, datetime.now(UTC)) == 0


def test_since_and_until_bound_the_creation_time(queue, clock):
    clock.wall = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    days = []
    for _ in range(5):
        days.append(queue.enqueue("stamp").id)
        clock.advance(86_400)
    assert ids(queue, since="2026-01-02", until="2026-01-04") == [days[2], days[1]]
    assert ids(queue, since="2026-01-05") == [days[4]]
    assert ids(queue, search="until:2026-01-02") == [days[0]]
    assert ids(queue, since="1m") == []


def test_all_that_match_are_found_up_to_a_limit(queue):
    queue.enqueue_many([pq.NewJob("stamp", queue="a" if number % 2 else "b") for number in range(60)])
    listing = Listing(queue, Filter(queue="a"))
    jobs, more = listing.all(100)
    assert (len(jobs), more) == (30, False)
    jobs, more = listing.all(10)
    assert (len(jobs), more) == (10, True)
    assert [job.id for job in jobs] == sorted((job.id for job in jobs), reverse=True)


def test_orders_and_the_finishing_time_narrow_the_list(queue, clock):
    clock.wall = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    first, second, third = (queue.enqueue("stamp", priority=number).id for number in range(3))
    assert ids(queue, order="oldest") == [first, second, third]
    assert ids(queue, order="priority") == [third, second, first]
    for wanted in (second, first):
        queue.cancel(wanted)
        clock.advance(3600)
    assert ids(queue, order="finished") == [first, second]
    assert ids(queue, search="order:finished finished:2026-01-01T00:30") == [first]
    assert ids(queue, finished="2026-01-01T00:30") == [first]
    assert ids(queue, order="oldest", since="2026-01-02") == []


def test_a_page_goes_on_in_its_order_and_keeps_the_creation_time(queue, clock):
    made = []
    for number in range(30):
        made.append(queue.enqueue("stamp", priority=number % 3))
        clock.advance(60)
    bound = made[9].created_at.isoformat()
    listing = Listing(queue, Filter(order="priority", since=bound))
    found, after = [], None
    while jobs := listing.page(after, 4):
        found += jobs
        after = jobs[-1]
    left = sorted(made[9:], key=lambda job: (-job.priority, job.id))
    assert [job.id for job in found] == [job.id for job in left]
    assert [job.id for job in listing.all(5)[0]] == [job.id for job in left[:5]]


def test_an_unknown_order_is_refused():
    with pytest.raises(InvalidJobError, match="unknown order"):
        Filter.of({"order": "random"})
