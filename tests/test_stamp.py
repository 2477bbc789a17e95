"""The stamp task, run as a consumer runs it: a real queue, a real job, its lease and its folder."""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pq
from pq.stamp import BLOCK_BYTES, stamp
from pq.tasks import Context

MARK = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00 "


@pytest.fixture
def queue(tmp_path):
    with pq.connect(str(tmp_path / "queue.db")) as queue:
        (tmp_path / "inbox").mkdir()
        yield queue


def context_of(queue, path):
    queue.enqueue("stamp", {"path": path})
    return Context(queue.dequeue("consumer-1"), queue)


def run(queue, path):
    return stamp(context_of(queue, path), path)


def refused(queue, path):
    """The line that the job fails with; nothing else may have happened."""
    before = everything(queue.folder)
    with pytest.raises(pq.InvalidJobError) as caught:
        run(queue, path)
    assert everything(queue.folder) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def everything(folder):
    return sorted(str(path) for path in folder.rglob("*") if not path.name.startswith("queue.db"))


def split(output):
    """The lines of an output without the time, which each of them has."""
    lines = re.findall(rb"[^\n]*\n|[^\n]+", output)
    assert all(re.match(MARK, line) for line in lines), lines
    return [line[33:] for line in lines]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"one\ntwo\n", 2),
        (b"one\r\ntwo\r\n", 2),
        (b"one\ntwo", 2),
        (b"", 0),
        (b"\n", 1),
        (b"\n\n\n", 3),
        (b"\r", 1),
        (b"\xff\xfe\x00binary\x00\n\x80", 2),
        ("Zürich\u2028日本\n".encode(), 1),
        (b"x" * (BLOCK_BYTES - 1) + b"\n" + b"y" * BLOCK_BYTES + b"\n", 2),
        (b"x" * BLOCK_BYTES + b"\n" + b"y", 2),
        (b"\n" * (BLOCK_BYTES + 1), BLOCK_BYTES + 1),
    ],
)
def test_every_line_of_any_bytes_gets_a_time_and_nothing_else_changes(queue, data, lines):
    source = queue.folder / "inbox" / "a.txt"
    source.write_bytes(data)
    result = run(queue, "inbox/a.txt")
    assert result == {"output": "processed/a.txt", "lines": lines, "bytes": len(data)}
    output = split((queue.folder / "processed" / "a.txt").read_bytes())
    assert (b"".join(output), len(output)) == (data, lines)
    assert source.read_bytes() == data


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200) | st.text("a\r\n\x85\u2028", max_size=60).map(str.encode))
def test_taking_the_times_away_gives_back_the_input(queue, monkeypatch, data):
    monkeypatch.setattr("pq.stamp.BLOCK_BYTES", 7)
    (queue.folder / "inbox" / "a.txt").write_bytes(data)
    result = run(queue, "inbox/a.txt")
    output = split((queue.folder / "processed" / "a.txt").read_bytes())
    assert b"".join(output) == data
    assert result["lines"] == len(output)


def test_the_time_is_that_of_the_processing_in_utc(queue):
    (queue.folder / "inbox" / "a.txt").write_bytes(b"one\n")
    before = datetime.now(UTC)
    run(queue, "inbox/a.txt")
    text = (queue.folder / "processed" / "a.txt").read_text()
    assert before <= datetime.fromisoformat(text.split(" ")[0]) <= datetime.now(UTC)


def test_the_output_lies_below_processed_as_the_input_below_inbox(queue):
    for name in ("a.txt", "one/a.txt", "two/deep/a.txt"):
        path = queue.folder / "inbox" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        assert run(queue, f"inbox/{name}")["output"] == f"processed/{name}"
    assert split((queue.folder / "processed/two/deep/a.txt").read_bytes()) == [b"two/deep/a.txt"]


def test_an_absolute_path_within_the_folder_is_the_same_file(queue):
    path = queue.folder / "inbox" / "a.txt"
    path.write_text("one")
    assert run(queue, str(path))["output"] == "processed/a.txt"


