"""The commands that change jobs: one, many, with a count first, a confirmation, and a job that changed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import CommandLine, answer, end, fail_one, in_terminal, interrupt, read_until

import pq
from pq.interface import PersistentQInterface


@pytest.fixture
def run(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "queue.db")


@pytest.fixture
def jobs(run: CommandLine) -> Iterator[PersistentQInterface]:
    """The same queue, opened by the test itself."""
    with pq.connect(run.database) as queue:
        yield queue


def test_each_verb_changes_one_job_without_asking(run: CommandLine, jobs: PersistentQInterface) -> None:
    job_id = str(jobs.enqueue("stamp").id)
    assert "assigned" in run("assign", job_id, "consumer-7").output
    assert jobs.get(int(job_id)).assigned_to == "consumer-7"
    assert run("assign", job_id, "--any").exit_code == 0
    assert jobs.get(int(job_id)).assigned_to is None
    assert run("cancel", job_id, "--reason", "no need").output == f"job {job_id} cancelled: it is cancelled\n"
    assert run("mark-failed", job_id, "--reason", "lost").exit_code == 0
    assert jobs.get(int(job_id)).error == "lost"
    assert run("resubmit", job_id).output == f"job {job_id} resubmitted: it is pending\n"
    refused = run("delete", job_id)
    assert (refused.exit_code, jobs.get(int(job_id)).id) == (1, int(job_id))
    assert "--yes" in refused.stderr
    assert run("delete", job_id, "--yes").output == f"job {job_id} deleted\n"
    assert run("show", job_id).exit_code == 1
    assert [action.verb for action in jobs.actions(int(job_id))] == [
        "delete", "resubmit", "mark_failed", "cancel", "assign", "assign"
    ]  # fmt: skip


def test_a_limit_of_a_group_is_set_shown_and_lifted(run: CommandLine, jobs: PersistentQInterface) -> None:
    assert run("limit").output == "no limits\n"
    for _ in range(3):
        jobs.enqueue("stamp", group="g")
    assert run("limit", "g", "1", "--reason", "memory").output == "group g runs 1 of at most 1; 2 wait\n"
    assert answer(run("limit", "--json")) == [{"group": "g", "max_running": 1, "running": 1, "blocked": 2}]
    assert jobs.actions()[0].reason == "memory"
    assert run("limit", "g", "none").output == "group g has no limit\n"
    assert jobs.counts()["blocked"] == 0
    assert (run("limit", "g", "many").exit_code, run("limit", "g", "0").exit_code) == (2, 1)


def test_who_waits_for_its_group_is_told_so(run: CommandLine, jobs: PersistentQInterface) -> None:
    jobs.limit_group("study", 1)
    for _ in range(3):
        jobs.enqueue("stamp", group="study")
    assert "waits         group study runs 1 of at most 1\n" in run("show", "3").output
    assert "waits" not in run("show", "1").output
    assert "blocked 2" in run("monitor").output
    assert [job["id"] for job in answer(run("list", "--status", "blocked", "--json"))] == [3, 2]


def test_cancelling_a_running_job_says_that_its_consumer_has_to_stop_it(
    run: CommandLine, jobs: PersistentQInterface
) -> None:
    jobs.enqueue("stamp")
    jobs.dequeue("consumer-1")
    assert "is asked to stop" in run("cancel", "1").output
    assert jobs.get(1).cancel_requested


def test_a_bulk_action_counts_first_and_a_dry_run_ends_there(
    run: CommandLine, jobs: PersistentQInterface
) -> None:
    for _ in range(3):
        fail_one(jobs)
    jobs.cancel(jobs.enqueue("stamp"))
    jobs.enqueue("stamp")
    counted = run("resubmit", "--all", "--dry-run").output
    assert counted == "5 jobs match: 3 failed, 1 pending, 1 cancelled; cannot be resubmitted: 1 pending\n"
    assert jobs.counts()["failed"] == 3
    refused = run("resubmit", "--status", "failed")
    assert refused.exit_code == 1
    assert "resubmit 3 jobs: this needs a confirmation; add --yes" in refused.stderr
    done = run("resubmit", "--status", "failed", "--status", "cancelled", "--yes")
    assert done.output == "4 jobs match: 3 failed, 1 cancelled\n4 jobs resubmitted\n"
    assert jobs.counts()["pending"] == 5
    cancelled = answer(run("cancel", "--search", "a.txt", "--yes", "--json"))
    assert (cancelled["matched"], cancelled["changed"]) == (3, [1, 2, 3])
    assert answer(run("delete", "--task", "other", "--yes", "--json"))["matched"] == 0


def test_more_jobs_than_one_transaction_holds_are_all_changed(
    run: CommandLine, jobs: PersistentQInterface
) -> None:
    jobs.enqueue_many([pq.NewJob("stamp")] * 1_203)
    assert len(answer(run("cancel", "--task", "stamp", "--yes", "--json"))["changed"]) == 1_203
    assert jobs.counts()["cancelled"] == 1_203


def test_one_refusing_job_does_not_stop_the_others(run: CommandLine, jobs: PersistentQInterface) -> None:
    failed = fail_one(jobs)
    jobs.enqueue("stamp")
    result = run("resubmit", str(failed), "2", "99", str(failed))
    assert result.exit_code == 0
    assert "1 job resubmitted" in result.stdout
    assert "pq: cannot resubmit job 2: it is pending" in result.stderr
    assert "pq: there is no job 99" in result.stderr
    assert run("resubmit", "2", "99").exit_code == 1
    single = run("resubmit", "2")
    assert (single.exit_code, single.stdout) == (1, "")


def test_a_duplicate_among_many_is_told_and_the_rest_goes_on(
    run: CommandLine, jobs: PersistentQInterface
) -> None:
    for _ in range(2):
        jobs.cancel(jobs.enqueue("stamp", unique_key="k"))
    jobs.cancel(jobs.enqueue("stamp"))
    result = answer(run("resubmit", "--all", "--yes", "--json"))
    assert result["changed"] == [1, 3]
    assert "same unique key" in result["problems"][0]


def test_a_job_that_changed_since_the_count_is_skipped(run: CommandLine, jobs: PersistentQInterface) -> None:
    for _ in range(2):
        jobs.enqueue("stamp")
    process, terminal = in_terminal(run.database, "cancel", "--all")
    try:
        read_until(terminal, "cancel 2 jobs? [y/N]")
        jobs.dequeue("consumer-1")
        os.write(terminal, b"y\n")
        seen = read_until(terminal, "changed since the count: 1")
        assert "1 job cancelled" in seen
        assert process.wait(20) == 0
    finally:
        end(process, terminal)
    assert [job.status.value for job in jobs.list()] == ["cancelled", "processing"]
    assert not jobs.get(1).cancel_requested


def test_a_no_changes_nothing(run: CommandLine, jobs: PersistentQInterface) -> None:
    jobs.enqueue("stamp")
    process, terminal = in_terminal(run.database, "delete-all")
    try:
        read_until(terminal, "delete all 1 jobs? [y/N]")
        os.write(terminal, b"n\n")
        read_until(terminal, "nothing was changed")
        assert process.wait(20) == 1
    finally:
        end(process, terminal)
    assert jobs.get(1).id == 1


@pytest.mark.parametrize("words", ["delete-all", "delete --all"])
def test_delete_all_removes_running_jobs_too(
    run: CommandLine, jobs: PersistentQInterface, words: str
) -> None:
    jobs.enqueue_many([pq.NewJob("stamp")] * 3)
    jobs.dequeue("consumer-1")
    assert run(*words.split()).exit_code == 1
    assert run(*words.split(), "--dry-run").output == "3 jobs match: 2 pending, 1 processing\n"
    assert answer(run(*words.split(), "--yes", "--json"))["deleted"] == 3
    assert jobs.list() == []


def test_prune_removes_what_finished_long_ago(run: CommandLine, jobs: PersistentQInterface) -> None:
    fail_one(jobs)
    jobs.enqueue("stamp")
    assert run("prune", "--older-than", "0s").exit_code == 1
    assert answer(run("prune", "--older-than", "7d", "--dry-run", "--json"))["matched"] == 0
    assert answer(run("prune", "--older-than", "0s", "--dry-run", "--json"))["matched"] == 1
    assert run("prune", "--older-than", "0s", "--yes").output == "1 jobs removed\n"
    assert [job.id for job in jobs.list()] == [2]


def test_pause_and_resume(run: CommandLine, jobs: PersistentQInterface) -> None:
    jobs.enqueue("stamp")
    assert run("pause", "default", "--reason", "lunch").output == "queue default is paused\n"
    assert jobs.dequeue("consumer-1") is None
    assert answer(run("resume", "default", "--json")) == {"queue": "default", "paused": False}
    assert jobs.dequeue("consumer-1") is not None


def test_a_checkpoint_says_what_a_reader_keeps_from_it(run: CommandLine, jobs: PersistentQInterface) -> None:
    with pq.connect(jobs.url) as reader, reader._session.snapshot():
        reader.counts()
        jobs.enqueue("stamp")
        assert "stay in the write-ahead log" in run("checkpoint").stdout
    assert "is moved" in run("checkpoint").stdout


def test_backup_checkpoint_and_rescue(run: CommandLine, jobs: PersistentQInterface, tmp_path: Path) -> None:
    jobs.enqueue("stamp")
    copy = tmp_path / "copy.db"
    assert answer(run("backup", str(copy), "--json"))["bytes"] == copy.stat().st_size
    assert run("backup", str(copy)).exit_code == 1
    with pq.connect(copy) as queue:
        assert queue.counts()["pending"] == 1
    assert run("checkpoint").exit_code == 0
    assert answer(run("rescue", "--json")) == []


def test_an_interrupt_exits_with_130(run: CommandLine, jobs: PersistentQInterface) -> None:
    jobs.enqueue("stamp")
    process, terminal = in_terminal(run.database, "cancel", "--all")
    try:
        read_until(terminal, "[y/N]")
        assert interrupt(process) == 130
    finally:
        end(process, terminal)
    assert jobs.get(1).status == "pending"
