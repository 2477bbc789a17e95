"""Taking back, all that match, queues, consumers, new jobs and the panel; without a browser."""

import asyncio
import json

import pytest
from entering import enter

import pq
from pq.errors import InvalidJobError, NotebookError, PQError
from pq.records import GroupLimit
from pq.widgets import AdminBoard, actions, executed, undoing
from pq.widgets.actions import Actions, RefusedError
from pq.widgets.commands import Commands, parameters
from pq.widgets.detail import job_detail
from pq.widgets.hiding import HIDDEN, Hiding


def do(queue, page, verb, *ids, **answers):
    report = page.apply(page.propose(verb, list(ids)).nonce, **answers)
    assert report.undo is not None
    return report


@pytest.fixture
def page(queue):
    return Actions(queue, who="anna")


@pytest.fixture
def commands(queue):
    return Commands(queue, "anna", Hiding(), read_only=False)


# -- taking back --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "start", "end"),
    [
        ("resubmit", "failed", "cancelled"),
        ("resubmit", "completed", "cancelled"),
        ("cancel", "pending", "pending"),
        ("mark_failed", "pending", "pending"),
        ("assign", "pending", "pending"),
        ("assign", "scheduled", "scheduled"),
    ],
)
def test_what_can_be_taken_back_is_and_is_recorded(queue, page, verb, start, end):
    job_id = enter(queue, start)
    report = do(queue, page, verb, job_id, reason="because", consumer="c-1")
    assert page.undo(report.undo.nonce) == "taken back for 1 job"
    job = queue.get(job_id)
    assert (job.status, job.assigned_to) == (end, None)
    assert (queue.actions(job_id)[0].reason, queue.actions(job_id)[0].who) == (undoing.REASON, "anna")


@pytest.mark.parametrize(
    ("verb", "start", "why"),
    [
        ("delete", "failed", "deleted for good"),
        ("cancel", "scheduled", "would lose its due time"),
        ("cancel", "processing", "was running"),
        ("mark_failed", "processing", "was running"),
        ("mark_failed", "cancelled", "was cancelled"),
        ("assign", "processing", "was running"),
    ],
)
def test_what_cannot_be_taken_back_is_said(queue, page, verb, start, why):
    report = do(queue, page, verb, enter(queue, start), reason="because")
    assert report.undo.steps == []
    assert report.text().endswith(f"Cannot be taken back: 1 {why}")
    with pytest.raises(RefusedError, match="nothing to take back"):
        page.undo(report.undo.nonce)


def test_a_cancelled_job_comes_back_to_the_consumer_it_was_assigned_to(queue, page):
    job_id = enter(queue, "pending")
    queue.assign(job_id, "c-7")
    report = do(queue, page, "cancel", job_id)
    page.undo(report.undo.nonce)
    assert queue.get(job_id).assigned_to == "c-7"


def test_what_has_moved_on_is_not_taken_back(queue, page):
    first, second = enter(queue, "failed"), enter(queue, "failed")
    report = do(queue, page, "resubmit", first, second)
    job = queue.dequeue("tester")
    assert page.undo(report.undo.nonce) == "taken back for 1 job; 1 had moved on"
    assert queue.get(job).status == "processing"


@pytest.mark.parametrize("verb", ["cancel", "mark_failed", "assign"])
def test_a_blocked_job_comes_back_also_when_it_was_its_turn_meanwhile(queue, page, verb):
    job_id = enter(queue, "blocked")
    report = do(queue, page, verb, job_id, reason="why", consumer="c-1")
    queue.complete(queue.dequeue("tester"))
    page.undo(report.undo.nonce)
    job = queue.get(job_id)
    assert (job.status, job.assigned_to) == ("pending", None)


def test_an_undo_counts_once_and_for_half_a_minute(queue, page, monkeypatch):
    report = do(queue, page, "cancel", enter(queue, "pending"))
    with pytest.raises(RefusedError):
        page.undo("guessed")
    report = do(queue, page, "cancel", enter(queue, "pending"))
    report.undo.until -= undoing.UNDO_SECONDS + 1
    with pytest.raises(RefusedError, match="too late"):
        page.undo(report.undo.nonce)


