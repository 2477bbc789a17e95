"""The page that shows a queue and changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pq.job import Status
from pq.widgets import rows
from pq.widgets.board import Board, static

if TYPE_CHECKING:
    from pq.interface import PersistentQInterface

LATEST = 12


class OpsBoard(Board):
    """Counts, throughput, queues, consumers, what runs and what failed last; live."""

    _esm = static("common.js") + static("ops.js")

    def __init__(self, queue: PersistentQInterface) -> None:
        super().__init__(queue)

    def _read(self) -> dict[str, Any]:
        running = self._queue.list(status=Status.PROCESSING, limit=LATEST)
        failed = self._queue.list(status=Status.FAILED, limit=LATEST)
        return super()._read() | {
            "running": [rows.job_row(job) for job in running],
            "failures": [rows.job_row(job) for job in failed],
        }
