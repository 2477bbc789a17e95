"""How results are told: the machine, Markdown tables, what was asked, and the part of README.md they fill."""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pq.sqlite.safety import file_system

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

README = Path(__file__).with_name("README.md")
IN_MEMORY = ("tmpfs", "ramfs")


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that all measurements have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--folder", type=Path, help="where the databases go (default: a temporary folder)")
    parser.add_argument("--quick", action="store_true", help="small numbers, to see that it runs")
    parser.add_argument("--write", action="store_true", help="put the results into bench/README.md")
    return parser


@contextmanager
def working_folder(parent: Path | None) -> Iterator[Path]:
    """An empty folder on a real disk, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="pq-bench-", dir=parent) as name:
        folder = Path(name).resolve()
        if file_system(folder) in IN_MEMORY:
            print(f"{folder} is in memory, where a sync costs nothing: pass --folder", file=sys.stderr)
        yield folder


def machine(folder: Path) -> str:
    """One line on what the numbers were measured on."""
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"{file_system(folder) or 'unknown file system'}, "
        f"fsync of 4 kB {sync_milliseconds(folder):.2f} ms (median of 200), "
        f"load at the start {_load()}, {time.strftime('%Y-%m-%d')}"
    )


def sync_milliseconds(folder: Path, times: int = 200) -> float:
    """The median time of an append of 4 kB and its fsync."""
    path = folder / "sync"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    taken = []
    for _ in range(times):
        before = time.perf_counter()
        os.write(file, b"\0" * 4096)
        os.fsync(file)
        taken.append(time.perf_counter() - before)
    os.close(file)
    path.unlink()
    return statistics.median(taken) * 1000


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first stand at the right."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def asked(rows: Iterable[tuple[str, str, str, bool]]) -> str:
    """The table of what was to be reached: what, asked, measured, met."""
    return table(
        ("to reach", "asked", "measured", ""),
        [(what, wanted, found, "met" if met else "**missed**") for what, wanted, found, met in rows],
    )


def tell(name: str, parts: Sequence[str], *, write: bool) -> None:
    """Print the results, and with `write` put them between their marks in README.md.

    `name` is the script's, with the options that make its results another section.
    """
    text = "\n\n".join(parts)
    print(text)
    if write:
        begin, end = _marks(name)
        before, _, rest = README.read_text().partition(begin)
        _, _, after = rest.partition(end)
        README.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def written(name: str) -> str:
    """What stands between the marks of this section in README.md."""
    begin, end = _marks(name)
    return README.read_text().partition(begin)[2].partition(end)[0]


def _marks(name: str) -> tuple[str, str]:
    script, _, options = name.partition(" ")
    command = f"bench/{script}.py {options} --write" if options else f"bench/{script}.py --write"
    return f"<!-- {name}: written by {command} -->", f"<!-- end of {name} -->"
