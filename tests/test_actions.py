"""What the admin page proposes and applies, and what it refuses; on a real queue, without a browser."""

import pytest
from entering import enter

from pq.errors import InvalidJobError
from pq.job import TRANSITIONS, Status
from pq.widgets import actions, rows
from pq.widgets.actions import Actions, RefusedError


@pytest.mark.parametrize("status", Status)
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