def test_files_of_the_same_name_from_elsewhere_do_not_overwrite_each_other(
    queue, tmp_path_factory, monkeypatch
):
    roots = [tmp_path_factory.mktemp("root") for _ in range(2)]
    monkeypatch.setenv("PQ_INPUT_ROOT", os.pathsep.join(map(str, roots)))
    (queue.folder / "inbox" / "a.txt").write_text("inbox")
    outputs = {run(queue, "inbox/a.txt")["output"]: b"inbox"}
    for root in roots:
        (root / "a.txt").write_text(root.name)
        outputs[run(queue, str(root / "a.txt"))["output"]] = root.name.encode()
    assert len(outputs) == 3
    assert all(split((queue.folder / name).read_bytes()) == [text] for name, text in outputs.items())


def test_a_file_of_the_inbox_cannot_take_the_place_of_one_from_elsewhere(queue):
    (queue.folder / "a.txt").write_text("beside the database")
    output = run(queue, "a.txt")["output"]
    twin = queue.folder / "inbox" / output.removeprefix("processed/")
    twin.parent.mkdir(parents=True)
    twin.write_text("inbox")
    assert run(queue, str(twin))["output"] != output
    assert split((queue.folder / output).read_bytes()) == [b"beside the database"]


def test_a_missing_file_fails_and_nothing_else_happens(queue):
    assert "it does not exist" in refused(queue, "inbox/missing.txt")
    assert "it does not exist" in refused(queue, "inbox/no/such/folder.txt")


def test_a_folder_fails(queue):
    assert "it is a folder" in refused(queue, "inbox")
    assert "it is a folder" in refused(queue, ".")


def test_a_path_through_a_file_fails(queue):
    (queue.folder / "inbox" / "a.txt").write_text("one")
    assert "not a folder" in refused(queue, "inbox/a.txt/b.txt")


@pytest.mark.parametrize("path", ["", "a\0b", "x" * 5000, "\ud800", 7, None, ["a"], {"path": "a"}])
def test_what_is_no_path_fails(queue, path):
    context = context_of(queue, "inbox/a.txt")
    before = everything(queue.folder)
    with pytest.raises(pq.InvalidJobError):
        stamp(context, path)
    assert everything(queue.folder) == before


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../outside.txt", "inbox/../../outside.txt", "/", "/dev/zero"]
)
def test_a_path_outside_the_folder_fails(queue, path):
    (queue.folder.parent / "outside.txt").write_text("secret")
    assert "lies outside" in refused(queue, path)


