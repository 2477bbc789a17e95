"""Both pages as a person meets them: a real server, real kernels, a real browser, one real queue."""

from browsing import (
    ask,
    confirm,
    expect_rows,
    expect_text,
    select,
    visit,
)

import pq


def failed_job(queue, line="default"):
    queue.enqueue("stamp", max_attempts=1, queue=line)
    job = queue.dequeue("tester", (line,))
    queue.fail(job, "FileNotFoundError: inbox/a.txt")
    return job.id


def test_the_ops_page_shows_the_queue_and_follows_it(browser, server, queue):
    lost = failed_job(queue)
    consumer = queue.register_consumer("tester")
    queue.beat_consumer(consumer, "stamping")
    with visit(browser, server, "ops.ipynb") as page:
        assert page.title() == "pq: Ops"
        expect_text(page, "count-failed", "1")
        expect_text(page, "count-pending", "0")
        expect_text(page, "consumers", "stamping")
        expect_text(page, "failures", "FileNotFoundError")
        queue.enqueue_many([pq.NewJob("stamp") for _ in range(3)])
        expect_text(page, "count-pending", "3")
        job = queue.dequeue("tester")
        queue.heartbeat(job, progress=0.5, message="half way")
        expect_text(page, "running", "half way")
        queue.complete(job)
        expect_text(page, "count-completed", "1")
        expect_rows(page, [], "running")
        queue.unregister_consumer(consumer)
        expect_rows(page, [], "consumers")
        page.get_by_test_id("count-failed").click()
        page.wait_for_url("**/admin.ipynb?status=failed")
        page.wait_for_selector('[data-ready="1"]')
        expect_rows(page, [lost])


def test_the_filter_narrows_the_list_and_stands_in_the_address(browser, server, queue):
    lost = failed_job(queue, "mail")
    here = queue.enqueue("stamp", {"path": "needle.txt"}).id
    with visit(browser, server, "admin.ipynb") as page:
        expect_rows(page, [here, lost])
        page.get_by_test_id("tab-failed").click()
        expect_rows(page, [lost])
        assert page.url.endswith("?status=failed")
        page.get_by_test_id("tab-all").click()
        page.get_by_test_id("search").fill("needle")
        expect_rows(page, [here])
        page.get_by_test_id("search").fill(f"id:{lost}")
        expect_rows(page, [lost])
        page.get_by_role("button", name="Clear filter").click()
        page.get_by_test_id("filter-queue").select_option("mail")
        expect_rows(page, [lost])
        assert page.url.endswith("?queue=mail")
        page.reload()
        page.wait_for_selector('[data-ready="1"]')
        expect_rows(page, [lost])
        assert page.get_by_test_id("filter-queue").input_value() == "mail"


def test_pages_turn_and_a_selection_outlives_refreshes(browser, server, queue):
    ids = [job.id for job in queue.enqueue_many([pq.NewJob("stamp") for _ in range(60)])][::-1]
    with visit(browser, server, "admin.ipynb") as page:
        expect_rows(page, ids[:50])
        select(page, ids[0], ids[1])
        expect_text(page, "selected", "2 selected")
        newest = queue.enqueue("stamp").id
        expect_text(page, "tab-pending", "61")
        expect_rows(page, ids[:50])
        page.get_by_test_id("next").click()
        expect_text(page, "selected", "2 not on this page")
        expect_text(page, "page", "page 2")
        page.get_by_test_id("previous").click()
        expect_rows(page, [newest, *ids[:49]])
        assert page.get_by_role("checkbox", name=f"Select job {ids[1]}", exact=True).is_checked()


def test_each_action_is_asked_before_it_is_done(browser, server, queue):
    broken, waiting, other = failed_job(queue), queue.enqueue("stamp").id, queue.enqueue("stamp").id
    before = max((action.id for action in queue.actions()), default=0)
    with visit(browser, server, "admin.ipynb") as page:
        expect_rows(page, [other, waiting, broken])
        select(page, broken, waiting)
        dialog = ask(page, "resubmit")
        assert "1 failed" in dialog.inner_text()
        assert "1 pending: skipped" in dialog.inner_text()
        dialog.get_by_role("button", name="Keep as it is").click()
        assert queue.get(broken).status == "failed"

        confirm(ask(page, "resubmit"))
        expect_text(page, "toasts", "1 job resubmitted")
        assert queue.get(broken).status == "pending"
        expect_text(page, "selected", "Select jobs")

        select(page, waiting)
        dialog = ask(page, "mark_failed")
        assert dialog.locator("button[type=submit]").is_disabled()
        dialog.get_by_label("Reason").fill("out of date")
        confirm(dialog)
        expect_text(page, "toasts", "1 job marked failed")
        assert queue.get(waiting).error == "out of date"

        select(page, other)
        dialog = ask(page, "assign")
        dialog.get_by_label("Consumer").fill("consumer-7")
        confirm(dialog)
        expect_text(page, "toasts", "1 job assigned")
        assert queue.get(other).assigned_to == "consumer-7"
        expect_text(page, "jobs", "→ consumer-7")

        select(page, other)
        confirm(ask(page, "cancel"))
        expect_text(page, "toasts", "1 job cancelled")
        assert queue.get(other).status == "cancelled"

        page.get_by_role("checkbox", name="Select all jobs on this page").check()
        dialog = ask(page, "delete")
        dialog.get_by_label('Type "delete 3"').fill("delete 2")
        assert dialog.locator("button[type=submit]").is_disabled()
        dialog.get_by_label('Type "delete 3"').fill("delete 3")
        confirm(dialog)
        expect_text(page, "toasts", "3 jobs deleted")
        expect_rows(page, [])
        assert queue.list() == []
    verbs = [action.verb for action in reversed(queue.actions()) if action.id > before]
    assert verbs == ["resubmit", "mark_failed", "assign", "cancel", "delete", "delete", "delete"]
    assert all(action.who.endswith("on the admin page") for action in queue.actions() if action.id > before)
