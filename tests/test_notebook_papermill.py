"""The same as papermill: parameters reach the code unchanged, and cells say what they say there."""

import ast

import papermill
import pytest
from executed_cells import told
from hypothesis import given, settings
from hypothesis import strategies as st

import pq
from notebooks import consume, plain_papermill, write_notebook
from pq.notebook.inspecting import read_notebook
from pq.notebook.job import _prepared
from pq.notebook.masking import Masking

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
HOSTILE = [
    '"; import os; os.system("x") #',
    "'''",
    '"""',
    "\\",
    '\\"',
    "\\\n",
    "line\nbreak\r\n\t\0\x1b[31m",
    "\u2028\u2029\x85\ufeff",
    "{x!r} %s $(id) `id`",
    "\ud83d\ude00 ünï",
    "\ud800",
]


def injected(tmp_path, value):
    path = tmp_path / "a.ipynb"
    if not path.exists():
        write_notebook(path, "x", parameters="x = None")
    document, _ = read_notebook(path)
    notebook = _prepared(document, {"x": value}, Masking({}), path, path)
    tree = ast.parse(notebook.cells[1].source)
    assert [type(node) for node in tree.body] == [ast.Assign]
    return ast.literal_eval(tree.body[0].value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("parameters")


@pytest.mark.deep
@settings(max_examples=300, deadline=None)
@given(value=JSON)
def test_any_json_value_reaches_the_code_unchanged(folder, value):
    assert injected(folder, value) == value


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_text_stays_a_text(folder, value):
    assert injected(folder, value) == value
    assert injected(folder, {value: [value]}) == {value: [value]}


CELLS = {
    "streams": ["import sys\nprint('out', x)\nprint('err', file=sys.stderr)"],
    "results": ["x + 1", "{'a': [1, 2]}", "None", "'text'", "x; x", "_ = 3"],
    "rich": [
        "from IPython.display import HTML, Markdown, display, update_display",
        "display(HTML('<b>a</b>'), Markdown('*a*')); handle = display('one', display_id='shown')",
        "update_display('two', display_id='shown')",
        "import pandas\npandas.DataFrame({'a': [1, 2]})",
    ],
    "plot": ["import matplotlib.pyplot as plt\nplt.plot([1, 2]);"],
    "clear": [
        "from IPython.display import clear_output\nprint(1)\nclear_output()\nprint(2)",
        "print(1)\nclear_output(wait=True)\nprint(2)",
    ],
    "magics": ["%time 1", "!echo shell", "%%writefile made.txt\nline", "%pwd", "?len"],
    "async": ["import asyncio\nawait asyncio.sleep(0.01)\nprint('done')"],
    "widgets": [
        "import ipywidgets\nslider = ipywidgets.IntSlider(3)\nslider",
        "out = ipywidgets.Output()\nout",
        "with out:\n    print('inside')\nslider.value = 5",
    ],
    "failing": ["print('a')", "raise ValueError('told')", "print('never')"],
    "input": ["input('name? ')"],
    "exit": ["import sys\nsys.exit(0)", "print('never')"],
    "empty": ["", "   ", "# comment"],
    "nothing but the truth": ["import logging\nlogging.warning('w')", "import warnings\nwarnings.warn('x')"],
}


ALWAYS = ("failing",)  # the others take long, and run with --deep


@pytest.mark.parametrize(
    ("name", "cold"),
    [
        pytest.param(
            name,
            cold,
            id=f"{name}-{'cold' if cold else 'warm'}",
            marks=() if name in ALWAYS and not cold else pytest.mark.deep,
        )
        for name in CELLS
        for cold in (False, True)
    ],
)
def test_a_run_says_what_plain_papermill_says(tmp_path, monkeypatch, name, cold):
    path = write_notebook(tmp_path / "a.ipynb", *CELLS[name], parameters="x = 1")
    monkeypatch.chdir(tmp_path)
    theirs_failed = False
    try:
        plain_papermill(path, tmp_path / "out.ipynb", {"x": 2})
    except papermill.PapermillExecutionError:
        theirs_failed = True
    theirs = _read(tmp_path / "out.ipynb")
    (tmp_path / "made.txt").unlink(missing_ok=True)
    with pq.connect(tmp_path / "queue.db") as queue:
        job = queue.enqueue_notebook(path, {"x": 2}, max_attempts=1, cold=cold)
        consume(queue)
        ours = pq.open_run(job, queue)
        assert (queue.get(job).status == "failed") is theirs_failed
    # Papermill marks the failing cell with two cells of its own; ours says so in the metadata.
    assert told(ours) == told(theirs)
    assert ours.metadata.language_info == theirs.metadata.language_info
    assert len(ours.metadata.get("widgets", {})) == len(theirs.metadata.get("widgets", {}))
    assert _keys(ours) >= _keys(theirs)


def _read(path):
    from nbformat.v4 import reads

    return reads(path.read_text())


def _keys(notebook):
    found = set(notebook.metadata.papermill)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            found |= set(cell.metadata.papermill)
    return found
