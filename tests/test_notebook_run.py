"""Runs of real kernels: what the executed notebook, the attempt and the job tell afterwards."""

import json
import sys
import threading

import psutil
import pytest
from processes import wait_for

import pq
from notebooks import LOSES_THE_NEXT_REQUEST, consume, files, meanwhile, run, statuses, write_notebook


@pytest.fixture
def store(tmp_path):
    with pq.connect(tmp_path / "queue.db") as queue:
        yield queue


def test_a_run_is_published_with_its_outputs_records_and_origin(store):
    job, notebook = run(
        store,
        "import pq, os\nprint(x, os.getcwd())\npq.record(square=x * x, name='a')",
        "pq.record(square=-1, rest=[1.5, float('nan')])",
        parameters="x = 1",
        values={"x": 7},
    )
    assert job.status == "completed"
    assert job.result == {
        "run": f"runs/{job.id}/1.ipynb",
        "records": {"square": -1, "name": "a", "rest": [1.5, None]},
    }
    assert files(store) == [f"{job.id}/1.ipynb"]
    assert statuses(notebook) == ["completed"] * 4
    assert notebook.cells[1].source == "# Parameters\nx = 7\n"
    assert notebook.cells[2].outputs[0].text == f"7 {store.folder}\n"
    facts = notebook.metadata.pq
    assert facts.outcome == "completed"
    assert facts.changed_since_enqueue is False
    assert facts.parameters == {"x": 7}
    assert facts.language.startswith("python 3.")
    assert None not in (
        facts.host,
        facts.pq,
        facts.papermill,
        facts.start,
        facts.sha256,
        facts.implementation,
    )
    assert job.message.startswith("cell 4 of 4") or job.message.startswith("cell ")


def test_a_changed_notebook_is_run_and_told(store):
    path = write_notebook(store.folder / "a.ipynb", "1")
    job = store.enqueue_notebook(path)
    write_notebook(path, "2")
    consume(store)
    assert store.get(job).status == "completed"
    assert pq.open_run(job, store).metadata.pq.changed_since_enqueue is True


def test_a_failing_cell_is_named_with_its_traceback(store):
    job, notebook = run(store, "print('before')", "def f():\n    return 1 / 0\nf()", "print('never')")
    assert job.status == "failed"
    assert job.error == "CellError: cell 3 of 4, In [2]: ZeroDivisionError: division by zero"
    (attempt,) = store.attempts(job)
    assert "return 1 / 0" in attempt.traceback
    assert "\x1b" not in attempt.traceback
    assert statuses(notebook) == ["completed", "completed", "failed", "not run"]
    assert notebook.metadata.pq.cell == 3
    assert notebook.metadata.pq.outcome == "failed"
    assert notebook.cells[3].outputs == []


def test_a_dead_kernel_is_told_and_the_rest_did_not_run(store):
    job, notebook = run(
        store, "import os, time\nprint('here', flush=True)\ntime.sleep(0.5)\nos._exit(3)", "print('never')"
    )
    assert job.error.startswith("KernelDiedError: cell 2 of 3: the kernel ended with status 3")
    assert statuses(notebook) == ["completed", "interrupted", "not run"]
    assert notebook.cells[1].outputs[0].text == "here\n"
    assert notebook.cells[1].outputs[-1].ename == "KernelDiedError"


def test_a_cell_over_its_limit_is_interrupted(store):
    job, notebook = run(
        store, "print('on', flush=True)\nimport time\ntime.sleep(600)", "print('never')", cell_timeout=1
    )
    assert job.error == "CellTimeoutError: cell 2 of 3 ran longer than its limit of 1 s"
    assert statuses(notebook) == ["completed", "interrupted", "not run"]
    assert [output.get("ename") for output in notebook.cells[1].outputs] == [
        None,
        "KeyboardInterrupt",
        "CellTimeoutError",
    ]