# -- all that match -----------------------------------------------------------------------------------


def test_all_that_match_are_frozen_when_they_are_proposed(queue, monkeypatch):
    monkeypatch.setattr(actions, "BATCH", 7)
    queue.enqueue_many([pq.NewJob("stamp", queue="a") for _ in range(30)])
    other = queue.enqueue("stamp", queue="b")
    board = AdminBoard(queue)
    sent = []
    monkeypatch.setattr(board, "send", sent.append)
    board._receive(board, {"verb": "filter", "queue": "a"}, [])
    board._receive(board, {"verb": "propose", "action": "cancel", "matching": True}, [])
    proposal = next(message for message in sent if message["kind"] == "proposal")
    late = queue.enqueue("stamp", queue="a")
    assert (proposal["jobs"], proposal["changes"], proposal["more"]) == (30, {"pending": 30}, 0)
    board._receive(board, {"verb": "apply", "nonce": proposal["nonce"]}, [])
    assert queue.counts()["cancelled"] == 30
    assert [queue.get(job).status for job in (other, late)] == ["pending", "pending"]
    assert sent[-2]["undo"]
    board.close()


def test_more_than_the_limit_is_said_and_left(queue, monkeypatch):
    monkeypatch.setattr("pq.widgets.admin.MOST_MATCHING", 10)
    queue.enqueue_many([pq.NewJob("stamp") for _ in range(15)])
    board = AdminBoard(queue)
    sent = []
    monkeypatch.setattr(board, "send", sent.append)
    board._receive(board, {"verb": "propose", "action": "delete", "matching": True}, [])
    assert sent[0]["jobs"] == 10
    assert sent[0]["more"] > 0
    board._receive(board, {"verb": "apply", "nonce": sent[0]["nonce"], "typed": "delete 10"}, [])
    assert [job.id for job in queue.list()] == [5, 4, 3, 2, 1]
    board.close()


def test_many_are_done_in_batches_while_the_page_lives(queue, monkeypatch):
    monkeypatch.setattr(actions, "BATCH", 5)
    queue.enqueue_many([pq.NewJob("stamp") for _ in range(23)])

    async def scenario():
        board = AdminBoard(queue)
        sent = []
        monkeypatch.setattr(board, "send", sent.append)
        board._receive(board, {"verb": "propose", "action": "cancel", "matching": True}, [])
        board._receive(board, {"verb": "apply", "nonce": sent[0]["nonce"]}, [])
        assert queue.counts()["cancelled"] == 0
        await board._work
        board.close()
        return [message["done"] for message in sent if message["kind"] == "progress"]

    assert asyncio.run(scenario())[:5] == [5, 10, 15, 20, 23]
    assert queue.counts()["cancelled"] == 23


# -- queues, consumers, new jobs ----------------------------------------------------------------------


def test_a_queue_is_paused_and_resumed_with_who_and_why(queue, commands):
    commands.pause({"queue": "mail", "reason": "moving"})
    assert [(state.name, state.reason) for state in queue.queues()] == [("mail", "moving")]
    commands.resume({"queue": "mail"})
    assert queue.queues() == []
    assert [(one.verb, one.who, one.target) for one in queue.actions()] == [
        ("resume", "anna", "mail"),
        ("pause", "anna", "mail"),
    ]


def test_a_group_is_limited_and_freed_with_who_and_why(queue, commands):
    commands.limit({"group": "study", "most": "4", "reason": "memory"})
    assert queue.group_limits() == [GroupLimit("study", 4, 0, 0)]
    for wrong in ("0", "-1", "many", "1.5"):
        with pytest.raises(InvalidJobError):
            commands.limit({"group": "study", "most": wrong})
    commands.limit({"group": "study", "most": ""})
    assert queue.group_limits() == []
    assert [(one.verb, one.who, one.target, one.reason) for one in queue.actions()] == [
        ("limit_group", "anna", "study: no limit", None),
        ("limit_group", "anna", "study: at most 4", "memory"),
    ]


