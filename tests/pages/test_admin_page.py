"""The admin page by hand and by key: the panel, links, selection, undo, forms, queues and consumers."""

import json

from browsing import ask, confirm, expect_rows, expect_text, ready, rows, select, visit, wait_for

import pq
from notebooks import write_notebook


def broken_job(queue, line="default", **options):
    queue.enqueue("stamp", {"path": "inbox/a.txt"}, max_attempts=1, queue=line, **options)
    job = queue.dequeue("tester", (line,))
    try:
        open(job.parameters["path"])  # noqa: PTH123, SIM115  # its error is what counts
    except FileNotFoundError as error:
        queue.fail(job, error)
    return job.id


def fill(form, **answers):
    for label, value in answers.items():
        form.locator(f"[name={label}]").fill(value)


def test_the_panel_shows_a_job_and_its_failing_cell_and_acts_on_it(browser, server, queue):
    lost = broken_job(queue, tags=("eu",), group="sweep-7")
    path = server.folder / "runs" / str(lost) / "1.ipynb"
    path.parent.mkdir(parents=True)
    failing = {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["KeyError: <b>x</b>"]}
    cells = [
        {"cell_type": "code", "source": f"cell {n}", "outputs": [failing] if n == 5 else []} for n in range(9)
    ]
    path.write_text(json.dumps({"cells": cells}))
    with visit(browser, server, f"admin.ipynb?job={lost}") as page:
        panel = page.get_by_test_id("panel")
        expect_text(page, "panel", "FileNotFoundError")
        expect_text(page, "panel-attempts", "Attempt 1: failed")
        expect_text(page, "panel-attempts", "Traceback (most recent call last)")
        expect_text(page, "panel-parameters", "inbox/a.txt")
        assert panel.get_by_test_id("job-cancel").get_attribute("aria-disabled") == "true"
        assert "this one is failed" in panel.get_by_test_id("job-cancel").get_attribute("title")
        page.get_by_test_id("run-1").click()
        expect_text(page, "run", "KeyError: <b>x</b>")
        assert page.locator("[data-testid=run] [data-failed]").get_attribute("data-number") == "6"
        assert page.locator("[data-testid=run] b").count() == 0

        page.get_by_test_id("job-revise").click()
        form = page.get_by_test_id("form")
        fill(form, parameters='{"path": "inbox/b.txt"')
        form.locator("button[type=submit]").click()
        expect_text(page, "wrong", "must be JSON")
        fill(form, parameters='{"path": "inbox/b.txt"}', reason="the other one")
        confirm(form)
        expect_text(page, "panel", f"Job {lost + 1}: stamp")
        assert queue.get(lost + 1).parameters == {"path": "inbox/b.txt"}
        assert queue.get(lost + 1).tags == ("eu", f"again-{lost}", "reason: the other one")
        assert page.url.endswith(f"?job={lost + 1}")

        page.get_by_test_id("job-mark_failed").click()
        dialog = page.get_by_test_id("dialog")
        dialog.get_by_label("Reason").fill("not wanted")
        confirm(dialog)
        expect_text(page, "panel-actions", "mark failed by")
        expect_text(page, "panel-error", "not wanted")
        page.keyboard.press("Escape")
        panel.wait_for(state="hidden")
        assert "job=" not in page.url


def test_links_carry_each_filter_and_a_search_has_qualifiers(browser, server, queue):
    here = queue.enqueue("stamp", {"path": "needle"}, tags=("eu",), group="sweep-7").id
    queue.enqueue("stamp")
    taken = queue.enqueue("send", queue="mail").id
    queue.assign(taken, "c-9")
    with visit(browser, server, "admin.ipynb?tag=eu&group=sweep-7&since=1h") as page:
        expect_rows(page, [here])
        assert page.get_by_test_id("filter-tag").input_value() == "eu"
        assert page.get_by_test_id("filter-since").input_value() == "1h"
        page.get_by_role("button", name="Clear filter").click()
        page.get_by_test_id("filter-consumer").fill("c-9")
        expect_rows(page, [taken])
        assert page.url.endswith("?consumer=c-9")
        page.get_by_role("button", name="Clear filter").click()
        page.get_by_test_id("search").fill("tag:eu needle since:2h")
        expect_rows(page, [here])
        page.get_by_test_id("search").fill("status:nonsense")
        expect_text(page, "toasts", "unknown status")
        page.get_by_test_id("search").fill("until:1h")
        expect_rows(page, [])