def test_a_job_over_its_limit_is_a_timeout_even_if_the_cell_does_not_obey(store):
    sleep = "try:\n        time.sleep(1)\n    except KeyboardInterrupt:\n        pass"
    stubborn = f"import time\nwhile True:\n    {sleep}"
    # The first has the kernel server started, which on a busy machine takes longer than the limit.
    store.enqueue_notebook(write_notebook(store.folder / "first.ipynb", "1"))
    job = store.enqueue_notebook(
        write_notebook(store.folder / "a.ipynb", stubborn, parameters=""), timeout=3, max_attempts=1
    )
    consume(store)
    notebook = pq.open_run(job, store)
    assert [attempt.outcome for attempt in store.attempts(job)] == ["timeout"]
    assert notebook.metadata.pq.outcome == "timeout"
    assert statuses(notebook) == ["completed", "interrupted"]


def test_a_cancelled_run_stops_and_says_so(store):
    path = write_notebook(
        store.folder / "a.ipynb", "import time\nprint('on')\ntime.sleep(600)", "print('never')"
    )
    job = store.enqueue_notebook(path)

    def cancel(other):
        wait_for(lambda: (other.get(job).message or "").startswith("cell 2"))
        other.cancel(job)

    with meanwhile(store, cancel):
        consume(store, count=1)
    assert store.get(job).status == "cancelled"
    notebook = pq.open_run(job, store)
    assert notebook.metadata.pq.outcome == "cancelled"
    assert statuses(notebook) == ["completed", "interrupted", "not run"]
    assert files(store) == [f"{job.id}/1.ipynb"]


def test_a_lost_lease_publishes_nothing(store):
    path = write_notebook(store.folder / "a.ipynb", "import time\ntime.sleep(600)")
    job = store.enqueue_notebook(path)

    def take_away(other):
        wait_for(lambda: (other.get(job).message or "").startswith("cell 2"))
        other.mark_failed(job, "by a person")
        wait_for(lambda: not list((store.folder / "runs" / ".running").iterdir()))
        other.stop_consumer("consumer-1")

    with meanwhile(store, take_away):
        pq.consume(store, display=False)
    assert store.get(job).error == "by a person"
    assert files(store) == []


def test_a_stopped_consumer_gives_the_run_back(store):
    path = write_notebook(store.folder / "a.ipynb", "import time\ntime.sleep(600)")
    job = store.enqueue_notebook(path)

    def stop(other):
        wait_for(lambda: (other.get(job).message or "").startswith("cell 2"))
        other.stop_consumer("consumer-1")

    with meanwhile(store, stop):
        pq.consume(store, display=False, grace=0)
    found = store.get(job)
    assert (found.status, found.attempt) == ("pending", 0)
    assert files(store) == []


def test_an_expected_exception_does_not_fail_the_run(store):
    path = write_notebook(store.folder / "a.ipynb", "1 / 0", "print('on')")
    document = json.loads(path.read_text())
    document["cells"][1]["metadata"]["tags"] = ["raises-exception"]
    path.write_text(json.dumps(document))
    job = store.enqueue_notebook(path)
    consume(store)
    assert store.get(job).status == "completed"
    assert statuses(pq.open_run(job, store)) == ["completed"] * 3


def test_sys_exit_ends_the_run_well_and_says_what_did_not_run(store):
    job, notebook = run(store, "import sys\nsys.exit()", "print('never')")
    assert job.status == "completed"
    assert statuses(notebook) == ["completed", "completed", "not run"]
    assert notebook.metadata.pq.why == "cell 2 of 3 ended the notebook by sys.exit()"


def test_endless_output_is_cut(store, monkeypatch):
    monkeypatch.setattr("pq.notebook.execution.OUTPUT_BYTES", 10_000)
    job, notebook = run(
        store, "for number in range(3000):\n    print('x' * 50, flush=number % 10 == 0)", "print('end')"
    )
    assert job.status == "completed"
    text = "".join(output.text for output in notebook.cells[1].outputs)
    assert len(text) < 100_000
    assert "were left out" in text