def test_a_sibling_folder_whose_name_begins_the_same_is_outside(queue):
    twin = queue.folder.with_name(f"{queue.folder.name}-twin")
    twin.mkdir()
    (twin / "a.txt").write_text("secret")
    assert "lies outside" in refused(queue, str(twin / "a.txt"))


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
class TestLinks:
    def test_a_link_out_of_the_folder_fails(self, queue, tmp_path_factory):
        outside = tmp_path_factory.mktemp("outside")
        (outside / "a.txt").write_text("secret")
        (queue.folder / "inbox" / "file").symlink_to(outside / "a.txt")
        (queue.folder / "inbox" / "folder").symlink_to(outside)
        assert "lies outside" in refused(queue, "inbox/file")
        assert "lies outside" in refused(queue, "inbox/folder/a.txt")

    def test_a_link_that_leads_nowhere_or_in_a_circle_fails(self, queue):
        (queue.folder / "inbox" / "dangling").symlink_to("nowhere")
        (queue.folder / "inbox" / "circle").symlink_to("circle")
        assert "does not exist" in refused(queue, "inbox/dangling")
        refused(queue, "inbox/circle")

    def test_a_link_planted_after_the_check_is_not_followed(self, queue, monkeypatch, tmp_path_factory):
        outside = tmp_path_factory.mktemp("outside") / "a.txt"
        outside.write_text("secret")
        path = queue.folder / "inbox" / "a.txt"
        path.write_text("harmless")
        really_open = os.open

        def swap_first(name, *rest, **named):
            if str(name) == str(path):
                path.unlink()
                path.symlink_to(outside)
            return really_open(name, *rest, **named)

        context = context_of(queue, "inbox/a.txt")
        monkeypatch.setattr(os, "open", swap_first)
        with pytest.raises(pq.InvalidJobError):
            stamp(context, "inbox/a.txt")
        assert not (queue.folder / "processed").exists()

    def test_a_folder_made_a_link_after_the_check_is_not_followed(self, queue, monkeypatch, tmp_path_factory):
        outside = tmp_path_factory.mktemp("outside")
        (outside / "a.txt").write_text("secret")
        folder = queue.folder / "inbox" / "sub"
        folder.mkdir()
        (folder / "a.txt").write_text("harmless")
        really_open = os.open

        def swap_first(name, *rest, **named):
            if str(name) == str(folder / "a.txt") and not folder.is_symlink():
                folder.rename(folder.with_name("old"))
                folder.symlink_to(outside)
            return really_open(name, *rest, **named)

        context = context_of(queue, "inbox/sub/a.txt")
        monkeypatch.setattr(os, "open", swap_first)
        with pytest.raises(pq.InvalidJobError):
            stamp(context, "inbox/sub/a.txt")
        assert not (queue.folder / "processed").exists()

    def test_a_link_planted_at_the_output_is_replaced_and_its_target_stays(self, queue, tmp_path_factory):
        target = tmp_path_factory.mktemp("outside") / "target"
        target.write_text("untouched")
        (queue.folder / "inbox" / "a.txt").write_text("one")
        (queue.folder / "processed").mkdir()
        (queue.folder / "processed" / "a.txt").symlink_to(target)
        run(queue, "inbox/a.txt")
        assert target.read_text() == "untouched"
        assert not (queue.folder / "processed" / "a.txt").is_symlink()

    @pytest.mark.parametrize("inside", [True, False])
    def test_a_processed_folder_that_is_a_link_is_refused(self, queue, tmp_path_factory, inside):
        target = queue.folder / "inbox" if inside else tmp_path_factory.mktemp("outside")
        (queue.folder / "inbox" / "a.txt").write_text("one")
        (queue.folder / "processed").symlink_to(target)
        assert "symbolic link" in refused(queue, "inbox/a.txt")
        assert (queue.folder / "inbox" / "a.txt").read_text() == "one"
        assert not (target / "elsewhere").exists()

    def test_a_folder_reached_by_a_link_works(self, queue, tmp_path_factory):
        (queue.folder / "inbox" / "a.txt").write_text("one")
        link = tmp_path_factory.mktemp("links") / "queue"
        link.symlink_to(queue.folder)
        with pq.connect(str(link / "queue.db")) as other:
            assert run(other, "inbox/a.txt")["output"] == "processed/a.txt"
            assert run(other, str(link / "inbox" / "a.txt"))["output"] == "processed/a.txt"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
def test_a_fifo_fails_without_hanging(queue):
    os.mkfifo(queue.folder / "inbox" / "fifo")
    assert "not a regular file" in refused(queue, "inbox/fifo")


@pytest.mark.parametrize("linked", [False, True])
def test_the_files_of_the_queue_itself_are_refused_and_it_keeps_its_locks(queue, linked):
    identity = queue.register_consumer("consumer-1")
    for name in ("queue.db", "queue.db-wal", "queue.db-gate", f"queue.db-consumers/{identity}"):
        path = name
        if linked:
            path = f"inbox/{name.replace('/', '-')}"
            (queue.folder / path).symlink_to(queue.folder / name)
        assert "part of the queue" in refused(queue, path)
    script = f"import pq; print(pq.connect({str(queue.folder / 'queue.db')!r}).rescue())"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_a_folder_in_the_place_of_the_output_is_refused(queue):
    (queue.folder / "inbox" / "a.txt").write_text("one")
    (queue.folder / "processed" / "a.txt").mkdir(parents=True)
    assert "rename one of them" in refused(queue, "inbox/a.txt")


def test_a_file_in_the_place_of_the_output_folder_is_refused(queue):
    (queue.folder / "inbox" / "a.txt").write_text("one")
    (queue.folder / "processed").write_text("in the way")
    assert "is not a folder" in refused(queue, "inbox/a.txt")


