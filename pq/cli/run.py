"""The commands that bring in jobs, run them, and keep the database well."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from pq.cli import invocation
from pq.cli.invocation import AsJson, opened, write_json
from pq.cli.terminal import block, say
from pq.errors import InvalidJobError, StorageError
from pq.values import written

NAME = r"[^\W\d]\w*"


class EnqueueCommand(TyperCommand):
    """Takes papermill's `-p NAME VALUE`: two words, which become `--parameter=NAME=VALUE` here."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join each pair, so that a value may begin with a dash."""
        return super().parse_args(ctx, _joined_parameters(args))


def _joined_parameters(args: Sequence[str]) -> list[str]:
    joined: list[str] = []
    words = iter(args)
    for word in words:
        if word == "--":
            joined += [word, *words]
        elif word in {"-p", "--parameter"}:
            name = next(words, None)
            value = None if name is None or "=" in name else next(words, None)
            joined += _pair(word, name, value)
        else:
            joined.append(word)
    return joined


def _pair(option: str, name: str | None, value: str | None) -> list[str]:
    if name is None or (value is None and "=" not in name):
        raise typer.BadParameter(f"{option} takes a name and a value, such as {option} path inbox/a.txt")
    return [f"--parameter={name}" if value is None else f"--parameter={name}={value}"]


