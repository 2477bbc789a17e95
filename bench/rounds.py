"""Measuring in rounds: A B C, A B C, …, so that whatever else the machine does falls on all alike."""

from __future__ import annotations

import multiprocessing
import sqlite3
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from contenders import Contender
    from places import Places

START_LIMIT_SECONDS, END_LIMIT_SECONDS = 60, 120
# A fork of a parent that never opened a database is safe, and starts in a millisecond.
_START = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
_processes: Any = multiprocessing.get_context(_START)


@dataclass(frozen=True)
class Ground:
    """Who is measured, by name, and where their jobs stand."""

    kinds: Mapping[str, type[Contender]]
    places: Places


@dataclass(frozen=True)
class Lane:
    """One contender with one verb (work or enqueue) in so many processes."""

    name: str
    verb: str
    processes: int = 1


@dataclass(frozen=True)
class Share:
    """What one process did: jobs, in how long, its longest single call, and calls that found a lock."""

    jobs: int
    seconds: float
    longest: float
    locked: int


@dataclass
class Result:
    """A lane's rounds: jobs a second, the longest call, and the worst process's part of the mean."""

    rates: list[float] = field(default_factory=list)
    longest: list[float] = field(default_factory=list)
    worst: list[float] = field(default_factory=list)
    locked: int = 0

    @property
    def rate(self) -> float:
        """Jobs a second, the median of the rounds."""
        return statistics.median(self.rates)


Results = dict[Lane, Result]


def measure(lanes: Sequence[Lane], ground: Ground, *, rounds: int, seconds: float) -> Results:
    """All lanes, one after the other, again and again."""
    results: Results = defaultdict(Result)
    for number in range(rounds):
        for lane in lanes:
            _show(f"round {number + 1} of {rounds}: {lane.processes} x {lane.name}, {lane.verb}")
            _enter(results[lane], _run(lane, ground, seconds))
    _show("")
    return dict(results)


def ratio(results: Results, one: Lane, others: Iterable[Lane]) -> float:
    """How many times as quick `one` is as the best of the others: the median of the rounds' ratios."""
    rates = zip(*(results[other].rates for other in others), strict=True)
    return float(
        statistics.median(mine / max(theirs) for mine, theirs in zip(results[one].rates, rates, strict=True))
    )


def durability(name: str, ground: Ground) -> str:
    """Journal mode and synchronous, as the contender's own connection says."""
    answers = _processes.SimpleQueue()
    place = ground.places.fresh("look")
    _together([_processes.Process(target=_look, args=(ground.kinds[name], place, answers))])
    return str(answers.get())


def _show(line: str) -> None:
    """Where the measurement is, for a person who waits before a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def _enter(result: Result, shares: list[Share]) -> None:
    counts = [share.jobs for share in shares]
    result.rates.append(sum(share.jobs / share.seconds for share in shares))
    result.longest.append(max(share.longest for share in shares))
    result.worst.append(min(counts) / max(statistics.mean(counts), 1e-9))
    result.locked += sum(share.locked for share in shares)


def _run(lane: Lane, ground: Ground, seconds: float) -> list[Share]:
    """One round of one lane, in a copy of a place that is filled once."""
    if lane.verb == "work":
        place = ground.places.copy(_filled(ground.kinds[lane.name], ground.places, seconds), "run")
    else:
        place = ground.places.fresh("run")
    barrier, answers = _processes.Barrier(lane.processes), _processes.SimpleQueue()
    kind = ground.kinds[lane.name]
    _together(
        [
            _processes.Process(target=_work, args=(kind, lane.verb, place, number, barrier, seconds, answers))
            for number in range(lane.processes)
        ]
    )
    return [answers.get() for _ in range(lane.processes)]


def _filled(kind: type[Contender], places: Places, seconds: float) -> str:
    jobs = int(kind.jobs_per_second * seconds)
    filled = f"{kind.__name__}-{jobs}"
    if not places.exists(filled):
        place = places.fresh(filled)
        _together([_processes.Process(target=_fill, args=(kind, place, jobs))])
    return filled


def _together(processes: list[Any]) -> None:
    """Start them all, wait for them all, and leave none behind."""
    deadline = time.monotonic() + START_LIMIT_SECONDS + END_LIMIT_SECONDS
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(max(deadline - time.monotonic(), 0))
            if process.exitcode != 0:
                sys.exit("a measured process failed or did not end; its error stands above")
    finally:
        for process in processes:
            process.kill()
            process.join()


def _look(kind: type[Contender], place: str, answers: Any) -> None:
    contender = kind(place)
    answers.put(contender.durability())
    contender.close()


def _fill(kind: type[Contender], place: str, jobs: int) -> None:
    contender = kind(place)
    contender.fill(jobs)
    contender.close()


def _work(
    kind: type[Contender], verb: str, place: str, number: int, barrier: Any, seconds: float, answers: Any
) -> None:
    contender = kind(place, number)
    try:
        if verb == "work":
            contender.prepare()
        call = getattr(contender, verb)
        barrier.wait(START_LIMIT_SECONDS)
        answers.put(_clocked(call, seconds))
        # Closing checkpoints, which is no part of anybody's measure.
        barrier.wait(END_LIMIT_SECONDS)
    finally:
        contender.close()


def _clocked(verb: Any, seconds: float) -> Share:
    """Call it again and again until the time is over, or there is nothing left to do."""
    jobs = locked = 0
    longest = 0.0
    clock = time.perf_counter
    began = before = clock()
    end = began + seconds
    while before < end:
        try:
            done = verb()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            done, locked = 0, locked + 1
        else:
            if not done:
                break
        now = clock()
        longest = max(longest, now - before)
        jobs += done
        before = now
    return Share(jobs, max(before - began, 1e-9), longest, locked)
