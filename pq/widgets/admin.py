"""The page that lists jobs and acts on them; and the same list as a widget for one's own notebook."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pq.errors import InvalidJobError, JobNotFoundError
from pq.values import job_id as checked_id
from pq.widgets import rows
from pq.widgets.actions import MOST_MATCHING, Actions
from pq.widgets.board import Board, is_read_only, static
from pq.widgets.commands import Commands
from pq.widgets.detail import job_detail
from pq.widgets.executed import read_run
from pq.widgets.filters import Filter, Listing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pq.interface import PersistentQInterface
    from pq.job import Job
    from pq.widgets.actions import Report

PAGE = 50
LOOKED_AT = 50_000  # of a filter that lets few through, a page shows those among so many jobs
MOST_NAMES = 200
_SCRIPTS = ("common.js", "table.js", "filters.js", "dialogs.js", "panel.js", "admin.js")


class AdminBoard(Board):
    """The list of jobs with its filter, one job's panel, queues, consumers, and the actions, each confirmed.

    `read_only` refuses every action, in Python; None asks PQ_READ_ONLY. `hide` replaces the patterns of
    the names whose values are not sent.
    """

    _esm = "".join(map(static, _SCRIPTS))
    _whole_page = True

    def __init__(
        self,
        queue: PersistentQInterface,
        *,
        read_only: bool | None = None,
        hide: Sequence[str] | None = None,
        first: Filter | None = None,
    ) -> None:
        read_only = is_read_only() if read_only is None else read_only
        self._actions = Actions(queue, read_only=read_only)
        self._listing = Listing(queue.reader(), first or Filter())
        self._pages: list[Job | int | None] = [None]  # where this page and those before it begin, for `after`
        self._held: int | None = None
        self._next: Job | None = None
        self._top: int | None = None
        self._shown: int | None = None
        self._work: asyncio.Task[None] | None = None
        super().__init__(queue, hide=hide)
        self._commands = Commands(queue, self._actions.who, self._hiding, read_only=read_only)

    def _handle(self, verb: str, message: dict[str, Any]) -> None:
        match verb:
            case "filter":
                self._listing = Listing(self._reader, Filter.of(message))
                self._turn(first=True)
            case "next" if self._next is not None:
                self._pages.append(self._next)
                self._turn()
            case "previous" if len(self._pages) > 1:
                self._pages.pop()
                self._turn()
            case "hold":
                self._hold(bool(message.get("on")))
            case "show":
                self._shown = None if message.get("id") is None else checked_id(message["id"])
                self.tick()
            case "run":
                number = checked_id(message.get("attempt"))
                self.send(
                    {"kind": "run"} | read_run(self._queue.folder, checked_id(message.get("id")), number)
                )
            case "refresh":
                self.tick()
            case _:
                self._act(verb, message)

    def _act(self, verb: str, message: dict[str, Any]) -> None:
        match verb:
            case "propose":
                self._propose(message)
            case "withdraw":
                self._actions.withdraw()
            case "apply":
                answers = {name: message.get(name, "") for name in ("reason", "consumer", "typed")}
                self._carry_out(self._actions.begin(message.get("nonce"), **answers))
            case "undo":
                self._done(self._actions.undo(message.get("nonce")))
            case "pause" | "resume" | "limit" | "stop":
                self._done(getattr(self._commands, verb)(message))
            case _:
                self._add(verb, message)

    def _add(self, verb: str, message: dict[str, Any]) -> None:
        match verb:
            case "notebooks":
                self.send({"kind": "notebooks", "paths": self._commands.notebooks()})
            case "inspect":
                self.send({"kind": "notebook"} | self._commands.inspect(message))
            case "run_notebook":
                job = self._commands.run_notebook(message)
                self._done(f"job {job.id} enqueued", job.id)
            case "enqueue":
                job = self._commands.enqueue(message)
                known = " was there already, with the same unique key" if job.existed else " enqueued"
                self._done(f"job {job.id}{known}", job.id)
            case "revise":
                job = self._commands.revise(message)
                self._done(f"job {job.id} enqueued with the changed parameters", job.id)
            case _:
                super()._handle(verb, message)

    def _propose(self, message: dict[str, Any]) -> None:
        verb = message.get("action")
        if message.get("matching"):
            self._actions.allow(verb)
            jobs, more = self._listing.all(MOST_MATCHING)
            proposal = self._actions.propose_jobs(verb, jobs, more=more)
        else:
            proposal = self._actions.propose(verb, message.get("ids"))
        self.send({"kind": "proposal"} | proposal.view())

    def _done(self, text: str, job_id: int | None = None) -> None:
        self._toast(text)
        self.send({"kind": "done", "job": job_id})
        self.tick()

    def _carry_out(self, batches: Iterator[Report]) -> None:
        """Batch by batch, so that the page stays alive; at once where nothing else could run."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            *_, report = batches
            self._report(report)
        else:
            self._work = loop.create_task(self._work_off(batches))

    async def _work_off(self, batches: Iterator[Report]) -> None:
        report = None
        try:
            for report in batches:
                self.send({"kind": "progress", "done": report.done, "of": report.total})
                await asyncio.sleep(0)
        except Exception as error:  # noqa: BLE001  # a task's exception is shown nowhere else
            self._toast(f"stopped after {report.done if report else 0} jobs: {error}", bad=True)
            self.send({"kind": "applied"})
            return
        if report is not None:
            self._report(report)

    def _report(self, report: Report) -> None:
        undo = report.undo.nonce if report.undo is not None and report.undo.steps else None
        self._toast(report.text(), bad=bool(report.problems), undo=undo)
        self.send({"kind": "applied"})
        self.tick()

    def _turn(self, *, first: bool = False) -> None:
        if first:
            self._pages = [None]
        self._held = None
        self.tick()

    def _hold(self, on: bool) -> None:  # noqa: FBT001  # the browser's own flag
        """Keep the first page where it is, so that new jobs do not slide rows under the pointer."""
        top = self._top if on and self._listing.is_by_age else None
        self._held = None if top is None else top + 1
        self.tick()

    def _read(self) -> dict[str, Any]:
        after = self._pages[-1] if self._pages[-1] is not None else self._held
        jobs = self._listing.page(after, PAGE + 1, within=LOOKED_AT)
        page = jobs[:PAGE]
        self._next = page[-1] if len(jobs) > PAGE else None
        self._top = page[0].id if page else None
        return (
            super()._read()
            | self._counts()
            | {
                "groups": self._groups(),
                "jobs": [rows.job_row(job, self._hiding) for job in page],
                "filter": self._listing.filter.asked(),
                "page": len(self._pages),
                "more": self._next is not None,
                "held": self._held is not None,
                "newer": self._newer(),
                "within": LOOKED_AT,
                "read_only": self._actions.read_only,
                "detail": self._detail(),
                "whole": self._whole_page,
            }
        )

    def _groups(self) -> list[dict[str, Any]]:
        """Limited groups that are at work, and the one that the filter names."""
        chosen = self._listing.filter.narrowed().group
        limits = self._reader.group_limits()
        found = [
            rows.group_row(limit)
            for limit in limits
            if limit.running or limit.blocked or limit.group == chosen
        ]
        if chosen is not None and all(limit.group != chosen for limit in limits):
            found.append({"id": chosen, "group": chosen, "most": None})
        return found

    def _newer(self) -> int:
        """How many jobs came while the page was held, at most 100."""
        if self._held is None or self._pages[-1] is not None:
            return 0
        newest = self._listing.page(None, 100)
        return sum(job.id >= self._held for job in newest)

    def _detail(self) -> dict[str, Any] | None:
        if self._shown is None:
            return None
        try:
            return job_detail(self._reader, self._shown, self._hiding)
        except JobNotFoundError as error:
            return {"id": self._shown, "gone": str(error)}

    def _counts(self) -> dict[str, Any]:
        """The counts on the tabs follow queue and task; the lists to choose from do not."""
        counters = self._reader.counters()
        chosen = self._listing.filter.narrowed()
        return {
            "tabs": self._reader.counts(queue=chosen.queue, task=chosen.task),
            "queue_names": sorted({count.queue for count in counters})[:MOST_NAMES],
            "task_names": sorted({count.task for count in counters})[:MOST_NAMES],
        }


class JobTable(AdminBoard):
    """Jobs that match, live, in one's own notebook: `JobTable(queue, status="failed", since="24h")`.

    The filters are those of the admin page: status, task, consumer, tag, group, search, since, until,
    finished, order, and `queue_name` for the queue.
    """

    _whole_page = False

    def __init__(
        self,
        queue: PersistentQInterface,
        *,
        queue_name: str | None = None,
        read_only: bool | None = None,
        hide: Sequence[str] | None = None,
        **filters: str | None,
    ) -> None:
        known = set(Filter.__slots__) - {"queue"}
        if unknown := filters.keys() - known:
            raise InvalidJobError(
                f"unknown filter {min(unknown)!r}; one of queue_name, {', '.join(sorted(known))}"
            )
        first = Filter.of({**filters, "queue": queue_name})
        super().__init__(queue, read_only=read_only, hide=hide, first=first)
