"""Both pages as a person meets them: a real server, real kernels, a real browser, one real queue."""

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

import pq
from pq import dashboards
from pq.errors import InvalidJobError, StorageError

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-features=SpareRendererForSitePerProcess",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
TOKEN = "a-token-of-the-tests-0123456789"
HOSTILE = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>'
PATIENCE_MS = 30_000


@dataclass
class Server:
    """A running `python -m pq.dashboards` and its queue."""

    url: str
    port: int
    process: subprocess.Popen[str]
    queue: pq.PersistentQInterface
    folder: Path

    def ask(self, path, *, method="GET", token=None, host=None):
        """Status, headers and text of one plain request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {"Host": host or f"127.0.0.1:{self.port}"}
        if token:
            headers["Authorization"] = f"token {token}"
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read().decode("utf-8", "replace")
        finally:
            connection.close()

    def kernels(self):
        """The kernels that run."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]


def wait_for(condition, what, seconds=20):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)
    return value


def start(folder, *words, **environment):
    inherited = {name: value for name, value in os.environ.items() if name not in {"PQ_URL", "QUEUE_DB_FILE"}}
    (folder / "home").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "pq.dashboards", *words],
        cwd=folder,
        env=inherited | {"HOME": str(folder / "home")} | environment,
        stdout=subprocess.PIPE,
        stderr=(folder / "server.log").open("w"),
        text=True,
    )


def stop(process):
    process.terminate()
    try:
        process.wait(20)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dashboards")
    (folder / "token").write_text(f"{TOKEN}\n")  # an editor's newline must not lock everybody out
    process = start(folder, "--db", "queue.db", "--port", "0", "--token-file", "token")
    try:
        line = process.stdout.readline()
        assert line, (folder / "server.log").read_text()
        url = json.loads(line)["url"]
        with pq.connect(folder / "queue.db") as queue:
            yield Server(url, urlsplit(url).port, process, queue, folder)
    finally:
        stop(process)


@pytest.fixture(scope="module")
def browser(server):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
        path = next(filter(None, map(shutil.which, names)), playwright.chromium.executable_path)
        if not Path(path).exists():
            pytest.skip("no chromium found: playwright install chromium, or a system package")
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        context = chromium.new_context(viewport={"width": 1280, "height": 900})
        context.set_default_timeout(PATIENCE_MS)
        warm = context.new_page()  # the browser's own processes start here, not within a test
        warm.goto(f"{server.url}healthz")
        # The token is answered by a cookie and another address; to follow it would start a kernel.
        context.request.get(f"{server.url}?token={TOKEN}", max_redirects=0)
        yield context
        chromium.close()


@pytest.fixture
def queue(server):
    server.queue.delete_all()
    return server.queue


@contextlib.contextmanager
def visit(browser, server, path):
    """An open page that is ready; at the end no script failed and nothing left this machine."""
    page = browser.new_page()
    wrong, elsewhere = [], []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(f"dialog {dialog.message}"))
    page.on(
        "response", lambda answer: elsewhere.append(answer.url) if is_elsewhere(answer.url, server) else None
    )
    page.on("requestfailed", lambda request: note_failure(request, server, elsewhere))
    try:
        page.goto(f"{server.url}voila/render/{path}")
        page.wait_for_selector('[data-ready="1"]')
        yield page
        assert page.evaluate("window.pwned") is None
        assert (wrong, elsewhere) == ([], [])
    finally:
        page.close(run_before_unload=True)
        wait_for(lambda: not server.kernels(), "the closed tab's kernel to end")


def is_elsewhere(url, server):
    return url.startswith("http") and urlsplit(url).netloc != f"127.0.0.1:{server.port}"


def note_failure(request, server, elsewhere):
    # Voilà's template asks for icons on a CDN; the policy stops that in the browser, before the network.
    if is_elsewhere(request.url, server) and request.failure != "csp":
        elsewhere.append(f"{request.url} {request.failure}")


def rows(page, name="jobs"):
    return page.get_by_test_id(name).locator("tbody tr")


def expect_text(page, name, text):
    page.wait_for_function(
        "([name, text]) => document.querySelector(`[data-testid='${name}']`)?.textContent.includes(text)",
        arg=[name, text],
    )


def expect_rows(page, ids, name="jobs"):
    page.wait_for_function(
        "([name, ids]) => JSON.stringify([...document.querySelectorAll(`[data-testid='${name}'] tbody tr`)]"
        ".map((row) => Number(row.dataset.id))) === JSON.stringify(ids)",
        arg=[name, ids],
    )


