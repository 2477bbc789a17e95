"""Serves the ops and the admin page on this machine: `python -m pq.dashboards --token-file FILE`.

Voilà runs each visit's notebook in a kernel of its own. Here it listens on 127.0.0.1 only, asks for a
token, and serves these two pages and nothing else (see pq/dashboard_server.py).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pq.errors import InvalidJobError, PQError, StorageError
from pq.system.programs import notebooks_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pq.interface import PersistentQInterface

PORT = 8866
SHORTEST_TOKEN = 16
NO_TOKEN = ""
_NOISE = ("is not trusted", "ping_timeout", "No session ID specified")


@dataclass(frozen=True, slots=True)
class Serving:
    """How the pages are served: at which address, to whom, and what they may do.

    `token` None or empty lets every user of this machine in. `hosts` are further names under which a
    reverse proxy is reached. `hide` are patterns of names whose values are not shown. `preheat` keeps one
    kernel ready per page.
    """

    token: str | None = None
    base_url: str = "/"
    hosts: tuple[str, ...] = ()
    read_only: bool = False
    hide: tuple[str, ...] = ()
    preheat: bool = False


def serve(db: str | None = None, port: int = PORT, serving: Serving | None = None) -> None:
    """Serve both pages until SIGTERM or Ctrl-C; prints `{"url": …}` as one line when it is ready.

    `db` None means the settings. `serving` None makes a token, which is then part of the printed address.
    `port` 0 takes a free one. Call it in the main thread.
    Raises StorageError where the port is taken or the queue cannot be opened.
    """
    from pq.factory import connect

    query = ""
    if serving is None or serving.token is None:
        serving = replace(serving or Serving(), token=secrets.token_urlsafe(24))
        query = f"?token={serving.token}"
    place = _place(db)
    with _socket(port) as listening, _scratch() as scratch, connect(place) as queue:
        os.environ["PQ_FOLDER"] = str(queue.folder)  # the kernels run in another one
        _prepare_environment(place, scratch, serving)
        bound = listening.getsockname()[1]
        _run(listening, scratch, serving, queue, f"http://127.0.0.1:{bound}{serving.base_url}{query}")


def read_token(path: str) -> str:
    """The token in a file, without the line's end; a missing file is made, for this user's eyes only."""
    file = Path(path)
    try:
        with suppress(FileExistsError):
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as new:
                new.write(secrets.token_urlsafe(24))
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"cannot read the token in {path}: {error}") from None
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidJobError(
            f"the token in {path} must have at least {SHORTEST_TOKEN} ASCII characters and no space; "
            "delete the file and it is made anew"
        )
    return token


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: 0 when stopped, 1 when it cannot serve, 2 for wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        token = NO_TOKEN if options.no_token else None
        if options.token_file:
            token = read_token(options.token_file)
        serving = Serving(
            token=token,
            base_url=base_url(options.base_url),
            hosts=tuple(options.host),
            read_only=options.read_only,
            hide=tuple(options.hide),
            preheat=options.preheat,
        )
        serve(options.db, options.port, serving)
    except PQError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pq.dashboards", description="Serve the ops and admin page."
    )
    parser.add_argument("--db", help="path or URL of the queue (default: PQ_URL, QUEUE_DB_FILE, queue.db)")
    parser.add_argument(
        "--port", type=int, default=PORT, help=f"on 127.0.0.1 (default {PORT}; 0: a free one)"
    )
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--token-file", help="holds the token; made when missing")
    who.add_argument("--no-token", action="store_true", help="let every user of this machine in")
    parser.add_argument("--read-only", action="store_true", help="refuse every action")
    parser.add_argument(
        "--hide", action="append", default=[], metavar="PATTERN", help="hide values by name, such as *key*"
    )
    parser.add_argument("--base-url", default="/", metavar="PATH", help="behind a proxy, such as /pq/")
    parser.add_argument(
        "--host", action="append", default=[], metavar="NAME", help="name under which a proxy is reached"
    )
    parser.add_argument("--preheat", action="store_true", help="keep one kernel ready for each page")
    return parser


def base_url(text: str) -> str:
    """`pq`, `/pq` and `/pq/` all mean the same. Raises InvalidJobError."""
    parts = [part for part in text.split("/") if part]
    if not all(re.fullmatch(r"[A-Za-z0-9._~-]+", part) and part not in (".", "..") for part in parts):
        raise InvalidJobError(f"a base URL is a path such as /pq/, not {text!r:.50}")
    return f"/{'/'.join(parts)}/" if parts else "/"


def _place(db: str | None) -> str:
    """Where the queue is, for kernels in another folder; opened once, so that it fails here if at all.

    A server that does not answer is waited for.
    """
    from pq.factory import connect_for
    from pq.settings import read_settings

    place = read_settings().database if db is None else db
    with connect_for(place, patient=True):
        return place if "://" in place else str(Path(place).absolute())


@contextmanager
def _socket(port: int) -> Iterator[socket.socket]:
    """A listening socket, bound before anything heavy is loaded."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere this option would let two servers share the port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
            listening.listen(128)
        except (OSError, OverflowError) as error:
            raise StorageError(
                f"cannot serve on 127.0.0.1:{port}: {error}; choose another --port, or 0 for a free one"
            ) from None
        listening.setblocking(False)  # noqa: FBT003  # the standard library's own signature
        yield listening
    finally:
        listening.close()


@contextmanager
def _scratch() -> Iterator[Path]:
    """A private folder for what Jupyter and IPython write, gone afterwards."""
    folder = tempfile.mkdtemp(prefix="pq-")
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prepare_environment(place: str, scratch: Path, serving: Serving) -> None:
    """Set what the kernels inherit: the queue, and folders that keep Jupyter out of the user's home."""
    os.environ["PQ_URL"] = place  # wins over QUEUE_DB_FILE and over a .env file
    if serving.read_only:
        os.environ["PQ_READ_ONLY"] = "1"
    if serving.hide:
        os.environ["PQ_HIDE"] = ",".join([*serving.hide, *filter(None, [os.environ.get("PQ_HIDE")])])
    for name, folder in (
        ("JUPYTER_CONFIG_DIR", "config"),
        ("JUPYTER_DATA_DIR", "data"),
        ("JUPYTER_RUNTIME_DIR", "run"),
        ("IPYTHONDIR", "ipython"),
    ):
        path = scratch / folder
        path.mkdir(mode=0o700)
        os.environ[name] = str(path)
    for name in ("JUPYTER_TOKEN", "JUPYTER_TOKEN_FILE"):
        os.environ.pop(name, None)


def _run(
    listening: socket.socket, scratch: Path, serving: Serving, queue: PersistentQInterface, url: str
) -> None:
    # jsonschema looks for this grammar, which takes a second to build; nothing here validates addresses.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    from pq.dashboard_server import Dashboards, configuration, install_template

    install_template(scratch / "data")
    config = configuration(serving, notebooks_folder(), scratch, listening.getsockname()[1])
    app = Dashboards(listening, lambda: _say(url), config, queue)
    app.initialize([])
    for place in (*app.log.handlers, logging.getLogger("tornado.general")):
        place.addFilter(_is_news)
    app.start()


def _say(url: str) -> None:
    sys.stdout.write(json.dumps({"url": url}) + "\n")
    sys.stdout.flush()


def _is_news(record: logging.LogRecord) -> bool:
    return not any(words in record.getMessage() for words in _NOISE)


if __name__ == "__main__":
    sys.exit(main())
