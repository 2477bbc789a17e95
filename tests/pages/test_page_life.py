"""The pages over time and elsewhere: hidden tabs, lost kernels and servers, phones, dark, axe."""

import json
from pathlib import Path

import pytest
from browsing import TOKEN, expect_text, kernel_of, ready, select, serving, sign_in, visit

import pq

AXE = (Path(__file__).parents[1] / "assets" / "axe.min.js").read_text(encoding="utf-8")


def hide(page, state):
    page.evaluate(
        "(value) => { Object.defineProperty(document, 'visibilityState', { value, configurable: true });"
        "document.dispatchEvent(new Event('visibilitychange')); }",
        state,
    )


def some_jobs(queue):
    queue.enqueue_many([pq.NewJob("stamp", {"path": "a.txt"}, queue=name) for name in ("default", "mail")])
    queue.fail(queue.dequeue("tester"), "broken", retry=False)
    return queue.register_consumer("c-1")


def test_a_hidden_tab_rests_and_wakes(browser, server, queue):
    with visit(browser, server, "ops.ipynb") as page:
        hide(page, "hidden")
        page.wait_for_function("(then) => Date.now() > then + 300", arg=page.evaluate("Date.now()"))
        queue.enqueue("stamp")
        page.wait_for_function("(then) => Date.now() > then + 1500", arg=page.evaluate("Date.now()"))
        assert page.get_by_test_id("count-pending").inner_text() == "0"
        hide(page, "visible")
        expect_text(page, "count-pending", "1")


def test_a_page_that_lost_its_kernel_says_so_and_comes_back_with_its_selection(browser, server, queue):
    lost = queue.enqueue("stamp").id
    with visit(browser, server, "admin.ipynb?status=pending") as page:
        select(page, lost)
        kernel = kernel_of(page)
        assert server.ask(f"/api/kernels/{kernel}", token=TOKEN)[0] == 200
        assert server.ask(f"/api/kernels/{kernel}")[0] == 403
        server.ask(f"/api/kernels/{kernel}", method="DELETE", token=TOKEN)
        page.wait_for_function(
            "(kernel) => JSON.parse(document.getElementById('jupyter-config-data')?.textContent ?? '{}')"
            ".kernelId !== kernel && document.querySelector('[data-ready=\"1\"]')",
            arg=kernel,
        )
        expect_text(page, "selected", "1 selected")
        assert page.url.endswith("?status=pending")


def test_a_page_whose_server_is_gone_says_so_and_comes_back_with_it(browser, tmp_path):
    with serving(tmp_path) as first:
        port = first.port
        sign_in(browser, first)
        page = browser.new_page()
        page.goto(f"{first.url}ops")
        ready(page)
    try:
        expect_text(page, "banner", "The server is gone")
        expect_text(page, "live", "disconnected")
        with serving(tmp_path, port=port) as second:
            second.queue.enqueue("stamp")
            expect_text(page, "count-pending", "1")
            expect_text(page, "live", "live")
            page.close(run_before_unload=True)
    finally:
        page.close()


def test_an_error_while_reading_is_told_with_the_age_of_what_is_shown(browser, server, queue):
    with visit(browser, server, "ops.ipynb") as page:
        expect_text(page, "live", "live")
        with queue.transaction() as db:
            db.execute("alter table queues rename to queues_away")
        try:
            expect_text(page, "banner", "What is shown is from")
        finally:
            with queue.transaction() as db:
                db.execute("alter table queues_away rename to queues")
        page.get_by_test_id("banner").wait_for(state="hidden")


