"""The first numbers of a page, from the server itself: they are there before a kernel has started."""

from __future__ import annotations

import time
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from pq.errors import PQError
from pq.job import Status

if TYPE_CHECKING:
    from pq.interface import PersistentQInterface

STATIC = Path(__file__).parent / "widgets" / "static"
TITLES = {
    "ops": ("Ops", "What the queue is doing, as it happens."),
    "admin": ("Admin", "Every job, and what may be done with it."),
}
GLYPHS = dict(zip(Status, "◌◷○▶✓✕⊘", strict=True))
FRESH_SECONDS = 1.0


class Snapshot:
    """Counts by status as static markup, read at most once a second; the widget takes its place."""

    def __init__(self, queue: PersistentQInterface) -> None:
        self._queue = queue
        self._counts: dict[str, int] | None = None
        self._problem: str | None = None
        self._read_at = float("-inf")
        self._style = (STATIC / "board.css").read_text(encoding="utf-8")

    def fill(self, chunk: str, page: str) -> str:
        """A piece of the page with its two places filled."""
        if "<!--pq-" not in chunk:
            return chunk
        return chunk.replace("<!--pq-style-->", self._style).replace("<!--pq-first-->", self.first(page))

    def first(self, page: str) -> str:
        """What is shown until the widget is there."""
        title, sentence = TITLES[page]
        tiles = "".join(
            f'<li><span><span class="pq-badge" data-status="{status}">'
            f'<span class="pq-glyph" aria-hidden="true">{GLYPHS[status]}</span><span>{status}</span></span>'
            f"<strong>{count:,}</strong></span></li>"
            for status, count in self._read().items()
        )
        return (
            f'<div id="pq-first" aria-busy="true" data-testid="first"><h1>{title}</h1><p>{sentence}</p>'
            f'<div class="pq"><div class="pq-top"><span class="pq-address">{escape(self._queue.url)}</span>'
            f'<span class="pq-badge" id="pq-starting">starting …</span></div>{self._banner()}'
            f'<ul class="pq-tiles" aria-label="Jobs by status">{tiles}</ul></div></div>'
        )

    def _banner(self) -> str:
        """What is wrong with the queue: its widget may not even come to tell it."""
        if self._problem is None:
            return ""
        return f'<div class="pq-banner" role="alert">cannot read the queue: {escape(self._problem)}</div>'

    def _read(self) -> dict[Status, int]:
        """No number is better than no page."""
        if time.monotonic() - self._read_at > FRESH_SECONDS:
            self._read_at = time.monotonic()
            try:
                self._counts, self._problem = self._queue.counts(), None
            except PQError as error:
                self._counts, self._problem = None, str(error)
        counts = self._counts
        return {} if counts is None else {status: counts[status.value] for status in Status}