@pytest.mark.skipif(os.name == "nt", reason="there are no such permissions")
def test_a_file_without_permission_fails(queue):
    """In another process where this one is root, whom permissions do not stop."""
    path = queue.folder / "inbox" / "a.txt"
    path.write_text("secret")
    path.chmod(0)
    if os.geteuid() != 0:
        assert "may not read it" in refused(queue, "inbox/a.txt")
        return
    context = context_of(queue, "inbox/a.txt")
    child = os.fork()
    if child == 0:
        os.setgroups([])
        for folder in (queue.folder, *queue.folder.parents[:2]):
            folder.chmod(0o755)
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        try:
            stamp(context, "inbox/a.txt")
        except pq.InvalidJobError as error:
            os._exit(0 if "may not read it" in str(error) else 3)
        finally:
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not (queue.folder / "processed").exists()


def test_a_try_that_breaks_off_leaves_nothing_and_the_next_one_is_whole(queue, monkeypatch):
    data = b"line\n" * BLOCK_BYTES
    (queue.folder / "inbox" / "a.txt").write_bytes(data)
    context = context_of(queue, "inbox/a.txt")
    monkeypatch.setattr("pq.stamp.PROGRESS_SECONDS", 0)

    def cancelled(_fraction, _message=None):
        raise pq.CancelRequestedError("cancelled")

    with monkeypatch.context() as patch:
        patch.setattr(Context, "progress", lambda _self, *rest: cancelled(*rest))
        with pytest.raises(pq.CancelRequestedError):
            stamp(context, "inbox/a.txt")
    assert list((queue.folder / "processed").iterdir()) == []
    stamp(context, "inbox/a.txt")
    assert b"".join(split((queue.folder / "processed" / "a.txt").read_bytes())) == data


def test_leftovers_of_killed_tries_are_removed_and_those_of_later_tries_are_not(queue):
    (queue.folder / "inbox" / "a.txt").write_text("one")
    context = context_of(queue, "inbox/a.txt")
    processed = queue.folder / "processed"
    processed.mkdir()
    job, token = context.job.id, context.job.token
    leftovers = [f".stamp-{job}-{token - 1}.tmp", f".stamp-{job}-{token}.tmp"]
    kept = [f".stamp-{job}-{token + 1}.tmp", f".stamp-{job}1-{token}.tmp", ".stamp-else.tmp"]
    for name in leftovers + kept:
        (processed / name).write_text("part")
    stamp(context, "inbox/a.txt")
    assert sorted(path.name for path in processed.iterdir()) == sorted([*kept, "a.txt"])


def test_a_large_file_reports_its_progress(queue, monkeypatch):
    monkeypatch.setattr("pq.stamp.PROGRESS_SECONDS", 0)
    (queue.folder / "inbox" / "a.txt").write_bytes(b"x" * BLOCK_BYTES * 4)
    reports = []
    monkeypatch.setattr(
        Context, "progress", lambda _self, part, message=None: reports.append((part, message))
    )
    run(queue, "inbox/a.txt")
    assert [part for part, _ in reports] == [0.25, 0.5, 0.75, 1.0]
    assert reports[0][1] == "262,144 of 1,048,576 bytes"


MEASURE = """
import resource, sys, pq
from pq.stamp import stamp
from pq.tasks import Context
with pq.connect(sys.argv[1]) as queue:
    queue.enqueue("stamp", {"path": "inbox/a.bin"})
    context = Context(queue.dequeue("consumer-1"), queue)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(stamp(context, "inbox/a.bin"))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
@pytest.mark.parametrize("size", [200_000_000, pytest.param(1_000_000_000, marks=pytest.mark.deep)])
def test_one_line_of_any_length_takes_little_memory(queue, size):
    with (queue.folder / "inbox" / "a.bin").open("wb") as file:
        file.truncate(size)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(queue.folder / "queue.db")],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    result, kilobytes = done.stdout.splitlines()
    assert result == str({"output": "processed/a.bin", "lines": 1, "bytes": size})
    assert int(kilobytes) < 20_000
    output = queue.folder / "processed" / "a.bin"
    assert output.stat().st_size == size + 33
    output.unlink()
