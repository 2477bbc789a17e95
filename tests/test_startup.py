"""What a quick command imports: the time it takes is made of that, and a time is no assertion."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import pq

HEAVY = {
    "numpy",
    *("pandas", "papermill", "voila", "IPython", "ipywidgets", "anywidget", "nbformat", "nbclient"),
    *("jupyter_server", "tornado", "zmq", "sqlalchemy", "supervisor", "honcho", "psutil", "matplotlib"),
}


def imported_by(*words: str) -> set[str]:
    code = (
        "import json, sys\n"
        "from pq.cli import app\n"
        f"sys.argv = ['pq', *{list(words)!r}]\n"
        "try:\n    app()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return set(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.parametrize("words", ["list", "list --json", "show 1", "stats", "monitor --once", "consumers"])
def test_commands_that_look_import_nothing_heavy(tmp_path: Path, words: str) -> None:
    path = tmp_path / "queue.db"
    with pq.connect(path) as queue:
        queue.enqueue("stamp", {"path": "inbox/a.txt"})
    modules = imported_by("--db", str(path), *words.split())
    assert {module.partition(".")[0] for module in modules} & HEAVY == set()


def test_json_needs_no_rich(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    pq.connect(path).close()
    assert "rich.table" not in imported_by("--db", str(path), "list", "--json")
