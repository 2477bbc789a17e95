"""Executed notebooks lie where PQ_RUNS says: beside the queue, in a shared folder, or far away."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import fsspec
import fsspec.implementations.memory
import pytest
from command_line import CommandLine, answer
from processes import wait_for

import pq
from notebooks import write_notebook
from pq.notebook.comparing import compare
from pq.notebook.places import FolderPlace, RemotePlace, place_of
from pq.widgets.executed import read_run, runs

# `local:` is what fsspec calls files, too: to pq it is an address like any other.
CONSUME = """
import sys, pq
pq.consume(sys.argv[1], name=sys.argv[2], display=False)
"""


@pytest.fixture
def memory():
    place = fsspec.filesystem("memory")
    yield place
    if place.exists("/"):
        place.rm("/", recursive=True)


@pytest.fixture(params=["shared folder", "memory"])
def place(request, tmp_path, monkeypatch, memory):
    """Somewhere else than beside the queue, as PQ_RUNS names it."""
    far = request.param == "memory"
    monkeypatch.setenv("PQ_RUNS", "memory://bucket/runs" if far else f"file://{tmp_path}/shared/runs")


@pytest.fixture
def store(tmp_path):
    (tmp_path / "here").mkdir()
    with pq.connect(tmp_path / "here" / "queue.db") as store:
        yield store


def names(store):
    found = place_of(store.folder)
    return {folder: sorted(found.names(folder)) for folder in (".running", *map(str, range(1, 9)))}


def shown(store):
    return {folder: files for folder, files in names(store).items() if files}


def test_a_run_is_published_there_and_everybody_reads_it_from_there(store, place):
    path = write_notebook(store.folder / "a.ipynb", "x = 1", "x + 1", "raise ValueError('boom')")
    good = write_notebook(store.folder / "b.ipynb", "x = 1")
    jobs = [store.enqueue_notebook(path, max_attempts=1), store.enqueue_notebook(good)]
    pq.consume(store, until_empty=True, display=False)
    assert shown(store) == {"1": ["1.ipynb"], "2": ["1.ipynb"]}
    assert not (store.folder / "runs").exists()
    run = pq.open_run(jobs[0], store)
    assert (run.metadata.pq.outcome, run.metadata.pq.cell) == ("failed", 4)
    assert run.metadata.papermill.output_path == place_of(store.folder).reference("1/1.ipynb")
    assert store.get(jobs[1]).result["run"] == place_of(store.folder).address("2/1.ipynb")
    assert compare(store, *jobs).facts["outcome"] == ("failed", "completed")
    assert (runs(store.folder, 1), read_run(store.folder, 1, 1)["failed"]) == ([1], 4)
    with pytest.raises(pq.NotebookMissingError, match="there are those of attempt 1"):
        pq.open_run(jobs[0], store, attempt=2)
    told = answer(CommandLine(store.path)("open", "1", "--json"))
    assert told["path"] == place_of(store.folder).address("1/1.ipynb")


def test_a_run_whose_lease_was_lost_is_not_published(store, place):
    path = write_notebook(store.folder / "a.ipynb", "import pq, os", "pq.connect().assign(1, 'nobody')")
    job = store.enqueue_notebook(path)
    pq.consume(store, count=1, until_empty=True, display=False)
    assert store.get(job).status == "pending"
    assert shown(store) == {}


def start(store, name, folder, place):
    """A consumer on a host of its own: with its own working folder, and the server's address."""
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"PQ_RUNS": place, "PQ_FOLDER": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", CONSUME, store.url, name],
        cwd=folder, env=environment, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize("scheme", [pytest.param("", marks=pytest.mark.deep), "local://"])
