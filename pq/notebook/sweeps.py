"""Sweeps: one notebook over many parameter sets, as one group of jobs."""

import hashlib
import html
import itertools
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pq import values
from pq.display import in_notebook, open_display
from pq.errors import InvalidJobError
from pq.interface import NO_PARAMETERS, PersistentQInterface
from pq.job import FINISHED, Job, Status
from pq.notebook.job import NotebookSource
from pq.notebook.owning import check_runs
from pq.notebook.runs import TASK

if TYPE_CHECKING:
    import pandas as pd

MOST_JOBS = 100_000
PAGE = 10_000
LOOK_SECONDS = 0.5
BAR = 30
COLUMNS = ("id", "status", "attempt", "seconds", "run", "error")


def sweep(
    queue: PersistentQInterface,
    notebook: str | os.PathLike[str],
    space: Any,
    *,
    name: str | None = None,
    base: Mapping[str, Any] = NO_PARAMETERS,
    max_running: int | None = None,
    **options: Any,
) -> "Sweep":
    """Enqueue the notebook once for each parameter set; one transaction, all or none.

    `space` is a dict of lists (each combination of them), a list of dicts, or a DataFrame (a row each);
    `base` goes into each set. The jobs are one group, `name`, by default made of the notebook and the
    space. The same sweep again, also after it has finished, adds only what is missing. At most
    `max_running` of them are pending or processing at a time, as `queue.limit_group` says; None leaves that
    as it is. `options` are those of `queue.enqueue_notebook`.
    """
    sets = [{**base, **one} for one in parameter_sets(space)]
    source = NotebookSource.find(notebook, queue.folder)
    group = values.name(name or _default_name(source, sets), "a sweep's name")
    new = {}
    for one in sets:
        key = _key(group, one)
        new[key] = source.new_job(one, unique_key=key, group=group, **options)
    check_runs(queue)
    with queue.transaction():
        there = {job.unique_key for job in _jobs(queue, group)}
        missing = [job for key, job in new.items() if key not in there]
        limits = {limit.group: limit.max_running for limit in queue.group_limits()}
        if max_running not in (None, limits.get(group)):
            queue.limit_group(group, max_running)
        if missing:
            queue.enqueue_many(missing)
    return Sweep(queue, group, added=len(missing))


