"""`pq run`, `pq sweep`, `pq open` and `pq diff` as a person types them."""

import json
import sys

import pytest
from command_line import CommandLine, answer

import pq
from notebooks import consume, write_notebook


@pytest.fixture
def command(tmp_path):
    write_notebook(
        tmp_path / "a.ipynb",
        "import pq\npq.record(double=2 * x, name=name)",
        parameters="x: int = 1\nname = 'a'\nrate = 0.5",
    )
    return CommandLine(tmp_path / "queue.db")


def finish(command):
    with pq.connect(command.database) as queue:
        consume(queue)


def test_run_takes_papermills_parameters_and_a_file(command, tmp_path):
    file = tmp_path / "values.yaml"
    file.write_text("x: 3\nrate: 0.25\n")
    words = ("run", str(tmp_path / "a.ipynb"), "-f", str(file), "-p", "x", "-7", "-p", "name", "2026")
    job = answer(command(*words, "--timeout", "5m", "--memory", "2G", "--tag", "t", "--json"))
    assert job["parameters"]["parameters"] == {"x": -7, "rate": 0.25, "name": "2026"}
    assert (job["timeout"], job["parameters"]["memory"], job["tags"]) == (300.0, 2**31, ["t"])
    finish(command)
    assert command("open", "1").stdout.strip() == str(tmp_path / "runs" / "1" / "1.ipynb")
    assert answer(command("open", "1", "--json"))["outcome"] == "completed"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-p", "y", "1"], "has no parameter y"),
        (["-p", "x", "one"], "x of a.ipynb must be int"),
        (["-f", "missing.yaml"], "cannot read missing.yaml"),
        (["--memory", "lots"], "memory must be a size"),
    ],
)
def test_run_tells_what_is_wrong_in_one_line(command, tmp_path, words, told):
    result = command("run", str(tmp_path / "a.ipynb"), *words)
    assert result.exit_code == 1
    assert told in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    with pq.connect(command.database) as queue:
        assert queue.list() == []


def test_a_job_without_a_run_says_so(command, tmp_path):
    command("run", str(tmp_path / "a.ipynb"))
    command("enqueue", "stamp", "-p", "path", "x")
    assert "has no run of attempt 0" in command("open", "1").stderr
    assert "is no notebook" in command("open", "2").stderr


def test_sweep_reads_yaml_and_adds_only_what_is_missing(command, tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(
        "notebook: a.ipynb\nname: study\nspace:\n  x: [1, 2]\nbase: {name: b}\noptions: {priority: 2}\n"
    )
    assert answer(command("sweep", str(file), "--json")) == {
        "name": "study",
        "added": 2,
        "counts": {"pending": 2},
    }
    assert "0 added; 2 pending" in command("sweep", str(file)).stdout
    finish(command)
    assert "0 added; 2 completed" in command("sweep", str(file), "--watch").stdout


def test_of_a_limited_sweep_only_so_many_go_on(command, tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("notebook: a.ipynb\nname: study\nspace:\n  x: [1, 2, 3]\nmax_running: 2\n")
    counts = answer(command("sweep", str(file), "--json"))["counts"]
    assert counts == {"pending": 2, "blocked": 1}
    assert "3 pending" in command("sweep", str(file), "--max-running", "3").stdout
    assert command("limit", "study").stdout == "group study runs 3 of at most 3; 0 wait\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "notebook: a.ipynb",
        "notebook: a.ipynb\nspace: {x: [1]}\nevil: 1",
        "notebook: a.ipynb\nspace: {x: [1]}\nmax_running: many",
        "a: [",
        "!!python/name:os.system x",
        "notebook: a.ipynb\nspace: {x: [2026-01-01]}",
        "notebook: a.ipynb\nspace: {x: [1]}\noptions: {group: x}",
    ],
)
def test_a_wrong_sweep_file_stores_nothing(command, tmp_path, text):
    file = tmp_path / "study.yaml"
    file.write_text(text)
    result = command("sweep", str(file))
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 1
    with pq.connect(command.database) as queue:
        assert queue.list() == []


def test_diff_shows_parameters_results_and_cells(command, tmp_path):
    for x in (1, 2):
        command("run", str(tmp_path / "a.ipynb"), "-p", "x", str(x))
    finish(command)
    found = answer(command("diff", "1", "2", "--json"))
    assert found["parameters"] == {"x": [1, 2]}
    assert found["records"] == {"double": [2, 4], "name": ["a", "a"]}
    assert "-> double = 2" in found["cells"]
    text = command("diff", "1", "2").stdout
    assert "parameter x: 1 ≠ 2" in text
    assert "record name: a = a" in text
    assert json.loads((tmp_path / "runs" / "1" / "1.ipynb").read_text())["metadata"]["pq"]["job"] == 1


def test_a_failed_run_is_resubmitted_with_a_mended_notebook(command, tmp_path):
    broken = write_notebook(tmp_path / "broken.ipynb", "1 / 0", parameters="x: int = 1")
    command("run", str(broken), "-p", "x", "5", "--max-attempts", "1", "--tag", "t")
    finish(command)
    twin = answer(command("resubmit", "1", "--notebook", str(tmp_path / "a.ipynb"), "--json"))[0]
    assert twin["parameters"]["parameters"] == {"x": 5}
    assert twin["tags"] == ["t", "mends:1"]
    finish(command)
    with pq.connect(command.database) as queue:
        assert queue.get(2).result["records"] == {"double": 10, "name": "a"}
        assert (queue.get(1).status, len(queue.attempts(1))) == ("failed", 1)
    assert "only a notebook job that has finished" in _mend(command, 3).stderr
    assert command("resubmit", "1").exit_code == 0
    assert "only a notebook job that has finished" in _mend(command, 1).stderr
    assert "name the jobs" in command("resubmit", "--all", "--notebook", "a.ipynb").stderr


def _mend(command, job_id):
    command("enqueue", "stamp", "-p", "path", "x")
    return command("resubmit", str(job_id), "--notebook", str(command.database.parent / "a.ipynb"))


def test_consume_starts_kernels_as_it_is_told(command, tmp_path):
    for _ in range(2):
        command("run", str(tmp_path / "a.ipynb"))
    assert command("consume", "--count", "1", "--cold").exit_code == 0
    assert command("consume", "--count", "1", "--preload", "json,colorsys").exit_code == 0
    with pq.connect(command.database) as queue:
        starts = [pq.open_run(number, queue).metadata.pq.start for number in (1, 2)]
    assert starts == ["cold", "warm" if sys.platform == "linux" else "cold"]
