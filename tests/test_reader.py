"""Reading only: what is opened so cannot write, whatever is called, and a read that takes too long ends."""

import pytest

import pq
from pq.errors import StorageError
from pq.widgets import AdminBoard, OpsBoard


@pytest.fixture
def slow(queue):
    """A statement that would take minutes."""
    if queue.url.startswith("postgresql"):
        return "select pg_sleep(120)"
    return "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"


def test_a_reader_sees_everything_and_writes_nothing(queue):
    queue.enqueue("stamp", {"path": "x" * 20_000}, group="study")
    reader = queue.reader()
    with pytest.raises(StorageError, match="read only"):
        reader.enqueue("stamp")
    later = queue.enqueue("stamp").id
    assert [job.id for job in reader.list()] == [later, later - 1]
    assert reader.get(later - 1) == queue.get(later - 1)
    assert (reader.counts(), reader.queues()) == (queue.counts(), queue.queues())
    assert reader.counts()["pending"] == 2


def test_the_database_itself_refuses_a_write_of_a_reader(queue):
    queue.enqueue("stamp")
    reader = queue.reader()
    with pytest.raises(Exception, match=r"read.?only"):
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
    with type(queue)(place, clock=queue.clock, read_only=True, read_seconds=0.05) as reader:
        with pytest.raises(StorageError, match="took too long"):
            reader._session.rows(slow)
        assert reader.list() == []


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