def test_a_secret_is_found_in_the_kernel_and_nowhere_else(store, monkeypatch):
    canary = "CANARY'<7>\n\\end"
    monkeypatch.setenv("THE_TOKEN", canary)
    job, notebook = run(
        store,
        "print(len(token), token)\nimport pq\npq.record(token=token, n=len(token))\ntoken",
        "from IPython.display import HTML, display\nimport html, json\n"
        "display(HTML(html.escape(token)))\nprint(json.dumps(token), [token])",
        "raise ValueError(token)",
        parameters="token = ''\nx = 1",
        values={"token": "secret:THE_TOKEN", "x": 2},
    )
    assert "CellError" in job.error
    assert notebook.cells[2].outputs[0].text.startswith(f"{len(canary)} ")
    assert notebook.metadata.papermill.parameters == {"token": "secret:THE_TOKEN", "x": 2}
    for path in store.folder.rglob("*"):
        if path.is_file() and not path.name.startswith("queue.db") and path.name != "notebook.ipynb":
            assert "CANARY" not in path.read_text(errors="replace"), path
    store.backup(str(store.folder / "copy.db"))
    assert b"CANARY" not in (store.folder / "copy.db").read_bytes()
    assert not any("CANARY" in str(attempt) for attempt in store.attempts(job))
    assert "CANARY" not in str(job)


def test_a_missing_secret_is_told_before_anything_runs(store, monkeypatch):
    monkeypatch.delenv("NOT_THERE", raising=False)
    path = write_notebook(store.folder / "a.ipynb", "1", parameters="x = 1")
    job = store.enqueue_notebook(path, {"x": "secret:NOT_THERE"}, max_attempts=1)
    consume(store)
    assert "the secret NOT_THERE is not set" in store.get(job).error


def test_nothing_that_a_run_started_is_left(store):
    job, notebook = run(
        store,
        "import os, subprocess\nchild = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "print(os.getpid(), child.pid)",
    )
    pids = [int(pid) for pid in notebook.cells[1].outputs[0].text.split()]
    assert job.status == "completed"
    wait_for(lambda: not any(map(psutil.pid_exists, pids)), limit=5)


def test_a_running_notebook_can_be_read(store):
    path = write_notebook(store.folder / "a.ipynb", "print('first')", "import time\ntime.sleep(600)")
    job = store.enqueue_notebook(path)
    seen = []

    def look(other):
        wait_for(lambda: (other.get(job).message or "").startswith("cell 3"))
        wait_for(lambda: statuses(pq.open_run(job, other)) == ["completed", "completed", "running"])
        seen.append(pq.open_run(job, other).cells[1].outputs[0].text)
        other.cancel(job)

    with meanwhile(store, look):
        consume(store, count=1)
    assert seen == ["first\n"]


def test_a_second_attempt_has_its_own_run(store):
    flag = store.folder / "flag"
    path = write_notebook(
        store.folder / "a.ipynb", f"import pathlib\nflag = pathlib.Path({str(flag)!r})\nassert flag.exists()"
    )
    job = store.enqueue_notebook(path, max_attempts=1)
    consume(store)
    flag.touch()
    store.resubmit(job)
    consume(store)
    assert store.get(job).result["run"] == f"runs/{job.id}/2.ipynb"
    assert files(store) == [f"{job.id}/1.ipynb", f"{job.id}/2.ipynb"]
    assert pq.open_run(job, store, attempt=1).metadata.pq.outcome == "failed"
    with pytest.raises(pq.NotebookError, match="there are those of attempt 1, 2"):
        pq.open_run(job, store, attempt=3)


def test_a_consumer_in_a_thread_of_its_own_is_stopped_too(store):
    path = write_notebook(store.folder / "a.ipynb", "import time\ntime.sleep(600)", "print('never')")
    job = store.enqueue_notebook(path, timeout=1, max_attempts=1)
    thread = threading.Thread(target=lambda: pq.consume(store.path, count=1, display=False))
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert [attempt.outcome for attempt in store.attempts(job)] == ["timeout"]
    assert statuses(pq.open_run(job, store)) == ["completed", "interrupted", "not run"]


