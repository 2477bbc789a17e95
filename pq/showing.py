"""How a queue shows itself at the end of a notebook cell: what it holds, and who works on it."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from pq import stats
from pq.display import plain
from pq.job import Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pq.interface import PersistentQInterface

MOST_CONSUMERS = 10


def queue_html(queue: PersistentQInterface) -> str:
    """A table with a line for each named queue, and the consumers that live; all texts are escaped."""
    found = stats.summary(queue)
    heads = ["queue", *(status.value for status in Status), ""]
    lines = [
        [name.name, *(f"{name.counts[status.value]:,}" for status in Status), "paused" if name.paused else ""]
        for name in found.queues
    ]
    consumers = queue.consumers()
    told = ", ".join(f"{one.name} ({one.doing or 'waits'})" for one in consumers[:MOST_CONSUMERS])
    more = f" and {len(consumers) - MOST_CONSUMERS} more" if len(consumers) > MOST_CONSUMERS else ""
    workers = _text(told + more) or "none"
    return (
        f"<table><caption>{_text(queue.url)}; in the last {found.minutes} minutes {found.completed:,} tries "
        f"completed, {found.failed:,} failed</caption>{_row('th', heads)}"
        f"{''.join(_row('td', line) for line in lines)}</table><p>consumers: {workers}</p>"
    )


def _row(tag: str, cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{_text(cell)}</{tag}>' for cell in cells)}</tr>"


def _text(text: str) -> str:
    return html.escape(plain(text, 300))
