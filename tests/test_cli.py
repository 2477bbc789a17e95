"""The command line: jobs in and out, looking, its errors in one line, and data that no terminal obeys."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from command_line import PQ, CommandLine, answer, end, fail_one, in_terminal, read_until

import pq
from pq.cli import PANELS
from pq.cli.invocation import duration
from pq.cli.terminal import safe
from pq.errors import InvalidJobError
from pq.interface import PersistentQInterface

VERBS_OF_THE_ISSUE = (
    *("enqueue", "list", "show", "resubmit", "mark-failed", "cancel", "assign", "failed", "monitor", "stats"),
    *("consumers", "stop-consumer", "pause", "resume", "delete", "delete-files", "prune", "produce"),
    *("consume", "doctor", "backup"),
)
EVIL = "\x1b[2J\x1b]0;owned\x07 [red]x[/red] \u202egnp.exe"


@pytest.fixture
def run(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "queue.db")


@pytest.fixture
def jobs(run: CommandLine) -> Iterator[PersistentQInterface]:
    """The same queue, opened by the test itself."""
    with pq.connect(run.database) as queue:
        yield queue


# -- help and usage -------------------------------------------------------------------------------


def test_help_names_every_verb_of_the_issue(run: CommandLine) -> None:
    text = run("--help").output
    assert [verb for verb in VERBS_OF_THE_ISSUE if f" {verb} " not in text] == []


@pytest.mark.parametrize("verb", [verb for panel in PANELS.values() for verb in panel])
def test_every_verb_has_help_and_json_and_speaks_the_glossary(run: CommandLine, verb: str) -> None:
    result = run(verb, "--help")
    assert result.exit_code == 0
    assert "--json" in result.output
    words = set(result.output.lower().replace(",", " ").replace(".", " ").split())
    assert words & {"worker", "workers", "payload", "retries", "args", "message"} <= {"message"}


def test_wrong_usage_exits_with_2(run: CommandLine) -> None:
    for words in (
        ["nonsense"],
        ["show"],
        ["show", "seven"],
        ["cancel"],
        ["cancel", "7", "--all"],
        ["assign"],
    ):
        assert run("enqueue", "stamp").exit_code == 0
        assert run(*words).exit_code == 2, words


@pytest.mark.parametrize(
    "verb", ["list", "show 1", "doctor", "monitor --once", "cancel 1", "stats", "rescue"]
)
def test_a_command_that_needs_a_queue_does_not_make_one(run: CommandLine, verb: str) -> None:
    result = run.process(*verb.split())
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("pq: there is no queue at ")
    assert result.stderr.count("\n") == 1
    assert list(run.database.parent.iterdir()) == []


def test_a_users_mistake_is_one_line_without_traceback(run: CommandLine) -> None:
    run.process("enqueue", "stamp")
    (run.database.parent / "text.db").write_text("no database, but quite long enough to be one " * 50)
    for words in (
        ["show", "99"],
        ["list", "--status", "nonsense"],
        ["enqueue", "stamp", "--parameters", "{"],
        ["enqueue", "stamp", "--parameters", "[1]"],
        ["enqueue", "stamp", "--parameters", "[" * 100_000],
        ["enqueue", "stamp", "--delay", "-5s"],
        ["enqueue", "stamp", "--delay", "soon"],
        ["enqueue", "stamp", "--due-at", "yesterday"],
        ["enqueue", "stamp", "--max-attempts", "0"],
        ["enqueue", "", "--json"],
        ["enqueue", "stamp", "-p", "not-a-name", "1"],
        ["resubmit", "1"],
        ["interval", "0"],
        ["prune", "--older-than", "long"],
        ["stop-consumer", "nobody"],
    ):
        result = run(*words)
        assert (result.exit_code, result.stdout) == (1, ""), words
        assert result.stderr.startswith("pq: "), result.stderr
        assert result.stderr.count("\n") == 1, result.stderr
    for place in (
        run.database.parent / "text.db",
        run.database.parent,
        run.database.parent / "none" / "queue.db",
    ):
        result = CommandLine(place).process("enqueue", "stamp")
        assert result.returncode == 1
        assert result.stderr.startswith("pq: cannot"), result.stderr
    assert len(json.loads(run.process("list", "--json").stdout)) == 1


# -- jobs in --------------------------------------------------------------------------------------


def test_enqueue_takes_all_properties_of_a_job(run: CommandLine, jobs: PersistentQInterface) -> None:
    stored = answer(
        run(
            *(
                "enqueue",
                "report",
                "--parameters",
                '{"a": 1, "b": [1, null]}',
                "-p",
                "a",
                "-2",
                "-p",
                "text",
                "x y",
            ),
            *("-p", "flag", "True", "-p", "nan", "NaN", "--parameter", "code=a=b", "--queue", "slow"),
            *("--priority", "-3", "--delay", "1h30m", "--max-attempts", "5", "--timeout", "2m", "--key", "k"),
            *("--tag", "x", "--tag", "y", "--group", "g", "--json"),
        )
    )
    job = jobs.get(stored["id"])
    assert job.parameters == {
        "a": -2, "b": [1, None], "text": "x y", "flag": True, "nan": "NaN", "code": "a=b"
    }  # fmt: skip
    assert (job.task, job.queue, job.priority, job.max_attempts) == ("report", "slow", -3, 5)
    assert (job.timeout, job.unique_key, job.tags, job.group) == (timedelta(minutes=2), "k", ("x", "y"), "g")
    assert job.due_at - job.created_at == timedelta(hours=1, minutes=30)
    assert stored["status"] == "scheduled"
    assert datetime.fromisoformat(stored["due_at"]) == job.due_at
    assert "was there already" in run("enqueue", "report", "--key", "k").output


def test_due_at_without_an_offset_is_local_time(run: CommandLine, jobs: PersistentQInterface) -> None:
    run("enqueue", "stamp", "--due-at", "2090-01-31T18:00")
    run("enqueue", "stamp", "--due-at", "2090-01-31T18:00:00+05:00")
    assert jobs.get(1).due_at == datetime(2090, 1, 31, 18).astimezone()
    assert jobs.get(2).due_at == datetime(2090, 1, 31, 13, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("30s", 30), ("5m", 300), ("2h", 7200), ("7d", 604_800), ("1h30m", 5400), ("1.5", 1.5)),
        *(("-5s", -5), ("250ms", 0.25), ("0", 0), ("2w", 1_209_600)),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert duration(text, "it").total_seconds() == seconds


@pytest.mark.parametrize(
    "text", ["", " ", "s", "5x", "1 2", "nan", "inf", "1e9", "1h 2", "--5", "9" * 400, "٣s"]
)
def test_nonsense_is_not_a_duration(text: str) -> None:
    with pytest.raises(InvalidJobError):
        duration(text, "it")


def test_produce_and_consume_run_the_main_job(run: CommandLine) -> None:
    produced = run.process("produce", "--count", "3", "--interval", "10ms", "--json")
    assert json.loads(produced.stdout)["jobs"] == 3
    consumed = run.process("consume", "--until-empty", "--prefetch", "2", "--json")
    assert json.loads(consumed.stdout)["completed"] == 3
    assert len(list((run.database.parent / "processed").iterdir())) == 3
    numbers = json.loads(run.process("stats", "--last", "5m", "--json").stdout)
    assert numbers["completed"] == 3
    assert [(task["task"], task["completed"]) for task in numbers["tasks"]] == [("stamp", 3)]
    assert "stamp" in run.process("stats").stdout


def test_a_consumer_ends_by_interrupt_with_its_summary_and_0(
    run: CommandLine, jobs: PersistentQInterface
) -> None:
    jobs.enqueue("unknown")
    process = subprocess.Popen(
        [*PQ, "--db", str(run.database), "consume", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert jobs.wait(1, timeout=30).status == "failed"
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, json.loads(stdout)["failed"]) == (0, 1)
    assert b"WARNING job 1 (unknown) failed" in stderr


def test_what_a_task_prints_stays_out_of_the_json_answer(run: CommandLine) -> None:
    tasks = run.database.parent / "chatty.py"
    tasks.write_text("import pq\n\n@pq.task('talk')\ndef talk(context):\n    print('hello from the task')\n")
    run.process("enqueue", "talk")
    result = run.process("consume", "--tasks", str(tasks), "--until-empty", "--json")
    assert json.loads(result.stdout)["completed"] == 1
    assert "hello from the task" in result.stderr


def test_the_interval_is_changed_while_producers_run(run: CommandLine, jobs: PersistentQInterface) -> None:
    assert answer(run("interval", "--json")) == {"interval": 5.0}
    assert "0.25 s" in run("interval", "250ms").output
    assert float(jobs.setting("interval") or 0) == 0.25
    jobs.set_setting("interval", "soon")
    assert run("interval").exit_code == 1


# -- looking --------------------------------------------------------------------------------------


def test_list_filters_and_pages(run: CommandLine, jobs: PersistentQInterface) -> None:
    for number in range(5):
        jobs.enqueue("stamp" if number % 2 else "report", {"n": number}, tags=["odd"] if number % 2 else [])
    assert [job["id"] for job in answer(run("list", "--json"))] == [5, 4, 3, 2, 1]
    assert [job["id"] for job in answer(run("list", "--task", "stamp", "--json"))] == [4, 2]
    assert [job["id"] for job in answer(run("list", "--tag", "odd", "--limit", "1", "--json"))] == [4]
    assert [job["id"] for job in answer(run("list", "--after", "3", "--json"))] == [2, 1]
    assert answer(run("list", "--status", "failed", "--status", "completed", "--json")) == []
    assert "pending" in run("list", "--limit", "2").stdout
    assert run("list", "--queue", "other").stdout == "no jobs\n"


def test_show_tells_attempts_tracebacks_and_actions(run: CommandLine, jobs: PersistentQInterface) -> None:
    def break_down() -> None:
        raise ValueError("bad\x1b[31m")

    with pytest.raises(ValueError, match="bad") as caught:
        break_down()
    job_id = fail_one(jobs, caught.value)
    jobs.resubmit(job_id, reason="again")
    shown = answer(run("show", str(job_id), "--json"))
    assert shown["attempts"][0]["outcome"] == "failed"
    assert "Traceback" in shown["attempts"][0]["traceback"]
    assert shown["actions"][0]["verb"] == "resubmit"
    text = run("show", str(job_id)).output
    assert "Traceback (most recent call last)" in text
    assert "bad\\x1b[31m" in text
    assert "resubmit (failed to pending): again" in text


def test_deeply_nested_parameters_are_shown(run: CommandLine, jobs: PersistentQInterface) -> None:
    value: list[object] = []
    for _ in range(850):
        value = [value]
    jobs.enqueue("stamp", {"deep": value})
    for words in (["list"], ["show", "1"], ["list", "--json"], ["show", "1", "--json"], ["cancel", "1"]):
        result = run.process(*words)
        assert (result.returncode, result.stderr) == (0, ""), words
    assert run.process("delete-files", "--all", "--yes").returncode == 0


def test_failed_lists_only_failed_jobs(run: CommandLine, jobs: PersistentQInterface) -> None:
    job_id = fail_one(jobs)
    jobs.enqueue("stamp")
    assert [job["id"] for job in answer(run("failed", "--json"))] == [job_id]
    assert "boom" in run("failed").output


def test_consumers_are_listed_and_asked_to_stop(run: CommandLine, jobs: PersistentQInterface) -> None:
    identity = jobs.register_consumer("consumer-1")
    [listed] = answer(run("consumers", "--json"))
    assert (listed["id"], listed["name"], listed["alive"]) == (identity, "consumer-1", True)
    assert "is asked to stop (1)" in run("stop-consumer", "consumer-1").output
    assert jobs.beat_consumer(identity, "idle")
    assert "stopping" in run("consumers").output
    jobs.unregister_consumer(identity)
    assert run("consumers").output == "no consumers\n"
    assert "ended" in run("consumers", "--ended").output


def test_version_needs_no_queue(run: CommandLine) -> None:
    assert answer(run("version", "--json"))["pq"] == pq.__version__
    assert not run.database.exists()


def test_monitor_shows_one_picture_where_there_is_no_terminal(
    run: CommandLine, jobs: PersistentQInterface
) -> None:
    jobs.enqueue("stamp")
    jobs.pause("default", EVIL)
    text = run("monitor").output
    assert "pending 1" in text
    assert "paused: " + safe(EVIL)[:10] in text
    assert set(answer(run("monitor", "--json"))) == {"summary", "consumers", "jobs"}


def test_monitor_is_live_on_a_terminal_and_ends_by_interrupt_with_0(
    run: CommandLine, jobs: PersistentQInterface
) -> None:
    jobs.enqueue("stamp")
    process, terminal = in_terminal(run.database, "monitor", "--every", "0.1")
    try:
        seen = read_until(terminal, "pending\x1b[0m 1")
        jobs.enqueue("stamp")
        seen += read_until(terminal, "pending\x1b[0m 2")
        assert "\x1b[1A" in seen  # it moves up: in place
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        end(process, terminal)


# -- safety ---------------------------------------------------------------------------------------


def test_nothing_from_a_job_reaches_the_terminal_as_a_control(
    run: CommandLine, jobs: PersistentQInterface
) -> None:
    jobs.enqueue("stamp", {"path": EVIL, EVIL: {"deep": EVIL}, "lone": "\ud800"})
    taken = jobs.dequeue("consumer-1")
    assert taken is not None
    jobs.fail(taken, EVIL, retry=False)
    jobs.mark_failed(jobs.enqueue("stamp"), EVIL)
    identity = jobs.register_consumer("consumer-1")
    jobs.beat_consumer(identity, EVIL)
    jobs.pause("default", EVIL)
    for words in ("list", "failed", "show 1", "show 2", "monitor", "consumers", "stats", "resubmit 99"):
        for options in ([], ["--json"]):
            result = run(*words.split(), *options)
            text = result.output
            assert [c for c in text if not c.isprintable() and c != "\n"] == [], words
            assert "\u202e" not in text
    assert "[red]x[/red]" in run("list").output
    assert json.loads(run("show", "1", "--json").stdout)["parameters"]["lone"] == "\ud800"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 漢字 😀", "plain ü 漢字 😀"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\x1b[31m\x9b31m\x7f\0", "\\x1b[31m\\x9b31m\\x7f\\x00"),
        ("\u202e\u2066\u200b\ufeff\u2028", "\\u202e\\u2066\\u200b\\ufeff\\u2028"),
        ("\U000e0041\ud800", "\\U000e0041\\ud800"),
        ("no\u00a0break", "no break"),
    ],
)
def test_unprintable_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    assert safe(text) == shown


def test_a_reader_that_goes_away_is_no_error(run: CommandLine, jobs: PersistentQInterface) -> None:
    jobs.enqueue_many([pq.NewJob("stamp", {"text": "x" * 200})] * 2_000)
    for options in ("", "--json"):
        command = f"{sys.executable} -m pq.cli --db {run.database} list --limit 2000 {options} | head -1"
        result = subprocess.run(
            ["/bin/sh", "-c", command], capture_output=True, text=True, timeout=60, check=False
        )
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.count("\n") == 1


@pytest.mark.parametrize("words", ["list", "list --json", "show 1", "doctor", "version"])
def test_a_closed_pipe_ends_quietly_as_the_shell_would_say(
    run: CommandLine, jobs: PersistentQInterface, words: str
) -> None:
    jobs.enqueue("stamp")
    process = subprocess.Popen(
        [*PQ, "--db", str(run.database), *words.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.wait(30) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


def test_a_terminal_without_unicode_gets_escapes(run: CommandLine, jobs: PersistentQInterface) -> None:
    jobs.enqueue("stamp", {"name": "漢字"})
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for words in (["list"], ["show", "1"], ["list", "--help"]):
        result = run.process(*words, env=environment)
        assert (result.returncode, result.stderr) == (0, "")