def test_one_consumer_is_asked_to_stop(queue, commands):
    consumer = queue.register_consumer("c-1")
    commands.stop({"consumer": consumer, "reason": "update"})
    assert queue.consumers()[0].stop_requested
    with pytest.raises(RefusedError, match="already ended"):
        commands.stop({"consumer": "nobody"})
    queue.unregister_consumer(consumer)


def test_a_form_becomes_a_job(queue, commands):
    words = {"task": "stamp", "parameters": '{"path": "a"}', "queue": "mail", "priority": "3", "delay": "60"}
    job = commands.enqueue(words | {"max_attempts": "5", "tags": "a, b,", "group": "g", "unique_key": "k"})
    assert (job.task, job.parameters, job.queue, job.priority) == ("stamp", {"path": "a"}, "mail", 3)
    assert (job.status, job.max_attempts, job.tags, job.group, job.unique_key) == (
        "scheduled",
        5,
        ("a", "b"),
        "g",
        "k",
    )
    assert commands.enqueue(words | {"unique_key": "k"}).existed


@pytest.mark.parametrize(
    "words",
    [
        {"task": ""},
        {"task": "a", "parameters": "[1]"},
        {"task": "a", "parameters": "{'a': 1}"},
        {"task": "a", "parameters": '{"a": NaN}'},
        {"task": "a", "parameters": "[" * 5000},
        {"task": "a", "parameters": None},
        {"task": "a", "parameters": "{}", "priority": "high"},
        {"task": "a", "parameters": "{}", "delay": "-1"},
        {"task": "a", "parameters": "{}", "delay": "nan"},
        {"task": "a", "parameters": "{}", "max_attempts": "0"},
        {"task": "a", "parameters": "{}", "queue": ["x"]},
        {"task": "a\nb", "parameters": "{}"},
    ],
)
def test_a_form_that_cannot_be_a_job_is_refused(queue, commands, words):
    with pytest.raises(PQError):
        commands.enqueue(words)
    assert queue.list() == []


def test_wrong_json_is_told_with_its_place():
    with pytest.raises(InvalidJobError, match="in line 2, column 1"):
        parameters('{"a": 1,\n}')


def test_a_finished_job_is_run_again_with_changed_parameters(queue, commands):
    options = {
        "queue": "mail",
        "priority": 4,
        "max_attempts": 1,
        "timeout": 60,
        "tags": ("eu",),
        "group": "g",
    }
    old = queue.enqueue("send", {"to": "ada", "api_token": "t"}, **options)
    queue.fail(queue.dequeue("tester", ("mail",)), "no such address")
    shown = job_detail(queue, old.id, Hiding())["parameters"]
    assert HIDDEN in shown
    job = commands.revise({"id": old.id, "parameters": shown.replace("ada", "bob"), "reason": "typo"})
    assert job.parameters == {"to": "bob", "api_token": "t"}
    kept = ("queue", "priority", "max_attempts", "timeout", "group")
    assert [getattr(job, name) for name in kept] == [getattr(old, name) for name in kept]
    assert job.tags == ("eu", f"again-{old.id}", "reason: typo")
    assert queue.get(old).status == "failed"
    with pytest.raises(RefusedError, match="only a finished job"):
        commands.revise({"id": job.id, "parameters": "{}"})


@pytest.mark.parametrize("verb", ["pause", "resume", "stop", "enqueue", "revise"])
def test_a_read_only_page_does_none_of_it(queue, monkeypatch, verb):
    monkeypatch.setenv("PQ_READ_ONLY", "1")
    board = AdminBoard(queue)
    sent = []
    monkeypatch.setattr(board, "send", sent.append)
    words = {"queue": "default", "consumer": "x", "task": "stamp", "parameters": "{}", "id": 1}
    board._receive(board, {"verb": verb} | words, [])
    board._receive(board, {"verb": "propose", "action": "cancel", "matching": True}, [])
    board._receive(board, {"verb": "undo", "nonce": "x"}, [])
    assert len(sent) == 3
    assert all(message["bad"] for message in sent)
    assert (queue.list(), queue.queues(), queue.actions()) == ([], [], [])
    board.close()


