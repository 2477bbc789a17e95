"""`pq move`: moves a whole queue to another place, with a bar that shows how far it is."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from pq.cli.invocation import AsJson, DryRun, Invocation, Yes, confirmed, database_file, write_json
from pq.cli.terminal import say
from pq.errors import MoveError, PQError

if TYPE_CHECKING:
    from pq.moving import Told
    from pq.transfer import Transfer

Source = Annotated[str, typer.Argument(metavar="SOURCE", help="The queue that moves: a path or an address.")]
Target = Annotated[str, typer.Argument(metavar="TARGET", help="An empty queue, or one to make.")]


def move(
    source: Source,
    target: Target,
    *,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Give up a move that has not ended: open SOURCE, empty TARGET.")
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Move a queue with all jobs and their history to another place, such as a PostgreSQL server.

    SOURCE takes no new jobs from now on; the running ones end first. All rows are copied with their ids and
    compared; then SOURCE names the new place to everybody who opens it. Interrupted, run it again. Files
    in inbox/, processed/ and runs/ stay where they are.
    """
    from pq import moving

    with Invocation(source).open_for_move() as left:
        if dry_run:
            _preview(left, target, as_json=as_json)
            return
        with Invocation(target).open_for_move(create=True) as right, _bar() as told:
            if abandon:
                moving.abandon(left, right, told)
                _say_abandoned(left, right, as_json=as_json)
                return
            if reason := moving.hindrance(left, right):
                raise MoveError(reason)
            jobs = sum(left.queue.counts().values())
            confirmed(f"close {left.url} and move its {jobs:,} jobs to {right.url}", yes=yes)
            with _telling_the_way_out(left.url):
                report = moving.move(left, right, told)
    if as_json:
        write_json(report)
        return
    for name, table in report.tables.items():
        say(f"{name:9} {table.rows:>12,} rows  sha256 {table.digest[:16]}")
    say(f"jobs: {_listed(report.jobs)}")
    say(f"{report.source} has moved to {report.target} in {report.seconds:g} s")


@contextmanager
def _telling_the_way_out(source: str) -> Iterator[None]:
    """Whoever interrupts a move, or sees it fail, has to know that the source stays closed."""
    try:
        yield
    except (PQError, KeyboardInterrupt):
        say(
            f"pq: the move has not ended, and {source} takes nothing new: run the same again, "
            "or with --abandon to give it up",
            error=True,
        )
        raise


def _preview(source: "Transfer", target: str, *, as_json: bool) -> None:
    """What would be moved, and what stands against it; a file that is not there is not made."""
    from pq.factory import open_for_move
    from pq.moving import hindrance
    from pq.transfer import TABLES

    path, url, reason = database_file(target), target, None
    if path is None or path.exists():
        with open_for_move(target) as right:
            url, reason = right.url, hindrance(source, right)
    rows = {table.name: source.count(table) for table in TABLES}
    counts = source.queue.counts()
    if as_json:
        write_json({"dry_run": True, "jobs": counts, "rows": rows, "hindrance": reason})
        return
    for name, number in rows.items():
        say(f"{name:9} {number:>12,} rows")
    say(f"jobs: {_listed(counts)}")
    if counts["processing"]:
        say(f"{counts['processing']} jobs run now; the move waits until they have ended")
    say(f"it cannot move: {reason}" if reason else f"it can move to {url}")


def _say_abandoned(source: "Transfer", target: "Transfer", *, as_json: bool) -> None:
    if as_json:
        write_json({"abandoned": True, "source": source.url, "target": target.url})
    else:
        say(f"the move is given up: {source.url} is open again, {target.url} is empty")


def _listed(counts: Mapping[str, int]) -> str:
    found = [f"{number:,} {status}" for status, number in counts.items() if number]
    return ", ".join(found) or "none"


@contextmanager
def _bar() -> Iterator["Told"]:
    """A bar on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=None, visible=False)

        def told(what: str, done: int, total: int) -> None:
            progress.update(bar, description=what, completed=done, total=total or None, visible=True)

        yield told
