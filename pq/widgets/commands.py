"""What the admin page does besides acting on selected jobs: queues, consumers, new jobs; all checked."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pq.errors import InvalidJobError
from pq.job import NewJob
from pq.notebook.fitting import describe, fits
from pq.notebook.inspecting import allowed_roots
from pq.notebook.job import NotebookSource
from pq.values import VALUE_BYTES, job_id, written
from pq.widgets.actions import RefusedError, text
from pq.widgets.hiding import HIDDEN, clean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pq.interface import PersistentQInterface
    from pq.job import Job
    from pq.widgets.hiding import Hiding

AGAIN = "again-"
PARAMETER = "parameter:"
SKIPPED = {"runs", "logs", "inbox", "processed", "node_modules", "site-packages", "__pycache__"}
MOST_FILES, MOST_NOTEBOOKS = 20_000, 300


class Commands:
    """One method per verb, from the browser's message to a line for the person."""

    def __init__(self, queue: PersistentQInterface, who: str, hiding: Hiding, *, read_only: bool) -> None:
        self._queue, self._who, self._hiding, self._read_only = queue, who, hiding, read_only

    def pause(self, message: Mapping[str, Any]) -> str:
        """Pause a queue, with a reason where one is given."""
        self._allow()
        name = text(message.get("queue", ""))
        self._queue.pause(name, text(message.get("reason", "")) or None, by=self._who)
        return f"queue {clean(name)} is paused; running jobs go on"

    def resume(self, message: Mapping[str, Any]) -> str:
        """Resume a paused queue."""
        self._allow()
        name = text(message.get("queue", ""))
        self._queue.resume(name, by=self._who)
        return f"queue {clean(name)} is open again"

    def limit(self, message: Mapping[str, Any]) -> str:
        """Limit a group, or lift its limit where no number is given."""
        self._allow()
        group = text(message.get("group", ""))
        most = _whole(message.get("most", ""), "the limit")
        self._queue.limit_group(group, most, reason=text(message.get("reason", "")) or None, by=self._who)
        allowed = "no limit any more" if most is None else f"at most {most:,} pending or processing"
        return f"group {clean(group)} has {allowed}"

    def stop(self, message: Mapping[str, Any]) -> str:
        """Ask one consumer, by its uuid, to stop."""
        self._allow()
        asked = self._queue.stop_consumer(
            text(message.get("consumer", "")), reason=text(message.get("reason", "")) or None, by=self._who
        )
        if not asked:
            raise RefusedError("this consumer has already ended")
        return "the consumer was asked to stop; it finishes or gives back its job first"

    def enqueue(self, message: Mapping[str, Any]) -> Job:
        """Store a new job from the form's texts."""
        self._allow()
        new = NewJob(
            text(message.get("task", "")),
            parameters(message.get("parameters")),
            queue=text(message.get("queue", "")) or "default",
            priority=_whole(message.get("priority", ""), "priority") or 0,
            delay=_seconds(message.get("delay", "")),
            max_attempts=_whole(message.get("max_attempts", ""), "the number of attempts"),
            unique_key=text(message.get("unique_key", "")) or None,
            tags=_tags(message),
            group=text(message.get("group", "")) or None,
        )
        return self._queue.enqueue_many([new])[0]

    def notebooks(self) -> list[str]:
        """The notebooks that may be run, to choose from."""
        self._allow()
        return notebooks_below(self._queue.folder)

    def inspect(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """What a notebook takes, for a form; the defaults of names that match a pattern are hidden."""
        self._allow()
        source = NotebookSource.find(text(message.get("path", "")), self._queue.folder)
        known = source.inspected.parameters
        fields = [
            {
                "name": one.name,
                "type": "" if one.kind is None else clean(describe(one.kind), 100),
                "default": HIDDEN if self._hiding.hides(one.name) else clean(one.default),
                "help": clean(one.help),
                "required": one.required,
            }
            for one in (known or {}).values()
        ]
        return {"path": source.given, "fields": fields, "readable": known is not None}

    def run_notebook(self, message: Mapping[str, Any]) -> Job:
        """Store a job that runs a notebook, from its form's texts; an empty field is left out."""
        self._allow()
        source = NotebookSource.find(text(message.get("path", "")), self._queue.folder)
        known = source.inspected.parameters or {}
        given: dict[str, Any] = {}
        for field, value in message.items():
            name = field.removeprefix(PARAMETER)
            if name != field and isinstance(value, str) and value.strip():
                kind = known[name].kind if name in known else None
                given[name] = value if kind is not None and fits(kind, value) else written(value)
        if source.inspected.parameters is None:
            given |= parameters(message.get("parameters"))
        new = source.new_job(
            given,
            queue=text(message.get("queue", "")) or "default",
            priority=_whole(message.get("priority", ""), "priority") or 0,
            tags=_tags(message),
            group=text(message.get("group", "")) or None,
            memory=text(message.get("memory", "")) or None,
        )
        return self._queue.enqueue_many([new])[0]

    def revise(self, message: Mapping[str, Any]) -> Job:
        """A new job like a finished one, with changed parameters; the old one stays as it is.

        The new one carries the tag `again-ID`. Hidden values that were left alone come along.
        """
        self._allow()
        old = self._queue.get(job_id(message.get("id")))
        if not old.can("resubmit"):
            raise RefusedError(f"job {old.id} is {old.status}; only a finished job is run again with changes")
        changed = self._hiding.restore(parameters(message.get("parameters")), old.parameters)
        again = f"{AGAIN}{old.id}"
        new = NewJob(
            old.task,
            changed,
            queue=old.queue,
            priority=old.priority,
            max_attempts=old.max_attempts,
            timeout=old.timeout,
            unique_key=old.unique_key,
            tags=(*(tag for tag in old.tags if not tag.startswith(AGAIN)), again),
            group=old.group,
        )
        reason = text(message.get("reason", ""))
        if reason:
            new = replace(new, tags=(*new.tags, f"reason: {' '.join(clean(reason, 150).split())}"))
        job = self._queue.enqueue_many([new])[0]
        if job.existed:
            raise RefusedError(f"job {job.id} is {job.status} with the same unique key; nothing was enqueued")
        return job

    def _allow(self) -> None:
        if self._read_only:
            raise RefusedError("this page is read-only; nothing was changed")


def parameters(value: object) -> dict[str, Any]:
    """A JSON object as a person writes it. Raises InvalidJobError that says where it is wrong."""
    if not isinstance(value, str) or len(value) > VALUE_BYTES:
        raise InvalidJobError(f"parameters must be a text of at most {VALUE_BYTES:,} characters")
    try:
        parsed = json.loads(value or "{}")
    except json.JSONDecodeError as error:
        raise InvalidJobError(
            f"parameters must be JSON: {error.msg} in line {error.lineno}, column {error.colno}"
        ) from None
    except RecursionError:
        raise InvalidJobError("parameters are nested too deeply") from None
    if not isinstance(parsed, dict):
        raise InvalidJobError('parameters must be a JSON object, such as {"path": "inbox/a.txt"}')
    return parsed


def _tags(message: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(part for tag in text(message.get("tags", "")).split(",") if (part := tag.strip()))


def notebooks_below(folder: Path) -> list[str]:
    """Notebooks within the allowed folders, as `locate` takes them, without hidden ones and runs."""
    found: list[str] = []
    looked = 0
    for root in allowed_roots() or [folder.resolve(), Path.cwd()]:
        for place, folders, files in os.walk(root):
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in SKIPPED)
            looked += len(files)
            if looked > MOST_FILES:
                return found
            paths = (Path(place, name) for name in sorted(files) if name.endswith(".ipynb"))
            homes = (folder.resolve(), Path.cwd())
            for path in paths:
                home = next((one for one in homes if path.is_relative_to(one)), None)
                shown = path.relative_to(home).as_posix() if home else str(path)
                if shown not in found:
                    found.append(shown)
    return found[:MOST_NOTEBOOKS]


def _whole(value: object, what: str) -> int | None:
    written = text(value)
    if not written:
        return None
    try:
        return int(written)
    except ValueError:
        raise InvalidJobError(f"{what} must be a whole number, not {written!r:.50}") from None


def _seconds(value: object) -> float | None:
    written = text(value)
    if not written:
        return None
    try:
        return float(written)
    except ValueError:
        raise InvalidJobError(f"the delay must be a number of seconds, not {written!r:.50}") from None
