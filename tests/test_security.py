"""Hostile files and texts: bombs are refused in bounded memory, links lead nowhere, logs move no terminal."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import CommandLine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pq
from notebooks import write_notebook
from pq.cli.terminal import safe
from pq.errors import NotebookError, UnsafePathError
from pq.notebook.comparing import compare
from pq.notebook.inspecting import NOTEBOOK_BYTES
from pq.notebook.runs import close_runs, published
from pq.system.guard import print_harmless
from pq.widgets.executed import read_run

ROOT = Path(__file__).parents[1]
MEGABYTE = 2**20
# Clipboard, title, hyperlink, colours, clearing, C1, the cursor, and letters that turn a line around.
CONTROLS = (
    "\x1b]52;c;aGk=\x07\x1b]0;t\x07\x1b]8;;x\x07\x1b[31m\x1b[2J\x9b31m\x90q\x9c\x07\b\r\x7f\u202e\u2066\u200b"
)


@pytest.fixture
def store(tmp_path):
    with pq.connect(tmp_path / "queue.db") as queue:
        yield queue


@pytest.fixture
def run(tmp_path):
    return CommandLine(tmp_path / "queue.db")


# -- bombs ----------------------------------------------------------------------------------------

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
YAML_BOMBS = {
    "aliases": (LAUGHS, "more than 2,000,000 values"),
    "merged aliases": (MERGES, "more than 2,000,000 values"),
    "a list in itself": ("a: &a [*a]\n", "more than 2,000,000 values"),
    "depth": ("a: " + "[" * 30_000, "nested too deeply"),
    "a long number": ("a: " + "9" * 5_000, "is not YAML"),
    "an object": ("a: !!python/object/apply:os.system [id]\n", "is not YAML"),
    "a name twice": ("a: 1\na: 2\n", "has 'a' twice"),
    "no text": (b"\xff\xfe\x00a", "is not YAML"),
    "size": (b"# " + b"x" * 20_000_001, "more than 20 MB"),
}
MEASURED = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from typer.testing import CliRunner
from pq.cli import app
import yaml, nbformat, pq.notebook.sweeps
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for words in map(str.split, sys.argv[2:]):
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, done.output.count("\\n")) == (1, 1), done.output
    print(done.output, end="")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def refused(folder, *commands):
    """The lines that the commands were refused with, and by how much memory the process grew, in MB."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(ROOT), *commands],
        capture_output=True, text=True, timeout=120, check=False, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    *lines, grown = done.stdout.splitlines()
    return lines, int(grown) * 1024 / MEGABYTE


def test_yaml_bombs_are_refused_in_bounded_memory(tmp_path):
    write_notebook(tmp_path / "a.ipynb", "1", parameters="a = 1")
    commands = []
    for name, (bomb, _) in YAML_BOMBS.items():
        file = tmp_path / f"{name.replace(' ', '-')}.yaml"
        file.write_bytes(bomb if isinstance(bomb, bytes) else bomb.encode())
        commands += [f"--db q.db run a.ipynb -f {file.name}", f"--db q.db sweep {file.name}"]
    lines, grown = refused(tmp_path, *commands)
    told = [words for _, words in YAML_BOMBS.values() for _ in range(2)]
    assert [words for words, line in zip(told, lines, strict=True) if words not in line] == []
    assert grown < 150


def test_anchors_of_an_ordinary_sweep_are_understood(tmp_path, run):
    write_notebook(tmp_path / "a.ipynb", "1", parameters="a = 1\nb = 2")
    (tmp_path / "s.yaml").write_text("notebook: a.ipynb\nspace: {a: &n [1, 2], b: *n}\n")
    assert "4 added" in run("sweep", str(tmp_path / "s.yaml")).output


def test_notebook_bombs_are_refused_in_bounded_memory(tmp_path):
    with (tmp_path / "large.ipynb").open("wb") as file:
        file.truncate(NOTEBOOK_BYTES + 1)
    (tmp_path / "deep.ipynb").write_text('{"nbformat": 4, "cells": ' + "[" * 200_000)
    (tmp_path / "number.ipynb").write_text('{"nbformat": 4, "cells": [' + "9" * 10_000 + "]}")
    lines, grown = refused(tmp_path, *(f"--db q.db run {name}.ipynb" for name in ("large", "deep", "number")))
    assert [line.partition(".ipynb: ")[2] for line in lines] == [
        "it has more than 100,000,000 bytes", "it is no notebook", "it is no notebook",
    ]  # fmt: skip
    assert grown < 60


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "9" * 5_000,
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": 1, "a": 2}',
        '{"a": {"b": 1, "b": 1}}',
        "[1]",
    ],
)
def test_json_bombs_are_one_line(run, text):
    done = run("enqueue", "t", "--parameters", text)
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert done.output.startswith("pq: param") or "--parameters must be a JSON object" in done.output


# -- links and other things in the place of files -----------------------------------------------------


@pytest.fixture
def ended(store):
    """A notebook job after its only attempt."""
    write_notebook(store.folder / "a.ipynb", "1 + 1")
    job = store.enqueue_notebook(store.folder / "a.ipynb")
    pq.consume(store, until_empty=True, display=False)
    return store.get(job.id)


