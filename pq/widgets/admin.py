"""The page that lists jobs and acts on them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pq import values
from pq.errors import InvalidJobError
from pq.widgets import rows
from pq.widgets.actions import Actions
from pq.widgets.board import Board, static

if TYPE_CHECKING:
    from pq.interface import PersistentQInterface

PAGE = 50
MOST_NAMES = 200


@dataclass(frozen=True, slots=True)
class Filter:
    """What the list shows; None is everything."""

    status: str | None = None
    queue: str | None = None
    task: str | None = None
    search: str | None = None

    @classmethod
    def of(cls, message: dict[str, Any]) -> Filter:
        """The filter that the browser, or the address, asks for."""
        texts = {name: _wanted(message.get(name), name) for name in ("status", "queue", "task", "search")}
        if texts["status"] is not None:
            texts["status"] = values.status(texts["status"]).value
        return cls(**texts)


class AdminBoard(Board):
    """The list of jobs with its filter, the consumers, and the actions, each confirmed.

    `read_only` refuses every action, in Python.
    """

    _esm = static("common.js") + static("admin.js")

    def __init__(self, queue: PersistentQInterface, *, read_only: bool = False) -> None:
        self._actions = Actions(queue, read_only=read_only)
        self._filter = Filter()
        self._pages: list[int | None] = [None]  # where this page and those before it begin, for `after`
        self._held: int | None = None
        self._next: int | None = None
        self._top: int | None = None
        super().__init__(queue)

    def _handle(self, verb: str, message: dict[str, Any]) -> None:
        match verb:
            case "filter":
                self._filter = Filter.of(message)
                self._turn(first=True)
            case "next" if self._next is not None:
                self._pages.append(self._next)
                self._turn()
            case "previous" if len(self._pages) > 1:
                self._pages.pop()
                self._turn()
            case "hold":
                self._hold(bool(message.get("on")))
            case "propose":
                proposal = self._actions.propose(message.get("action"), message.get("ids"))
                self.send({"kind": "proposal"} | proposal.view())
            case "withdraw":
                self._actions.withdraw()
            case "apply":
                self._apply(message)
            case _:
                super()._handle(verb, message)

    def _apply(self, message: dict[str, Any]) -> None:
        answers = {name: message.get(name, "") for name in ("reason", "consumer", "typed")}
        report = self._actions.apply(message.get("nonce"), **answers)
        self._toast(report.text(), bad=bool(report.problems))
        self.send({"kind": "applied"})
        self.tick()

    def _turn(self, *, first: bool = False) -> None:
        if first:
            self._pages = [None]
        self._held = None
        self.tick()

    def _hold(self, on: bool) -> None:  # noqa: FBT001  # the browser's own flag
        """Keep the first page where it is, so that new jobs do not slide rows under the pointer."""
        self._held = self._top + 1 if on and self._top is not None else None
        self.tick()

    def _read(self) -> dict[str, Any]:
        after = self._pages[-1] if self._pages[-1] is not None else self._held
        jobs = self._queue.list(**asdict(self._filter), after=after, limit=PAGE + 1)
        page = jobs[:PAGE]
        self._next = page[-1].id if len(jobs) > PAGE else None
        self._top = page[0].id if page else None
        return (
            super()._read()
            | self._counts()
            | {
                "jobs": [rows.job_row(job) for job in page],
                "filter": asdict(self._filter),
                "page": len(self._pages),
                "more": self._next is not None,
                "held": self._held is not None,
                "read_only": self._actions.read_only,
            }
        )

    def _counts(self) -> dict[str, Any]:
        """The counts on the tabs follow queue and task; the lists to choose from do not."""
        counters = self._queue.counters()
        tabs = self._queue.counts(queue=self._filter.queue, task=self._filter.task)
        return {
            "tabs": tabs,
            "queue_names": sorted({count.queue for count in counters})[:MOST_NAMES],
            "task_names": sorted({count.task for count in counters})[:MOST_NAMES],
        }


def _wanted(value: object, what: str) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > values.NAME_LENGTH:
        raise InvalidJobError(f"{what} must be a text of at most {values.NAME_LENGTH} characters")
    return value
