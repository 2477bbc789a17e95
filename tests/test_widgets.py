"""The pages' Python half: what is proposed and applied, what is sent, who decides. No browser needed."""

import asyncio
import json
import re
import time
from pathlib import Path

import pytest

import pq.widgets
from pq.errors import InvalidJobError
from pq.job import TRANSITIONS, Status
from pq.widgets import AdminBoard, OpsBoard, actions, board, rows
from pq.widgets.actions import Actions, RefusedError

STATIC = Path(pq.widgets.__file__).parent / "static"


def enter(queue, status):
    """A job in this status."""
    job = queue.enqueue("stamp", max_attempts=1, delay=3600 if status == "scheduled" else None)
    if status in {"processing", "completed", "failed"}:
        job = queue.dequeue("tester")
    if status == "completed":
        queue.complete(job)
    if status == "failed":
        queue.fail(job, "broken")
    if status == "cancelled":
        queue.cancel(job)
    assert queue.get(job).status == status
    return job.id


class Sent:
    """What a board sends to its browser."""

    def __init__(self, page, monkeypatch):
        self.messages = []
        monkeypatch.setattr(page, "send", self.messages.append)

    def of(self, kind):
        return [message for message in self.messages if message["kind"] == kind]


@pytest.fixture
def admin(queue):
    page = AdminBoard(queue)
    yield page
    page.close()


def receive(page, **message):
    page._receive(page, message, [])


# -- actions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [status for status in Status if status != "blocked"])  # none is yet
@pytest.mark.parametrize("verb", rows.VERBS)
def test_each_verb_is_proposed_from_exactly_the_statuses_it_may_leave(queue, verb, status):
    job_id = enter(queue, status)
    proposal = Actions(queue).propose(verb, [job_id])
    allowed = status in TRANSITIONS[verb]
    assert proposal.ids == ((job_id,) if allowed else ())
    assert proposal.changes == ({status: 1} if allowed else {})
    assert proposal.skipped == ({} if allowed else {status: 1})


@pytest.mark.parametrize(
    ("verb", "start", "end"),
    [
        ("resubmit", "failed", "pending"),
        ("cancel", "pending", "cancelled"),
        ("mark_failed", "pending", "failed"),
        ("assign", "pending", "pending"),
    ],
)
def test_a_confirmed_action_is_done_once_and_recorded_with_who_and_why(queue, verb, start, end):
    job_id = enter(queue, start)
    page = Actions(queue, who="anna on the admin page")
    proposal = page.propose(verb, [job_id])
    report = page.apply(proposal.nonce, reason=" because ", consumer="c-1")
    assert (report.done, report.problems) == (1, [])
    assert queue.get(job_id).status == end
    action = queue.actions(job_id)[0]
    assert (action.who, action.verb, action.reason) == ("anna on the admin page", verb, "because")
    if verb == "assign":
        assert queue.get(job_id).assigned_to == "c-1"


def test_nothing_is_done_before_the_yes(queue):
    job_id = enter(queue, "pending")
    Actions(queue).propose("delete", [job_id])
    assert queue.get(job_id).status == "pending"
    assert queue.actions() == []


def test_an_answer_counts_once(queue):
    page = Actions(queue)
    proposal = page.propose("cancel", [enter(queue, "pending")])
    page.apply(proposal.nonce)
    with pytest.raises(RefusedError, match="ask again"):
        page.apply(proposal.nonce)


@pytest.mark.parametrize("nonce", ["", "guessed", None, 7, "é"])
def test_a_wrong_answer_does_nothing_and_closes_the_question(queue, nonce):
    job_id = enter(queue, "pending")
    page = Actions(queue)
    proposal = page.propose("cancel", [job_id])
    for attempt in (nonce, proposal.nonce):
        with pytest.raises(RefusedError):
            page.apply(attempt)
    assert queue.get(job_id).status == "pending"


def test_a_second_question_replaces_the_first(queue):
    job_id = enter(queue, "pending")
    page = Actions(queue)
    first = page.propose("delete", [job_id])
    page.propose("cancel", [job_id])
    with pytest.raises(RefusedError):
        page.apply(first.nonce)
    assert queue.get(job_id).status == "pending"