def test_consumers_on_two_hosts_publish_to_one_place_and_close_each_others_runs(
    postgresql_url, tmp_path, monkeypatch, scheme
):
    place = f"{scheme}{tmp_path / 'shared'}"
    monkeypatch.setenv("PQ_RUNS", place)
    monkeypatch.setenv("PQ_FOLDER", str(tmp_path / "desk"))
    monkeypatch.setenv("PQ_NOTEBOOK_ROOT", str(tmp_path / "notebooks"))
    (tmp_path / "shared").mkdir()
    mark = tmp_path / "began"
    cells = ["print('first')", f"open({str(mark)!r}, 'a').close()", "import time; time.sleep(600)"]
    slow_path = write_notebook(tmp_path / "notebooks" / "slow.ipynb", *cells)
    quick_path = write_notebook(tmp_path / "notebooks" / "quick.ipynb", "1 + 1")
    other = None
    with pq.connect(postgresql_url) as store:
        slow = store.enqueue_notebook(slow_path, max_attempts=1)
        one = start(store, "one", tmp_path / "host-1", place)
        try:
            wait_for(mark.exists, what="the run to begin")
            wait_for(lambda: running(store, slow) == 4, what="the note to tell the last cell")
            assert pq.open_run(slow, store).metadata.pq.outcome == "running"
            quick = store.enqueue_notebook(quick_path)
            os.killpg(one.pid, signal.SIGKILL)
            one.wait()
            other = start(store, "two", tmp_path / "host-2", place)
            wait_for(lambda: store.get(slow).status == "failed", what="the dead consumer's job to fail")
            wait_for(lambda: "1" in shown(store), what="its run to be closed")
            wait_for(lambda: store.get(quick).status == "completed", what="the other job")
            wait_for(lambda: "2" in shown(store), what="its run to be published")
        finally:
            for process in (one, other):
                if process is not None and process.poll() is None:
                    process.terminate()
                    process.wait()
        assert shown(store) == {"1": ["1.ipynb"], "2": ["1.ipynb"]}
        closed = pq.open_run(slow, store)
        assert (closed.metadata.pq.outcome, closed.metadata.pq.cell) == ("consumer died", 4)
        assert closed.metadata.pq.consumer == "one"
        assert pq.open_run(quick, store).metadata.pq.outcome == "completed"
    assert not list(tmp_path.glob("host-*/runs")), "nothing of a run stays on a host"


def running(store, job):
    """The cell that the draft and its note tell."""
    found = place_of(store.folder)
    name = f".running/{job.id}-1-1.cell"
    return int(found.read(name) or b"0") if found.exists(name) else 0


def test_a_job_cannot_name_the_place_of_its_run(store, tmp_path):
    elsewhere = str(tmp_path / "elsewhere")
    cells = [f"import os; os.environ['PQ_RUNS'] = os.environ['PQ_FOLDER'] = {elsewhere!r}"]
    parameters = "PQ_RUNS = output_path = ''"
    path = write_notebook(store.folder / "a.ipynb", *cells, parameters=parameters)
    job = store.enqueue_notebook(path, {"PQ_RUNS": elsewhere, "output_path": elsewhere})
    pq.consume(store, until_empty=True, display=False)
    assert store.get(job).result["run"] == "runs/1/1.ipynb"
    assert (store.folder / "runs" / "1" / "1.ipynb").exists()
    assert not (tmp_path / "elsewhere").exists()


class Unreachable(RemotePlace):
    """A place whose network fails, as the real ones' libraries tell it."""

    failing = True

    def _ask(self, act):
        def fail():
            raise RuntimeError("the network is down")

        return super()._ask(fail if self.failing else act)


def test_a_place_that_fails_now_and_then_costs_drafts_but_not_the_end(memory, caplog):
    place = Unreachable("memory://bucket/runs")
    place.write(".running/7-1-1.ipynb", b"draft")
    assert "could not be written, and is tried again" in caplog.text
    with pytest.raises(OSError, match="memory://bucket/runs: RuntimeError: the network is down"):
        place.write(".running/7-1-1.completed.ipynb", b"end", durable=True)
    place.failing = False
    place.write(".running/7-1-1.completed.ipynb", b"end", durable=True)
    place.rename(".running/7-1-1.completed.ipynb", "7/1.ipynb")
    assert (place.names(".running"), place.read("7/1.ipynb")) == ([], b"end")
    with pytest.raises(OSError, match="more than"):
        place.read("7/1.ipynb", 2)


