"""The command `pq`: what it offers, and how it ends."""

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pq.cli import change, files, look, notebook, run
from pq.cli import monitor as watch
from pq.cli import move as moving
from pq.cli.invocation import Invocation
from pq.cli.terminal import say
from pq.errors import PQError

INTERRUPTED = 130
BROKEN_PIPE = 141  # what a shell reports for a program that the closed pipe ended


class OneLineErrors(TyperGroup):
    """Turns a PQError into one line on stderr and exit code 1; a reader that went away into silence."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command, and flush here, where a closed pipe can still be answered."""
        try:
            answer = super().invoke(ctx)
            sys.stdout.flush()
        except PQError as error:
            say(f"pq: {error}", error=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            _drop_stdout()
            raise typer.Exit(BROKEN_PIPE) from None
        return answer


def _drop_stdout() -> None:
    """Let what is still in stdout's buffer go nowhere, or Python would complain at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


app = typer.Typer(
    cls=OneLineErrors,
    name="pq",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def choose_database(
    context: typer.Context,
    db: Annotated[
        str | None,
        typer.Option(
            "--db",
            metavar="PATH_OR_URL",
            help="The queue; else PQ_URL, QUEUE_DB_FILE (environment or .env), queue.db.",
        ),
    ] = None,
) -> None:
    """A durable job queue in one SQLite file.

    Exit codes: 0 done, 1 an error (one line on stderr), 2 wrong usage, 130 interrupted.
    Times are written 30s, 5m, 2h, 7d or 1h30m.
    """
    context.obj = Invocation(db)


PANELS: dict[str, dict[str, Any]] = {
    "Jobs in": {"enqueue": run.enqueue, "produce": run.produce, "interval": change.interval},
    "Notebooks": {
        "run": notebook.run,
        "sweep": notebook.sweep,
        "open": notebook.open_run,
        "diff": notebook.diff,
    },
    "Jobs out": {
        "consume": run.consume,
        "consumers": look.consumers,
        "stop-consumer": change.stop_consumer,
        "pause": change.pause,
        "resume": change.resume,
        "limit": change.limit,
    },
    "Look": {
        "list": look.list_jobs,
        "show": look.show_job,
        "failed": look.failed,
        "monitor": watch.monitor,
        "stats": look.stats,
    },
    "Change": {
        "resubmit": notebook.with_notebook(change.resubmit),
        "mark-failed": change.mark_failed,
        "cancel": change.cancel,
        "assign": change.assign,
        "delete": change.delete,
        "delete-all": change.delete_all,
        "delete-files": files.delete_files,
        "prune": change.prune,
    },
    "Care": {
        "doctor": look.doctor,
        "rescue": run.rescue,
        "checkpoint": run.checkpoint,
        "backup": run.backup,
        "move": moving.move,
        "version": look.version,
    },
}

for panel, commands in PANELS.items():
    for verb, function in commands.items():
        kind = run.EnqueueCommand if verb in {"enqueue", "run"} else None
        app.command(verb, cls=kind, rich_help_panel=panel)(function)


def main() -> None:
    """The entry point."""
    # Parameters may be nested as deep as the recursion limit of the process that stored them.
    sys.setrecursionlimit(10 * sys.getrecursionlimit())
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a letter gets its escape instead of a traceback.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    app(prog_name="pq")