def kernel_of(page):
    return page.evaluate("JSON.parse(document.getElementById('jupyter-config-data').textContent).kernelId")


def select(page, *ids):
    for job_id in ids:
        page.get_by_role("checkbox", name=f"Select job {job_id}", exact=True).check()


def ask(page, action):
    page.get_by_test_id(f"action-{action}").click()
    dialog = page.get_by_test_id("dialog")
    dialog.wait_for()
    return dialog


def confirm(dialog):
    dialog.locator("button[type=submit]").click()
    dialog.wait_for(state="hidden")


def failed_job(queue, line="default"):
    queue.enqueue("stamp", max_attempts=1, queue=line)
    job = queue.dequeue("tester", (line,))
    queue.fail(job, "FileNotFoundError: inbox/a.txt")
    return job.id


# -- the pages ----------------------------------------------------------------------------------------


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


def test_hostile_text_is_shown_and_never_run(browser, server, queue):
    name = HOSTILE[:36]
    queue.enqueue(HOSTILE, {HOSTILE: HOSTILE}, queue=HOSTILE, max_attempts=1)
    consumer = queue.register_consumer(HOSTILE, (HOSTILE,))
    queue.beat_consumer(consumer, HOSTILE)
    queue.fail(queue.dequeue(HOSTILE, (HOSTILE,)), HOSTILE)
    queue.enqueue(HOSTILE, queue=HOSTILE)
    queue.heartbeat(queue.dequeue(HOSTILE, (HOSTILE,)), message=HOSTILE)
    queue.pause(HOSTILE, HOSTILE)
    try:
        with visit(browser, server, "ops.ipynb") as page:
            for table in ("consumers", "queues", "running", "failures"):
                expect_text(page, table, name)
            assert page.locator("[data-testid] img").count() == 0
        with visit(browser, server, "admin.ipynb?search=%3Cscript%3E") as page:
            expect_text(page, "jobs", name)
            page.get_by_test_id("filter-task").select_option(HOSTILE)
            page.get_by_role("checkbox", name="Select all jobs on this page").check()
            dialog = ask(page, "assign")
            dialog.get_by_label("Consumer").fill(HOSTILE)
            confirm(dialog)
            expect_text(page, "toasts", "1 job assigned")
            assert page.locator("[data-testid] img").count() == 0
    finally:
        queue.resume(HOSTILE)
        queue.unregister_consumer(consumer)


def test_a_page_that_lost_its_kernel_says_so(browser, server, queue):
    with visit(browser, server, "ops.ipynb") as page:
        kernel = kernel_of(page)
        assert server.ask(f"/api/kernels/{kernel}", token=TOKEN)[0] == 200
        assert server.ask(f"/api/kernels/{kernel}")[0] == 403
        server.ask(f"/api/kernels/{kernel}", method="DELETE", token=TOKEN)
        expect_text(page, "banner", "cut off from its kernel")
        expect_text(page, "live", "disconnected")


# -- who may come in ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/ops", "/admin", "/voila/render/ops.ipynb", "/voila/render/admin.ipynb"]
)
@pytest.mark.parametrize("query", ["", "?token=wrong"])
def test_without_the_token_there_is_only_the_login(server, path, query):
    status, headers, _ = server.ask(path + query)
    assert (status, headers["Location"].split("?")[0]) == (302, "/login")
    assert server.kernels() == []


def test_the_token_leaves_the_address_at_once(server):
    for path in ("/voila/render/admin.ipynb", "/admin"):
        status, headers, _ = server.ask(f"{path}?token={TOKEN}&status=failed")
        assert (status, headers["Location"]) == (302, "/voila/render/admin.ipynb?status=failed")
        assert "httponly" in headers["Set-Cookie"].lower()
    assert server.kernels() == []


@pytest.mark.parametrize(
    "path",
    [
        "/voila/render/consumer.ipynb",
        "/voila/render/../pq/cli.py",
        "/voila/tree",
        "/voila/api/contents",
        "/voila/files/ops.ipynb",
        "/api/contents",
        "/api/kernels",
        "/api/sessions",
        "/api/terminals",
        "/tree",
        "/lab",
    ],
)
def test_nothing_else_is_served_even_with_the_token(server, path):
    assert server.ask(path, token=TOKEN)[0] == 404
    assert server.kernels() == []


