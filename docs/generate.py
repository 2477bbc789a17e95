"""Writes the parts of docs/ that the code decides; `--check` only tells which of them are stale."""

# ruff: noqa: INP001, E402  # a script, which sets up how Typer writes before it imports it

import argparse
import inspect
import os
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

# The help is as wide everywhere, and has no colours; Typer reads this when it is imported.
os.environ |= {"TERMINAL_WIDTH": "100", "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
for name in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "MAX_ATTEMPTS", "TIMEOUT_SECONDS"):
    os.environ.pop(name, None)

import typer
from typer.testing import CliRunner

import pq
from pq import values
from pq.cli import app
from pq.interface import LEASE
from pq.job import TRANSITIONS, Status, back_off
from pq.postgresql.schema import STEPS
from pq.sql import act
from pq.sqlite import store

DOCS = Path(__file__).resolve().parent
HEAD = "<!-- written by docs/generate.py from {source}; do not edit -->"
TAIL = "<!-- end -->"
NO_JITTER = type("Even", (), {"uniform": staticmethod(lambda _low, _high: 1.0)})()


def main() -> int:
    """Write, or with --check compare; 1 when something was stale."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--check", action="store_true", help="write nothing; exit 1 when stale")
    check = options.parse_args().check
    stale = [name for name, text in pages().items() if _read(name) != text]
    for name in stale:
        if not check:
            (DOCS / name).write_text(pages()[name], encoding="utf-8")
        print(f"{name} {'is stale: run python docs/generate.py' if check else 'written'}")  # noqa: T201  # a script
    return int(check and bool(stale))


def pages() -> dict[str, str]:
    """Every page that has generated parts, by name, as it should be."""
    return {
        "lifecycle.md": _filled("lifecycle.md", {"pq.job.TRANSITIONS": lifecycle}),
        "schema.md": _filled(
            "schema.md", {"a new database": schema, "pq.postgresql.schema": postgresql_schema}
        ),
        "limits.md": _filled("limits.md", {"the code's constants": limits}),
        "api.md": _filled("api.md", {"pq.interface": verbs, "pq.errors": errors}),
        "cli.md": f"# The command line\n\n{HEAD.format(source='pq.cli')}\n\n{command_line()}",
    }


def _read(name: str) -> str:
    path = DOCS / name
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _filled(name: str, parts: dict[str, Callable[[], str]]) -> str:
    """The page with its generated parts anew; what people wrote around them stays."""
    page = _read(name)
    for source, write in parts.items():
        head = HEAD.format(source=source)
        if page.count(head) != 1:
            raise SystemExit(f"docs/{name} needs one place for a generated part: {head} … {TAIL}")
        before, _, rest = page.partition(head)
        page = f"{before}{head}\n\n{write().strip()}\n\n{TAIL}{rest.partition(TAIL)[2]}"
    return page


# -- the life of a job ----------------------------------------------------------------------------


def lifecycle() -> str:
    """The diagram of the transitions, and the same as a table."""
    edges: dict[tuple[str, str], list[str]] = defaultdict(list)
    for verb, leaves in TRANSITIONS.items():
        for source, targets in leaves.items():
            for target in targets:
                edges[source, target].append(verb)
    lines = [
        "```mermaid",
        "stateDiagram-v2",
        "    [*] --> pending: enqueue",
        "    [*] --> scheduled: enqueue, due later",
        "    [*] --> blocked: enqueue, into a full group",
    ]
    # What leaves a status as it is (heartbeat, assign) is in the table, and would only crowd the picture.
    lines += [f"    {old} --> {new}: {', '.join(verbs)}" for (old, new), verbs in edges.items() if old != new]
    head = ["| verb | " + " | ".join(Status) + " |", "|---|" + "---|" * len(Status)]
    rows = [f"| {verb} | " + " | ".join(_cell(leaves, one) for one in Status) + " |"
            for verb, leaves in TRANSITIONS.items()]  # fmt: skip
    return "\n".join([*lines, "```", "", *head, *rows])


def _cell(leaves: Any, status: Status) -> str:
    if status not in leaves:
        return ""
    return " or ".join(leaves[status]) or "gone"


# -- the schema -----------------------------------------------------------------------------------


def schema() -> str:
    """The statements of a new database, table by table, each with its indexes and triggers."""
    with (
        tempfile.TemporaryDirectory() as folder,
        pq.connect(Path(folder) / "queue.db") as queue,
        queue.transaction() as db,
    ):
        found = db.execute(
            "select tbl_name, sql from sqlite_master where sql is not null "
            "and tbl_name not like 'sqlite_%' and tbl_name not like '_sqlite_%' order by rowid"
        ).fetchall()
    statements: dict[str, list[str]] = defaultdict(list)
    for table, text in found:
        statements[table].append(text.strip() + ";")
    return "\n\n".join(
        f"### {table}\n\n```sql\n" + "\n".join(lines) + "\n```" for table, lines in statements.items()
    )


def postgresql_schema() -> str:
    """The steps that make the schema `pq`."""
    return "\n\n".join(f"### {name}\n\n```sql\n{script.strip()}\n```" for _, name, script in STEPS)


# -- limits ---------------------------------------------------------------------------------------


def limits() -> str:
    """What is refused, cut or kept, with its measure."""
    longest = back_off(100, NO_JITTER)
    rows = {
        "a name of a task, queue, consumer, tag or group": f"1 to {values.NAME_LENGTH} printable characters",
        "parameters, and a result, as JSON": f"{values.VALUE_BYTES:,} bytes each",
        "an error line": f"cut at {values.ERROR_LENGTH:,} characters",
        "a traceback": f"its last {values.TRACEBACK_LENGTH:,} characters",
        "priority": f"from {-values.LARGEST_INTEGER:,} to {values.LARGEST_INTEGER:,}",
        "attempts": f"1 to {values.LARGEST_INTEGER:,}; 3 unless MAX_ATTEMPTS or the job says otherwise",
        "a delay, a time limit, a lease": f"{_days(values.LONGEST_SECONDS)} days",
        "a lease": f"{LEASE.total_seconds():g} s unless TIMEOUT_SECONDS or the consumer says otherwise",
        "the pause after a failed attempt": f"1, 2, 4 … {longest.total_seconds():,.0f} s, each ± 25 %",
        "free disk below which `enqueue` refuses": f"{store.RESERVE_BYTES // 2**20} MB",
        "waiting for other writers": f"{store.GATE_TIMEOUT_SECONDS:g} s, then StorageError",
        "jobs that `prune` and `delete_all` remove at a time": f"{act.PRUNE_CHUNK:,}",
    }
    return "\n".join(
        ["| what | limit |", "|---|---|", *(f"| {name} | {limit} |" for name, limit in rows.items())]
    )


def _days(seconds: float) -> str:
    return f"{timedelta(seconds=seconds).days:,}"


# -- the interface --------------------------------------------------------------------------------


def verbs() -> str:
    """Every public verb of a queue with its signature and its first line."""
    lines = []
    for name, function in vars(pq.PersistentQInterface).items():
        if name.startswith("_") or not inspect.isfunction(function):
            continue
        lines.append(f"- `queue.{name}{_tidy(str(inspect.signature(function)))}`\n  {_first(function)}")
    return "\n".join(lines)


def _tidy(signature: str) -> str:
    """A signature as a person would write it: no self, no quotes around types, the lease in words."""
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", signature.replace("(self, ", "(").replace("(self)", "()"))
    text = text.replace("datetime.timedelta", "timedelta")
    return text.replace("builtins.", "").replace("pd.DataFrame", "DataFrame")


def errors() -> str:
    """Every error that pq raises, with its meaning."""
    rows = [
        f"| {name} | {_relative(getattr(pq, name))} | {_first(getattr(pq, name))} |"
        for name in sorted(pq.__all__)
        if inspect.isclass(getattr(pq, name)) and issubclass(getattr(pq, name), pq.PQError)
    ]
    return "\n".join(["| error | also a | meaning |", "|---|---|---|", *rows])


def _relative(error: type[Exception]) -> str:
    """The built-in error as which it can be caught too."""
    return next(one.__name__ for one in error.__mro__[1:] if one.__module__ == "builtins")


def _first(thing: Any) -> str:
    """The first paragraph of a docstring."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


# -- the command line -----------------------------------------------------------------------------


def command_line() -> str:
    """What `--help` says, of pq and of every command."""
    names = [[], *([name] for name in vars(typer.main.get_command(app))["commands"])]
    return "\n\n".join(_help(words) for words in names) + "\n"


def _help(words: list[str]) -> str:
    told = CliRunner().invoke(app, [*words, "--help"], prog_name="pq")
    if told.exit_code:
        raise SystemExit(f"pq {' '.join(words)} --help failed: {told.output}")
    text = "\n".join(line.rstrip() for line in told.output.strip().splitlines())
    return f"## {' '.join(['pq', *words])}\n\n```text\n {text}\n```"


if __name__ == "__main__":
    sys.exit(main())
