"""Every route of the server, found by asking it, without and with a wrong token."""

import re

import pytest
from browsing import TOKEN, kernel_of, visit

from pq.dashboards import Serving

OPEN = {"/healthz": 200, "/login": 200, "/logout": 200}
# Files of Jupyter's front end and of its extensions: the same in every installation, nothing of the queue.
FRONT_END = ("/voila/static/", "/voila/templates/", "/voila/api/themes/", "/voila/labextensions/")


@pytest.fixture(scope="module")
def routes(tmp_path_factory):
    """The patterns that the server was given, from the same code that gives them."""
    import pq
    from pq.dashboard_server import Dashboards, configuration, install_template  # slow to load

    folder = tmp_path_factory.mktemp("routes")
    with pytest.MonkeyPatch.context() as patch, pq.connect(folder / "queue.db") as queue:
        patch.setenv("JUPYTER_DATA_DIR", str(folder / "data"))
        patch.setattr("signal.signal", lambda *_: None)
        install_template(folder / "data")
        config = configuration(Serving(token=TOKEN, preheat=False), folder, folder, 0)
        app = Dashboards(None, lambda: None, config, queue)
        app.initialize([])
        app.init_settings()
        patterns = [route[0] for route in app.init_handlers()]
        Dashboards.clear_instance()
    return patterns


def paths_of(pattern, kernel):
    text = re.sub(r"\(\?P<kernel_id>[^)]*\)", kernel, pattern.replace("\\.", ".").replace("\\-", "-"))
    text = text.replace("((?:ops|admin).ipynb)", "ops.ipynb").replace("(.*)", "x")
    text = text.replace("/templates/x", "/templates/lab/static/x")
    assert not re.search(r"[()\\*+?]", text), f"a route that this test cannot write: {pattern}"
    return text


def test_no_route_answers_a_stranger(browser, server, queue, routes):
    assert len(routes) >= 12
    with visit(browser, server, "ops.ipynb") as page:
        kernel = kernel_of(page)
        asked = [
            (method, paths_of(pattern, kernel), token)
            for pattern in routes
            for method in ("GET", "POST", "PUT", "DELETE", "PATCH")
            for token in (None, "wrong", "x" * 400)
        ]
        for method, path, token in asked:
            status = server.ask(path, method=method, token=token)[0]
            if method == "GET" and path in OPEN:
                assert status == OPEN[path]
            elif path.startswith(FRONT_END):
                assert status in {403, 404, 405}, (method, path)  # there is no file x
            else:
                assert status in {302, 403, 404, 405}, (method, path, status)
        assert server.ask(f"/api/kernels/{kernel}", token=TOKEN)[0] == 200


def test_no_websocket_opens_for_a_stranger(browser, server, queue, routes):
    websocket = pytest.importorskip("websocket")
    with visit(browser, server, "ops.ipynb") as page:
        kernel = kernel_of(page)
        for pattern in routes:
            address = f"ws://127.0.0.1:{server.port}{paths_of(pattern, kernel)}"
            for header in ([], ["Authorization: token wrong"], ["Cookie: username-127-0-0-1=forged"]):
                with pytest.raises((websocket.WebSocketBadStatusException, websocket.WebSocketException)):
                    websocket.create_connection(address, timeout=10, header=header, redirect_limit=0)
