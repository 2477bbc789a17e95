"""Reading only: what is opened so cannot write, whatever is called, and a read that takes too long ends."""

import dataclasses
from datetime import timedelta

import pytest

import pq
from pq.errors import StorageError
from pq.settings import read_settings
from pq.widgets import AdminBoard, OpsBoard

WRITES = {
    "enqueue": lambda queue: queue.enqueue("stamp"),
    "dequeue": lambda queue: queue.dequeue("c-1"),
    "cancel": lambda queue: queue.cancel(1),
    "delete": lambda queue: queue.delete(1),
    "delete_all": lambda queue: queue.delete_all(),
    "pause": lambda queue: queue.pause("default"),
    "prune": lambda queue: queue.prune(timedelta(0)),
    "register_consumer": lambda queue: queue.register_consumer("c-1"),
    "set_setting": lambda queue: queue.set_setting("a", "b"),
    "limit_group": lambda queue: queue.limit_group("study", 1),
}


@pytest.fixture
def slow(queue):
    """A statement that would take minutes."""
    if queue.url.startswith("postgresql"):
        return "select pg_sleep(120)"
    return "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"


@pytest.mark.parametrize("name", WRITES)
def test_a_reader_sees_everything_and_writes_nothing(queue, name):
    queue.enqueue("stamp", {"path": "x" * 20_000}, group="study")
    reader = queue.reader()
    with pytest.raises(StorageError, match="only to be read"):
        WRITES[name](reader)
    later = queue.enqueue("stamp").id
    assert [job.id for job in reader.list()] == [later, later - 1]
    assert reader.get(later - 1) == queue.get(later - 1)
    assert (reader.counts(), reader.queues()) == (queue.counts(), queue.queues())
    assert reader.counts()["pending"] == 2
    assert queue.setting("a") is None
    assert queue.consumers() == []


def test_the_database_itself_refuses_a_write_of_a_reader(queue):
    queue.enqueue("stamp")
    reader = queue.reader()
    with pytest.raises(Exception, match=r"readonly|read-only|only to be read"):
        reader._session.execute("delete from jobs")
    with pytest.raises(StorageError), reader.transaction():
        reader._session.execute("delete from jobs")
    assert queue.counts()["pending"] == 1


def test_a_queue_has_one_reader_which_ends_with_it(queue):
    reader = queue.reader()
    assert queue.reader() is reader
    assert reader.reader() is reader
    queue.close()
    with pytest.raises(StorageError, match="closed"):
        reader.list()


def test_a_read_that_takes_too_long_is_ended_and_the_next_one_works(queue, place, slow):
    settings = dataclasses.replace(read_settings(), read_only=True)
    with type(queue)(place, clock=queue.clock, settings=settings, read_seconds=0.05) as reader:
        with pytest.raises(StorageError, match="took too long"):
            reader._session.rows(slow)
        assert reader.list() == []


def test_a_setting_opens_queues_for_reading_only_and_makes_none(queue, place, tmp_path, monkeypatch):
    queue.enqueue("stamp")
    monkeypatch.setenv("PQ_READ_ONLY", "1")
    with pq.connect(place) as looking:
        assert [job.task for job in looking.list()] == ["stamp"]
        assert looking.health()
        with pytest.raises(StorageError, match="only to be read"):
            looking.enqueue("stamp")
    if not place.startswith("postgresql"):
        with pytest.raises(StorageError, match="there is no queue"):
            pq.connect(tmp_path / "other.db")
        (tmp_path / "empty.db").touch()
        with pytest.raises(StorageError, match="not the tables"):
            pq.connect(tmp_path / "empty.db")
        assert [path.name for path in tmp_path.glob("*-gate")] == ["queue.db-gate"]


@pytest.mark.parametrize("make", [OpsBoard, AdminBoard])
def test_the_pages_read_on_connections_that_cannot_write(tmp_path, make):
    with pq.connect(tmp_path / "queue.db") as queue:
        queue.enqueue("stamp")
        board = make(queue)
        said = []
        queue._session.connection.set_trace_callback(said.append)
        board.view = board._read()
        assert board.view["counts"]["pending"] == 1
        assert said == []
        board.close()
