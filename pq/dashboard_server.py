"""Voilà, narrowed to two pages on this machine: who may come in, what is served, what a kernel costs.

What is not needed is not served: no tree, no contents, no files, no other notebook. Read by
pq/dashboards.py only, because importing Voilà takes half a second.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from jupyter_server import DEFAULT_STATIC_FILES_PATH
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.services.kernels.websocket import KernelWebsocketHandler
from jupyter_server.utils import url_path_join
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.web import ErrorHandler, HTTPError, RequestHandler, authenticated
from traitlets.config import Config
from voila.app import Voila
from voila.request_info_handler import RequestInfoSocketHandler
from voila.static_file_handler import AllowListFileHandler
from voila.tornado.contentshandler import VoilaContentsHandler
from voila.tornado.handler import TornadoVoilaHandler
from voila.tornado.kernel_websocket_handler import VoilaKernelWebsocketHandler
from voila.tornado.treehandler import TornadoVoilaTreeHandler

from pq.snapshot import STATIC, Snapshot

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from pq.dashboards import Serving
    from pq.interface import PersistentQInterface

PAGES = ("ops", "admin")
# Scripts stand in the page, so they must be allowed; nothing else may be loaded from or sent elsewhere.
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "frame-ancestors 'self'; base-uri 'self'; form-action 'self'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
}
EXTENSIONS = ["@jupyter-widgets/jupyterlab-manager", "@voila-dashboards/widgets-manager8", "anywidget"]
PROTOCOL = "v1.kernel.websocket.jupyter.org"
MOST_PARTS = 64
# The path of a kernel's socket may have 107 bytes, of which its own name takes up to 70.
LONGEST_SCRATCH = 36
# Of these the last tells a kernel's query string to anybody who knows the kernel; the pages read their own.
_UNWANTED = (TornadoVoilaTreeHandler, VoilaContentsHandler, AllowListFileHandler, RequestInfoSocketHandler)
_DOORS = ("/login", "/logout")
TEMPLATE = "pq"


def _without_token(handler: JupyterHandler) -> str:
    """The rest of the query, to be kept when the token is taken out of the address."""
    arguments = handler.request.query_arguments.items()
    kept = [(name, value) for name, values in arguments if name != "token" for value in values]
    return f"?{urlencode(kept)}" if kept else ""


class PageHandler(TornadoVoilaHandler):  # type: ignore[misc]  # Voilà is untyped
    """A page; the token leaves the address at once, so that it gets into no history and no Referer."""

    @authenticated  # type: ignore[untyped-decorator]  # tornado is untyped here
    async def get(self, path: str | None = None) -> None:
        """Show the page, or come again without the token."""
        if "token" in self.request.query_arguments:
            self.redirect(f"{self.request.path}{_without_token(self)}")
            return
        # Sets the cookie without which the closing page's farewell is refused and its kernel stays.
        self.xsrf_token  # noqa: B018  # reading it is what sets it
        snapshot: Snapshot = self.settings["pq_snapshot"]
        async for chunk in self.get_generator(path=path):
            self.write(snapshot.fill(chunk, str(path).removesuffix(".ipynb")))
            await self.flush()


class DoorHandler(JupyterHandler):  # type: ignore[misc]  # jupyter_server is untyped here
    """`/`, `/ops` and `/admin` lead to the pages."""

    def initialize(self, page: str) -> None:
        """Remember where this door leads."""
        self.page = page

    @authenticated  # type: ignore[untyped-decorator]  # tornado is untyped here
    def get(self) -> None:
        """Lead there; the login comes first where it is due."""
        self.redirect(f"{self.base_url}voila/render/{self.page}.ipynb{_without_token(self)}")


class PlainHandler(RequestHandler):  # type: ignore[misc]  # tornado is untyped here
    """Tornado's own, with the headers that Jupyter's handlers have by themselves."""

    def set_default_headers(self) -> None:
        """The same as everywhere."""
        for name, value in HEADERS.items():
            self.set_header(name, value)


class MissingHandler(PlainHandler, ErrorHandler):  # type: ignore[misc]  # tornado is untyped here
    """What is asked for and is nowhere."""


class HealthHandler(PlainHandler):
    """Says that the server runs, and nothing else, to anybody."""

    def get(self) -> None:
        """The one word."""
        self.finish("ok")


class SocketHandler(VoilaKernelWebsocketHandler):  # type: ignore[misc]  # Voilà is untyped
    """The kernel's websocket, guarded: a crafted frame makes jupyter_server reserve gigabytes."""

    async def get(self, kernel_id: str) -> None:
        """Refuse another page's script before telling it whether there is such a kernel."""
        if not self.check_origin():
            raise HTTPError(403)
        await super().get(kernel_id)

    def on_message(self, message: str | bytes) -> None:
        """Pass a frame on only where its parts can be counted."""
        if isinstance(message, bytes) and (
            self.selected_subprotocol != PROTOCOL or int.from_bytes(message[:8], "little") > MOST_PARTS
        ):
            self.close(1003, "not a kernel message")
            return
        super().on_message(message)


