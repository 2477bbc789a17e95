"""The statements of `list`: one for each order and status, each a range of one index."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pq.job import Status
from pq.listing import Asked
from pq.sql.statements import COLUMNS


class _Range(NamedTuple):
    """A walk along one index: where it starts, where it goes on after a job, and in which order."""

    through: str
    all: str
    rest: str
    order: str


_BY_ID = {
    "newest": _Range("", "true", "id < :after", "id desc"),
    "oldest": _Range("", "true", "id > :after", "id"),
}

_BY_STATUS = {"newest": "status desc, id desc", "oldest": "status, id"}

# The index has a name, because SQLite, left alone, sorts all jobs of the status.
_FINISHED = _Range(
    "jobs_finished",
    "status = :status and finished_at is not null",
    "(finished_at, id) < (:value, :after)",
    "finished_at desc, id desc",
)
_DUE = _Range("jobs_due", "status = 'scheduled'", "(due_at, id) > (:value, :after)", "due_at, id")
# The needless second condition is PostgreSQL's: an index that has it too serves this order alone, and not a
# claim, for which it would read the jobs of all queues.
_PRIORITY = _Range(
    "jobs_priority", "status = 'pending' and priority + 0 is not null", "true", "priority desc, id"
)
_SAME = _PRIORITY._replace(rest="priority = cast(:value as integer) and id > :after")
_LOWER = _PRIORITY._replace(rest="priority < cast(:value as integer)")

# The filters are looked at in each job of the range; to hand on whole rows to bound it takes four times
# as long for each job, so the unbounded form does without.
_ALL = "select {columns} from {source} where {range} and {filters} order by {order} limit :limit"
_WITHIN = """
select {columns} from (select * from {source} where {range} order by {order} limit :within) as walked
where {filters}
limit :limit
"""
# These make the range itself shorter.
_NARROWING = ("id", "group")


def statements(asked: Asked, clauses: Mapping[str, str], with_index: str) -> list[tuple[str, dict[str, Any]]]:
    """The statements whose rows together hold the page: each gives its own first `limit`.

    `clauses` has one for each filter, `with_index` names table and index, both as the database knows them.
    """
    return [_statement(asked, walk, status, clauses, with_index) for walk, status in _walks(asked)]


def _walks(asked: Asked) -> list[tuple[_Range, Status | None]]:
    if "id" in asked.filters or asked.order in _BY_ID:
        walk = _BY_ID.get(asked.order, _BY_ID["newest"])
        every = len(asked.statuses) == len(Status)
        return [(walk, None)] if every else [(walk, status) for status in asked.statuses]
    if not asked.statuses:
        return []
    match asked.order:
        case "finished":
            return [(_FINISHED, status) for status in asked.statuses]
        case "due":
            return [(_DUE, None)]
        case _:
            return [(_PRIORITY, None)] if asked.after is None else [(_SAME, None), (_LOWER, None)]


def _statement(
    asked: Asked, walk: _Range, status: Status | None, clauses: Mapping[str, str], with_index: str
) -> tuple[str, dict[str, Any]]:
    filters = dict(asked.filters)
    values = filters | {"status": status, "limit": asked.limit, "within": asked.within or -1}
    ranges, order = [walk.all], walk.order
    if asked.after is not None:
        ranges.append(walk.rest)
        values |= {"after": asked.after.id, "value": asked.after.value}
    if not walk.through:
        if status is not None and (of_status := clauses.get(f"{asked.order} of a status")):
            first = 2**63 - 1 if asked.order == "newest" else 0
            values, ranges, order = {"after": first} | values, [of_status], _BY_STATUS[asked.order]
        elif status is not None:
            ranges.append("status = :status")
        ranges += [clauses[name] for name in _NARROWING if filters.pop(name, None) is not None]
    if walk is _FINISHED:
        ranges += _window(asked, filters, clauses)
    form = _ALL if asked.within is None else _WITHIN
    text = form.format(
        columns=COLUMNS,
        source=with_index.format(index=walk.through) if walk.through else "jobs",
        range=" and ".join(ranges),
        order=order,
        filters=" and ".join(["true", *(clauses[name] for name in filters)]),
    )
    return text, values


def _window(asked: Asked, filters: dict[str, Any], clauses: Mapping[str, str]) -> list[str]:
    """The bounds of the finishing time as part of the range; never two upper ones: SQLite uses only one."""
    bounds = [clauses["finished_after"]] if filters.pop("finished_after", None) is not None else []
    before = filters.pop("finished_before", None)
    if before is not None and (asked.after is None or before <= asked.after.value):
        bounds.append(clauses["finished_before"])
    return bounds
