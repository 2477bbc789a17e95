"""The launcher of both pages: who may come in, what is served, how it starts and ends."""

import json
import os
import re
import socket

import psutil
import pytest
from browsing import TOKEN, expect_text, kernel_of, start, stop, visit

from pq import dashboards
from pq.errors import InvalidJobError, StorageError
from pq.system import programs, supervise

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
        "/voila/render/../pq/cli/",
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
        kernel = kernel_of(page)
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


@pytest.mark.parametrize("text", ["", "/", "//"])
def test_without_a_base_url_the_pages_are_at_the_root(text):
    assert dashboards.base_url(text) == "/"


@pytest.mark.parametrize("text", ["pq", "/pq", "pq/", "/pq/"])
def test_a_base_url_is_written_with_or_without_its_slashes(text):
    assert dashboards.base_url(text) == "/pq/"


@pytest.mark.parametrize("text", ["/a b/", "/pq/../x", "http://x", "/(.*)/", "/ä/", "/%2e/"])
def test_a_base_url_that_is_no_plain_path_is_refused(text):
    with pytest.raises(InvalidJobError, match="a base URL is a path"):
        dashboards.base_url(text)


def test_the_system_hands_read_only_on_to_the_pages(tmp_path):
    place = programs.Place("queue.db", tmp_path, tmp_path / "lock", "0" * 32)
    for read_only in (False, True):
        program = programs.dashboards_program(place, 1, tmp_path / "token", read_only=read_only)
        assert ("--read-only" in program.command) is read_only
    assert supervise.parser().parse_args(["--read-only"]).read_only