def planted(path, kind, target):
    path.unlink()
    if kind == "link":
        path.symlink_to(target)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.parent.rmdir()
        path.parent.symlink_to(target.parent)


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_a_link_planted_among_the_runs_is_not_read(store, ended, kind, tmp_path_factory, run):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "1.ipynb"
    write_notebook(elsewhere, "'a secret of somebody'")
    planted(store.folder / "runs" / published(ended.id, 1), kind, elsewhere)
    with pytest.raises((UnsafePathError, NotebookError)):
        pq.open_run(ended, store)
    with pytest.raises((UnsafePathError, NotebookError)):
        compare(store, ended, ended)
    with pytest.raises(NotebookError, match="cannot"):
        read_run(store.folder, ended.id, 1)
    for words in (["open", "1", "--json"], ["diff", "1", "1"]):
        done = run(*words)
        assert (done.exit_code, done.output.count("\n")) == (1, 1)
        assert "secret of somebody" not in done.output


@pytest.mark.parametrize("name", ["{id}", ".running"])
def test_a_folder_of_runs_that_is_a_link_is_not_written_through(store, name, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_notebook(store.folder / "a.ipynb", "1 + 1")
    job = store.enqueue_notebook(store.folder / "a.ipynb", max_attempts=1)
    (store.folder / "runs").mkdir()
    (store.folder / "runs" / name.format(id=job.id)).symlink_to(elsewhere)
    pq.consume(store, until_empty=True, display=False)
    assert list(elsewhere.iterdir()) == []
    assert close_runs(store) == 0


def test_a_link_in_the_place_of_a_drafts_file_is_replaced_or_refused(store, tmp_path_factory):
    kept = tmp_path_factory.mktemp("elsewhere") / "kept"
    kept.write_text("kept")
    write_notebook(store.folder / "a.ipynb", "1 + 1")
    job = store.enqueue_notebook(store.folder / "a.ipynb", max_attempts=1)
    running = store.folder / "runs" / ".running"
    running.mkdir(parents=True)
    for ending in (".ipynb", f".{os.getpid()}.tmp", ".completed.ipynb"):
        (running / f"{job.id}-1-1{ending}").symlink_to(kept)
    os.link(kept, running / f"{job.id}-1-1.ended.ipynb")
    pq.consume(store, until_empty=True, display=False)
    assert kept.read_text() == "kept"


def test_runs_on_another_disk_are_reached_by_a_link_of_the_whole_folder(store, tmp_path_factory):
    (store.folder / "runs").symlink_to(tmp_path_factory.mktemp("disk"))
    write_notebook(store.folder / "a.ipynb", "1 + 1")
    job = store.enqueue_notebook(store.folder / "a.ipynb")
    pq.consume(store, until_empty=True, display=False)
    assert pq.open_run(job, store).metadata.pq.outcome == "completed"
    assert read_run(store.folder, job.id, 1)["total"] == 2


# -- terminals ------------------------------------------------------------------------------------


def test_what_a_program_prints_reaches_its_log_without_controls(capfd):
    read, write = os.pipe()
    os.write(write, f"first {CONTROLS}\nlast\n".encode() + b"\xff\xc3")
    os.close(write)
    print_harmless(os.fdopen(read, "rb"))
    out = capfd.readouterr().out
    assert out.startswith("first \\x1b]52;c;aGk=")
    assert all(sign.isprintable() or sign == "\n" for sign in out)
    assert out.splitlines()[1].startswith("last")


def test_what_a_job_prints_and_raises_is_harmless_in_the_consumers_log(store, tmp_path):
    (tmp_path / "printing.py").write_text(
        "import pq\n@pq.task('print')\ndef call(context):\n"
        f"    print({CONTROLS!r})\n    raise ValueError({CONTROLS!r})\n"
    )
    store.enqueue("print", max_attempts=1)
    pq.consume(store, tasks=[str(tmp_path / "printing.py")], until_empty=True, headless=True)
    (log,) = (tmp_path / "logs").glob("*-jobs.log")
    text = log.read_text()
    assert "]52;c;aGk=" in text
    assert all(sign.isprintable() or sign == "\n" for sign in text)


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_no_text_reaches_a_terminal_as_a_control(text):
    assert safe(text).isprintable()


# -- texts in a database --------------------------------------------------------------------------

NAMES = st.text(min_size=1, max_size=50).filter(str.isprintable)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    names=st.lists(NAMES, min_size=5, max_size=5), value=st.text(max_size=100), reason=st.text(max_size=100)
)
def test_any_text_in_any_field_comes_back_as_it_was(store, names, value, reason):
    task, queue, tag, group, consumer = names
    options = {"queue": queue, "tags": [tag], "group": group}
    job = store.enqueue(task, {value: [value]}, **options)
    found = store.get(job.id)
    assert (found.task, found.queue, found.tags, found.group) == (task, queue, (tag,), group)
    assert found.parameters == {value: [value]}
    assert job.id in {one.id for one in store.list(queue=queue, task=task, tag=tag, group=group)}
    taken = store.dequeue(consumer, (queue,))
    store.fail(taken, reason, retry=False)
    store.delete(job.id, reason=reason or None)
    assert store.list(queue=queue) == []
    assert store.counts()["pending"] == 0


def test_the_wildcards_of_a_search_are_letters(store):
    wanted = store.enqueue("t", {"a": "100%_\\ done"})
    store.enqueue("t", {"a": "1000 done"})
    for text in ("%_", "100%", "_\\"):
        assert [job.id for job in store.list(search=text)] == [wanted.id]
    assert store.list(search="1%0") == []


# -- the document -----------------------------------------------------------------------------------


def test_every_proof_that_the_security_page_names_exists():
    text = (ROOT / "docs" / "security.md").read_text()
    proofs = re.findall(r"`(tests/[\w/.]+)::(\w+)`", text)
    assert len(proofs) >= 25
    missing = [(file, name) for file, name in proofs if f"def {name}(" not in (ROOT / file).read_text()]
    assert missing == []
