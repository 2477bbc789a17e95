"""Everything that the side panel tells of one job: values, attempts with tracebacks, what people did."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pq.job import TRANSITIONS
from pq.stats import why_blocked
from pq.widgets.executed import runs
from pq.widgets.hiding import clean
from pq.widgets.rows import VERBS, job_row

if TYPE_CHECKING:
    from pq.interface import PersistentQInterface
    from pq.job import Attempt, Job
    from pq.records import Action
    from pq.widgets.hiding import Hiding

VALUE_LENGTH = 20_000
MOST_ATTEMPTS = 20
MOST_ACTIONS = 50


def job_detail(queue: PersistentQInterface, job_id: int, hiding: Hiding) -> dict[str, Any]:
    """The panel of one job as it is now. Raises JobNotFoundError."""
    job = queue.get(job_id)
    attempts = queue.attempts(job)
    return job_row(job, hiding) | {
        "parameters": pretty(job.parameters, hiding),
        "result": None if job.result is None else pretty(job.result, hiding),
        "error": clean(job.error or "", VALUE_LENGTH),
        "message": clean(job.message or ""),
        "tags": list(job.tags),
        "group": job.group,
        "waits": clean(why_blocked(queue, job)),
        "key": job.unique_key,
        "priority": job.priority,
        "timeout": job.timeout.total_seconds() if job.timeout else None,
        "cannot": {verb: why_not(verb, job) for verb in VERBS if not job.can(verb)},
        "tries": [_attempt(one) for one in attempts[-MOST_ATTEMPTS:]],
        "tries_before": max(0, len(attempts) - MOST_ATTEMPTS),
        "actions": [_action(one) for one in queue.actions(job, MOST_ACTIONS)],
        "runs": runs(queue.folder, job.id),
    }


def pretty(value: Any, hiding: Hiding) -> str:
    """JSON over several lines, hidden names hidden."""
    return clean(json.dumps(hiding.hide(value), ensure_ascii=False, indent=2, default=str), VALUE_LENGTH)


def why_not(verb: str, job: Job) -> str:
    """Why a button is disabled."""
    return f"{verb.replace('_', ' ')} is for {', '.join(TRANSITIONS[verb])} jobs; this one is {job.status}"


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "id": f"{attempt.attempt}-{attempt.finished_at.timestamp()}",
        "attempt": attempt.attempt,
        "outcome": attempt.outcome,
        "consumer": clean(attempt.consumer or ""),
        "started": attempt.started_at.timestamp(),
        "finished": attempt.finished_at.timestamp(),
        "error": clean(attempt.error or "", VALUE_LENGTH),
        "traceback": clean(attempt.traceback or "", VALUE_LENGTH),
    }


def _action(action: Action) -> dict[str, Any]:
    return {
        "id": action.id,
        "at": action.at.timestamp(),
        "who": clean(action.who),
        "verb": action.verb.replace("_", " "),
        "target": clean(action.target or ""),
        "from": action.from_status.value if action.from_status else "",
        "to": action.to_status.value if action.to_status else "",
        "reason": clean(action.reason or ""),
    }
