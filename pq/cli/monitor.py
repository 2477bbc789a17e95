"""`pq monitor`: the queue in the terminal, live and in place."""

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pq.cli.invocation import AsJson, opened, plain, write_json
from pq.cli.look import consumer_table, job_table
from pq.cli.terminal import console, safe, show, span, table, word
from pq.job import Status

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

    from pq.interface import PersistentQInterface
    from pq.stats import Summary

FIXED_LINES = 12
MINUTES = 5


def monitor(
    context: typer.Context,
    every: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between two pictures.")] = 1.0,
    *,
    once: Annotated[bool, typer.Option("--once", help="Show one picture and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Watch the queue: counts, throughput, consumers and the newest jobs. Ctrl-C ends it.

    Where the output is no terminal, or with --json, one picture is shown.
    """
    with opened(context) as queue:
        if as_json:
            write_json(snapshot(queue))
        elif once or not sys.stdout.isatty():
            show(picture(queue, rows=10))
        else:
            _watch(queue, every)


def snapshot(queue: "PersistentQInterface") -> dict[str, Any]:
    """What the picture shows, as values."""
    from pq.stats import summary

    jobs = queue.list(limit=10)
    return {"summary": plain(summary(queue, MINUTES)), "consumers": queue.consumers(), "jobs": jobs}


def _watch(queue: "PersistentQInterface", every: float) -> None:
    """Draw until Ctrl-C; each picture is made of short reads, none is held open between them."""
    from rich.live import Live

    target = console()
    try:
        with Live(console=target, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                live.update(picture(queue, rows=target.height), refresh=True)
                time.sleep(every)
    except KeyboardInterrupt:
        return


def picture(queue: "PersistentQInterface", rows: int) -> "Group":
    """One picture of at most about `rows` lines."""
    from rich.console import Group
    from rich.text import Text

    from pq.stats import summary

    now = datetime.now(UTC)
    numbers = summary(queue, MINUTES, now)
    consumers = queue.consumers()
    shown = consumers[: max(3, rows // 4)]
    left = rows - FIXED_LINES - len(shown) - len(numbers.queues)
    jobs = queue.list(limit=min(max(left, 5), 100))
    return Group(
        Text(f"pq {safe(queue.url)}  {now.astimezone():%H:%M:%S}", style="bold"),
        counts_line(numbers.counts),
        Text(throughput_line(numbers)),
        Text(""),
        _queue_table(numbers),
        Text(""),
        consumer_table(shown, now) if shown else Text("no consumers"),
        Text(f"and {len(consumers) - len(shown)} more" if len(shown) < len(consumers) else ""),
        job_table(jobs, now) if jobs else Text("no jobs"),
    )


def counts_line(counts: dict[str, int]) -> "Text":
    """`pending 3  processing 1 …`; every status with its number."""
    from rich.text import Text

    line = Text()
    for status in Status:
        if status is not Status.BLOCKED or counts[status]:
            line.append_text(word(status.value)).append(f" {counts[status]}  ")
    return line


def throughput_line(numbers: "Summary") -> str:
    """The last minutes in one line."""
    oldest = f", oldest pending for {span(numbers.oldest_pending)}" if numbers.oldest_pending else ""
    return (
        f"last {numbers.minutes}m: {numbers.completed} completed, {numbers.failed} failed, "
        f"{numbers.per_minute:.1f} a minute{oldest}"
    )


def _queue_table(numbers: "Summary") -> Any:
    blocked = [Status.BLOCKED] if any(queue.counts[Status.BLOCKED] for queue in numbers.queues) else []
    columns = (*blocked, Status.SCHEDULED, Status.PENDING, Status.PROCESSING, Status.FAILED)
    rows = [
        (
            safe(queue.name),
            *(queue.counts[status] for status in columns),
            f"paused: {safe(queue.reason or 'no reason given')}" if queue.paused else "open",
        )
        for queue in numbers.queues
    ]
    return table(("queue", *(status.value for status in columns), "state"), rows)