def test_a_range_all_that_match_and_undo(browser, server, queue):
    queue.enqueue_many([pq.NewJob("stamp", queue="a") for _ in range(70)])
    other = queue.enqueue("stamp", queue="b").id
    ids = [job.id for job in queue.list(queue="a", limit=100)]
    with visit(browser, server, "admin.ipynb?queue=a") as page:
        expect_rows(page, ids[:50])
        select(page, ids[1])
        page.get_by_role("checkbox", name=f"Select job {ids[4]}", exact=True).click(modifiers=["Shift"])
        expect_text(page, "selected", "4 selected")
        confirm(ask(page, "cancel"))
        expect_text(page, "toasts", "4 jobs cancelled")
        assert queue.counts()["cancelled"] == 4
        page.get_by_test_id("undo").click()
        expect_text(page, "toasts", "taken back for 4 jobs")
        assert queue.counts()["cancelled"] == 0

        page.get_by_role("checkbox", name="Select all jobs on this page").check()
        page.get_by_test_id("select-matching").click()
        expect_text(page, "selected", "All that match")
        dialog = ask(page, "delete")
        assert "70 pending" in dialog.inner_text()
        assert "This cannot be undone." in dialog.inner_text()
        dialog.get_by_label('Type "delete 70"').fill("delete 70")
        confirm(dialog)
        expect_text(page, "toasts", "70 jobs deleted")
        expect_rows(page, [])
        assert [job.id for job in queue.list()] == [other]


def test_keys_do_what_the_mouse_does(browser, server, queue):
    first, second = broken_job(queue), broken_job(queue)
    with visit(browser, server, "admin.ipynb") as page:
        expect_rows(page, [second, first])
        page.keyboard.press("j")
        page.keyboard.press("j")
        page.keyboard.press("x")
        expect_text(page, "selected", "1 selected")
        page.keyboard.press("r")
        dialog = page.get_by_test_id("dialog")
        dialog.wait_for()
        assert f"job {first}" in dialog.inner_text()
        page.keyboard.press("Escape")
        dialog.wait_for(state="hidden")
        page.keyboard.press("Escape")
        expect_text(page, "selected", "Select jobs")
        page.get_by_role("button", name=f"Open job {second}", exact=True).focus()
        page.keyboard.press("Enter")
        expect_text(page, "panel", f"Job {second}: stamp")
        page.keyboard.press("/")
        page.keyboard.type("x?jr")
        assert page.get_by_test_id("search").input_value() == "x?jr"
        expect_rows(page, [])
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        assert "resubmit the selected jobs" in page.get_by_test_id("help").inner_text()
        page.keyboard.press("Escape")
    assert [job.status for job in queue.list()] == ["failed", "failed"]


def test_forms_enqueue_pause_and_stop(browser, server, queue):
    queue.enqueue("stamp", queue="mail")
    consumer = queue.register_consumer("c-1")
    with visit(browser, server, "admin.ipynb") as page:
        page.get_by_test_id("enqueue").click()
        form = page.get_by_test_id("form")
        fill(form, task="send", parameters='{"to": "ada"}', priority="high")
        form.locator("button[type=submit]").click()
        expect_text(page, "wrong", "priority must be a whole number")
        fill(form, priority="7")
        confirm(form)
        job = wait_for(lambda: queue.list(task="send"), "the job")[0]
        assert (job.parameters, job.priority) == ({"to": "ada"}, 7)
        expect_text(page, "panel", f"Job {job.id}: send")
        page.get_by_test_id("panel-close").click()

        page.get_by_role("button", name="Pause queue mail").click()
        fill(form, reason="moving")
        confirm(form)
        expect_text(page, "queues", "paused: moving")
        page.get_by_role("button", name="Resume queue mail").click()
        wait_for(lambda: all(state.paused_at is None for state in queue.queues()), "the queue to be open")

        for _ in range(3):
            queue.enqueue("stamp", group="study")
        page.get_by_test_id("more-filters").click()
        page.get_by_test_id("filter-group").fill("study")
        expect_text(page, "groups", "no limit")
        page.get_by_role("button", name="Limit group study").click()
        fill(form, most="1", reason="memory")
        confirm(form)
        expect_text(page, "tab-blocked", "2")
        assert [limit.max_running for limit in queue.group_limits()] == [1]
        page.get_by_role("button", name="Limit group study").click()
        assert form.locator("[name=most]").input_value() == "1"
        fill(form, most="2")
        confirm(form)
        expect_text(page, "tab-blocked", "1")

        page.get_by_role("button", name="Stop c-1").click()
        confirm(form)
        expect_text(page, "consumers", "stopping")
        assert queue.consumers()[0].stop_requested
    queue.unregister_consumer(consumer)