def test_a_note_far_away_takes_a_tenth_of_the_time_and_catches_up(memory, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("pq.notebook.places.time.monotonic", lambda: now[0])
    place = RemotePlace("memory://bucket/runs")
    written = []

    def write(name, data, **_):
        now[0] += 0.5
        written.append(int(data))

    monkeypatch.setattr(place, "write", write)
    note = place.note(".running/7-1-1.cell")
    for number in (1, 2, 3):
        note.write(number)
    assert written == [1]
    now[0] += 4.9
    note.flush()
    assert written == [1]
    now[0] += 0.2
    note.flush()
    assert written == [1, 3]


def test_a_place_that_cannot_be_used_is_told_in_one_line(store, monkeypatch):
    job = store.enqueue_notebook(write_notebook(store.folder / "a.ipynb", "1"), max_attempts=1)
    monkeypatch.setenv("PQ_RUNS", "nowhere://bucket/runs")
    done = CommandLine(store.path)("open", str(job.id))
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert "PQ_RUNS=nowhere://bucket/runs cannot be used" in done.output


def test_without_the_setting_a_run_lies_beside_the_queue(store):
    place = place_of(store.folder)
    assert isinstance(place, FolderPlace)
    assert (place.root, place.reference("7/1.ipynb")) == (store.folder / "runs", "runs/7/1.ipynb")


@pytest.mark.parametrize("words", ["elsewhere", "file:///elsewhere"])
def test_a_path_and_a_file_address_are_folders(store, monkeypatch, words):
    monkeypatch.setenv("PQ_RUNS", words)
    place = place_of(store.folder)
    assert isinstance(place, FolderPlace)
    assert place.root in {store.folder / "elsewhere", Path("/elsewhere")}


class Strict(fsspec.implementations.memory.MemoryFileSystem):
    """Knows only the options that all of fsspec's places have; s3fs refuses others when it is first used."""

    protocol = "strict"

    def __init__(self, *, use_listings_cache):
        assert use_listings_cache is False, "another consumer's runs would not be seen"
        super().__init__()


def test_a_place_is_opened_with_no_options_that_another_would_not_know(memory):
    fsspec.register_implementation("strict", Strict, clobber=True)
    place = RemotePlace("strict://bucket/runs")
    place.write("7/1.ipynb", b"run", durable=True)
    assert (place.names("7"), place.read("7/1.ipynb")) == (["1.ipynb"], b"run")


def test_a_folder_is_made_below_the_place_but_never_the_place_itself(tmp_path):
    place = RemotePlace(f"local://{tmp_path / 'shared'}")
    with pytest.raises(FileNotFoundError):
        place.write("7/1.ipynb", b"run", durable=True)
    (tmp_path / "shared").mkdir()
    place.write("7/1.ipynb", b"run", durable=True)
    assert place.read("7/1.ipynb") == b"run"


@pytest.mark.deep
def test_a_bucket_of_s3_is_a_place(monkeypatch, tmp_path):
    pytest.importorskip("s3fs", reason="deep: pip install s3fs moto flask flask-cors")
    server = pytest.importorskip("moto.server", reason="deep: pip install s3fs moto flask flask-cors")
    host = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    host.start()
    try:
        address, port = host.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{address}:{port}",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "y",
            "AWS_DEFAULT_REGION": "us-east-1",
            "PQ_RUNS": "s3://bucket/runs",
        }.items():
            monkeypatch.setenv(name, value)
        fsspec.filesystem("s3").mkdir("bucket")
        with pq.connect(tmp_path / "queue.db") as store:
            job = store.enqueue_notebook(write_notebook(tmp_path / "a.ipynb", "1 + 1"))
            pq.consume(store, until_empty=True, display=False)
            assert shown(store) == {"1": ["1.ipynb"]}
            assert pq.open_run(job, store).metadata.pq.outcome == "completed"
            with pytest.raises(pq.NotebookMissingError):
                pq.open_run(job, store, attempt=2)
        monkeypatch.setenv("PQ_RUNS", "s3://nowhere/runs")
        with pytest.raises(FileNotFoundError):
            place_of(tmp_path).write("7/1.ipynb", b"run", durable=True)
    finally:
        host.stop()