def test_a_kernel_cannot_be_started_from_outside(server):
    assert server.ask("/api/kernels", method="POST", token=TOKEN)[0] in {403, 404, 405}


def test_health_tells_anybody_one_word(server):
    status, headers, text = server.ask("/healthz")
    assert (status, text) == (200, "ok")
    assert "default-src 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example"])
def test_a_foreign_host_is_refused_even_with_the_token(server, host):
    for path in ("/", "/voila/render/ops.ipynb"):
        assert server.ask(path, token=TOKEN, host=host)[0] == 403


def test_the_kernel_socket_is_closed_to_strangers_and_to_crafted_frames(browser, server, queue):
    websocket = pytest.importorskip("websocket")

    def connect(**options):
        options.setdefault("header", [])
        address = f"ws://127.0.0.1:{server.port}/api/kernels/{kernel}/channels"
        return websocket.create_connection(address, timeout=10, **options)

    with visit(browser, server, "ops.ipynb") as page:
        kernel = page.evaluate(
            "JSON.parse(document.getElementById('jupyter-config-data').textContent).kernelId"
        )
        known = [f"Authorization: token {TOKEN}"]
        for options in (
            {},
            {"header": ["Authorization: token wrong"]},
            {"header": known, "host": f"evil.example:{server.port}"},
        ):
            with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
                connect(**options)
        crafted = (1 << 40).to_bytes(8, "little") + b"\0" * 40
        for protocols in (None, ["v1.kernel.websocket.jupyter.org"]):
            line = connect(header=known, subprotocols=protocols)
            memory = psutil.Process(server.process.pid).memory_info().rss
            line.send_binary(crafted)
            while (frame := line.recv_data())[0] != websocket.ABNF.OPCODE_CLOSE:
                pass
            assert int.from_bytes(frame[1][:2], "big") == 1003
            line.close()
            assert psutil.Process(server.process.pid).memory_info().rss < memory + 50_000_000
        queue.enqueue("stamp")
        expect_text(page, "count-pending", "1")


# -- the launcher -------------------------------------------------------------------------------------


def refused(folder, *words):
    process = start(folder, *words)
    out, _ = process.communicate(timeout=60)
    assert out == ""
    return process.returncode, (folder / "server.log").read_text()


def test_a_taken_port_is_a_clear_error(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, text = refused(tmp_path, "--db", "queue.db", "--port", str(port), "--no-token")
    assert (code, text.count("\n")) == (1, 1)
    assert f"127.0.0.1:{port}" in text


def test_a_queue_that_cannot_be_opened_is_a_clear_error(tmp_path):
    (tmp_path / "queue.db").write_text(
        "this is a letter, not a database, and long enough to be looked at" * 20
    )
    code, text = refused(tmp_path, "--db", "queue.db", "--port", "0", "--no-token")
    assert (code, text.count("\n")) == (1, 1)
    assert "queue.db" in text


def test_a_token_file_is_made_for_this_user_alone_and_read_again(tmp_path):
    path = tmp_path / "token"
    token = dashboards.read_token(str(path))
    assert len(token) >= 32
    assert dashboards.read_token(str(path)) == token
    assert os.name != "posix" or path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text", ["", "short", "with a space in the middle", "with-an-umlaut-ä-in-it", "two-lines-of\ntoken-text"]
)
def test_a_token_that_would_let_nobody_or_everybody_in_is_refused(tmp_path, text):
    (tmp_path / "token").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidJobError, match="the token in"):
        dashboards.read_token(str(tmp_path / "token"))


def test_a_token_file_that_cannot_be_read_is_a_clear_error(tmp_path):
    with pytest.raises(StorageError, match="cannot read the token"):
        dashboards.read_token(str(tmp_path))


def test_a_stopped_server_leaves_nothing_behind(tmp_path):
    scratch = tmp_path / "t"
    scratch.mkdir()
    process = start(tmp_path, "--db", "queue.db", "--port", "0", TMPDIR=str(scratch))
    try:
        url = json.loads(process.stdout.readline())["url"]
        token = re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=([\w-]{32,})", url)
        assert token is not None  # made here, so it has to be told
        words = psutil.Process(process.pid).cmdline()
        assert token[1] not in " ".join(words)
        assert len(list(scratch.iterdir())) == 1
    finally:
        stop(process)
    assert process.returncode == 0
    assert list(scratch.iterdir()) == []
    assert list((tmp_path / "home").rglob("*")) == []
