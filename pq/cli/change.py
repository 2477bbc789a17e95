"""The commands with which a person changes jobs, queues and consumers; every action is recorded."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pq.cli import invocation
from pq.cli.bulk import Act, choose, run_bulk
from pq.cli.invocation import AsJson, DryRun, Reason, Yes, confirmed, every_job, opened, write_json
from pq.cli.terminal import say
from pq.errors import InvalidJobError, PQError
from pq.job import FINISHED

if TYPE_CHECKING:
    from pq.interface import PersistentQInterface

Ids = Annotated[list[int] | None, typer.Argument(metavar="ID", help="Jobs by their ids.")]
All = Annotated[bool, typer.Option("--all", help="All jobs.")]
QueueName = Annotated[str, typer.Argument(metavar="QUEUE")]


class ConsumerNotFoundError(PQError, LookupError):
    """No live consumer has this name or uuid."""


def filters_of(
    status: list[str] | None,
    queue: str | None,
    task: str | None,
    consumer: str | None,
    tag: str | None,
    group: str | None,
    search: str | None,
) -> dict[str, Any]:
    """The filters that were given, as `queue.list` takes them."""
    given = {
        "status": status or None,
        "queue": queue,
        "task": task,
        "consumer": consumer,
        "tag": tag,
        "group": group,
        "search": search,
    }
    return {name: value for name, value in given.items() if value is not None}


def bulk_command(
    verb: str, text: str, act: Callable[["PersistentQInterface", int, str | None], object]
) -> Callable[..., None]:
    """A command that does `verb` to jobs given by ids, filters, or --all: all of these have the same options.

    Jobs named by id need no confirmation, except to be deleted.
    """

    def command(
        context: typer.Context,
        ids: Ids = None,
        status: invocation.Statuses = None,
        queue: invocation.OfQueue = None,
        task: invocation.OfTask = None,
        consumer: invocation.OfConsumer = None,
        tag: invocation.OfTag = None,
        group: invocation.OfGroup = None,
        search: invocation.Search = None,
        reason: Reason = None,
        *,
        everything: All = False,
        dry_run: DryRun = False,
        yes: Yes = False,
        as_json: AsJson = False,
    ) -> None:
        filters = filters_of(status, queue, task, consumer, tag, group, search)
        if verb == "delete" and everything and not ids and not filters:
            delete_all(context, reason, dry_run=dry_run, yes=yes, as_json=as_json)
            return
        _on_many(
            context,
            verb,
            ids or [],
            filters,
            lambda jobs, job_id: act(jobs, job_id, reason),
            everything=everything,
            dry_run=dry_run,
            yes=yes,
            as_json=as_json,
        )

    command.__doc__ = text
    return command


def _on_many(
    context: typer.Context,
    verb: str,
    ids: list[int],
    filters: Mapping[str, Any],
    act: Act,
    *,
    everything: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    with opened(context) as queue:
        choice = choose(queue, ids, filters, everything=everything)
        ask = not yes and (verb == "delete" or not choice.named)
        run_bulk(queue, verb, choice, act, ask=ask, dry_run=dry_run, as_json=as_json)


resubmit = bulk_command(
    "resubmit",
    """Run finished jobs again, with at least one more attempt; their history stays.""",
    lambda queue, job_id, reason: queue.resubmit(job_id, reason=reason),
)
cancel = bulk_command(
    "cancel",
    """Cancel unfinished jobs; a running one is stopped by its consumer first.""",
    lambda queue, job_id, reason: queue.cancel(job_id, reason=reason),
)
mark_failed = bulk_command(
    "mark_failed",
    """Mark jobs as failed that have not completed; a running consumer loses its lease.""",
    lambda queue, job_id, reason: queue.mark_failed(job_id, reason or "marked as failed by hand"),
)
delete = bulk_command(
    "delete",
    """Remove jobs that are not processing. --all alone removes every job, as delete-all does.""",
    lambda queue, job_id, reason: queue.delete(job_id, reason=reason),
)


def assign(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID... CONSUMER", help="Jobs by their ids, then the consumer."),
    ] = None,
    status: invocation.Statuses = None,
    queue: invocation.OfQueue = None,
    task: invocation.OfTask = None,
    tag: invocation.OfTag = None,
    group: invocation.OfGroup = None,
    search: invocation.Search = None,
    reason: Reason = None,
    *,
    anyone: Annotated[bool, typer.Option("--any", help="Any consumer may take them again.")] = False,
    everything: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Let only CONSUMER take unfinished jobs next; a running one is taken from its consumer."""
    words = words or []
    if not anyone and not words:
        raise typer.BadParameter("name the consumer last, or give --any")
    consumer = None if anyone else words[-1]
    filters = filters_of(status, queue, task, None, tag, group, search)
    _on_many(
        context,
        "assign",
        [_job_id(word) for word in (words if anyone else words[:-1])],
        filters,
        lambda jobs, job_id: jobs.assign(job_id, consumer, reason=reason),
        everything=everything,
        dry_run=dry_run,
        yes=yes,
        as_json=as_json,
    )


