"""Other pages in the same browser, and stolen links: asked over plain HTTP, without a browser."""

import http.client

import pytest
from browsing import TOKEN, serving

HEADERS = {
    "X-Frame-Options": "SAMEORIGIN",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


def visit_by_link(server, token=TOKEN):
    """The cookie that a visit by the link gives; None where the login comes instead."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", f"/?token={token}")
    answer = connection.getresponse()
    cookies = [value.partition(";")[0] for name, value in answer.getheaders() if name.lower() == "set-cookie"]
    words = [value for name, value in answer.getheaders() if name.lower() == "set-cookie"]
    connection.close()
    if "/login" in dict(answer.getheaders())["Location"]:
        return None
    signed = [word for word in words if word.startswith("username-")]
    assert all("HttpOnly" in word for word in signed)
    return "; ".join(cookies)


def ask(server, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request(
            "GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders())
    finally:
        connection.close()


def upgrade(server, **headers):
    """The status of a websocket's opening."""
    key = {"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec_WebSocket_Version": "13"}
    path = "/api/kernels/00000000-0000-0000-0000-000000000000/channels"
    return ask(server, path, Connection="Upgrade", Upgrade="websocket", **key, **headers)[0]


def test_another_origin_opens_no_websocket_even_with_the_cookie(server):
    cookie = visit_by_link(server)
    own = f"http://127.0.0.1:{server.port}"
    # There is no such kernel: past the door it is 404.
    assert upgrade(server, Cookie=cookie, Origin=own) == 404
    for origin in (
        "http://evil.example",
        "null",
        f"http://127.0.0.1:{server.port + 1}",
        f"{own}.evil.example",
    ):
        assert upgrade(server, Cookie=cookie, Origin=origin) == 403, origin
    assert upgrade(server, Origin=own) == 403


@pytest.mark.parametrize("path", ["/login", "/healthz", "/ops", "/no/such/page", "/api/kernels"])
def test_every_answer_forbids_frames_and_what_lies_elsewhere(server, path):
    _, headers = ask(server, path)
    assert {name: headers.get(name) for name in HEADERS} == HEADERS
    policy = headers["Content-Security-Policy"]
    assert "frame-ancestors 'self'" in policy
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_a_new_token_voids_the_old_link_and_its_cookie(tmp_path):
    with serving(tmp_path) as server:
        cookie = visit_by_link(server)
        assert ask(server, "/ops", Cookie=cookie)[1]["Location"].endswith("ops.ipynb")
    with serving(tmp_path, port=server.port, token="another-token-of-the-tests-98765") as server:
        assert visit_by_link(server) is None
        assert "/login" in ask(server, "/ops", Cookie=cookie)[1]["Location"]
        assert visit_by_link(server, "another-token-of-the-tests-98765")
