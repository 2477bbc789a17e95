"""Behind nginx, under a base URL, with the very lines that docs/dashboards.md gives for it."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from browsing import TOKEN, expect_rows, expect_text, ready, select, serving, sign_in, stop, wait_for

DOCUMENT = Path(__file__).parents[2] / "docs" / "dashboards.md"
FOLDERS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@contextlib.contextmanager
def behind_nginx(server, folder):
    """The same server by way of nginx, on a port of its own."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("no nginx found: a system package, such as nginx-light")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    location = re.search(r"^location .*?^}", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    places = " ".join(f"{name}_temp_path {folder / name};" for name in FOLDERS)
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder / 'nginx.pid'}; error_log {folder / 'nginx.log'};"
        f"events {{}} http {{ access_log off; {places} server {{ listen 127.0.0.1:{port};"
        f"{location[0].replace('/pq/', '/jobs/').replace('8866', str(server.port))} }} }}"
    )
    command = [program, "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", str(folder / "nginx.log")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        proxied = replace(server, port=port, url=server.url.replace(f":{server.port}/", f":{port}/"))
        wait_for(lambda: answers(proxied), "nginx")
        yield proxied
    finally:
        stop(process)


def answers(server):
    try:
        return server.ask("/jobs/healthz")[0] == 200
    except ConnectionError:
        return False


def test_both_pages_live_behind_nginx_and_a_read_only_one_cannot_write(browser, tmp_path):
    words = ("--base-url", "/jobs", "--host", "queue.example", "--read-only", "--hide", "*iban*", "--preheat")
    with serving(tmp_path, *words) as direct, behind_nginx(direct, tmp_path) as server:
        job = server.queue.enqueue("pay", {"iban": "DE00", "to": "ada"}).id
        assert server.url.endswith("/jobs/")
        assert server.ask("/jobs/healthz", host="queue.example")[0] == 200
        assert server.ask("/jobs/voila/render/ops.ipynb", host="queue.example", token=TOKEN)[0] == 200
        assert server.ask("/jobs/ops", host="queue.example")[0] == 302
        assert server.ask("/jobs/ops", host="evil.example", token=TOKEN)[0] == 403
        assert direct.ask("/voila/render/ops.ipynb", token=TOKEN)[0] == 404
        sign_in(browser, server)
        paths = {cookie["path"] for cookie in browser.cookies(f"{server.url}ops")}
        assert "/jobs/" in paths

        ops = browser.new_page()
        ops.goto(f"{server.url}ops")
        ready(ops)
        expect_text(ops, "count-pending", "1")
        page = browser.new_page()
        page.goto(f"{server.url}voila/render/admin.ipynb?job={job}")
        ready(page)
        expect_rows(page, [job])
        expect_text(page, "panel-parameters", '"iban": "•••"')
        assert "DE00" not in page.content()
        later = server.queue.enqueue("stamp").id  # over the websocket
        expect_rows(page, [later, job])

        select(page, job)
        for name in ("action-delete", "job-cancel", "enqueue"):
            assert page.get_by_test_id(name).get_attribute("title") == "This page is read-only."
        page.get_by_test_id("job-cancel").dispatch_event("click")
        expect_text(page, "toasts", "read-only")
        assert server.queue.get(job).status == "pending"
        for one in (ops, page):
            one.close(run_before_unload=True)
