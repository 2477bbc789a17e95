"""The papermill engine: the same notebook as by papermill alone, cell by cell, and nothing left behind."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from processes import wait_for

from notebooks import LOSES_THE_NEXT_REQUEST, plain_papermill

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="warm kernels need Linux")

NOTEBOOKS = {
    "text": ["print('out'); import sys; print('err', file=sys.stderr)", "1 + 1", "'a' * 3; 'b'", "_ * 2"],
    "parameters": ["year = 1", "year * 2"],
    "display": [
        "from IPython.display import HTML, Markdown, JSON, display",
        "display(HTML('<b>x</b>'), Markdown('*y*')); handle = display('first', display_id='d')",
        "handle.update('second'); JSON({'a': 1})",
        "from IPython.display import clear_output; print('gone'); clear_output(); print('stays')",
    ],
    "pandas": [
        "import pandas as pd",
        "pd.DataFrame({'a': [1, 2], 'b': ['x', None]})",
        "pd.Series([1.5]).describe()",
    ],
    "figure": [
        "import matplotlib.pyplot as plt",
        "plt.plot([1, 3, 2]); plt.title('t')",
        "plt.figure(figsize=(2, 2))",
    ],
    "error": ["def f(x):\n    return 1 / x", "f(0)", "print('not reached')"],
    "syntax": ["x = (", "2"],
    "exit": ["import sys", "sys.exit(0)", "3"],
    "input": ["input('name? ')"],
    "await": ["import asyncio", "await asyncio.gather(*(asyncio.sleep(0.01, i) for i in range(3)))"],
    "warnings": ["import warnings", "warnings.warn('careful')", "warnings.warn('old', DeprecationWarning)"],
    "shell": ["!echo from below; echo err >&2", "%%bash\necho in bash", "files = !echo one two\nfiles"],
    "magic": ["%pwd", "%%capture said\nprint('hidden')", "said.stdout", "%precision 2", "3.14159"],
    "widgets": [
        "import ipywidgets as w",
        "w.IntSlider(value=3)",
        "out = w.Output()\nwith out: print('in')\nout",
    ],
    "big": ["print('x' * 3_000_000)", "for i in range(2000): print(i)"],
    "expected": ["1 / 0", "'goes on'"],
    "below": [
        "import os; os.system('echo past Python')",
        "import subprocess; subprocess.run(['echo', 'child']);",
    ],
    "threads": [
        "import threading\nt = threading.Thread(target=print, args=('from a thread',)); t.start(); t.join()",
        "import logging; logging.warning('logged'); logging.getLogger('x').error('bad')",
    ],
    "unicode": ["'ä\\u2028 🐍 \\ud83d'", "print('\\x1b[31mred\\x1b[0m\\r\\x00')"],
}


def _write(name, folder):
    cells = [new_markdown_cell("# Title"), *map(new_code_cell, NOTEBOOKS[name])]
    if name == "parameters":
        cells[1].metadata["tags"] = ["parameters"]
    if name == "expected":
        cells[1].metadata["tags"] = ["raises-exception"]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    path = folder / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def _run(path, engine):
    output = path.with_suffix(f".{engine}.ipynb")
    outcome = None
    try:
        parameters = {"year": 2026} if path.stem == "parameters" else None
        plain_papermill(path, output, parameters, engine_name=engine, cwd=path.parent)
    except papermill.PapermillExecutionError as error:
        outcome = (error.ename, error.evalue, error.exec_count)
    return outcome, _told(json.loads(output.read_text()))


def _told(notebook):
    """What a notebook says, without times and names that differ between any two runs."""
    for cell in notebook["cells"]:
        cell.pop("id", None)
        cell["metadata"].pop("execution", None)
        for name in ("start_time", "end_time", "duration"):
            cell["metadata"].get("papermill", {}).pop(name, None)
        cell["outputs"] = _joined(cell.get("outputs", []))
    state = notebook["metadata"].pop("widgets", {})
    notebook["metadata"]["papermill"] = {"exception": notebook["metadata"]["papermill"]["exception"]}
    models = [m["model_name"] for s in state.values() for m in s["state"].values()]
    text = json.dumps(notebook, sort_keys=True) + str(sorted(models))
    # Widget ids, addresses, and the process id in the name of a cell's file.
    return re.sub(r"\b[0-9a-f]{32}\b|0x[0-9a-f]+|ipykernel_[0-9]+", "…", text)


def _joined(outputs):
    """Streams by name: how many pieces a text comes in, and stderr before or after stdout, is chance."""
    streams, others = {}, []
    for output in outputs:
        if output["output_type"] == "stream":
            streams[output["name"]] = streams.get(output["name"], "") + "".join(output["text"])
        else:
            others.append(output)
    return [streams, *others]


@pytest.fixture(scope="module")
def engine():
    from pq.engine import engine

    yield
    engine.close()


@pytest.fixture
def nothing_left_behind():
    """In place of conftest's: the engine's pool lives as long as this module's tests."""