def test_what_is_typed_and_selected_stays_while_the_page_lives(browser, server, queue):
    ids = [job.id for job in queue.enqueue_many([pq.NewJob("stamp") for _ in range(60)])][::-1]
    with visit(browser, server, "admin.ipynb") as page:
        select(page, ids[2])
        page.mouse.wheel(0, 600)
        page.get_by_test_id("more-filters").click()
        page.get_by_test_id("filter-tag").focus()
        page.evaluate("window.scrollTo(0, 300); document.getElementById('main')?.scrollTo(0, 300)")
        place = page.evaluate("[window.scrollY, document.getElementById('main')?.scrollTop]")
        row = rows(page).nth(20).element_handle()
        for number in range(3):
            queue.enqueue("stamp")
            expect_text(page, "tab-pending", str(61 + number))
        expect_text(page, "newer", "3 newer jobs: show")
        assert page.evaluate("[window.scrollY, document.getElementById('main')?.scrollTop]") == place
        assert page.evaluate("document.activeElement.dataset.testid") == "filter-tag"
        assert page.evaluate("(row) => row.isConnected && Number(row.dataset.id)", row) == ids[20]
        page.get_by_test_id("newer").click()
        expect_text(page, "selected", "Select jobs")
        # A dialog that is open rests the page behind it.
        select(page, ids[5])
        dialog = ask(page, "mark_failed")
        dialog.get_by_label("Reason").fill("half a sen")
        queue.enqueue("stamp")
        page.wait_for_function("(then) => Date.now() > then + 1500", arg=page.evaluate("Date.now()"))
        assert dialog.get_by_label("Reason").input_value() == "half a sen"
        assert "63" in page.get_by_test_id("tab-pending").inner_text()
        dialog.get_by_role("button", name="Keep as it is").click()
        expect_text(page, "tab-pending", "64")
        ready(page)


def test_a_notebook_is_run_from_a_form_made_of_its_parameters_cell(browser, server, queue):
    name = "<img src=x onerror=alert(1)> report.ipynb"
    cell = 'year: int  # <script>alert(2)</script>\ncity = "<b>Ulm</b>"\npassword = "hunter2"'
    path = write_notebook(server.folder / name, "year", parameters=cell)
    try:
        with visit(browser, server, "admin.ipynb") as page:
            page.get_by_test_id("run-notebook").click()
            form = page.get_by_test_id("form")
            form.locator("[name=path]").wait_for()
            offered = page.locator("#pq-notebooks option").evaluate_all(
                "(all) => all.map((one) => one.value)"
            )
            assert name in offered
            fill(form, path="../outside.ipynb")
            form.locator("button[type=submit]").click()
            expect_text(page, "wrong", "there is no notebook")
            fill(form, path=name)
            form.locator("button[type=submit]").click()
            year = form.locator("[name='parameter:year']")
            year.wait_for()
            assert "<script>alert(2)</script>" in form.inner_text()
            assert form.locator("b, img, script").count() == 0
            assert form.locator("[name='parameter:city']").get_attribute("placeholder") == "'<b>Ulm</b>'"
            assert "hunter2" not in page.content()
            year.fill("soon")
            form.locator("button[type=submit]").click()
            expect_text(page, "wrong", "must be int")
            year.fill("2026")
            confirm(form)
            job = wait_for(lambda: queue.list(task="notebook"), "the job")[0]
            assert job.parameters["parameters"] == {"year": 2026}
            expect_text(page, "panel", f"Job {job.id}: notebook")
    finally:
        path.unlink()


def test_the_list_has_orders_and_a_finishing_time_in_its_address(browser, server, queue):
    low, high = queue.enqueue("stamp", priority=1).id, queue.enqueue("stamp", priority=2).id
    done = [queue.enqueue("stamp", queue="other").id for _ in range(2)]
    for one in reversed(done):
        queue.cancel(one)
    with visit(browser, server, "admin.ipynb?order=oldest") as page:
        expect_rows(page, [low, high, *done])
        order = page.get_by_test_id("filter-order")
        order.select_option("priority")
        expect_rows(page, [high, low])
        assert page.url.endswith("?order=priority")
        page.get_by_test_id("tab-failed").click()
        expect_rows(page, [])
        assert order.input_value() == ""
        order.select_option("finished")
        page.get_by_test_id("tab-all").click()
        expect_rows(page, done)
        page.get_by_test_id("more-filters").click()
        page.get_by_test_id("filter-finished").select_option("1h")
        expect_rows(page, done)
        assert "finished=1h" in page.url
        page.get_by_test_id("search").fill("finished:2020-01-01 order:oldest queue:other")
        expect_rows(page, done)