@dataclass(frozen=True, eq=False)
class Sweep:
    """A group of jobs; `Sweep(queue, name)` finds one again. `added` is how many the call stored."""

    queue: PersistentQInterface
    name: str
    added: int = 0

    def jobs(self, *, status: str | Sequence[str] | None = None) -> list[Job]:
        """Its jobs, oldest first."""
        return _jobs(self.queue, self.name, status)

    def counts(self) -> dict[str, int]:
        """Jobs by status, every status present."""
        totals: dict[str, int] = {status.value: 0 for status in Status}
        for job in self.jobs():
            totals[job.status.value] += 1
        return totals

    def watch(self, timeout: float | None = None) -> "Sweep":
        """Show the progress, in a notebook or a terminal, until all have finished or `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if in_notebook():
            return self._watch_card(deadline)
        with open_display() as shown:
            while True:
                facts, is_over = self._facts()
                if is_over or (deadline is not None and time.monotonic() > deadline):
                    shown.finish(facts)
                    return self
                shown.show(facts)
                time.sleep(LOOK_SECONDS)

    def _watch_card(self, deadline: float | None) -> "Sweep":
        from IPython.display import display

        from pq.widgets.cards import SweepCard

        card = SweepCard(self)
        display(card)
        while card.look() and (deadline is None or time.monotonic() < deadline):
            time.sleep(LOOK_SECONDS)
        return self

    def frame(self) -> "pd.DataFrame":
        """One row per job, oldest first, to work with in pandas.

        The index is the job's id (int64). First a column for each parameter, then one for each record,
        both of the dtype that pandas finds for their JSON values (missing ones are NaN); a record that is
        named like a parameter, or like a column below, is called `record.NAME`. Then status (str),
        attempt (int64), seconds (float64: the time of the latest attempt, NaN before it ended), run (str:
        the executed notebook's path, None before it completed) and error (str or None).
        """
        import pandas as pd

        jobs = self.jobs()
        parameters = list(dict.fromkeys(name for job in jobs for name in _parameters(job)))
        recorded = list(dict.fromkeys(name for job in jobs for name in _records(job)))
        taken = {*parameters, *COLUMNS}
        table: dict[str, Any] = {
            f"parameter.{name}" if name in COLUMNS else name: [_parameters(job).get(name) for job in jobs]
            for name in parameters
        }
        for name in recorded:
            table[f"record.{name}" if name in taken else name] = [_records(job).get(name) for job in jobs]
        table |= {
            "status": [job.status.value for job in jobs],
            "attempt": pd.Series([job.attempt for job in jobs], dtype="int64").to_numpy(),
            "seconds": pd.Series([_seconds(job) for job in jobs], dtype="float64").to_numpy(),
            "run": [(job.result or {}).get("run") for job in jobs],
            "error": [job.error for job in jobs],
        }
        index = pd.Index([job.id for job in jobs], dtype="int64", name="id")
        return pd.DataFrame(table, index=index)

    def best(self, record: str, *, lowest: bool = False) -> Job:
        """The completed job with the highest (or lowest) value of a record; the oldest of equal ones."""
        known = [
            (value, job)
            for job in self.jobs(status=Status.COMPLETED)
            if isinstance(value := _records(job).get(record), int | float) and not isinstance(value, bool)
        ]
        if not known:
            raise InvalidJobError(
                f"no completed job of sweep {self.name} has recorded a number {record!r:.100}"
            )
        pick = min if lowest else max
        return pick(known, key=lambda pair: pair[0])[1]

    def failed(self) -> list[Job]:
        """Its failed jobs, oldest first."""
        return self.jobs(status=Status.FAILED)

    def resubmit_failed(self, *, reason: str | None = None) -> int:
        """Run the failed jobs again; how many."""
        with self.queue.transaction():
            failed = self.failed()
            for job in failed:
                self.queue.resubmit(job, reason=reason)
        return len(failed)

    def cancel(self, *, reason: str | None = None) -> int:
        """Cancel what has not finished, running jobs too; how many."""
        with self.queue.transaction():
            unfinished = [job for job in self.jobs() if job.status not in FINISHED]
            for job in unfinished:
                self.queue.cancel(job, reason=reason)
        return len(unfinished)

    def _facts(self) -> tuple[dict[str, object], bool]:
        counts = self.counts()
        total = sum(counts.values())
        done = sum(counts[status] for status in FINISHED)
        full = BAR * done // total if total else BAR
        told = ", ".join(f"{number:,} {status}" for status, number in counts.items() if number)
        running = self.jobs(status=Status.PROCESSING)
        facts: dict[str, object] = {
            "sweep": self.name,
            "done": f"{'█' * full}{'░' * (BAR - full)} {done:,} of {total:,}",
        }
        facts["jobs"] = told or "none"
        limits = [limit for limit in self.queue.group_limits() if limit.group == self.name]
        facts["limit"] = f"{limits[0].max_running:,} at a time" if limits else ""
        facts["running"] = "; ".join(f"{job.id}: {job.message or 'starts'}" for job in running[:3])
        return facts, done == total

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """The table; where widgets work, with buttons. The table stays for who reads it later."""
        bundle: dict[str, Any] = {"text/plain": repr(self), "text/html": self._repr_html_()}
        if in_notebook():
            from pq.widgets.cards import SweepCard

            bundle |= SweepCard(self).view()
        return bundle

    def _repr_html_(self) -> str:
        facts, _ = self._facts()
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
            for name, value in facts.items()
            if value
        )
        return f"<table>{rows}</table>"


def parameter_sets(space: Any) -> list[dict[str, Any]]:
    """The parameter sets of a space, in order; each once."""
    if hasattr(space, "to_dict") and hasattr(space, "columns"):
        space = space.to_dict("records")
    if isinstance(space, Mapping):
        axes = [_axis(name, one) for name, one in space.items()]
        size = 1
        for axis in axes:
            size *= len(axis)
        _check_size(size)
        return [dict(zip(space, point, strict=True)) for point in itertools.product(*axes)]
    if isinstance(space, str) or not isinstance(space, Iterable):
        raise InvalidJobError(
            f"a sweep's space is a dict of lists, a list of dicts or a DataFrame, not {space!r:.50}"
        )
    sets = list(space)
    _check_size(len(sets))
    for one in sets:
        if not isinstance(one, Mapping):
            raise InvalidJobError(f"each parameter set must be a dict, not {one!r:.50}")
    return [{name: _plain(value) for name, value in one.items()} for one in sets]


def _axis(name: object, axis: Any) -> list[Any]:
    if isinstance(axis, str | Mapping) or not isinstance(axis, Iterable):
        return [_plain(axis)]
    points = [_plain(value) for value in axis]
    if not points:
        raise InvalidJobError(f"{name} of the sweep's space has no values")
    return points


def _plain(value: Any) -> Any:
    """A number of numpy as Python's."""
    is_foreign = (
        type(value).__module__ != "builtins" and hasattr(value, "item") and getattr(value, "ndim", 0) == 0
    )
    return value.item() if is_foreign else value


def _check_size(size: int) -> None:
    if not 1 <= size <= MOST_JOBS:
        raise InvalidJobError(f"a sweep has 1 to {MOST_JOBS:,} parameter sets, not {size:,}")


def _key(group: str, parameters: Mapping[str, Any]) -> str:
    text = values.to_json([group, dict(sorted(parameters.items()))], "parameters")
    return f"sweep:{hashlib.sha256(text.encode('utf-8', 'backslashreplace')).hexdigest()[:32]}"


def _default_name(source: NotebookSource, sets: Sequence[Mapping[str, Any]]) -> str:
    text = json.dumps([source.given, [_key("", one) for one in sets]])
    return f"{source.inspected.path.stem[:150]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _jobs(queue: PersistentQInterface, group: str, status: str | Sequence[str] | None = None) -> list[Job]:
    found: list[Job] = []
    after: int | None = None
    while page := queue.list(group=group, status=status, after=after, limit=PAGE):
        found += page
        if len(page) < PAGE:
            break
        after = page[-1].id
    return [job for job in reversed(found) if job.task == TASK]


def _parameters(job: Job) -> Mapping[str, Any]:
    found: Mapping[str, Any] = job.parameters.get("parameters") or {}
    return found


def _records(job: Job) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (job.result or {}).get("records") or {}
    return found


def _seconds(job: Job) -> float | None:
    if job.started_at is None or job.finished_at is None:
        return None
    return (job.finished_at - job.started_at).total_seconds()
