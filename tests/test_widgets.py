"""The pages' Python half: what is proposed and applied, what is sent, who decides. No browser needed."""

import asyncio
import json
import re
import time
from pathlib import Path

import pytest
from entering import enter

import pq.widgets
from pq.errors import InvalidJobError
from pq.job import Status
from pq.widgets import AdminBoard, JobTable, OpsBoard, board, rows
from pq.widgets.hiding import HIDDEN, Hiding, clean

STATIC = Path(pq.widgets.__file__).parent / "static"


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


# -- what is sent -------------------------------------------------------------------------------------


def test_secrets_are_hidden_however_deep_and_however_spelt():
    value = {
        "path": "a",
        "api_token": "x",
        "DB_PASSWORD": ["x"],
        "deep": [{"clientSecret": {"x": "x"}, "open": 1}],
    }
    assert Hiding().hide(value) == {
        "path": "a",
        "api_token": HIDDEN,
        "DB_PASSWORD": HIDDEN,
        "deep": [{"clientSecret": HIDDEN, "open": 1}],
    }


def test_the_patterns_of_names_to_hide_can_be_chosen(monkeypatch):
    assert Hiding(["*key"]).hide({"key": 1, "api_KEY": 2, "keys": 3, "password": 4}) == {
        "key": HIDDEN,
        "api_KEY": HIDDEN,
        "keys": 3,
        "password": 4,
    }
    assert Hiding([]).hide({"password": 4}) == {"password": 4}
    monkeypatch.setenv("PQ_HIDE", "*key*,,iban")
    assert board.hidden_patterns() == ("*password*", "*token*", "*secret*", "*key*", "iban")


def test_a_hidden_value_that_was_left_alone_comes_back():
    old = {"path": "a", "token": "t", "deep": [{"password": "p"}, 1]}
    changed = {"path": "b", "token": HIDDEN, "deep": [{"password": HIDDEN}, 2, 3], "note": HIDDEN}
    assert Hiding().restore(changed, old) == {
        "path": "b",
        "token": "t",
        "deep": [{"password": "p"}, 2, 3],
        "note": HIDDEN,
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]8;;file:///etc/passwd\x07link\x1b]8;;\x07", "link"),
        ("a\x00b\x07", "a␀b␇"),
        ("exe.\u202egpj", "exe.⟨U+202E⟩gpj"),
        ("zero\u200bwidth", "zero⟨U+200B⟩width"),
        ("lone \ud800", "lone ?"),
        ("two\nlines\tkept\r\n", "two\nlines\tkept\n"),
        ("x" * 600, "x" * 499 + "…"),
    ],
)
def test_letters_that_mislead_are_shown_for_what_they_are(text, shown):
    assert clean(text) == shown


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


def test_the_page_tells_of_limited_groups_at_work_and_of_the_one_it_shows(queue, admin):
    blocked = enter(queue, "blocked")
    queue.limit_group("idle", 3)
    receive(admin, verb="show", id=blocked)
    full = {"id": "full", "group": "full", "most": 1, "running": 1, "blocked": 1}
    assert admin.view["groups"] == [full]
    assert admin.view["detail"]["waits"] == "group full runs 1 of at most 1"
    receive(admin, verb="filter", group="other")
    assert admin.view["groups"] == [full, {"id": "other", "group": "other", "most": None}]
    receive(admin, verb="filter", search="group:idle")
    assert [group["most"] for group in admin.view["groups"]] == [1, 3]
    receive(admin, verb="limit", group="full", most="")
    assert (queue.get(blocked).status, admin.view["detail"]["waits"]) == (Status.PENDING, "")


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
    "message",
    [
        {"status": "nonsense"},
        {"queue": 7},
        {"search": "x" * 501},
        {"since": "soon"},
        {"search": "id:x"},
        {"task": ["stamp"]},
    ],
)
def test_a_filter_that_cannot_be_is_refused_with_a_word(queue, admin, monkeypatch, message):
    sent = Sent(admin, monkeypatch)
    receive(admin, verb="filter", **message)
    assert sent.of("toast")[0]["bad"] is True
    assert admin.view["filter"] == {}


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
        page._cost = 0.0  # of the first look, after which a busy machine rests for seconds
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


def test_a_table_of_jobs_in_ones_own_notebook_starts_with_its_filter(queue):
    lost = enter(queue, "failed")
    enter(queue, "pending")
    page = JobTable(queue, status="failed", since="24h", queue_name="default")
    assert [job["id"] for job in page.view["jobs"]] == [lost]
    assert page.view["filter"] == {"status": "failed", "queue": "default", "since": "24h"}
    assert page.view["whole"] is False
    page.close()
    with pytest.raises(InvalidJobError, match="unknown filter 'state'"):
        JobTable(queue, state="failed")


# -- the browser's half, read as text -----------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(STATIC.glob("*.js")), ids=lambda path: path.name)
def test_no_module_parses_markup_or_code_or_calls_away(path):
    text = path.read_text(encoding="utf-8")
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|eval\(|new Function|import\("
    )
    assert not re.search(forbidden, text)
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text)
    # One question leaves a page: whether its own kernel still lives.
    assert re.findall(r"fetch\((.*?),", text) == (
        ["`${base}api/kernels/${kernel()}`"] if path.name == "common.js" else []
    )


def test_the_browser_offers_the_verbs_and_statuses_of_python():
    script = board.static("dialogs.js")
    offered = re.search(r"const VERBS = \{(.*?)\};", script, re.DOTALL)
    assert offered is not None
    assert set(re.findall(r"(\w+):", offered[1])) == set(rows.VERBS)
    glyphs = re.search(r"const GLYPH = \{(.*?)\};", board.static("common.js"), re.DOTALL)
    assert glyphs is not None
    assert set(re.findall(r"(\w+):", glyphs[1])) == set(Status)


@pytest.mark.parametrize("path", sorted(STATIC.glob("*.css")), ids=lambda path: path.name)
def test_no_stylesheet_loads_anything_from_elsewhere(path):
    text = path.read_text(encoding="utf-8")
    assert "url(" not in text
    assert "@import" not in text


def test_the_template_names_no_other_host():
    text = (STATIC / "page.html.j2").read_text(encoding="utf-8")
    assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text) == ["http://www.w3.org"]