ALWAYS = ("parameters", "error")  # the others take long, and run with --deep


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.deep) for name in NOTEBOOKS]
)
def test_a_notebook_comes_out_as_by_papermill_alone(tmp_path, name):
    path = _write(name, tmp_path)

    outcome, notebook = _run(path, None)

    assert _run(path, "pq") == (outcome, notebook)


@pytest.mark.usefixtures("engine")
def test_two_runs_in_one_process_share_nothing(tmp_path):
    path = tmp_path / "in.ipynb"
    cells = map(
        new_code_cell, ["print('left' in globals())", "left = 1; import os; os.chdir('/')", "os.getpid()"]
    )
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(new_notebook(cells=list(cells), metadata={"kernelspec": kernel}), path)

    runs = [
        papermill.execute_notebook(path, None, engine_name="pq", progress_bar=False, cwd=tmp_path)
        for _ in range(2)
    ]

    assert [run.cells[0].outputs[0].text for run in runs] == ["False\n", "False\n"]
    assert runs[0].cells[2].outputs[0].data != runs[1].cells[2].outputs[0].data
    assert not psutil.pid_exists(int(runs[1].cells[2].outputs[0].data["text/plain"]))


@pytest.mark.usefixtures("engine")
def test_a_kernel_that_missed_a_request_is_woken(tmp_path, monkeypatch):
    monkeypatch.setattr("pq.kernels.client.WAKE_SECONDS", 0.2)
    path = tmp_path / "in.ipynb"
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    cells = map(new_code_cell, [LOSES_THE_NEXT_REQUEST, "print(1)", "print(2)"])
    nbformat.write(new_notebook(cells=list(cells), metadata={"kernelspec": kernel}), path)

    run = papermill.execute_notebook(
        path, None, engine_name="pq", progress_bar=False, execution_timeout=60, cwd=tmp_path
    )

    assert [cell.outputs[0].text for cell in run.cells[1:]] == ["1\n", "2\n"]


@pytest.mark.usefixtures("engine")
def test_a_limit_for_a_cell_holds_in_a_warm_kernel_too(tmp_path):
    path = tmp_path / "in.ipynb"
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(
        new_notebook(cells=[new_code_cell("while True: pass")], metadata={"kernelspec": kernel}), path
    )

    with pytest.raises(Exception, match="timed out"):
        papermill.execute_notebook(path, None, engine_name="pq", progress_bar=False, execution_timeout=1)


def test_the_command_line_runs_with_the_engine_and_leaves_nothing(tmp_path):
    path = _write("text", tmp_path)
    environment = dict(os.environ, TMPDIR=str(tmp_path), PQ_PRELOAD="json", PQ_SYSTEM=f"test-{os.getpid()}")

    done = subprocess.run(
        [Path(sys.executable).parent / "papermill", "--engine", "pq", path, tmp_path / "out.ipynb"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "out.ipynb").read_text())["metadata"]["papermill"]["exception"] is None
    assert not list(tmp_path.glob("pq-kernels-*"))
    from pq.system import processes

    wait_for(lambda: not processes.marked(environment["PQ_SYSTEM"]))


def test_papermill_finds_the_engine_and_loading_it_imports_nothing_else():
    code = (
        "import sys; before = set(sys.modules); import pq.engine\n"
        "print(*sorted(name for name in set(sys.modules) - before if not name.startswith('pq')))\n"
        "from importlib.metadata import entry_points\n"
        "print([point.value for point in entry_points(group='papermill.engine') if point.name == 'pq'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    loaded, points = done.stdout.splitlines()
    assert points == "['pq.engine:engine']"
    assert not {"papermill", "jupyter_client", "zmq", "psutil", "pandas", "asyncio"} & set(loaded.split())
