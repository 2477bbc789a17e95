"""A job and a sweep as small widgets for one's own notebook: how they stand, and what can be done.

They look again every second while something is unfinished. Cancelling asks for a second click.
"""

from __future__ import annotations

import asyncio
import html
import os
from typing import TYPE_CHECKING, Any

import ipywidgets

from pq.display import plain
from pq.errors import PQError
from pq.job import FINISHED
from pq.widgets.actions import RefusedError
from pq.widgets.board import is_read_only

if TYPE_CHECKING:
    from collections.abc import Callable

    from pq.interface import PersistentQInterface
    from pq.job import Job
    from pq.notebook.sweeps import Sweep

LOOK_SECONDS = 1.0


class Card(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """What both have in common: the text, the buttons, a line for answers, and the look every second."""

    _task: asyncio.Task[None] | None = None

    def __init__(self, *parts: Any) -> None:
        self._text = ipywidgets.HTML()
        self._answer = ipywidgets.Label()
        self._sure: Any = None
        buttons = self._buttons()
        super().__init__([*parts, self._text, ipywidgets.HBox(buttons), self._answer])
        self.look()
        try:
            self._task = asyncio.get_running_loop().create_task(self._live())
        except RuntimeError:  # outside a kernel: `look` is called by hand
            return

    def look(self) -> bool:
        """Read once and show it; False when nothing will change by itself any more."""
        raise NotImplementedError

    def view(self) -> dict[str, Any]:
        """What a notebook stores to show the widget."""
        bundle: dict[str, Any] = self._repr_mimebundle_()
        return {name: value for name, value in bundle.items() if name.startswith("application/")}

    def close(self) -> None:
        """End the looks with the widget."""
        if self._task is not None:
            self._task.cancel()
        super().close()

    def _buttons(self) -> list[Any]:
        raise NotImplementedError

    async def _live(self) -> None:
        while self._carefully(self.look):  # noqa: ASYNC110  # the queue has no event to wait for
            await asyncio.sleep(LOOK_SECONDS)

    def _button(self, name: str, act: Callable[[], str], *, sure: bool = False) -> Any:
        button = ipywidgets.Button(description=name)
        button.on_click(lambda _: self._carefully(lambda: self._pressed(button, name, act, sure=sure)))
        return button

    def _pressed(self, button: Any, name: str, act: Callable[[], str], *, sure: bool) -> bool:
        if is_read_only():  # the browser may enable what is disabled here
            raise RefusedError("cannot do that: this notebook is read-only (PQ_READ_ONLY)")
        if sure and self._sure is not button:
            self._sure, button.description = button, f"{name}: sure?"
            return True
        self._sure, button.description = None, name
        self._answer.value = plain(act())
        if self.look() and self._task is not None and self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._live())
        return True

    def _carefully(self, act: Callable[[], bool]) -> bool:
        """An exception in a handler is shown nowhere else."""
        try:
            return act()
        except PQError as error:
            self._answer.value = plain(error)
            return True


class JobCard(Card):
    """One job, with the way to its executed notebook, Resubmit and Cancel."""

    def __init__(self, queue: PersistentQInterface, job: Job | int) -> None:
        self._queue = queue
        self._job = queue.get(job)
        super().__init__()

    def look(self) -> bool:
        """Read the job."""
        self._job = job = self._queue.get(self._job)
        self._text.value = job._repr_html_() + self._way()  # as a notebook does
        self.resubmit.disabled = is_read_only() or not job.can("resubmit")
        self.cancel.disabled = is_read_only() or not job.can("cancel")
        return job.status not in FINISHED

    def _way(self) -> str:
        """The executed notebook, from where this notebook works."""
        run = self._job.result.get("run") if isinstance(self._job.result, dict) else None
        if not isinstance(run, str) or "://" in run:
            return ""
        path = os.path.relpath(self._queue.folder / run)
        return f'<a href="{html.escape(path, quote=True)}" target="_blank">{html.escape(path)}</a>'

    def _buttons(self) -> list[Any]:
        self.resubmit = self._button("Resubmit", self._resubmit)
        self.cancel = self._button("Cancel", self._cancel, sure=True)
        return [self.resubmit, self.cancel]

    def _resubmit(self) -> str:
        return f"it is {self._queue.resubmit(self._job).status}"

    def _cancel(self) -> str:
        job = self._queue.cancel(self._job)
        return f"it is {job.status}" if job.status in FINISHED else "it was asked to stop"


class SweepCard(Card):
    """A sweep with its progress, Resubmit failed and Cancel."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self.progress = ipywidgets.IntProgress(layout={"width": "30em"})
        super().__init__(self.progress)

    def look(self) -> bool:
        """Read the sweep."""
        counts = self._sweep.counts()
        total, done = sum(counts.values()), sum(counts[status] for status in FINISHED)
        self.progress.max, self.progress.value = max(total, 1), done if total else 1
        self.progress.bar_style = "danger" if counts["failed"] else "success" if done == total else ""
        self._text.value = self._sweep._repr_html_()  # as a notebook does
        self.resubmit.disabled = is_read_only() or not counts["failed"]
        self.cancel.disabled = is_read_only() or done == total
        return done < total

    def _buttons(self) -> list[Any]:
        self.resubmit = self._button("Resubmit failed", self._resubmit)
        self.cancel = self._button("Cancel", self._cancel, sure=True)
        return [self.resubmit, self.cancel]

    def _resubmit(self) -> str:
        return f"{self._sweep.resubmit_failed():,} resubmitted"

    def _cancel(self) -> str:
        return f"{self._sweep.cancel():,} cancelled, or asked to stop"
