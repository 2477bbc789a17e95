"""The commands for notebooks as jobs: run, sweep, open, diff."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pq.cli import invocation
from pq.cli.invocation import AsJson, opened, write_json
from pq.cli.parameter_file import read_yaml
from pq.cli.run import named_value
from pq.cli.terminal import block, say, short
from pq.errors import InvalidJobError, PQError

if TYPE_CHECKING:
    from pq.job import Job
    from pq.notebook.job import NotebookSource

JobId = Annotated[int, typer.Argument(metavar="JOB")]
SWEEP_KEYS = {"notebook", "space", "name", "base", "max_running", "options"}


class RunFailedError(PQError, RuntimeError):
    """The notebook that was waited for did not complete."""


def run(
    context: typer.Context,
    notebook: Annotated[str, typer.Argument(metavar="NOTEBOOK", help="The path of the notebook.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", help="One parameter, as papermill has it.", metavar="NAME VALUE"),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("-f", "--file", help="A YAML file of parameters; -p wins.", metavar="FILE")
    ] = None,
    queue: invocation.ToQueue = "default",
    priority: invocation.Priority = 0,
    delay: invocation.Delay = None,
    max_attempts: invocation.MaxAttempts = None,
    timeout: invocation.Timeout = None,
    cell_timeout: Annotated[
        str | None, typer.Option("--cell-timeout", help="Time limit of one cell.", metavar="TIME")
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", help="Memory limit, such as 2G.", metavar="SIZE")
    ] = None,
    kernel: Annotated[
        str | None, typer.Option("--kernel", help="Another kernel than the notebook's.")
    ] = None,
    tag: invocation.Tags = None,
    *,
    cold: Annotated[bool, typer.Option("--cold", help="Start the kernel anew, not from a warm one.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; exit code 1 if it fails.")] = False,
    as_json: AsJson = False,
) -> None:
    """Store a job that runs a notebook with parameters; a consumer runs it."""
    with opened(context, create=True) as jobs:
        from pq.notebook.job import NotebookSource

        source = NotebookSource.find(notebook, jobs.folder)
        new = source.new_job(
            {**_of_file(file), **_given(source, parameter or [])},
            kernel=kernel,
            cell_timeout=_limit(cell_timeout, "--cell-timeout"),
            memory=memory,
            cold=cold,
            queue=queue,
            priority=priority,
            delay=_limit(delay, "--delay"),
            max_attempts=max_attempts,
            timeout=_limit(timeout, "--timeout"),
            tags=tuple(tag or ()),
        )
        job = jobs.enqueue_many([new])[0]
        if wait:
            job = jobs.wait(job)
        _tell(job, as_json=as_json)


def _tell(job: "Job", *, as_json: bool) -> None:
    if as_json:
        write_json(job)
    else:
        where = (job.result or {}).get("run")
        say(f"job {job.id} is {job.status}" + (f": {where}" if where else ""))
    if job.status in {"failed", "cancelled"}:
        raise RunFailedError(f"job {job.id} {job.status}: {job.error or 'nobody said why'}")


def sweep(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="YAML: notebook, space, name, base, max_running, options."),
    ],
    max_running: Annotated[
        int | None,
        typer.Option("--max-running", help="At most so many at a time; wins over the file.", metavar="N"),
    ] = None,
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show the progress until all have finished.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Store one job for each parameter set of a sweep; the same file again adds only what is missing."""
    asked = read_yaml(file)
    if not {"notebook", "space"} <= asked.keys() or asked.keys() - SWEEP_KEYS:
        raise InvalidJobError(
            f"{file} must have notebook and space, and may have name, base, max_running and options; it has "
            f"{', '.join(map(str, asked)) or 'nothing'}"
        )
    notebook = Path(str(asked["notebook"])).expanduser()
    options = asked.get("options") or {}
    with opened(context, create=True) as jobs:
        from pq.notebook.sweeps import sweep as start

        found = start(
            jobs,
            notebook if notebook.is_absolute() else file.absolute().parent / notebook,
            asked["space"],
            name=asked.get("name"),
            base=asked.get("base") or {},
            max_running=asked.get("max_running") if max_running is None else max_running,
            **_known(options, file),
        )
        if watch:
            found.watch()
        counts = {status: number for status, number in found.counts().items() if number}
    if as_json:
        write_json({"name": found.name, "added": found.added, "counts": counts})
    else:
        told = ", ".join(f"{number} {status}" for status, number in counts.items())
        say(f"sweep {found.name}: {found.added} added; {told}")


