"""The producer that watches a folder: each file once, whole, and only those that may be read."""

import os
import sys

import pytest
from producing import paths, produce_from, producing, until

import pq
from pq.producer import _Folder
from pq.sqlite import PersistentQSQLite


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Once a second is for people."""
    monkeypatch.setattr("pq.producer.BEAT_SECONDS", 0.05)


@pytest.fixture
def queue(tmp_path):
    with pq.connect(str(tmp_path / "queue.db")) as queue:
        yield queue


@pytest.fixture
def source(queue):
    folder = queue.folder / "inbox"
    folder.mkdir()
    return folder


def test_each_file_of_a_folder_becomes_one_job_oldest_first(queue, source):
    for number, name in enumerate(["c.txt", "a.txt", "b.txt"]):
        (source / name).write_text("one\n")
        os.utime(source / name, (number, number))
    produce_from(queue, source, 3)
    assert [job.parameters["path"] for job in queue.list()] == ["inbox/b.txt", "inbox/a.txt", "inbox/c.txt"]


def test_more_files_than_one_transaction_takes_all_come_once(queue, source):
    for number in range(250):
        (source / f"{number:03}.txt").touch()
    assert produce_from(queue, source, 250).jobs == 250
    assert paths(queue) == [f"inbox/{number:03}.txt" for number in range(250)]


def test_many_files_do_not_keep_it_from_stopping(queue, source):
    watched = _Folder(queue, "producer-1", "default", source)
    for number in range(250):
        (source / f"{number:03}.txt").touch()
    steps = [(watched.submit(1000), watched.more) for _ in range(5)]
    assert steps == [(0, False), (100, True), (100, True), (50, False), (0, False)]


def test_the_count_is_kept_where_a_folder_has_more(queue, source):
    for number in range(7):
        (source / f"{number}.txt").touch()
    assert produce_from(queue, source, 5).jobs == 5
    assert produce_from(queue, source, 2).jobs == 2
    assert len(set(paths(queue))) == 7


def test_a_file_is_not_taken_again_after_a_restart(queue, source):
    (source / "a.txt").write_text("one\n")
    produce_from(queue, source, 1)
    with producing(queue, source=source):
        (source / "b.txt").write_text("two\n")
        until(lambda: queue.counts()["pending"] == 2)
    assert paths(queue) == ["inbox/a.txt", "inbox/b.txt"]


def test_two_producers_on_one_folder_take_each_file_once(queue, source):
    with producing(queue, source=source, name="p1"), producing(queue, source=source, name="p2"):
        for number in range(60):
            (source / f"{number}.txt").touch()
        until(lambda: queue.counts()["pending"] >= 60)
    assert len(paths(queue)) == len(set(paths(queue))) == 60


def test_a_changed_file_is_a_new_one(queue, source):
    (source / "a.txt").write_text("one\n")
    produce_from(queue, source, 1)
    (source / "a.txt").write_text("one\ntwo\n")
    produce_from(queue, source, 1)
    os.utime(source / "a.txt", (1, 1))
    produce_from(queue, source, 1)
    assert paths(queue) == ["inbox/a.txt"] * 3


def test_a_file_that_is_still_written_is_taken_when_two_looks_find_it_unchanged(queue, source):
    watched = _Folder(queue, "producer-1", "default", source)
    path = source / "a.txt"
    for number in range(3):
        with path.open("a") as file:
            file.write(f"{number}\n")
        assert watched.submit(10) == 0
    assert watched.submit(10) == 1
    assert watched.submit(10) == 0
    assert paths(queue) == ["inbox/a.txt"]


def test_a_file_that_goes_between_two_looks_is_forgotten(queue, source):
    watched = _Folder(queue, "producer-1", "default", source)
    (source / "a.txt").touch()
    watched.submit(10)
    (source / "a.txt").unlink()
    assert watched.submit(10) == 0
    assert watched.submit(10) == 0


@pytest.mark.parametrize("name", [".hidden", "a.txt.tmp", "a.part", "A.PART", "a.crdownload", "a~"])
def test_unfinished_names_wait_for_their_final_one(queue, source, name):
    (source / name).write_text("one")
    (source / "z.txt").write_text("two")
    produce_from(queue, source, 1)
    assert paths(queue) == ["inbox/z.txt"]
    (source / name).rename(source / "final.txt")
    produce_from(queue, source, 1)
    assert paths(queue) == ["inbox/final.txt", "inbox/z.txt"]


@pytest.mark.skipif(os.name == "nt", reason="links and FIFOs differ there")
def test_folders_links_and_fifos_are_left_alone(queue, source):
    (source / "folder").mkdir()
    (source / "link").symlink_to("/etc/passwd")
    os.mkfifo(source / "fifo")
    (source / "a.txt").touch()
    produce_from(queue, source, 1)
    assert paths(queue) == ["inbox/a.txt"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems want names in UTF-8")
def test_a_name_that_is_not_utf8_is_taken_once_and_stamped(queue, source):
    name = os.fsdecode(b"caf\xe9.txt")
    (source / name).write_text("one")
    produce_from(queue, source, 1)
    with producing(queue, source=source):
        (source / "b.txt").touch()
        until(lambda: queue.counts()["pending"] == 2)
    assert paths(queue) == ["inbox/b.txt", f"inbox/{name}"]
    pq.consume(queue, until_empty=True, display=False)
    assert (queue.folder / "processed" / name).read_text().endswith(" one")


def test_a_folder_that_vanishes_is_waited_for(queue, source, caplog):
    with producing(queue, source=source):
        source.rmdir()
        until(lambda: "cannot enqueue" in caplog.text)
        source.mkdir()
        (source / "a.txt").touch()
        until(lambda: paths(queue) == ["inbox/a.txt"])


def test_a_folder_elsewhere_needs_leave(queue, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "a.txt").write_text("one")
    with pytest.raises(pq.InvalidJobError, match="PQ_INPUT_ROOT"):
        produce_from(queue, elsewhere, 1)
    monkeypatch.setenv("PQ_INPUT_ROOT", str(elsewhere))
    produce_from(queue, elsewhere, 1)
    assert paths(queue) == [str(elsewhere.resolve() / "a.txt")]


def test_the_folders_of_the_queue_itself_are_refused(queue):
    (queue.folder / "processed").mkdir()
    for folder in (queue.folder, queue.folder / "processed"):
        with pytest.raises(pq.InvalidJobError, match="own files"):
            produce_from(queue, folder, 1)


def test_a_full_disk_takes_no_file_of_a_folder_before_its_job_is_stored(tmp_path, caplog):
    full = PersistentQSQLite(tmp_path / "queue.db")
    enough, full.reserve_bytes = full.reserve_bytes, 2**62
    (full.folder / "inbox").mkdir()
    (full.folder / "inbox" / "a.txt").write_text("one")
    with producing(full, source=full.folder / "inbox", count=1) as summaries:
        until(lambda: "cannot enqueue" in caplog.text)
        full.reserve_bytes = enough
        until(lambda: summaries)
    assert paths(full) == ["inbox/a.txt"]
    full.close()