def _job_id(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise typer.BadParameter(
            f"a job's id is a whole number, not {text!r:.50}; the consumer's name comes last"
        )
    return int(text)


def delete_all(
    context: typer.Context,
    reason: Reason = None,
    *,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove every job that is there now, running ones too. Files stay; see delete-files."""
    with opened(context) as queue:
        counts = {status: number for status, number in queue.counts().items() if number}
        total = sum(counts.values())
        if not as_json:
            listed = ", ".join(f"{number} {status}" for status, number in counts.items())
            say(f"{total} jobs match" + (f": {listed}" if listed else ""))
        deleted = 0
        if total and not dry_run:
            confirmed(f"delete all {total} jobs", yes=yes)
            deleted = queue.delete_all(reason=reason)
    if as_json:
        write_json(
            {
                "verb": "delete_all",
                "dry_run": dry_run,
                "matched": total,
                "by_status": counts,
                "deleted": deleted,
            }
        )
    elif not dry_run:
        say(f"{deleted} jobs deleted")


def prune(
    context: typer.Context,
    older_than: Annotated[str, typer.Option("--older-than", help="Such as 12h or 7d.", metavar="TIME")],
    *,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove jobs that finished longer ago than that, with old consumers and old numbers."""
    age = invocation.duration(older_than, "--older-than")
    with opened(context) as queue:
        removed = 0
        if dry_run:
            matched = _finished_before(queue, age)
        else:
            confirmed(f"remove all jobs that finished more than {older_than} ago", yes=yes)
            removed = matched = queue.prune(age)
    if as_json:
        write_json({"dry_run": dry_run, "matched": matched, "removed": removed})
    else:
        say(f"{matched} jobs match" if dry_run else f"{removed} jobs removed")


def _finished_before(queue: "PersistentQInterface", age: timedelta) -> int:
    limit = datetime.now(UTC) - age
    finished = every_job(queue, status=[status.value for status in FINISHED])
    return sum(1 for job in finished if job.finished_at is not None and job.finished_at < limit)


def pause(
    context: typer.Context, queue: QueueName, reason: Reason = None, *, as_json: AsJson = False
) -> None:
    """Stop handing out the jobs of a queue; running ones go on."""
    with opened(context) as jobs:
        jobs.pause(queue, reason)
    _told({"queue": queue, "paused": True}, f"queue {queue} is paused", as_json=as_json)


def resume(
    context: typer.Context, queue: QueueName, reason: Reason = None, *, as_json: AsJson = False
) -> None:
    """Hand out the jobs of a paused queue again."""
    with opened(context) as jobs:
        jobs.resume(queue, reason)
    _told({"queue": queue, "paused": False}, f"queue {queue} is open", as_json=as_json)


def limit(
    context: typer.Context,
    group: Annotated[str | None, typer.Argument(metavar="[GROUP]", help="Such as a sweep's name.")] = None,
    most: Annotated[
        str | None, typer.Argument(metavar="[N]", help="Such as 4; none lifts the limit.")
    ] = None,
    reason: Reason = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Let at most N jobs of a group be pending or processing; without N, show the limits."""
    with opened(context) as jobs:
        if group is not None and most is not None:
            jobs.limit_group(group, None if most == "none" else _number(most), reason=reason)
        limits = [one for one in jobs.group_limits() if group in (None, one.group)]
    if as_json:
        write_json(limits)
    for one in [] if as_json else limits:
        say(f"{one}; {one.blocked:,} wait")
    if not limits and not as_json:
        say("no limits" if group is None else f"group {group} has no limit")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise typer.BadParameter(f"a limit is a whole number, or none, not {text!r:.50}")
    return int(text)


def stop_consumer(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, or its uuid.")],
    reason: Reason = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Ask a consumer to stop: it finishes its job, or gives it back, and ends."""
    with opened(context) as jobs:
        asked = jobs.stop_consumer(name, reason=reason)
    if not asked:
        raise ConsumerNotFoundError(f"no live consumer is called {name}; `pq consumers` lists them")
    _told({"consumer": name, "asked": asked}, f"{name} is asked to stop ({asked})", as_json=as_json)


def interval(
    context: typer.Context,
    seconds: Annotated[
        str | None, typer.Argument(metavar="SECONDS", help="Such as 2.5, 500ms or 1m.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Change the time between two files of the running producers; without a value, show it."""
    from pq.settings import read_settings

    with opened(context) as jobs:
        if seconds is not None:
            length = invocation.duration(seconds, "the interval").total_seconds()
            if length < 0.001:
                raise InvalidJobError(f"the interval must be at least 1ms, not {seconds}")
            jobs.set_setting("interval", f"{length:.3f}")
        stored = jobs.setting("interval")
    now = invocation.duration(stored, "the stored interval") if stored else read_settings().interval
    _told({"interval": now.total_seconds()}, f"the interval is {now.total_seconds():g} s", as_json=as_json)


def _told(answer: Mapping[str, object], sentence: str, *, as_json: bool) -> None:
    if as_json:
        write_json(answer)
    else:
        say(sentence)
