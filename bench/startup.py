"""What `pq list` takes more than `python -c pass`: what a person waits for each command."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from report import arguments, asked, machine, table, tell, working_folder

import pq

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT_SECONDS = 0.5
# The entry point's own two lines: it is not on every path.
PQ = (sys.executable, "-c", "import sys; from pq.cli import main; sys.exit(main())")


def seconds(command: Sequence[str]) -> float:
    """One run, from start to end."""
    before = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True, timeout=60)
    return time.perf_counter() - before


def main() -> None:
    """Measure, tell, and write."""
    options = arguments(__doc__ or "").parse_args()
    rounds = 2 if options.quick else 15
    with working_folder(options.folder) as folder:
        place = machine(folder)
        path = folder / "queue.db"
        with pq.connect(path) as queue:
            queue.enqueue_many([pq.NewJob("bench", {"number": number}) for number in range(100)])
        commands = {
            "python -c pass": (sys.executable, "-c", "pass"),
            "import pq": (sys.executable, "-c", "import pq"),
            "pq list": (*PQ, "--db", str(path), "list"),
            "pq list --json": (*PQ, "--db", str(path), "list", "--json"),
            "pq stats": (*PQ, "--db", str(path), "stats"),
            "pq --help": (*PQ, "--help"),
        }
        found: dict[str, list[float]] = {name: [seconds(command)] for name, command in commands.items()}
        for times in found.values():
            times.clear()  # the first run may have compiled
        for _ in range(rounds):
            for name, command in commands.items():
                found[name].append(seconds(command))
    bare = found["python -c pass"]
    more = {
        name: statistics.median(mine - least for mine, least in zip(times, bare, strict=True))
        for name, times in found.items()
    }
    listing = more["pq list"]
    rows = [(name, f"{statistics.median(times):.3f}", f"{more[name]:+.3f}") for name, times in found.items()]
    parts = [
        f"{place}. {rounds} rounds; medians; a queue of 100 jobs.",
        asked([("pq list, more than python", "<= 0.5 s", f"{listing:.3f} s", listing <= LIMIT_SECONDS)]),
        table(("command", "seconds", "more than python"), rows),
    ]
    tell("startup", parts, write=options.write)


if __name__ == "__main__":
    main()