def test_the_ops_page_shows_spans_health_and_dead_consumers_and_links(browser, server, queue):
    consumer = some_jobs(queue)
    lock = Path(f"{queue.path}-consumers") / consumer
    with visit(browser, server, "ops.ipynb") as page:
        expect_text(page, "health", "integrity")
        expect_text(page, "sizes", "write-ahead log")
        expect_text(page, "failed-share", " %)")
        page.get_by_test_id("span-7d").click()
        page.wait_for_selector('[data-testid="span-7d"][aria-pressed="true"]')
        expect_text(page, "tasks", "stamp")
        assert (
            page.get_by_test_id("throughput")
            .get_attribute("aria-label")
            .startswith("Jobs finished since 7 days ago")
        )
        lock.unlink()
        expect_text(page, "consumers", "dead")
        links = page.locator("[data-page] a[href*='admin.ipynb?']").evaluate_all(
            "(all) => all.map((one) => one.getAttribute('href'))"
        )
        for wanted in (
            "status=failed",
            "queue=mail&status=pending",
            "consumer=c-1",
            "queue=default&task=stamp",
        ):
            assert f"admin.ipynb?{wanted}" in links
        assert (
            page.get_by_test_id("failures")
            .locator("a")
            .first.get_attribute("href")
            .startswith("admin.ipynb?job=")
        )
    queue.unregister_consumer(consumer)


@pytest.mark.parametrize("path", ["ops.ipynb", "admin.ipynb"])
def test_axe_finds_nothing_in_light_dark_and_on_a_phone(browser, server, queue, path):
    consumer = some_jobs(queue)
    job = queue.failed()[0].id
    with visit(browser, server, f"{path}?job={job}" if path == "admin.ipynb" else path) as page:
        page.evaluate(AXE)
        for scheme in ("light", "dark"):
            page.evaluate("(scheme) => { document.documentElement.dataset.pqTheme = scheme; }", scheme)
            assert violations(page) == []
        page.set_viewport_size({"width": 390, "height": 800})
        assert violations(page) == []
        if path == "admin.ipynb":
            page.get_by_test_id("panel-close").click()
            page.get_by_test_id("enqueue").click()
            page.get_by_test_id("form").wait_for()
            assert violations(page) == []
            page.keyboard.press("Escape")
        wide = page.evaluate("document.getElementById('rendered_cells').scrollWidth")
        assert wide <= 390
    queue.unregister_consumer(consumer)


def violations(page):
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    return [(one["id"], [node["html"][:200] for node in one["nodes"]][:3]) for one in found]


def test_light_and_dark_are_chosen_and_remembered(browser, server, queue):
    with visit(browser, server, "ops.ipynb?theme=dark") as page:
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 28)"
        page.get_by_test_id("theme").click()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(245, 246, 248)"
        assert page.evaluate("localStorage.getItem('pq-theme')") == "light"
        page.evaluate("localStorage.removeItem('pq-theme')")


def test_the_first_numbers_are_there_before_any_kernel(server, queue):
    queue.enqueue_many([pq.NewJob("stamp") for _ in range(1234)])
    status, _, text = server.ask("/voila/render/ops.ipynb", token=TOKEN)
    assert status == 200
    assert "<strong>1,234</strong>" in text or "<strong>0</strong>" in text  # at most a second old
    assert "cdn" not in text.lower()
    config = json.loads(
        text.split('id="jupyter-config-data" type="application/json">')[1].split("</script>")[0]
    )
    # No browser says farewell here.
    assert server.ask(f"/api/kernels/{config['kernelId']}", method="DELETE", token=TOKEN)[0] == 204


def test_a_page_whose_queue_cannot_be_opened_says_so(browser, tmp_path):
    with serving(tmp_path) as alone:
        (tmp_path / "other.db").write_text("no database " * 1000)
        (tmp_path / "other.db").rename(alone.queue.path)
        Path(f"{alone.queue.path}-wal").unlink()  # which alone would still hold a whole database
        sign_in(browser, alone)
        page = browser.new_page()
        page.goto(f"{alone.url}ops")
        first = page.get_by_test_id("first")
        first.get_by_text("could not be started").wait_for()
        assert "cannot read the queue" in first.get_by_role("alert").inner_text()
        page.close(run_before_unload=True)