class Dashboards(Voila):  # type: ignore[misc]  # Voilà is untyped
    """Both pages on one listening socket of this machine."""

    def __init__(
        self,
        listening: socket.socket,
        ready: Callable[[], None],
        config: Config,
        queue: PersistentQInterface,
    ) -> None:
        super().__init__(config=config)
        self._listening = listening
        self._ready = ready
        self._queue = queue

    def init_settings(self) -> dict[str, Any]:
        """Voilà's, and where the first numbers come from."""
        return {**super().init_settings(), "pq_snapshot": Snapshot(self._queue)}

    def init_handlers(self) -> list[Any]:
        """Voilà's handlers without those that nobody needs, and with ours in the place of three."""
        handlers = [
            (route[0], SocketHandler, *route[2:]) if self._is_socket(route[1]) else route
            for route in super().init_handlers()
            if not issubclass(route[1], (*_UNWANTED, TornadoVoilaHandler))
        ]
        page = {
            "template_paths": self.template_paths,
            "config": self.config,
            "voila_configuration": self.voila_configuration,
        }
        ours = [
            (r"healthz", HealthHandler),
            (r"", DoorHandler, {"page": PAGES[0]}),
            *((name, DoorHandler, {"page": name}) for name in PAGES),
            (rf"voila/render/((?:{'|'.join(PAGES)})\.ipynb)", PageHandler, page),
        ]
        base = re.escape(self.base_url)
        return [
            *((f"{base}{route[0]}", *route[1:]) for route in ours),
            # Voilà leaves these two out of its base URL.
            *((f"{base}{route[0][1:]}", *route[1:]) if route[0] in _DOORS else route for route in handlers),
        ]

    def listen(self) -> None:
        """Serve on the socket that was bound before, until SIGTERM or Ctrl-C."""
        HTTPServer(self.app).add_sockets([self._listening])
        self.ioloop = IOLoop.current()
        self.ioloop.add_callback(self._ready)
        try:
            self.ioloop.start()
        except KeyboardInterrupt:
            self.log.info("interrupted")
        finally:
            self.stop()

    @staticmethod
    def _is_socket(handler: type) -> bool:
        return issubclass(handler, KernelWebsocketHandler)


def configuration(serving: Serving, notebooks: Path, scratch: Path, port: int) -> Config:
    """Everything that differs from Voilà's defaults."""
    config = Config()
    config.Voila.root_dir = str(notebooks)
    config.Voila.connection_dir_root = str(scratch)
    config.Voila.config_file_paths = []  # a stray voila.json in the folder changes nothing
    config.Voila.ip = "127.0.0.1"
    config.Voila.port = port
    config.Voila.port_retries = 0
    config.Voila.base_url = serving.base_url
    config.Voila.open_browser = False
    config.Voila.log_level = logging.WARNING
    if serving.token:
        config.Voila.token = serving.token
        # The same after a restart, so that an open page comes back without the token in its address.
        config.Voila.cookie_secret = hashlib.blake2b(serving.token.encode(), person=b"pq cookies").digest()
    config.Voila.tornado_settings = {
        "allow_remote_access": False,  # a foreign Host is refused: DNS rebinding
        "local_hostnames": ["localhost", *serving.hosts],
        "static_path": DEFAULT_STATIC_FILES_PATH,  # error pages ask for it
        "static_url_prefix": url_path_join(serving.base_url, "static/"),
        "headers": HEADERS,
        "default_handler_class": MissingHandler,
        "default_handler_args": {"status_code": 404},
    }
    config.VoilaConfiguration.template = TEMPLATE
    if serving.preheat:
        config.VoilaConfiguration.preheat_kernel = True
        others = [path.name for path in notebooks.glob("*.ipynb") if path.stem not in PAGES]
        config.VoilaKernelManager.preheat_denylist = others
        config.VoilaKernelManager.kernel_pools_config = {"default": {"pool_size": 1}}
    config.VoilaConfiguration.file_allowlist = []
    config.VoilaConfiguration.allow_template_override = "NO"
    config.VoilaConfiguration.allow_theme_override = "NO"  # the page chooses, in the browser
    config.VoilaConfiguration.extension_allowlist = EXTENSIONS
    # What is pushed to a page that is gone would pile up in the server.
    config.MappingKernelManager.buffer_offline_messages = False
    config.MappingKernelManager.cull_idle_timeout = 120
    config.MappingKernelManager.cull_interval = 30
    config.MappingKernelManager.cull_connected = False
    config.KernelManager.transport = transport(scratch)
    return config


def install_template(data: Path) -> None:
    """Put the pages' template where Voilà looks first."""
    folder = data / "voila" / "templates" / TEMPLATE
    folder.mkdir(parents=True)
    (folder / "conf.json").write_text(json.dumps({"base_template": "lab"}), encoding="utf-8")
    shutil.copyfile(STATIC / "page.html.j2", folder / "index.html.j2")


def transport(scratch: Path) -> str:
    """Sockets in a private folder where paths are short enough; else TCP on this machine."""
    return "ipc" if os.name == "posix" and len(os.fsencode(scratch)) <= LONGEST_SCRATCH else "tcp"
