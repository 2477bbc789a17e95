"""The statements of `list`: one for each order and status, each a range of one index."""

from typing import Any, NamedTuple

from pq.job import Status
from pq.listing import Asked
from pq.sqlite.sql import COLUMNS


class _Range(NamedTuple):
    """A walk along one index: where it starts, where it goes on after a job, and in which order."""

    source: str
    all: str
    rest: str
    order: str


_BY_ID = {
    "newest": _Range("jobs", "true", "id < :after", "id desc"),
    "oldest": _Range("jobs", "true", "id > :after", "id"),
}

# `indexed by`: left alone, SQLite sorts all jobs of the status.
_FINISHED = _Range(
    "jobs indexed by jobs_finished",
    "status = :status and finished_at is not null",
    "(finished_at, id) < (:value, :after)",
    "finished_at desc, id desc",
)
_DUE = _Range(
    "jobs indexed by jobs_due", "status = 'scheduled'", "(due_at, id) > (:value, :after)", "due_at, id"
)
_PRIORITY = _Range("jobs indexed by jobs_priority", "status = 'pending'", "true", "priority desc, id")
_SAME = _PRIORITY._replace(rest="priority = :value and id > :after")
_LOWER = _PRIORITY._replace(rest="priority < :value")

# The filters are looked at in each job of the range; to hand on whole rows to bound it takes four times
# as long for each job, so the unbounded form does without.
_ALL = "select {columns} from {source} where {range} and {filters} order by {order} limit :limit"
_WITHIN = """
select {columns} from (select * from {source} where {range} order by {order} limit :within)
where {filters}
limit :limit
"""
_FILTERS = {
    "queue": "queue = :queue",
    "task": "task = :task",
    "consumer": "(consumer = :consumer or assigned_to = :consumer)",
    "tag": "tags <> '[]' and exists (select 1 from json_each(tags) where value = :tag)",
    "group": "job_group = :group",
    "finished_after": "finished_at >= :finished_after",
    "finished_before": "finished_at < :finished_before",
    "search": "(task like :search escape '\\' or unique_key like :search escape '\\' "
    "or parameters like :search escape '\\' or error like :search escape '\\')",
}
# These make the range itself shorter.
_NARROWING = {"id": "id = :id", "group": "job_group = :group"}


def statements(asked: Asked) -> list[tuple[str, dict[str, Any]]]:
    """The statements whose rows together hold the page: each gives its own first `limit`."""
    return [_statement(asked, walk, status) for walk, status in _walks(asked)]


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


def _statement(asked: Asked, walk: _Range, status: Status | None) -> tuple[str, dict[str, Any]]:
    filters = dict(asked.filters)
    values = filters | {"status": status, "limit": asked.limit, "within": asked.within or -1}
    ranges = [walk.all]
    if asked.after is not None:
        ranges.append(walk.rest)
        values |= {"after": asked.after.id, "value": asked.after.value}
    if walk.source == "jobs":
        if status is not None:
            ranges.append("status = :status")
        ranges += [clause for name, clause in _NARROWING.items() if filters.pop(name, None) is not None]
    if walk is _FINISHED:
        ranges += _window(asked, filters)
    form = _ALL if asked.within is None else _WITHIN
    clauses = " and ".join(["true", *(_FILTERS[name] for name in filters)])
    text = form.format(
        columns=COLUMNS, source=walk.source, range=" and ".join(ranges), order=walk.order, filters=clauses
    )
    return text, values


def _window(asked: Asked, filters: dict[str, Any]) -> list[str]:
    """The bounds of the finishing time as part of the range; never two upper ones: SQLite uses only one."""
    bounds = [_FILTERS["finished_after"]] if filters.pop("finished_after", None) is not None else []
    before = filters.pop("finished_before", None)
    if before is not None and (asked.after is None or before <= asked.after.value):
        bounds.append(_FILTERS["finished_before"])
    return bounds
