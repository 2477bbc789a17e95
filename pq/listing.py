"""What `list` may be asked, checked, and where its pages go on: the same for every backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pq import values
from pq.errors import InvalidJobError
from pq.job import FINISHED, Job, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

Order = Literal["newest", "oldest", "finished", "due", "priority"]
LARGEST_PAGE = 10_000
SEARCHED = 100_000

# Which statuses an order lists, and by which property; the id decides among equals.
_LISTED: dict[str, tuple[tuple[Status, ...], str]] = {
    "newest": (tuple(Status), "id"),
    "oldest": (tuple(Status), "id"),
    "finished": (FINISHED, "finished_at"),
    "due": ((Status.SCHEDULED,), "due_at"),
    "priority": ((Status.PENDING,), "priority"),
}
ORDERS = tuple(_LISTED)


@dataclass(frozen=True, slots=True)
class Place:
    """The last job of a page: its id, and what the order sorts by (seconds since 1970 for a time)."""

    id: int
    value: float


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of `list`. `statuses` are those that both the order and the caller want; `after` is None
    for the first page, `within` None for all jobs.
    """

    order: str
    statuses: tuple[Status, ...]
    filters: dict[str, Any]
    after: Place | None
    limit: int
    within: int | None


def asked(  # the filters of `list`, checked in one place for all backends
    get: Callable[[int], Job],
    *,
    status: str | Sequence[str] | None,
    search: str | None,
    order: str,
    finished_after: datetime | None,
    finished_before: datetime | None,
    after: Job | int | None,
    within: int | None,
    limit: int,
    **names: str | None,
) -> Asked:
    """The call, checked; `get` looks up the job that `after` names by its id. Raises InvalidJobError."""
    if order not in _LISTED:
        raise InvalidJobError(f"unknown order {order!r:.50}; one of {', '.join(ORDERS)}")
    filters: dict[str, Any] = {
        name: values.storable(text) for name, text in names.items() if text is not None
    }
    for name, moment in (("finished_after", finished_after), ("finished_before", finished_before)):
        if moment is not None:
            filters[name] = values.moment(moment, name)
    filters |= _search(search)
    if within is None and "search" in filters:
        within = SEARCHED
    return Asked(
        order,
        _statuses(status, order, finished_only="finished_after" in filters or "finished_before" in filters),
        filters,
        None if after is None else _place(get, after, order),
        min(values.whole(limit, "limit", least=1), LARGEST_PAGE),
        None if within is None else values.whole(within, "within", least=1),
    )


def sort_key(order: str) -> Callable[[Job], Any]:
    """What puts jobs into this order."""

    def key(job: Job) -> Any:
        value = _value(job, order)
        return {
            "newest": -job.id,
            "oldest": job.id,
            "finished": (-value, -job.id),
            "due": (value, job.id),
            "priority": (-value, job.id),
        }[order]

    return key


def _statuses(status: str | Sequence[str] | None, order: str, *, finished_only: bool) -> tuple[Status, ...]:
    wanted = Status if status is None else [status] if isinstance(status, str) else status
    chosen = {values.status(one) for one in wanted}
    listed = (one for one in _LISTED[order][0] if one in FINISHED or not finished_only)
    return tuple(one for one in listed if one in chosen)


def _place(get: Callable[[int], Job], after: Job | int, order: str) -> Place:
    id_ = values.job_id(after)
    if _LISTED[order][1] == "id":
        return Place(id_, 0)
    job = after if isinstance(after, Job) else get(id_)
    if job.status not in _LISTED[order][0]:
        raise InvalidJobError(
            f"cannot go on after job {id_} in the order {order}: it is {job.status}; "
            "start from the first page"
        )
    return Place(id_, _value(job, order))


def _value(job: Job, order: str) -> float:
    value = getattr(job, _LISTED[order][1])
    return float(value) if isinstance(value, int | float) else value.timestamp()


def _search(search: str | None) -> dict[str, Any]:
    if not search:
        return {}
    if search.startswith("id:"):
        try:
            return {"id": values.job_id(int(search[3:]))}
        except ValueError:
            raise InvalidJobError(f"search by id is written id:7, not {search!r:.50}") from None
    text = values.storable(search).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return {"search": f"%{text}%"}