def test_values_glued_by_scrapbook_are_results_too(store):
    envelope = "{'name': 'loss', 'data': 0.5, 'encoder': 'json', 'version': 1}"
    picture = "{'name': 'plot', 'data': 'iVBO', 'encoder': 'other', 'version': 1}"
    job, _ = run(
        store,
        "from IPython.display import publish_display_data as show\n"
        f"show({{'application/scrapbook.scrap.json+json': {envelope}}})\n"
        f"show({{'application/scrapbook.scrap.other+json': {picture}}})",
    )
    assert job.result["records"] == {"loss": 0.5}


def test_recording_outside_of_a_run_only_shows(capsys):
    pq.record(accuracy=0.25, names=("a", "b"))
    assert capsys.readouterr().out == "accuracy = 0.25\nnames = ('a', 'b')\n"
    with pytest.raises(pq.InvalidJobError, match="cannot record model"):
        pq.record(model=object())


@pytest.mark.skipif(sys.platform != "linux", reason="warm kernels need Linux")
@pytest.mark.parametrize(
    ("settings", "options", "found"),
    [
        ({}, {"preload": ["colorsys"]}, ("warm", True)),
        ({"PQ_PRELOAD": "json,colorsys"}, {}, ("warm", True)),
        ({"PQ_PRELOAD": "colorsys"}, {"preload": []}, ("warm", False)),
        ({"PQ_PRELOAD": "colorsys"}, {"cold": True}, ("cold", False)),
        ({"PQ_COLD": "1"}, {"cold": False}, ("warm", False)),
    ],
)
def test_a_consumer_tells_how_kernels_start_and_the_settings_only_where_it_does_not(
    store, monkeypatch, settings, options, found
):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    path = write_notebook(
        store.folder / "a.ipynb", "import sys, pq\npq.record(there='colorsys' in sys.modules)"
    )
    job = store.enqueue_notebook(path)
    pq.consume(store, until_empty=True, display=False, **options)
    start = pq.open_run(job, store).metadata.pq.start
    assert (start, store.get(job).result["records"]["there"]) == found


def test_what_names_no_module_is_not_preloaded(store):
    with pytest.raises(pq.InvalidJobError, match=r"cannot preload 'os; import x': it is no module's name"):
        pq.consume(store, preload=["os; import x"], display=False)
    assert store.consumers() == []


def test_a_kernel_that_missed_a_request_is_woken(store, monkeypatch):
    """As ipykernel 7.0 to 7.3 do now and then: the request is read when the next message has come."""
    pytest.importorskip("ipykernel", "7.0")
    monkeypatch.setattr("pq.notebook.execution.WAKE_SECONDS", 0.2)
    job, notebook = run(store, LOSES_THE_NEXT_REQUEST, "print(1)", "print(2)")
    assert job.error is None
    assert [cell.outputs[0].text for cell in notebook.cells[2:]] == ["1\n", "2\n"]


def test_what_a_notebook_shows_is_recorded_as_a_display(store):
    job, notebook = run(
        store,
        "import pq\nfrom IPython.display import HTML\n"
        "pq.record(table=HTML('<b>1</b>'), best=HTML('<i>old</i>'), count=3)",
        "import pandas, matplotlib.pyplot as plt\n"
        "figure, axes = plt.subplots(); axes.plot([1, 2]); plt.close(figure)\n"
        "pq.record(best=figure, frame=pandas.DataFrame({'a': [1]}))",
    )
    assert job.error is None
    assert job.result["records"] == {
        "count": 3,
        "table": {"display": ["text/html", "text/plain"]},
        "best": {"display": ["image/png", "text/plain"]},
        "frame": {"display": ["text/html", "text/plain"]},
    }
    found = pq.displays(notebook)
    assert list(found) == ["table", "best", "frame"]
    assert found["table"]["text/html"] == "<b>1</b>"
    assert found["best"]["image/png"].startswith("iVBOR")
