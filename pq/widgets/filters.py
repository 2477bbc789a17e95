"""What the list of jobs shows: filters and qualifiers as a person writes them, as `queue.list` takes them."""

from __future__ import annotations

import re
import time
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pq import values
from pq.errors import InvalidJobError
from pq.listing import ORDERS
from pq.values import job_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pq.interface import PersistentQInterface
    from pq.job import Job

NAMES = ("status", "queue", "task", "consumer", "tag", "group", "order")
SEARCH_LENGTH = 500
BOUND_SECONDS = 5.0
SCAN_PAGE = 1_000
MOST_SCANS = 50
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_QUALIFIER = re.compile(
    r'(?<!\S)(status|queue|task|consumer|tag|group|order|since|until|finished|id):("[^"]*"|\S+)'
)


@dataclass(frozen=True, slots=True)
class Filter:
    """One narrowing of the list; None is everything, newest first.

    `since` and `until` bound the creation time, `finished` is the earliest finishing time.
    """

    status: str | None = None
    queue: str | None = None
    task: str | None = None
    consumer: str | None = None
    tag: str | None = None
    group: str | None = None
    search: str | None = None
    since: str | None = None
    until: str | None = None
    finished: str | None = None
    order: str | None = None

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Filter:
        """The filter that a browser, an address or a caller asks for. Raises InvalidJobError."""
        chosen = cls(**{one.name: _wanted(message.get(one.name), one.name) for one in fields(cls)})
        chosen.narrowed().check()
        return chosen

    def narrowed(self) -> Filter:
        """The filter with the qualifiers of its search (`queue:mail since:2h "no such file"`) worked in."""
        if not self.search:
            return self
        found = {name: text.strip('"') for name, text in _QUALIFIER.findall(self.search)}
        rest = " ".join(_QUALIFIER.sub(" ", self.search).split()).strip('"')
        if "id" in found:
            rest = f"id:{found.pop('id')}"
        return replace(self, search=rest or None, **found)

    def check(self) -> None:
        """Raise InvalidJobError where a part cannot be."""
        if self.status is not None:
            values.status(self.status)
        for text in (self.since, self.until, self.finished):
            if text is not None:
                moment(text)
        if self.order not in (None, *ORDERS):
            raise InvalidJobError(f"unknown order {self.order!r:.50}; one of {', '.join(ORDERS)}")
        if self.search and self.search.startswith("id:") and not self.search[3:].strip().isdecimal():
            raise InvalidJobError(f"search by id is written id:7, not {self.search!r:.50}")

    def asked(self) -> dict[str, str]:
        """The parts that are set, for the address."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class Listing:
    """Jobs that a filter lets through, in its order, by keyset pages."""

    def __init__(self, queue: PersistentQInterface, chosen: Filter) -> None:
        self._queue = queue
        self.filter = chosen
        self._narrowed = chosen.narrowed()
        self._bounds: tuple[float, int, int | None] | None = None

    @property
    def is_by_age(self) -> bool:
        """Whether the newest job comes first."""
        return self._narrowed.order in (None, "newest")

    def page(self, after: Job | int | None, limit: int, *, within: int | None = None) -> list[Job]:
        """Up to `limit` jobs that come after the job `after`; at most `within` jobs are looked at."""
        least, beyond = self._created()
        if self.is_by_age:
            if beyond is not None:
                after = beyond if after is None else min(job_id(after), beyond)
            return [job for job in self._some(after, limit, within) if job.id >= least]
        found: list[Job] = []
        size = limit if (least, beyond) == (0, None) else SCAN_PAGE
        for _ in range(MOST_SCANS):
            jobs = self._some(after, size, within)
            found += [job for job in jobs if job.id >= least and (beyond is None or job.id < beyond)]
            if len(jobs) < size or len(found) >= limit:
                break
            after = jobs[-1]
        return found[:limit]

    def all(self, most: int) -> tuple[list[Job], bool]:
        """The first `most` of all that match, and whether there are more."""
        found: list[Job] = []
        after: Job | None = None
        while len(found) <= most:
            jobs = self.page(after, min(SCAN_PAGE, most + 1 - len(found)))
            found += jobs
            if len(jobs) < SCAN_PAGE:
                break
            after = jobs[-1]
        return found[:most], len(found) > most

    def _some(self, after: Job | int | None, limit: int, within: int | None) -> list[Job]:
        parts = {name: getattr(self._narrowed, name) for name in (*NAMES, "search")}
        finished = self._narrowed.finished
        return self._queue.list(
            **parts | {"order": parts["order"] or "newest"},
            finished_after=moment(finished) if finished else None,
            after=after,
            limit=limit,
            within=within,
        )

    def _created(self) -> tuple[int, int | None]:
        """The ids that the creation time allows: from, and below; looked up again every few seconds."""
        if self._narrowed.since is None and self._narrowed.until is None:
            return 0, None
        now = time.monotonic()
        if self._bounds is None or now - self._bounds[0] > BOUND_SECONDS:
            since, until = self._narrowed.since, self._narrowed.until
            least = first_since(self._queue, moment(since)) if since else 0
            beyond = first_since(self._queue, moment(until)) if until else None
            self._bounds = now, least, beyond
        return self._bounds[1:]


def first_since(queue: PersistentQInterface, bound: datetime) -> int:
    """The id of the first job that was created at `bound` or later: ids grow with time, so by halving."""
    newest = queue.list(limit=1)
    if not newest or newest[0].created_at < bound:
        return newest[0].id + 1 if newest else 0
    older, found = 0, newest[0].id
    while found - older > 1:
        middle = (older + found) // 2
        jobs = queue.list(after=middle + 1, limit=1)
        if not jobs or jobs[0].created_at < bound:
            older = middle
        else:
            found = jobs[0].id
    return found


def moment(text: str) -> datetime:
    """`2h`, `30m`, `7d` (that long ago), or a date and time in UTC (`2026-01-31`, `2026-01-31T12:00`)."""
    if (found := re.fullmatch(r"(\d{1,6})([smhdw])", text)) is not None:
        return datetime.now(UTC) - timedelta(seconds=int(found[1]) * _UNITS[found[2]])
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidJobError(
            f"a time is written 2h, 30m, 7d or 2026-01-31T12:00, not {text!r:.50}"
        ) from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _wanted(value: object, what: str) -> str | None:
    if value is None or value == "":
        return None
    most = SEARCH_LENGTH if what == "search" else values.NAME_LENGTH
    if not isinstance(value, str) or len(value) > most:
        raise InvalidJobError(f"{what} must be a text of at most {most} characters")
    return value
