"""Compares what processes were told with what the queue holds, in the manner of Jepsen's total-queue checker.

A history is lines in the order in which they happened; each process writes one before and one after a call:
`e? KEY` and `e+ KEY ID` around an enqueue; `s ID TOKEN PID CLAIMED UNTIL` when a try begins (seconds; until
then nobody may take the job while that process lives); `c? ID TOKEN` and then `c+ ID TOKEN` (accepted) or
`c- ID TOKEN` (lease lost) around a completion, `g ID TOKEN` before another end; `d PID POINT` before a
process kills itself, `k PID` before it is killed.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

UNFINISHED = {"blocked", "scheduled", "pending", "processing"}


@dataclass(frozen=True, slots=True)
class Kept:
    """A job as the database has it at the end; `completed` are the tokens whose attempts are kept as such."""

    key: str
    status: str
    attempt: int
    max_attempts: int
    token: int
    error: str | None
    completed: tuple[int, ...]


@dataclass(slots=True)
class Told:
    """What the processes wrote down."""

    attempted: set[str] = field(default_factory=set)
    enqueued: dict[int, str] = field(default_factory=dict)
    started: Counter[tuple[int, int]] = field(default_factory=Counter)
    completed: set[tuple[int, int]] = field(default_factory=set)
    refused: int = 0
    deaths: Counter[str] = field(default_factory=Counter)
    stale: list[str] = field(default_factory=list)
    stolen: list[str] = field(default_factory=list)


class _Reader:
    """Follows a history line by line."""

    def __init__(self) -> None:
        self.told = Told()
        self._newest: dict[int, int] = {}
        self._held: dict[int, tuple[int, str, float]] = {}  # job: token, process, until
        self._stale: set[tuple[int, int]] = set()
        self._dead: set[str] = set()

    def line(self, what: str, words: list[str]) -> None:
        if what == "e?":
            self.told.attempted.add(words[0])
        elif what == "e+":
            self.told.enqueued[int(words[1])] = words[0]
        elif what in ("d", "k"):
            self._dead.add(words[0])
            self.told.deaths.update([" ".join(words[1:])] * (what == "d"))
        else:
            job, token = map(int, words[:2])
            if what == "s":
                self._began(job, token, words[2], float(words[3]), float(words[4]))
            else:
                self._ended(what, job, token)

    def _began(self, job: int, token: int, process: str, claimed: float, until: float) -> None:
        self.told.started[job, token] += 1
        before = self._held.get(job)
        if before and before[0] < token and claimed < before[2] and before[1] not in self._dead:
            self.told.stolen.append(f"job {job}: token {token} was given while token {before[0]} was held")
        if token >= self._newest.get(job, 0):
            self._newest[job] = token
            self._held[job] = (token, process, until)

    def _ended(self, what: str, job: int, token: int) -> None:
        if what in ("c?", "g") and self._held.get(job, (0,))[0] == token:
            del self._held[job]
        if what == "c?" and self._newest.get(job, 0) > token:
            self._stale.add((job, token))
        elif what == "c-":
            self.told.refused += 1
        elif what == "c+":
            self.told.completed.add((job, token))
            if (job, token) in self._stale:
                text = f"job {job}: token {token} completed it after {self._newest[job]} had begun"
                self.told.stale.append(text)


def read(history: Iterable[str]) -> Told:
    """What the lines tell, with every lease given twice and every completion accepted too late."""
    reader = _Reader()
    for line in history:
        what, *words = line.split()
        reader.line(what, words)
    return reader.told


def violations(told: Told, kept: dict[int, Kept]) -> dict[str, list[str]]:
    """Broken promises by kind; empty lists where there are none."""
    return {
        "lost": [
            f"job {id_} ({key}) was acknowledged" for id_, key in told.enqueued.items() if id_ not in kept
        ],
        "unexpected": [
            f"job {id_}: nobody enqueued {job.key}"
            for id_, job in kept.items()
            if job.key not in told.attempted or told.enqueued.get(id_, job.key) != job.key
        ],
        "enqueued_twice": _twice(Counter(job.key for job in kept.values())),
        "completions_lost": [
            f"job {id_}: the completion by token {token} was acknowledged"
            for id_, token in told.completed
            if id_ not in kept or token not in kept[id_].completed
        ],
        "completed_twice": [
            f"job {id_} by tokens {job.completed}" for id_, job in kept.items() if len(job.completed) > 1
        ],
        "leased_twice": told.stolen,
        "stale_accepted": told.stale,
        "started_twice": _twice(told.started),
        "completed_unstarted": [
            f"job {id_}: token {token} never began"
            for id_, job in kept.items()
            for token in job.completed
            if not told.started[id_, token]
        ],
        "stuck": [f"job {id_} is {job.status}" for id_, job in kept.items() if job.status in UNFINISHED],
        "wrong_end": [f"job {id_}: {job}" for id_, job in kept.items() if not _ended_well(job)],
    }


def _twice(counts: Counter[object]) -> list[str]:  # type: ignore[type-arg]  # any key will do
    return [f"{key}: {times} times" for key, times in counts.items() if times > 1]


def _ended_well(job: Kept) -> bool:
    """Completed by the token that is kept, or failed with a reason and no attempt left."""
    if job.attempt > job.max_attempts:
        return False
    if job.status == "completed":
        return job.completed == (job.token,)
    if job.status == "failed":
        return bool(job.error) and job.attempt == job.max_attempts and not job.completed
    return job.status in UNFINISHED  # told as stuck
