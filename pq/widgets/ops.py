"""The page that shows a queue and changes nothing."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pq.doctor import examine
from pq.errors import InvalidJobError, PQError
from pq.history import SPANS, History
from pq.job import Status
from pq.widgets import rows
from pq.widgets.board import Board, static
from pq.widgets.hiding import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pq.interface import PersistentQInterface

LATEST = 12
SPAN = "1h"
HEALTH_SECONDS = 30.0
# Doctor reads every page of the database once: a large one is looked at less often.
HEALTH_SHARE = 100
DEPTHS = 300


class OpsBoard(Board):
    """Counts, charts over five minutes to seven days, queues, consumers, tasks, failures, health; live."""

    _checking: asyncio.Task[None] | None = None
    _reading: asyncio.Task[None] | None = None
    _esm = static("common.js") + static("table.js") + static("charts.js") + static("ops.js")

    def __init__(self, queue: PersistentQInterface, *, hide: Sequence[str] | None = None) -> None:
        self._span = SPAN
        self._history = History(queue.reader(), *SPANS[SPAN])
        self._depths: deque[tuple[float, int]] = deque(maxlen=DEPTHS)
        self._health: dict[str, Any] | None = None
        self._health_due = 0.0
        super().__init__(queue, hide=hide)

    def tick(self) -> None:
        """Read once; the health is looked at beside it, in a thread, and far less often."""
        super().tick()
        if time.monotonic() >= self._health_due and (self._checking is None or self._checking.done()):
            try:
                self._checking = asyncio.get_running_loop().create_task(self._look_after())
            except RuntimeError:  # no loop: by hand
                self._health = health(self._queue)
                self._health_due = time.monotonic() + HEALTH_SECONDS

    def close(self) -> None:
        """End the loops with the widget."""
        for task in (self._checking, self._reading):
            if task is not None:
                task.cancel()
        super().close()

    async def _look_after(self) -> None:
        began = time.monotonic()
        self._health = await asyncio.to_thread(health, self._queue)
        took = time.monotonic() - began
        self._health_due = time.monotonic() + max(HEALTH_SECONDS, HEALTH_SHARE * took)

    def _handle(self, verb: str, message: dict[str, Any]) -> None:
        if verb != "span":
            super()._handle(verb, message)
            return
        wanted = message.get("span")
        if not isinstance(wanted, str) or wanted not in SPANS:
            raise InvalidJobError(f"unknown span; one of {', '.join(SPANS)}")
        if wanted == self._span:
            return
        history = History(self._reader, *SPANS[wanted])
        try:
            self._reading = asyncio.get_running_loop().create_task(self._change(wanted, history))
        except RuntimeError:  # no loop: by hand
            self._span, self._history = wanted, history
            self.tick()

    async def _change(self, span: str, history: History) -> None:
        """A week of a busy queue takes seconds to read the first time; the page goes on meanwhile."""
        try:
            await asyncio.to_thread(history.read)
        except PQError as error:
            self._toast(str(error), bad=True)
            return
        self._span, self._history = span, history
        self.tick()

    def _read(self) -> dict[str, Any]:
        running = self._reader.list(status=Status.PROCESSING, limit=LATEST)
        failed = self._reader.list(status=Status.FAILED, limit=LATEST)
        view = super()._read()
        waiting = view["counts"]["pending"]
        if not self._depths or waiting != self._depths[-1][1] or time.time() - self._depths[-1][0] > 10:
            self._depths.append((round(time.time(), 1), waiting))
        return (
            view
            | rows.picture_view(self._history.read())
            | {
                "span": self._span,
                "step": SPANS[self._span][1],
                "depths": [list(depth) for depth in self._depths],
                "running": [rows.job_row(job, self._hiding) for job in running],
                "failures": [rows.job_row(job, self._hiding) for job in failed],
                "health": self._health,
            }
        )


def health(queue: PersistentQInterface) -> dict[str, Any]:
    """Sizes, version and the findings of `pq doctor`; what cannot be read becomes a finding."""
    try:
        findings = [asdict(finding) for finding in examine(queue)]
    except PQError as error:
        findings = [{"check": "database", "level": "error", "text": str(error), "mend": None}]
    path = Path(queue.url)
    return {
        "at": time.time(),
        "file": _size(path),
        "wal": _size(Path(f"{path}-wal")),
        "findings": [
            {"id": one["check"]} | {name: clean(text or "", 2_000) for name, text in one.items()}
            for one in findings
        ],
    }


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