# -- the panel ----------------------------------------------------------------------------------------


def test_the_panel_tells_all_of_a_job(queue):
    queue.enqueue("send", {"to": "ada", "password": "p"}, tags=("eu",), group="g", unique_key="k")
    job = queue.dequeue("c-1")
    try:
        int("\x1b[31maddress")
    except ValueError as error:
        queue.fail(job, error, retry=False)
    queue.resubmit(job, reason="again", by="anna")
    queue.complete(queue.dequeue("c-2"), {"sent": True, "token": "t"})
    detail = job_detail(queue, job.id, Hiding())
    assert (json.loads(detail["parameters"]), json.loads(detail["result"])) == (
        {"to": "ada", "password": HIDDEN},
        {"sent": True, "token": HIDDEN},
    )
    assert [(one["outcome"], one["consumer"]) for one in detail["tries"]] == [
        ("failed", "c-1"),
        ("completed", "c-2"),
    ]
    assert "ValueError: invalid literal" in detail["tries"][0]["traceback"]
    assert [(one["verb"], one["who"], one["reason"]) for one in detail["actions"]] == [
        ("resubmit", "anna", "again")
    ]
    assert set(detail["cannot"]) == {"cancel", "assign", "mark_failed"}
    assert "this one is completed" in detail["cannot"]["cancel"]


def test_a_panel_whose_job_is_deleted_says_so(queue):
    job_id = enter(queue, "failed")
    board = AdminBoard(queue)
    board._receive(board, {"verb": "show", "id": job_id}, [])
    assert board.view["detail"]["id"] == job_id
    queue.delete(job_id)
    board.tick()
    assert board.problem == ""
    assert board.view["detail"]["gone"] == f"there is no job {job_id}"
    board.close()


def write_run(folder, job_id, attempt, cells):
    path = folder / "runs" / str(job_id) / f"{attempt}.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"cells": cells}))
    return path


def cell(source, *outputs):
    return {"cell_type": "code", "source": source, "outputs": list(outputs)}


def test_an_executed_notebook_is_shown_as_text_from_before_its_failing_cell(tmp_path):
    error = {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["\x1b[0;31mline 1", "line 2"]}
    html = {"output_type": "display_data", "data": {"text/html": "<script>x</script>", "image/png": "iVBOR"}}
    cells = [cell(f"cell {number}") for number in range(10)]
    cells[7] = cell(
        ["a = 1\n", "boom()"], {"output_type": "stream", "name": "stdout", "text": ["a\n", "b"]}, html, error
    )
    write_run(tmp_path, 7, 2, cells)
    run = executed.read_run(tmp_path, 7, 2)
    assert (run["first"], run["failed"], run["total"], len(run["cells"])) == (5, 8, 10, 6)
    shown = run["cells"][3]
    assert (shown["source"], shown["failed"]) == ("a = 1\nboom()", True)
    assert [output["text"] for output in shown["outputs"]] == [
        "a\nb",
        "(text/html, image/png: open the notebook to see it)",
        "line 1\nline 2",
    ]
    assert executed.runs(tmp_path, 7) == [2]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"cells": 7}', '{"cells": [7]}', "[" * 100_000, "\x00"])
def test_a_run_that_is_no_notebook_is_a_clear_error_or_empty(tmp_path, content):
    path = write_run(tmp_path, 7, 1, [])
    path.write_text(content)
    if content == '{"cells": [7]}':
        assert executed.read_run(tmp_path, 7, 1)["cells"] == []
        return
    with pytest.raises(NotebookError, match=str(path)):
        executed.read_run(tmp_path, 7, 1)


def test_a_link_out_of_the_runs_is_not_followed(tmp_path):
    secret = tmp_path / "secret.ipynb"
    secret.write_text('{"cells": [{"source": "hunter2"}]}')
    path = tmp_path / "runs" / "7" / "1.ipynb"
    path.parent.mkdir(parents=True)
    path.symlink_to(secret)
    with pytest.raises(NotebookError, match="is a symbolic link"):
        executed.read_run(tmp_path, 7, 1)