def test_a_late_answer_does_nothing(queue, monkeypatch):
    job_id = enter(queue, "pending")
    page = Actions(queue)
    monkeypatch.setattr(actions, "LIFETIME_SECONDS", -1.0)
    proposal = page.propose("cancel", [job_id])
    with pytest.raises(RefusedError, match="two minutes"):
        page.apply(proposal.nonce)
    assert queue.get(job_id).status == "pending"


def test_deleting_several_needs_the_typed_number(queue):
    ids = [enter(queue, "failed"), enter(queue, "pending")]
    page = Actions(queue)
    for typed in ("", "delete", "delete 3", "DELETE 2"):
        with pytest.raises(RefusedError, match="nothing was deleted"):
            page.apply(page.propose("delete", ids).nonce, typed=typed)
    assert len(queue.list()) == 2
    assert page.apply(page.propose("delete", ids).nonce, typed=" delete 2 ").done == 2
    assert queue.list() == []


def test_marking_failed_needs_a_reason(queue):
    job_id = enter(queue, "pending")
    page = Actions(queue)
    with pytest.raises(RefusedError, match="give a reason"):
        page.apply(page.propose("mark_failed", [job_id]).nonce, reason="  ")
    assert queue.get(job_id).status == "pending"


def test_what_changed_between_question_and_answer_is_skipped_and_named(queue):
    ids = [enter(queue, "pending"), enter(queue, "pending"), enter(queue, "pending")]
    page = Actions(queue)
    proposal = page.propose("delete", ids)
    queue.dequeue("tester")
    queue.delete(ids[1])
    report = page.apply(proposal.nonce, typed="delete 3")
    assert report.done == 1
    assert len(report.problems) == 2
    assert "1 job deleted; 2 skipped: " in report.text()
    assert [job.status for job in queue.list()] == ["processing"]


def test_a_twin_that_lives_is_named_when_a_job_is_resubmitted(queue):
    first = queue.enqueue("stamp", unique_key="k")
    queue.cancel(first)
    queue.enqueue("stamp", unique_key="k")
    page = Actions(queue)
    report = page.apply(page.propose("resubmit", [first.id]).nonce)
    assert report.done == 0
    assert "2" in report.problems[0]


def test_a_job_that_is_gone_is_counted_as_skipped(queue):
    proposal = Actions(queue).propose("cancel", [enter(queue, "pending"), 4711])
    assert proposal.skipped == {"deleted": 1}


def test_an_id_that_is_sent_twice_counts_once(queue):
    job_id = enter(queue, "pending")
    assert Actions(queue).propose("cancel", [job_id, job_id]).ids == (job_id,)


def test_a_read_only_page_refuses_in_python(queue):
    job_id = enter(queue, "pending")
    page = Actions(queue, read_only=True)
    for verb in rows.VERBS:
        with pytest.raises(RefusedError, match="read-only"):
            page.propose(verb, [job_id])
    open_page = Actions(queue)
    proposal = open_page.propose("cancel", [job_id])
    open_page.read_only = True
    with pytest.raises(RefusedError, match="read-only"):
        open_page.apply(proposal.nonce)
    assert queue.get(job_id).status == "pending"


@pytest.mark.parametrize("verb", ["complete", "delete_all", "_one", "", None, ["cancel"], {}])
def test_only_the_five_verbs_exist(queue, verb):
    with pytest.raises(RefusedError, match="unknown action"):
        Actions(queue).propose(verb, [enter(queue, "pending")])


@pytest.mark.parametrize("ids", [None, "1", [True], ["1"], [1.0], [-1], [2**63], {"1": 1}, [], [None]])
def test_a_selection_that_is_no_list_of_ids_is_refused(queue, ids):
    with pytest.raises((InvalidJobError, RefusedError)):
        Actions(queue).propose("cancel", ids)


def test_too_large_a_selection_is_refused(queue):
    with pytest.raises(RefusedError, match="at most 500"):
        Actions(queue).propose("cancel", list(range(501)))


# -- what is sent -------------------------------------------------------------------------------------


