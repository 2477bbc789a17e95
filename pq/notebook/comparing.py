"""Two runs side by side: their parameters, their results, and the cells in which they differ."""

import difflib
from dataclasses import dataclass, field
from typing import Any

from pq.interface import PersistentQInterface
from pq.job import Job
from pq.notebook.opening import open_run
from pq.notebook.recording import records

LONGEST = 2_000


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two runs have apart: pairs by name, None where one has nothing; `cells` as lines of a diff."""

    jobs: tuple[int, int]
    facts: dict[str, tuple[Any, Any]]
    parameters: dict[str, tuple[Any, Any]]
    records: dict[str, tuple[Any, Any]]
    cells: list[str] = field(default_factory=list)


def compare(queue: PersistentQInterface, left: Job | int, right: Job | int) -> Comparison:
    """The latest runs of two jobs. Equal parameters are left out, equal records are not."""
    jobs = queue.get(left), queue.get(right)
    runs = [open_run(job, queue) for job in jobs]
    told = [run.metadata.get("pq", {}) for run in runs]
    parameters = _pairs(*(one.get("parameters", {}) for one in told))
    facts = {
        name: (told[0].get(name), told[1].get(name))
        for name in ("outcome", "why", "sha256", "language", "host")
    }
    facts["seconds"] = (_seconds(runs[0]), _seconds(runs[1]))
    return Comparison(
        (jobs[0].id, jobs[1].id),
        {name: pair for name, pair in facts.items() if pair[0] != pair[1]},
        {name: pair for name, pair in parameters.items() if pair[0] != pair[1]},
        _pairs(records(runs[0]), records(runs[1])),
        _changed_cells(jobs, runs),
    )


def _pairs(left: dict[str, Any], right: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (left.get(name), right.get(name)) for name in dict.fromkeys([*left, *right])}


def _seconds(run: Any) -> float | None:
    seconds: float | None = run.metadata.get("papermill", {}).get("duration")
    return seconds


def _changed_cells(jobs: tuple[Job, Job], runs: list[Any]) -> list[str]:
    """A unified diff of sources and textual outputs; parameters are compared by value already."""
    left, right = (_lines(run) for run in runs)
    diff = difflib.unified_diff(left, right, f"job {jobs[0].id}", f"job {jobs[1].id}", n=1)
    return [line.rstrip("\n") for line in diff]


def _lines(run: Any) -> list[str]:
    lines = []
    for number, cell in enumerate((cell for cell in run.cells if cell.cell_type == "code"), 1):
        if "injected-parameters" in cell.metadata.get("tags", []):
            continue
        status = cell.metadata.get("papermill", {}).get("status")
        lines.append(f"[cell {number}: {status}]")
        lines += cell.source.splitlines()
        for output in cell.outputs:
            lines += [f"> {line}" for line in _text(output)[:LONGEST].splitlines()]
    return lines


def _text(output: Any) -> str:
    if output.output_type == "stream":
        return str(output.text)
    if output.output_type == "error":
        return f"{output.ename}: {output.evalue}"
    data = output.get("data", {})
    return str(data.get("text/plain", f"({', '.join(data)})"))
