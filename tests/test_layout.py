"""The shape of the code: floors, file sizes, heavy imports, no SQL made from data, clean notebooks."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "pq").rglob("*.py"))

# A floor imports only from floors below it; a module that is named here stands on the floor of its prefix.
FLOORS = [
    ["pq.errors", "pq.clock"],
    ["pq.job"],
    ["pq.records", "pq.values", "pq.settings", "pq.listing", "pq.transfer"],
    ["pq.interface"],
    ["pq.sql"],
    ["pq.sqlite", "pq.postgresql"],
]
HEAVY = {"pandas", "papermill", "voila", "IPython", "ipywidgets", "anywidget", "sqlalchemy", "nbformat"}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor_of(module: str) -> int:
    for number, prefixes in enumerate(FLOORS):
        if any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes):
            return number
    return len(FLOORS)


def imports_when_loaded(path: Path) -> set[str]:
    """Modules imported by importing this one: not those within functions, nor for type checkers."""
    found: set[str] = set()

    def visit(nodes):
        for node in nodes:
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module)
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                visit(node.orelse)
            elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                visit(ast.iter_child_nodes(node))

    visit(ast.parse(path.read_text()).body)
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_floor_imports_only_lower_ones(path):
    module = name_of(path)
    if module == "pq":
        return
    mine = floor_of(module)
    too_high = {
        other
        for other in imports_when_loaded(path)
        if other and other.startswith("pq.") and floor_of(other) > mine and floor_of(other) < len(FLOORS)
    } | {
        other
        for other in imports_when_loaded(path)
        if other and other.startswith("pq.") and mine < len(FLOORS) <= floor_of(other)
    }
    # `from pq.sqlite import sql` names a module and its folder; a class that is imported is no module.
    assert not {other for other in too_high if (ROOT / (other.replace(".", "/") + ".py")).exists()}


def test_only_the_factory_knows_a_backend():
    knowing = {
        name_of(path)
        for path in FILES
        if not name_of(path).startswith("pq.sqlite") and "pq.sqlite" in path.read_text()
    }
    assert knowing <= {"pq", "pq.factory"}
    with_library = {name_of(path) for path in FILES if "import sqlite_utils" in path.read_text()}
    assert all(name.startswith("pq.sqlite") for name in with_library)


@pytest.mark.parametrize("path", [path for path in FILES if "widgets" not in path.parts], ids=name_of)
def test_heavy_libraries_are_imported_where_they_are_used(path):
    roots = {name.partition(".")[0] for name in imports_when_loaded(path) if name}
    allowed = {"voila"} if path.name == "dashboard_server.py" else set()
    # Loaded by the factory for an address of PostgreSQL alone.
    allowed |= {"sqlalchemy"} if path.parent.name == "postgresql" else set()
    assert roots & HEAVY <= allowed


def test_importing_pq_loads_no_library():
    code = "import sys, pq; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not [name for name in (*HEAVY, "sqlite_utils", "rich", "typer") if f"'{name}'" in loaded]


@pytest.mark.parametrize("path", [*FILES, *sorted((ROOT / "tests").glob("*.py"))], ids=lambda path: path.name)
def test_a_file_has_at_most_400_lines(path):
    # The contract suite is one file on purpose: the contract in code.
    if path.name != "test_contract.py":
        assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_starts_with_one_sentence_on_what_it_holds(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_that_a_job_carries_is_executed(path):
    calls = {
        ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
    }
    assert not calls & {"eval", "exec", "compile", "pickle.loads", "marshal.loads", "yaml.load", "dill.loads"}
    assert not {"pickle", "marshal", "dill", "shelve"} & imports_when_loaded(path)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_statement_is_made_from_data(path):
    """An f-string given to `execute` may hold only upper-case constants and names of columns."""
    allowed = {"COLUMNS", "sql.COLUMNS", "columns", "select", "pragma", "name"}
    allowed |= {"WAL_LIMIT_BYTES", "CHECKPOINT_PAGES"}
    for node in ast.walk(ast.parse(path.read_text())):
        is_statement = isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("execute", "executemany", "rows", "session.rows")
        )
        if is_statement and node.args and isinstance(node.args[0], ast.JoinedStr):
            held = {
                ast.unparse(part.value)
                for part in node.args[0].values
                if isinstance(part, ast.FormattedValue)
            }
            assert held <= allowed, ast.unparse(node)


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.name)
def test_a_notebook_is_thin_and_carries_no_output(path):
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert notebook["cells"][0]["cell_type"] == "markdown"
    assert [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])] == [code[0]]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    source = "\n".join("".join(cell["source"]) for cell in code)
    assert "def " not in source
    assert len(source.splitlines()) <= 60


def test_no_script_of_the_pages_writes_markup():
    for path in (ROOT / "pq" / "widgets").rglob("*.js"):
        text = path.read_text()
        for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http"):
            assert forbidden not in text.replace("http://www.w3.org/2000/svg", ""), f"{path}: {forbidden}"