def test_secrets_are_hidden_however_deep_and_however_spelt():
    value = {
        "path": "a",
        "api_token": "x",
        "DB_PASSWORD": ["x"],
        "deep": [{"clientSecret": {"x": "x"}, "open": 1}],
    }
    assert rows.hide_secrets(value) == {
        "path": "a",
        "api_token": rows.HIDDEN,
        "DB_PASSWORD": rows.HIDDEN,
        "deep": [{"clientSecret": rows.HIDDEN, "open": 1}],
    }


def test_no_secret_is_in_anything_a_page_sends(queue, monkeypatch):
    queue.enqueue("stamp", {"token": "hunter2", "path": "a.txt"})
    queue.dequeue("tester")
    for page in (OpsBoard(queue), AdminBoard(queue)):
        sent = json.dumps(page.get_state(), default=str)
        assert "a.txt" in sent
        assert "hunter2" not in sent
        page.close()


def test_deep_and_long_and_odd_parameters_do_not_stop_a_page(queue, admin):
    deep: object = 1
    for _ in range(200):
        deep = [deep]
    queue.enqueue("stamp", {"deep": deep})
    queue.enqueue("stamp", {"long": "x" * 100_000})
    queue.enqueue("stamp", {"lone": "\ud800", "nul": "\0"})
    admin.tick()
    assert admin.problem == ""
    assert len(admin.view["jobs"]) == 3
    assert all(len(job["parameters"]) <= 300 for job in admin.view["jobs"])
    json.dumps(admin.view, ensure_ascii=False).encode()


def test_a_page_that_rests_sends_the_same_view(queue, clock, admin):
    clock.wall = time.time() - 100
    enter(queue, "failed")
    enter(queue, "pending")
    admin.tick()
    first = admin.view
    admin.tick()
    assert admin.view == first


# -- the boards ---------------------------------------------------------------------------------------


def test_the_filter_narrows_the_list_and_the_tabs_follow_queue_and_task(queue, admin):
    queue.enqueue("stamp", {"path": "needle.txt"}, queue="a")
    queue.enqueue("send", queue="b")
    queue.cancel(queue.enqueue("send", queue="b"))
    receive(admin, verb="filter", queue="b", status="pending")
    assert [job["id"] for job in admin.view["jobs"]] == [2]
    assert (admin.view["tabs"]["pending"], admin.view["tabs"]["cancelled"]) == (1, 1)
    assert admin.view["queue_names"] == ["a", "b"]
    receive(admin, verb="filter", search="needle")
    assert [job["id"] for job in admin.view["jobs"]] == [1]
    receive(admin, verb="filter", task="send")
    assert [job["id"] for job in admin.view["jobs"]] == [3, 2]
    receive(admin, verb="filter")
    assert len(admin.view["jobs"]) == 3


@pytest.mark.parametrize(
    "message", [{"status": "nonsense"}, {"queue": 7}, {"search": "x" * 201}, {"task": ["stamp"]}]
)
def test_a_filter_that_cannot_be_is_refused_with_a_word(queue, admin, monkeypatch, message):
    sent = Sent(admin, monkeypatch)
    receive(admin, verb="filter", **message)
    assert sent.of("toast")[0]["bad"] is True
    assert admin.view["filter"] == {"status": None, "queue": None, "task": None, "search": None}


def test_pages_go_forth_and_back_by_key(queue, admin, monkeypatch):
    monkeypatch.setattr("pq.widgets.admin.PAGE", 3)
    for _ in range(7):
        queue.enqueue("stamp")
    receive(admin, verb="previous")
    shown = []
    for verb in ("", "next", "next", "next", "previous"):
        receive(admin, verb=verb)
        admin.tick()
        shown.append([job["id"] for job in admin.view["jobs"]])
    assert shown == [[7, 6, 5], [4, 3, 2], [1], [1], [4, 3, 2]]


def test_new_jobs_do_not_move_a_page_that_is_held(queue, admin):
    queue.enqueue("stamp")
    admin.tick()
    receive(admin, verb="hold", on=True)
    queue.enqueue("stamp")
    admin.tick()
    assert [job["id"] for job in admin.view["jobs"]] == [1]
    receive(admin, verb="hold", on=False)
    assert [job["id"] for job in admin.view["jobs"]] == [2, 1]


