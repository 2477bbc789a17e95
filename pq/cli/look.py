"""The commands that only look: list, show, failed, stats, consumers, queues, doctor, version."""

import sys
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pq.cli import invocation
from pq.cli.invocation import AsJson, opened, plain, write_json
from pq.cli.terminal import block, clock_time, distance, say, short, show, span, table, word
from pq.job import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from pq.job import Attempt, Job
    from pq.records import Action, Bucket, Consumer

Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="At most so many jobs.")]
After = Annotated[int | None, typer.Option("--after", help="The next page: behind the job of this id.")]
JOB_HEADINGS = (
    "id",
    "status",
    "task",
    "queue",
    "attempt",
    "when",
    "consumer",
    "parameters",
    "error",
)


def list_jobs(
    context: typer.Context,
    status: invocation.Statuses = None,
    queue: invocation.OfQueue = None,
    task: invocation.OfTask = None,
    consumer: invocation.OfConsumer = None,
    tag: invocation.OfTag = None,
    group: invocation.OfGroup = None,
    search: invocation.Search = None,
    order: invocation.Ordered = "newest",
    finished_after: invocation.FinishedAfter = None,
    finished_before: invocation.FinishedBefore = None,
    limit: Limit = 50,
    after: After = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first.

    The column `when` says when a scheduled job is due, and for the others how long ago they were
    finished, started or stored.
    """
    with opened(context) as jobs:
        page = jobs.list(
            status=status or None,
            queue=queue,
            task=task,
            consumer=consumer,
            tag=tag,
            group=group,
            search=search,
            order=order,
            finished_after=invocation.past(finished_after, "finished-after"),
            finished_before=invocation.past(finished_before, "finished-before"),
            after=after,
            limit=limit,
        )
    _show_page(page, limit, as_json=as_json)


def failed(
    context: typer.Context,
    queue: invocation.OfQueue = None,
    task: invocation.OfTask = None,
    limit: Limit = 50,
    after: After = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List the failed jobs, newest first."""
    with opened(context) as jobs:
        page = jobs.list(status=Status.FAILED, queue=queue, task=task, after=after, limit=limit)
    _show_page(page, limit, as_json=as_json)


def _show_page(page: "Sequence[Job]", limit: int, *, as_json: bool) -> None:
    if as_json:
        write_json(page)
    elif not page:
        say("no jobs")
    else:
        show(job_table(page, datetime.now(UTC)))
        if len(page) == limit and sys.stdout.isatty():
            say(f"there may be more: add --after {page[-1].id}", error=True)


def job_table(jobs: "Sequence[Job]", now: datetime) -> "Table":
    """Jobs as a table; the status is a word, so colour adds nothing that is missing without it."""
    rows = [
        (
            job.id,
            word(job.status.value),
            short(job.task, 40),
            short(job.queue, 30),
            f"{job.attempt}/{job.max_attempts}",
            when(job, now),
            short(job.consumer or (f"only {job.assigned_to}" if job.assigned_to else ""), 30),
            short(_parameters(job), 50),
            short(job.error or _progress(job), 60),
        )
        for job in jobs
    ]
    # A column in which nothing stands would only take room from the others.
    filled = [index for index in range(len(JOB_HEADINGS)) if any(str(row[index]) for row in rows)]
    return table(
        [JOB_HEADINGS[index] for index in filled],
        [[row[index] for index in filled] for row in rows],
        flexible=("parameters", "error"),
    )


def when(job: "Job", now: datetime) -> str:
    """When it is due, or how long ago it was finished, started or stored."""
    if job.status is Status.SCHEDULED:
        return distance(job.due_at, now) if job.due_at > now else "due"
    started = job.started_at if job.status is Status.PROCESSING else None
    return distance(min(job.finished_at or started or job.created_at, now), now)


def _progress(job: "Job") -> str:
    parts = ["cancel requested"] if job.cancel_requested else []
    if job.status is Status.PROCESSING and job.progress is not None:
        parts.append(f"{job.progress:.0%}")
    if job.message:
        parts.append(job.message)
    return " ".join(parts)


def _parameters(job: "Job") -> str:
    """The parameters as `name=value`, texts without quotes; the first ones suffice for a column."""
    import json

    shown = []
    for name, value in islice(job.parameters.items(), 10):
        shown.append(f"{name}={value[:100] if isinstance(value, str) else json.dumps(plain(value))[:100]}")
    return " ".join(shown)


def show_job(
    context: typer.Context,
    job_id: Annotated[int, typer.Argument(metavar="ID")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show one job with its result, its attempts and their tracebacks, and what people did to it."""
    from pq.stats import why_blocked

    with opened(context) as jobs:
        job, attempts, actions = jobs.get(job_id), jobs.attempts(job_id), jobs.actions(job_id)
        waits = why_blocked(jobs, job)
    if as_json:
        write_json(plain(job) | {"attempts": plain(attempts), "actions": plain(actions)})
        return
    for name, value in _properties(job, waits):
        print(f"{name:<13} {block(value).replace(chr(10), chr(10) + ' ' * 14)}")  # noqa: T201  # output
    _show_attempts(attempts)
    _show_actions(actions)


def _properties(job: "Job", waits: str) -> list[tuple[str, str]]:
    import json

    def pretty(value: Any) -> str:
        return json.dumps(plain(value), indent=2, ensure_ascii=False)

    values = (
        ("job", job.id),
        ("task", job.task),
        ("status", job.status.value + (" (cancel requested)" if job.cancel_requested else "")),
        ("waits", waits),
        ("queue", job.queue),
        ("priority", job.priority),
        ("attempt", f"{job.attempt} of {job.max_attempts}"),
        ("consumer", job.consumer),
        ("assigned to", job.assigned_to),
        ("progress", None if job.progress is None else f"{job.progress:.0%}"),
        ("message", job.message),
        ("timeout", job.timeout and span(job.timeout)),
        ("key", job.unique_key),
        ("tags", ", ".join(job.tags)),
        ("group", job.group),
        ("created", clock_time(job.created_at)),
        ("due", clock_time(job.due_at)),
        ("started", clock_time(job.started_at)),
        ("finished", clock_time(job.finished_at)),
        ("parameters", pretty(job.parameters)),
        ("result", None if job.result is None else pretty(job.result)),
        ("error", job.error),
    )
    return [(name, str(value)) for name, value in values if value not in (None, "")]


def _show_attempts(attempts: "Sequence[Attempt]") -> None:
    for attempt in attempts:
        length = span(attempt.finished_at - attempt.started_at)
        say("")
        say(
            f"attempt {attempt.attempt}: {attempt.outcome} after {length}, "
            f"by {attempt.consumer or 'nobody'}, ended {clock_time(attempt.finished_at)}"
        )
        if attempt.error:
            say(f"  {attempt.error}")
        if attempt.traceback:
            print("  " + block(attempt.traceback.rstrip()).replace("\n", "\n  "))  # noqa: T201  # output


def _show_actions(actions: "Sequence[Action]") -> None:
    if not actions:
        return
    say("")
    say("what people did:")
    for action in reversed(actions):
        change = f" ({action.from_status} to {action.to_status})" if action.to_status else ""
        reason = f": {action.reason}" if action.reason else ""
        say(f"  {clock_time(action.at)}  {action.who}  {action.verb}{change}{reason}")


def stats(
    context: typer.Context,
    last: Annotated[str, typer.Option("--last", help="How far back: 30m, 2h, 7d.", metavar="TIME")] = "60m",
    *,
    as_json: AsJson = False,
) -> None:
    """Show how many jobs ended lately, in all and per task, and how long their attempts took.

    Per task, `retried` counts the attempts that failed and were followed by another.
    """
    from pq.stats import summary

    window = invocation.duration(last, "--last")
    minutes = min(max(1, round(window / timedelta(minutes=1))), 60 * 24 * 366)
    with opened(context) as jobs:
        numbers = summary(jobs, minutes)
        first = numbers.at.replace(second=0, microsecond=0) - timedelta(minutes=minutes - 1)
        tasks = per_task(jobs.buckets(first))
    if as_json:
        write_json(plain(numbers) | {"tasks": tasks})
        return
    say(
        f"last {minutes} minutes: {numbers.completed} completed, {numbers.failed} failed, "
        f"{numbers.per_minute:.1f} a minute"
    )
    if tasks:
        headings = [name.replace("_seconds", " s") for name in tasks[0]]
        show(
            table(headings, [[_cell(value) for value in task.values()] for task in tasks], flexible=("task",))
        )


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else short(value, 40)


def per_task(buckets: "Sequence[Bucket]") -> list[dict[str, Any]]:
    """What ended, by task: numbers, mean duration, and the durations that half and 95 % stay under."""
    groups: dict[str, list[Bucket]] = defaultdict(list)
    for bucket in buckets:
        groups[bucket.task].append(bucket)
    return [_task_numbers(task, groups[task]) for task in sorted(groups)]


def _task_numbers(task: str, buckets: "Sequence[Bucket]") -> dict[str, Any]:
    total = sum(bucket.jobs for bucket in buckets)
    by_outcome = dict.fromkeys(("completed", "failed", "retried", "cancelled"), 0)
    for bucket in buckets:
        by_outcome[bucket.outcome] = by_outcome.get(bucket.outcome, 0) + bucket.jobs
    return {
        "task": task,
        **by_outcome,
        "mean_seconds": sum(bucket.seconds for bucket in buckets) / total if total else 0.0,
        "median_seconds": _quantile(buckets, 0.5),
        "p95_seconds": _quantile(buckets, 0.95),
    }


def _quantile(buckets: "Sequence[Bucket]", share: float) -> float:
    """The middle of the slot in which the share is reached; a slot is 19 % wide."""
    total, seen = sum(bucket.jobs for bucket in buckets), 0
    for bucket in sorted(buckets, key=lambda bucket: bucket.slot):
        seen += bucket.jobs
        if seen >= share * total:
            return float(0.001 * 2.0 ** ((bucket.slot + 0.5) / 4))
    return 0.0


def consumers(
    context: typer.Context,
    *,
    ended: Annotated[bool, typer.Option("--ended", help="Also those that are gone.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the consumers: whether they live, and what they do now."""
    with opened(context) as jobs:
        found = jobs.consumers(ended=ended)
    if as_json:
        write_json(found)
    elif not found:
        say("no consumers")
    else:
        show(consumer_table(found, datetime.now(UTC)))


def consumer_table(found: "Sequence[Consumer]", now: datetime) -> "Table":
    """Consumers as a table."""
    rows = [
        (
            short(consumer.name, 30),
            consumer_state(consumer),
            short(consumer.doing, 50),
            short(", ".join(consumer.queues), 40),
            f"{short(consumer.host, 30)}:{consumer.pid}",
            distance(min(consumer.started_at, now), now),
            distance(min(consumer.heartbeat_at, now), now),
        )
        for consumer in found
    ]
    return table(
        ("consumer", "state", "doing", "queues", "process", "started", "heartbeat"), rows, flexible=("doing",)
    )


def consumer_state(consumer: "Consumer") -> str:
    """One word or two: ended, dead, stopping, alive, or silent where the presence cannot be told."""
    if consumer.ended_at is not None:
        return "ended"
    if consumer.alive is False:
        return "dead"
    if consumer.stop_requested:
        return "stopping"
    return "alive" if consumer.alive else "not known"


def version(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Show the versions of pq, Python and SQLite."""
    import platform
    import sqlite3

    from pq import __version__

    del context
    versions = {"pq": __version__, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    if as_json:
        write_json(versions)
    else:
        say(", ".join(f"{name} {number}" for name, number in versions.items()))


def doctor(
    context: typer.Context,
    *,
    full: Annotated[
        bool, typer.Option("--full", help="Read every page of the database (integrity_check).")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Examine the database and say what is wrong, each with the command that mends it.

    Exits with 1 where something is in error; warnings alone give 0.
    """
    from pq.doctor import examine, worst

    with opened(context) as jobs:
        findings = examine(jobs, full=full)
    if as_json:
        write_json({"level": worst(findings), "findings": findings})
    else:
        for finding in findings:
            say(f"{finding.level:<8} {finding.check}: {finding.text}")
            if finding.mend:
                say(f"{'':<8} to mend: {finding.mend}")
    if worst(findings) == "error":
        raise typer.Exit(1)
