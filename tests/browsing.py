"""What the tests of both pages share: a server in its own process, a real browser, looking at a page."""

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

import pq

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


@contextlib.contextmanager
def serving(folder, *words, port=0, token=TOKEN):
    (folder / "token").write_text(f"{token}\n")  # an editor's newline must not lock everybody out
    with pq.connect(folder / "queue.db") as queue:
        process = start(folder, "--db", "queue.db", "--port", str(port), "--token-file", "token", *words)
        try:
            line = process.stdout.readline()
            assert line, (folder / "server.log").read_text()
            url = json.loads(line)["url"]
            yield Server(url, urlsplit(url).port, process, queue, folder)
        finally:
            stop(process)


@contextlib.contextmanager
def browsing(server):
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
        sign_in(context, server)
        yield context
        chromium.close()


def sign_in(context, server):
    """The token is answered by a cookie and another address; to follow it would start a kernel."""
    context.request.get(f"{server.url}?token={TOKEN}", max_redirects=0)


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
    page.on("console", lambda line: wrong.append(line.text) if "Content Security" in line.text else None)
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
    if is_elsewhere(request.url, server):
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


def ready(page):
    page.wait_for_selector('[data-ready="1"]')


def ask(page, action):
    page.get_by_test_id(f"action-{action}").click()
    dialog = page.get_by_test_id("dialog")
    dialog.wait_for()
    return dialog


def confirm(dialog):
    dialog.locator("button[type=submit]").click()
    dialog.wait_for(state="hidden")
