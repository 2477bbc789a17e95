"""A queue that was opened to be read only: it tells all, and the database itself refuses every write."""

import pytest

import pq
from pq.records import Outcome

WRITES = {
    "enqueue": lambda queue, job: queue.enqueue("stamp"),
    "dequeue": lambda queue, job: queue.dequeue("c"),
    "complete": lambda queue, job: queue.complete(job),
    "settle": lambda queue, job: queue.settle([Outcome(job)]),
    "heartbeat": lambda queue, job: queue.heartbeat(job),
    "register": lambda queue, job: queue.register_consumer("c"),
    "cancel": lambda queue, job: queue.cancel(job),
    "delete": lambda queue, job: queue.delete_all(),
    "assign": lambda queue, job: queue.assign(job, "c"),
    "pause": lambda queue, job: queue.pause("default"),
    "limit_group": lambda queue, job: queue.limit_group("g", 1),
    "set_setting": lambda queue, job: queue.set_setting("name", "value"),
    "prune": lambda queue, job: queue.prune(0),
}


@pytest.fixture
def taken(connect):
    queue = connect()
    queue.enqueue("stamp", {"path": "a.txt"}, group="g")
    job = queue.dequeue("c")
    queue.enqueue("stamp")
    return job


@pytest.fixture
def reader(place, taken):
    with pq.connect(place, read_only=True) as queue:
        yield queue


@pytest.mark.parametrize("verb", WRITES)
def test_every_write_is_refused_and_changes_nothing(connect, reader, taken, verb):
    before = (reader.counts(), reader.get(taken), reader.actions())
    with pytest.raises(pq.StorageError, match=r"read.only"):
        WRITES[verb](reader, taken)
    assert (reader.counts(), reader.get(taken), reader.actions()) == before
    assert connect().setting("name") is None


@pytest.mark.parametrize("statement", ["delete from jobs", "update jobs set priority = 7", "drop table jobs"])
def test_the_database_refuses_statements_that_pq_would_not_make(reader, taken, statement):
    with pytest.raises(Exception, match=r"read.?only"):
        reader._session.execute(statement)
    assert reader.get(taken).priority == 0


def test_everything_can_be_looked_at(reader, taken):
    assert reader.counts() == {"processing": 1, "pending": 1} | dict.fromkeys(
        ("blocked", "scheduled", "completed", "failed", "cancelled"), 0
    )
    assert [job.id for job in reader.list()] == [taken.id + 1, taken.id]
    assert reader.get(taken).parameters == {"path": "a.txt"}
    for look in (reader.queues, reader.counters, reader.consumers, reader.actions, reader.group_limits):
        look()
    reader.health()
    assert len(reader.frame()) == 2
