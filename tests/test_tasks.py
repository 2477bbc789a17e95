"""The registry of tasks: names, signatures, sources, and what is said when they do not fit."""

import importlib
import subprocess
import sys

import pytest

import pq
from pq import tasks
from pq.tasks import Context, known, load_tasks, lookup


@pytest.fixture(autouse=True)
def the_registry_as_it_was(monkeypatch):
    fresh = tasks._Registry()
    tasks._registry.load()
    fresh.tasks.update(tasks._registry.tasks)
    fresh.loaded = True
    monkeypatch.setattr(tasks, "_registry", fresh)
    yield
    for name in [name for name in sys.modules if name.startswith("pq_tasks_of.")]:
        del sys.modules[name]


def test_the_built_in_stamp_is_known_without_importing_anything():
    code = "import pq.tasks; print(pq.tasks.known(), pq.tasks.lookup('stamp').name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['notebook', 'stamp'] stamp"


def test_nobody_takes_the_name_of_a_built_in_task():
    with pytest.raises(pq.InvalidJobError, match="task stamp is built in; choose another name"):
        pq.task("stamp")(lambda: None)


def test_an_unknown_task_is_told_with_the_known_ones():
    pq.task("mail")(lambda: None)
    with pytest.raises(pq.UnknownTaskError, match=r"unknown task 'post'; known are mail, notebook, stamp$"):
        lookup("post")


def test_a_cell_that_runs_again_replaces_its_function():
    results = []
    for version in (1, 2):
        namespace = {"__name__": "__main__", "pq": pq, "version": version}
        exec("@pq.task('cell')\ndef cell(): return version", namespace)
        results.append(lookup("cell").function())
    assert results == [1, 2]


def test_two_functions_do_not_share_a_name():
    def first():
        pass

    def second():
        pass

    pq.task("both")(first)
    with pytest.raises(
        pq.InvalidJobError, match=r"task both is already .*first; choose another name for .*second"
    ):
        pq.task("both")(second)
    assert lookup("both").function is first


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x, /: x, "positional-only"),
        ("text", "must be a function, not str"),
        (type, "no signature|positional-only"),
    ],
)
def test_what_cannot_be_called_by_keyword_is_no_task(function, message):
    with pytest.raises(pq.InvalidJobError, match=message):
        pq.task("odd")(function)


def test_async_functions_and_generators_are_refused():
    async def later():
        pass

    def several():
        yield

    for function in (later, several):
        with pytest.raises(pq.InvalidJobError, match="must be a plain function"):
            pq.task("odd")(function)


@pytest.mark.parametrize("name", ["", "a\nb", 7, None, lambda: None])
def test_a_name_that_cannot_be_stored_is_refused(name):
    with pytest.raises(pq.InvalidJobError, match="a task's name"):
        pq.task(name)


def test_parameters_that_do_not_fit_are_named():
    @pq.task("add")
    def add(context, a, b, *, c=0):
        pass

    add_ = lookup("add")
    assert add_.keywords({"a": 1, "b": 2, "c": 3}) == {"a": 1, "b": 2, "c": 3}
    assert add_.keywords({"a": 1, "b": 2}) == {"a": 1, "b": 2}
    with pytest.raises(pq.InvalidJobError) as caught:
        add_.keywords({"a": 1, "x": 1, "y": 2})
    assert (
        str(caught.value) == "the parameters do not fit task add: missing b; unknown x, y; it takes a, b, c"
    )
    with pytest.raises(pq.InvalidJobError, match="unknown context"):
        add_.keywords({"a": 1, "b": 2, "context": 3})


def test_a_task_with_any_keywords_takes_all_but_the_context():
    @pq.task("open")
    def open_task(context, a, **more):
        pass

    assert lookup("open").keywords({"a": 1, "z": 2}) == {"a": 1, "z": 2}
    with pytest.raises(pq.InvalidJobError, match="missing a"):
        lookup("open").keywords({"z": 2})
    with pytest.raises(pq.InvalidJobError, match="sets `context` itself"):
        lookup("open").keywords({"a": 1, "context": 2})