def open_run(
    context: typer.Context,
    job: JobId,
    attempt: Annotated[int | None, typer.Option("--attempt", help="Not the latest attempt.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Print the path of a job's executed notebook, of a running one as far as it is."""
    from pq.notebook.opening import find_run
    from pq.notebook.opening import open_run as read

    with opened(context) as jobs:
        place, name = find_run(jobs, job, attempt=attempt)
        if as_json:
            write_json(
                {"path": place.address(name), **read(job, jobs, attempt=attempt).metadata.get("pq", {})}
            )
        else:
            say(place.address(name))


def with_notebook(command: Callable[..., None]) -> Callable[..., None]:
    """The command `resubmit` with one more option, --notebook."""

    def resubmit(context: typer.Context, *, notebook: str | None, **others: Any) -> None:
        if notebook is None:
            command(context, **others)
            return
        if not others["ids"]:
            raise InvalidJobError("name the jobs that the mended notebook replaces by their ids")
        from pq.notebook.job import enqueue_mended

        with opened(context) as jobs, jobs.transaction():
            twins = [enqueue_mended(jobs, job_id, notebook) for job_id in others["ids"]]
        if others["as_json"]:
            write_json(twins)
            return
        for old, twin in zip(others["ids"], twins, strict=True):
            say(f"job {twin.id} runs {notebook} in place of job {old}, which keeps its history")

    signature = inspect.signature(command)
    option = typer.Option("--notebook", help="Run this mended notebook, as a new job.", metavar="PATH")
    added = inspect.Parameter(
        "notebook", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )
    resubmit.__signature__ = signature.replace(  # type: ignore[attr-defined]  # what typer reads
        parameters=[*signature.parameters.values(), added]
    )
    resubmit.__annotations__ = {**command.__annotations__, "notebook": added.annotation}
    resubmit.__doc__ = command.__doc__
    return resubmit


def diff(context: typer.Context, left: JobId, right: JobId, *, as_json: AsJson = False) -> None:
    """Show what two runs have apart: parameters, results, and the cells that differ."""
    from pq.notebook.comparing import compare

    with opened(context) as jobs:
        found = compare(jobs, left, right)
    if as_json:
        write_json(found)
        return
    for title in ("parameters", "records", "facts"):
        for name, (before, after) in getattr(found, title).items():
            sign = "=" if before == after else "≠"
            say(f"{title[:-1]} {name}: {short(before)} {sign} {short(after)}")
    if found.cells:
        print(block("\n".join(found.cells)))  # noqa: T201  # the program's own output


def _given(source: "NotebookSource", pairs: list[str]) -> dict[str, Any]:
    """The -p words; a parameter that is a text stays one, even if it looks like a number."""
    from pq.notebook.fitting import fits

    known = source.inspected.parameters or {}
    found = {}
    for pair in pairs:
        name, value = named_value(pair)
        kind = known[name].kind if name in known else None
        text = pair.partition("=")[2]
        found[name] = text if kind is not None and not fits(kind, value) and fits(kind, text) else value
    return found


def _of_file(file: Path | None) -> dict[str, Any]:
    return {} if file is None else read_yaml(file)


def _known(options: Any, file: Path) -> dict[str, Any]:
    allowed = {
        "queue",
        "priority",
        "max_attempts",
        "timeout",
        "tags",
        "kernel",
        "cell_timeout",
        "memory",
        "cold",
    }
    if not isinstance(options, dict) or options.keys() - allowed:
        raise InvalidJobError(f"the options of {file} may be {', '.join(sorted(allowed))}")
    return {name: tuple(value) if name == "tags" else value for name, value in options.items()}


def _limit(text: str | None, what: str) -> Any:
    return None if text is None else invocation.duration(text, what)