def test_a_page_asks_confirms_and_reports(queue, admin, monkeypatch):
    ids = [enter(queue, "failed"), enter(queue, "pending")]
    sent = Sent(admin, monkeypatch)
    receive(admin, verb="propose", action="resubmit", ids=ids)
    proposal = sent.of("proposal")[0]
    assert (proposal["jobs"], proposal["changes"], proposal["skipped"]) == (1, {"failed": 1}, {"pending": 1})
    receive(admin, verb="apply", nonce=proposal["nonce"])
    assert sent.of("toast")[0]["text"] == "1 job resubmitted"
    assert sent.of("applied")
    assert queue.get(ids[0]).status == "pending"


def test_a_withdrawn_question_cannot_be_answered(queue, admin, monkeypatch):
    job_id = enter(queue, "pending")
    sent = Sent(admin, monkeypatch)
    receive(admin, verb="propose", action="cancel", ids=[job_id])
    receive(admin, verb="withdraw")
    receive(admin, verb="apply", nonce=sent.of("proposal")[0]["nonce"])
    assert sent.of("toast")[0]["bad"] is True
    assert queue.get(job_id).status == "pending"


def test_a_read_only_board_refuses_whatever_the_browser_sends(queue, monkeypatch):
    job_id = enter(queue, "pending")
    page = AdminBoard(queue, read_only=True)
    sent = Sent(page, monkeypatch)
    page.set_state({"view": {"read_only": False}})
    receive(page, verb="propose", action="delete", ids=[job_id])
    assert "read-only" in sent.of("toast")[0]["text"]
    assert queue.get(job_id).status == "pending"
    page.close()


@pytest.mark.parametrize(
    "content", [None, [], "x", {}, {"verb": "close"}, {"verb": ["a"]}, {"verb": "__init__"}]
)
def test_a_message_that_means_nothing_does_nothing(queue, admin, content):
    admin._receive(admin, content, [])
    admin.tick()
    assert admin.problem == ""


def test_an_error_while_reading_is_shown_and_goes_when_reading_works_again(queue, admin, monkeypatch):
    monkeypatch.setattr(admin, "_read", lambda: 1 / 0)
    admin.tick()
    assert "ZeroDivisionError" in admin.problem
    monkeypatch.undo()
    admin.tick()
    assert admin.problem == ""


def test_a_page_reads_only_while_somebody_looks(queue, monkeypatch):
    monkeypatch.setattr(board, "INTERVAL_SECONDS", 0.01)

    async def scenario():
        page = OpsBoard(queue)
        ticks = []
        monkeypatch.setattr(page, "tick", lambda: ticks.append(1))

        async def goes_on(limit=2.0):
            before = len(ticks)
            for _ in range(int(limit / 0.01)):
                await asyncio.sleep(0.01)
                if len(ticks) > before + 1:
                    return True
            return False

        assert await goes_on()
        receive(page, verb="beat", looking=False)
        assert not await goes_on(0.2)
        receive(page, verb="beat", looking=True)
        assert await goes_on()
        page._beat -= board.SILENCE_SECONDS
        assert not await goes_on(0.2)
        page.close()
        await asyncio.sleep(0)
        assert page._task is not None
        assert page._task.cancelled() or page._task.cancelling()

    asyncio.run(scenario())


# -- the browser's half, read as text -----------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(STATIC.glob("*.js")), ids=lambda path: path.name)
def test_no_module_parses_markup_or_code_or_calls_away(path):
    text = path.read_text(encoding="utf-8")
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|eval\(|new Function|import\("
    )
    assert not re.search(forbidden, text)
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert "fetch(" not in text


def test_the_browser_offers_the_verbs_and_statuses_of_python():
    script = board.static("admin.js")
    offered = re.search(r"const VERBS = \{(.*?)\};", script, re.DOTALL)
    assert offered is not None
    assert set(re.findall(r"(\w+):", offered[1])) == set(rows.VERBS)
    glyphs = re.search(r"const GLYPH = \{(.*?)\};", board.static("common.js"), re.DOTALL)
    assert glyphs is not None
    assert set(re.findall(r"(\w+):", glyphs[1])) == set(Status)


def test_the_stylesheet_loads_nothing_from_elsewhere():
    assert "url(" not in board.static("board.css")
    assert "@import" not in board.static("board.css")