def test_a_file_is_loaded_by_path_once_and_may_import_its_neighbour(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "neighbour_of_tasks.py").write_text("word = 'hello'\n")
    file = tmp_path / "my tasks.py"
    file.write_text(
        "import pq, neighbour_of_tasks\nloads = 0\n@pq.task('greet')\n"
        "def greet(): return neighbour_of_tasks.word\n"
    )
    load_tasks([str(file)])
    first = lookup("greet").function
    load_tasks([str(file)])
    assert first() == "hello"
    assert lookup("greet").function is first


def test_a_module_is_loaded_from_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "tasks_of_the_folder.py").write_text("import pq\n@pq.task('here')\ndef here(): pass\n")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.chdir(tmp_path)
    load_tasks(["tasks_of_the_folder"])
    assert "here" in known()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def broken(:", "SyntaxError"),
        ("raise ValueError('no')", "ValueError: no"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_named_and_can_be_loaded_once_mended(tmp_path, text, message):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(pq.PQError, match=rf"cannot load tasks from .*mine\.py: {message}"):
        load_tasks([str(file)])
    file.write_text("import pq\n@pq.task('mended')\ndef mended(): pass\n")
    load_tasks([str(file)])
    assert "mended" in known()


@pytest.mark.parametrize("source", ["/no/such.py", "no_such_module_anywhere", ""])
def test_a_source_that_is_not_there_is_named(source):
    with pytest.raises(pq.PQError, match="cannot load tasks from"):
        load_tasks([source])


def test_sources_are_a_list():
    with pytest.raises(pq.InvalidJobError, match="must be a list"):
        load_tasks("mine.py")


def test_installed_tasks_are_found_and_a_broken_one_is_named(tmp_path, monkeypatch):
    (tmp_path / "plugin_of_test.py").write_text("def work(a): return a\n")
    folder = tmp_path / "plugin-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
    (folder / "entry_points.txt").write_text(
        "[pq.tasks]\nwork = plugin_of_test:work\nbroken = plugin_of_test:missing\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    tasks._registry.loaded = False
    assert lookup("work").function(a=3) == 3
    with pytest.raises(
        pq.PQError, match="task broken is installed but cannot be loaded: plugin_of_test:missing"
    ):
        lookup("broken")
    with pytest.raises(pq.UnknownTaskError, match="known are notebook, stamp, work; broken cannot be loaded"):
        lookup("other")


def test_progress_is_written_at_most_four_times_a_second_and_the_last_is_not_forgotten(queue, monkeypatch):
    queue.enqueue("x")
    job = queue.dequeue("c")
    now = [100.0]
    monkeypatch.setattr(tasks.time, "monotonic", lambda: now[0])
    context = Context(job, queue)
    for step in range(10):
        context.progress(step / 10, f"step {step}")
    assert queue.get(job).message == "step 0"
    now[0] += 1
    context.flush()
    assert (queue.get(job).progress, queue.get(job).message) == (0.9, "step 9")
    assert context.key == str(job.id)
    assert context.folder == queue.folder


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_progress_outside_of_its_range_is_refused_every_time(queue, fraction):
    queue.enqueue("x")
    context = Context(queue.dequeue("c"), queue)
    context.progress(0.1)
    with pytest.raises(pq.InvalidJobError, match="from 0 to 1"):
        context.progress(fraction)


def test_progress_tells_a_cancel_and_a_lost_lease(queue, monkeypatch):
    monkeypatch.setattr(tasks, "PROGRESS_SECONDS", 0)
    queue.enqueue("x")
    job = queue.dequeue("c")
    context = Context(job, queue)
    queue.cancel(job)
    with pytest.raises(pq.CancelRequestedError):
        context.progress(0.5)
    queue.assign(job, "other")
    with pytest.raises(pq.LeaseLostError):
        context.progress(0.6)