def enqueue(
    context: typer.Context,
    task: Annotated[str, typer.Argument(metavar="TASK")],
    parameters: Annotated[
        str | None, typer.Option("--parameters", help="A JSON object.", metavar="JSON")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--parameter",
            help="One parameter, as papermill has it: JSON (3, true, null), else text.",
            metavar="NAME VALUE",
        ),
    ] = None,
    queue: invocation.ToQueue = "default",
    priority: invocation.Priority = 0,
    delay: invocation.Delay = None,
    due_at: Annotated[
        str | None, typer.Option("--due-at", help="Due at 2030-01-31T18:00, local time.", metavar="TIME")
    ] = None,
    max_attempts: invocation.MaxAttempts = None,
    timeout: invocation.Timeout = None,
    key: Annotated[
        str | None, typer.Option("--key", help="At most one unfinished job has this unique key.")
    ] = None,
    tag: invocation.Tags = None,
    group: Annotated[str | None, typer.Option("--group", help="The group, such as a sweep.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Store a job: a task with its parameters. Makes the database where there is none."""
    values = {**_json_object(parameters), **dict(named_value(text) for text in parameter or [])}
    with opened(context, create=True) as jobs:
        job = jobs.enqueue(
            task,
            values,
            queue=queue,
            priority=priority,
            delay=None if delay is None else invocation.duration(delay, "--delay"),
            due_at=None if due_at is None else invocation.moment(due_at, "--due-at"),
            max_attempts=max_attempts,
            timeout=None if timeout is None else invocation.duration(timeout, "--timeout"),
            unique_key=key,
            tags=tag or [],
            group=group,
        )
    if as_json:
        write_json(job)
    else:
        say(f"job {job.id} {'was there already' if job.existed else 'stored'}: it is {job.status}")


def _json_object(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        value = json.loads(text, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise InvalidJobError(f"--parameters must be a JSON object: {error}") from None
    if not isinstance(value, dict):
        raise InvalidJobError(f"--parameters must be a JSON object, not {type(value).__name__}")
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; a name that comes twice is a mistake, and which value was meant cannot be told."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice in one object")
    return found


def named_value(text: str) -> tuple[str, Any]:
    """`NAME=VALUE` as a name and a JSON value, or a text."""
    name, _, value = text.partition("=")
    if not name.isidentifier():
        raise InvalidJobError(f"a parameter's name must be an identifier, not {name!r:.50}")
    return name, written(value)


def produce(
    context: typer.Context,
    name: Annotated[str, typer.Option("--name", help="The producer's name.")] = "producer-1",
    source: Annotated[
        Path | None, typer.Option("--source", help="A folder: each file that appears becomes a job, once.")
    ] = None,
    interval: Annotated[
        str | None, typer.Option("--interval", help="Time between two files.", metavar="TIME")
    ] = None,
    count: Annotated[int | None, typer.Option("--count", help="End after so many jobs.")] = None,
    queue: Annotated[str, typer.Option("--queue", help="The queue of its jobs.")] = "default",
    *,
    as_json: AsJson = False,
) -> None:
    """Write random text files into inbox/ and enqueue a stamp job for each, until stopped."""
    from pq.producer import produce as run

    seconds = None if interval is None else invocation.duration(interval, "--interval").total_seconds()
    with opened(context, create=True) as jobs, _logged(), _own_output(as_json=as_json):
        summary = run(jobs, name=name, source=source, interval=seconds, count=count, queue=queue)
    _tell_summary(summary, as_json=as_json)


def consume(
    context: typer.Context,
    name: Annotated[str, typer.Option("--name", help="The consumer's name.")] = "consumer-1",
    queue: Annotated[
        list[str] | None,
        typer.Option("--queue", help="A queue to take from, in this order; may be repeated."),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--tasks", help="A module or file with tasks; may be repeated.", metavar="MODULE_OR_FILE"
        ),
    ] = None,
    prefetch: Annotated[int, typer.Option("--prefetch", help="Jobs to take at once.")] = 1,
    lease: Annotated[
        str | None,
        typer.Option("--lease", help="How long a silent consumer keeps its jobs.", metavar="TIME"),
    ] = None,
    count: Annotated[int | None, typer.Option("--count", help="End after so many jobs.")] = None,
    *,
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="End when nothing is left to do.")
    ] = False,
    preload: Annotated[
        str | None,
        typer.Option("--preload", help="What warm kernels have imported: pandas,numpy.", metavar="MODULES"),
    ] = None,
    cold: Annotated[bool, typer.Option("--cold", help="Start the kernel of each notebook anew.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take jobs and run their tasks, until stopped by Ctrl-C, SIGTERM or stop-consumer."""
    from pq.consumer import consume as run

    with opened(context, create=True) as jobs, _logged(), _own_output(as_json=as_json):
        summary = run(
            jobs,
            name=name,
            queues=queue or ["default"],
            tasks=tasks or [],
            prefetch=prefetch,
            lease=None if lease is None else invocation.duration(lease, "--lease"),
            count=count,
            until_empty=until_empty,
            display=not as_json,
            hard_exit=True,
            preload=None if preload is None else preload.replace(",", " ").split(),
            cold=cold or None,
        )
    _tell_summary(summary, as_json=as_json)


@contextmanager
def _logged() -> Iterator[None]:
    """Write pq's log lines to stderr, made safe; on a terminal, which has the display, only warnings."""
    import logging

    class SafeFormatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return block(super().format(record))

    handler, logger = logging.StreamHandler(), logging.getLogger("pq")
    handler.setFormatter(SafeFormatter("%(asctime)s %(levelname)s %(message)s"))
    logger.setLevel(logging.WARNING if sys.stderr.isatty() else logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _own_output(*, as_json: bool) -> AbstractContextManager[Any]:
    """With --json stdout holds the answer alone: what tasks print goes to stderr."""
    return redirect_stdout(sys.stderr) if as_json else nullcontext()


def _tell_summary(summary: Any, *, as_json: bool) -> None:
    if as_json:
        write_json(summary)
    elif summary is not None:
        say(", ".join(f"{name} {value}" for name, value in invocation.plain(summary).items()))


def rescue(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Take back the jobs of dead consumers and of leases that ran out. Consumers do this by themselves."""
    with opened(context) as jobs:
        rescued = jobs.rescue()
    if as_json:
        write_json(rescued)
    else:
        say(f"{len(rescued)} jobs taken back")


def checkpoint(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Move the write-ahead log into the database file and shrink it."""
    with opened(context) as jobs:
        move = getattr(jobs, "checkpoint", None)
        if move is None:
            raise StorageError("only a SQLite queue has a write-ahead log to move")
        answer = move()
    if as_json:
        write_json({"checkpoint": answer})
    elif answer:
        say(f"{answer:,} bytes stay in the write-ahead log: somebody reads an older state; see `pq doctor`")
    else:
        say("the write-ahead log is moved into the database")


def backup(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file that does not exist yet.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Write a consistent copy of the database while work goes on."""
    with opened(context) as jobs:
        jobs.backup(str(path))
    if as_json:
        write_json({"path": path, "bytes": path.stat().st_size})
    else:
        say(f"copied to {path}")
