"""Runs every fault harness deep, one after the other, and reports: `make faults` is this.

python -m tests.faults.report             # print the table; exit code 1 where a promise was broken
python -m tests.faults.report --write     # and put it into docs/reliability.md
"""

import argparse
import json
import platform
import re
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- figures of the last deep run -->", "<!-- end of the figures -->"
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--deep")

RUNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("kills", ("-m", "tests.faults.torture", "--kills", "10000", "--jobs", "50000")),
    (
        "kills on PostgreSQL, and of it",
        (
            *("-m", "tests.faults.torture", "--postgresql"),
            *("--kills", "500", "--jobs", "2500", "--server-kills", "10"),
        ),
    ),
    ("power cuts", ("-m", "tests.faults.powercut", "--images", "60000")),
    ("I/O errors", ("-m", "tests.faults.io_errors", "--runs", "6000", "--seed", "2")),
    ("contention", ("-m", "tests.faults.contention", "--seconds", "30")),
    ("checkpoints at once", ("-m", "tests.faults.contention", "--seconds", "30", "--hunt")),
    ("clocks", ("-m", "tests.faults.clocks", "--deep")),
    ("simulation", ("-m", "tests.faults.simulation", "--seeds", "5000")),
    ("orphans of notebook runs", ("-m", "tests.faults.orphans", "--rounds", "1")),
    (
        "real consumers, notebooks, supervisor",
        (
            *PYTEST,
            "--kills=100",
            "tests/test_crash.py",
            "tests/test_notebook_crash.py",
            "tests/test_kernel_deaths.py",
            "tests/test_guard.py",
            "tests/test_run_all.py",
        ),
    ),
    ("planted defects are noticed", (*PYTEST, "-k", "notices or planted", "tests/faults")),
)
"""What is run, in this order: a name, and the arguments of Python."""
NOT_FIGURES = {"harness", "seconds", "violations", "seed", "first_seed"}


@dataclass(frozen=True, slots=True)
class Row:
    """What one harness told."""

    name: str
    figures: str
    broken: str
    seconds: float
    failed: bool


def run(name: str, arguments: tuple[str, ...]) -> Row:
    """One harness; its last line on stdout holds the figures."""
    print(f"== {name}", file=sys.stderr, flush=True)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    seconds = time.monotonic() - began
    lines = done.stdout.splitlines() or ["it printed nothing"]
    failed = done.returncode != 0
    if "pytest" in arguments:
        if failed:
            print(done.stdout, file=sys.stderr)
        passed = re.sub(r" in [0-9.]+s.*", "", lines[-1])
        return Row(name, passed, "failed" if failed else "0", seconds, failed)
    try:
        figures = json.loads(lines[-1])
    except ValueError:
        return Row(name, lines[-1][:200], "failed", seconds, failed=True)
    violations = figures["violations"]
    broken = len(violations) if isinstance(violations, list) else violations
    return Row(name, _plain(figures), str(broken), seconds, failed or bool(broken))


def _plain(figures: dict[str, object]) -> str:
    """Figures as a sentence; what is nought comes last, together."""
    shown, nought = [], []
    for key, value in figures.items():
        word = key.replace("_", " ")
        if key in NOT_FIGURES or isinstance(value, list):
            continue
        if isinstance(value, dict):
            shown.append(f"{word}: " + ", ".join(f"{one} {number:,}" for one, number in value.items()))
        elif value == 0:
            nought.append(word)
        else:
            shown.append(f"{word} {value:,}" if isinstance(value, int | float) else f"{word} {value}")
    return "; ".join(shown) + (f"; none: {', '.join(nought)}" if nought else "")


def table(rows: list[Row], seconds: float) -> str:
    """The report as Markdown."""
    today = datetime.now(UTC).date().isoformat()
    head = (
        f"{today}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.system()}, "
        f"`make faults` in {seconds / 60:.0f} minutes:\n\n"
        "| what | figures | promises broken | minutes |\n|---|---|---|---|\n"
    )
    body = [f"| {row.name} | {row.figures} | {row.broken} | {row.seconds / 60:.1f} |" for row in rows]
    return head + "\n".join(body) + "\n"


def main() -> int:
    """Run all, print the table, and write it where asked."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.report")
    parser.add_argument("--write", action="store_true", help=f"put the table into docs/{PAGE.name}")
    parser.add_argument("--only", default="", help="only runs whose name has this text")
    options = parser.parse_args()
    began = time.monotonic()
    rows = [run(name, arguments) for name, arguments in RUNS if options.only in name]
    text = table(rows, time.monotonic() - began)
    print(text)
    if options.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{text}{END}{rest.partition(END)[2]}")
    return any(row.failed for row in rows)


if __name__ == "__main__":
    sys.exit(main())
