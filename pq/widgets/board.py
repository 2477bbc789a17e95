"""What both pages share: the live loop, messages from the browser, errors that are shown and not lost."""

from __future__ import annotations

import asyncio
import os
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from pq import stats
from pq.errors import PQError
from pq.widgets import rows
from pq.widgets.hiding import PATTERNS, Hiding, clean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pq.interface import PersistentQInterface

INTERVAL_SECONDS = 1.0
# Reading takes at most a twentieth of a core, however slow the disk is.
SHARE = 20
LONGEST_SECONDS = 4.0
# A page that was closed or killed falls silent; then its kernel must fall silent too, else the server
# takes it for busy and never ends it.
SILENCE_SECONDS = 16.0
_STATIC = Path(__file__).parent / "static"


@cache
def static(name: str) -> str:
    """A file of the front end. Pages are common.js followed by their own module: nothing is built."""
    return (_STATIC / name).read_text(encoding="utf-8")


class Board(anywidget.AnyWidget):  # type: ignore[misc]  # anywidget is untyped here
    """A page on one queue, read every second while somebody looks at it.

    The browser may set any trait, so traits are only sent, never read: what it wants comes as messages.
    """

    view = traitlets.Dict().tag(sync=True)
    now = traitlets.Float(0.0).tag(sync=True)  # the kernel's clock; it also shows that the kernel lives
    problem = traitlets.Unicode("").tag(sync=True)

    _css = static("board.css") + static("parts.css")
    _task: asyncio.Task[None] | None = None

    def __init__(
        self, queue: PersistentQInterface, *, hide: Sequence[str] | None = None, **traits: Any
    ) -> None:
        super().__init__(**traits)
        self._queue = queue  # to act on
        self._reader = queue.reader()
        self._hiding = Hiding(hidden_patterns() if hide is None else hide)
        self._beat = time.monotonic()
        self._looking = True
        self._cost = 0.0
        self.on_msg(self._receive)
        self.tick()
        try:
            self._task = asyncio.get_running_loop().create_task(self._live())
        except RuntimeError:  # outside a kernel: `tick` is called by hand
            return

    def tick(self) -> None:
        """Read once and send what changed; an error becomes the page's banner until a read succeeds."""
        began = time.perf_counter()
        try:
            self.view = self._read()
            self.problem = ""
        except Exception as error:  # noqa: BLE001  # a page that stops without a word is the worst answer
            self.problem = f"cannot read the queue: {_line(error)}"
        self._cost = time.perf_counter() - began
        self.now = time.time()

    def close(self) -> None:
        """End the loop with the widget."""
        if self._task is not None:
            self._task.cancel()
        super().close()

    async def _live(self) -> None:
        while True:
            await asyncio.sleep(min(max(INTERVAL_SECONDS, SHARE * self._cost), LONGEST_SECONDS))
            if self._looking and time.monotonic() - self._beat < SILENCE_SECONDS:
                self.tick()

    def _receive(self, _widget: object, content: object, _buffers: object) -> None:
        message = content if isinstance(content, dict) else {}
        try:
            self._handle(str(message.get("verb")), message)
        except Exception as error:  # noqa: BLE001  # an exception in a handler is shown nowhere else
            self._toast(_line(error), bad=True)

    def _handle(self, verb: str, message: dict[str, Any]) -> None:
        """Act on one message; the pages add their own verbs."""
        if verb == "beat":
            silent = time.monotonic() - self._beat > SILENCE_SECONDS  # such as a kernel made in advance
            woken = bool(message.get("looking")) and (silent or not self._looking)
            self._beat = time.monotonic()
            self._looking = bool(message.get("looking"))
            if woken:
                self.tick()

    def _toast(self, text: str, *, bad: bool = False, undo: str | None = None) -> None:
        self.send({"kind": "toast", "text": clean(text, 1000), "bad": bad, "undo": undo})

    def _read(self) -> dict[str, Any]:
        """Everything the page shows; the pages add their own."""
        return rows.summary_view(stats.summary(self._reader)) | {
            "consumers": [rows.consumer_row(consumer) for consumer in self._reader.consumers()],
            "address": self._queue.url,
        }


def hidden_patterns() -> tuple[str, ...]:
    """The usual patterns, and those that PQ_HIDE names with commas between them."""
    return (*PATTERNS, *filter(None, os.environ.get("PQ_HIDE", "").split(",")))


def is_read_only() -> bool:
    """Whether PQ_READ_ONLY says so; `python -m pq.dashboards --read-only` sets it."""
    return os.environ.get("PQ_READ_ONLY", "") not in ("", "0")


def _line(error: Exception) -> str:
    return str(error) if isinstance(error, PQError) else f"{type(error).__name__}: {error}"
