"""Claim, page and counts at 1,000, 100,000 and 1,000,000 jobs, and with 100,000 scheduled in the way.

Of each queue's jobs nine tenths have completed, and the others wait. All queues are measured in turn.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING

from places import choose
from report import arguments, asked, machine, table, tell, working_folder

import pq

if TYPE_CHECKING:
    from collections.abc import Callable

    from places import Places

    from pq.interface import PersistentQInterface

CHUNK = 1_000
FLAT = 1.5
# Above the noise of the clock: what is under 20 microseconds anyway is not judged.
NOISE_SECONDS = 20e-6
Times = dict[str, list[float]]


def build(places: Places, name: str, jobs: int, scheduled: int) -> PersistentQInterface:
    """A queue with `jobs` jobs, of which nine tenths have completed, and `scheduled` later ones."""
    queue = pq.connect(places.address(places.fresh(name)))
    queue.register_consumer("bench")
    for start in range(0, jobs, CHUNK):
        _show(f"{name}: {start:,} of {jobs:,}")
        queue.enqueue_many(
            [pq.NewJob("bench", {"number": start + n}) for n in range(min(CHUNK, jobs - start))]
        )
    left = jobs * 9 // 10
    taken = queue.dequeue_many("bench", min(CHUNK, left))
    while taken:
        left -= len(taken)
        _show(f"{name}: {left:,} to complete")
        done = [pq.Outcome(job) for job in taken]
        taken = queue.settle(done, consumer="bench", limit=min(CHUNK, left)).jobs
    for start in range(0, scheduled, CHUNK):
        later = pq.NewJob("bench", {}, delay=timedelta(days=1), priority=9)
        queue.enqueue_many([later] * min(CHUNK, scheduled - start))
    places.tidy(queue)
    _show("")
    return queue


def verbs(queue: PersistentQInterface, jobs: int) -> dict[str, Callable[[], object]]:
    """What is timed; a claimed job is given back, so that every round finds the same queue."""

    def claim() -> float:
        before = time.perf_counter()
        job = queue.dequeue("bench")
        taken = time.perf_counter() - before
        if job is None:
            sys.exit("the queue ran empty while claims were measured")
        queue.release(job)
        return taken

    middle = max(jobs // 2, 51)
    return {
        "claim": claim,
        "newest page": queue.list,
        "page in the middle": lambda: queue.list(after=middle),
        "page of completed": lambda: queue.list(status="completed"),
        "page of pending": lambda: queue.list(status="pending"),
        "counts": queue.counts,
    }


def measure(queues: dict[str, tuple[PersistentQInterface, int]], rounds: int, times: int) -> dict[str, Times]:
    """The medians of each round, by queue and verb."""
    found: dict[str, Times] = {name: defaultdict(list) for name in queues}
    for _ in range(rounds):
        for name, (queue, jobs) in queues.items():
            for verb, call in verbs(queue, jobs).items():
                found[name][verb].append(statistics.median(_timed(call) for _ in range(times)))
    return found


def _timed(call: Callable[[], object]) -> float:
    before = time.perf_counter()
    answer = call()
    # `claim` times itself, because giving the job back is no part of it.
    return answer if isinstance(answer, float) else time.perf_counter() - before


def _show(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def factors(found: dict[str, Times], name: str, first: str) -> dict[str, float]:
    """How many times as long as in the smallest queue, by verb: the median of the rounds' factors."""
    return {
        verb: statistics.median(
            (mine + NOISE_SECONDS) / (least + NOISE_SECONDS)
            for mine, least in zip(times, found[first][verb], strict=True)
        )
        for verb, times in found[name].items()
    }


def main() -> None:
    """Measure, tell, and write."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--backend", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--sizes", type=int, nargs="*", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--scheduled", type=int, default=100_000)
    options = parser.parse_args()
    sizes, scheduled, rounds, times = options.sizes, options.scheduled, 9, 100
    if options.quick:
        sizes, scheduled, rounds, times = [1_000, 3_000], 2_000, 3, 5
    with ExitStack() as stack:
        folder = stack.enter_context(working_folder(options.folder))
        place = machine(folder)
        places, told = stack.enter_context(choose(options.backend, folder))
        place += told
        began = time.monotonic()
        queues = {f"{size:,}": (build(places, f"size-{size}", size, 0), size) for size in sizes}
        name = f"{sizes[0]:,} and {scheduled:,} scheduled"
        queues[name] = (build(places, "scheduled", sizes[0], scheduled), sizes[0])
        built = time.monotonic() - began
        found = measure(queues, rounds, times)
        for queue, _ in queues.values():
            queue.close()
    first = next(iter(queues))
    heads = ("microseconds (x the smallest)", *queues)
    rows, targets = [], []
    for verb in found[first]:
        cells = [
            f"{statistics.median(found[name][verb]) * 1e6:,.0f} ({factors(found, name, first)[verb]:.2f})"
            for name in queues
        ]
        rows.append((verb, *cells))
        worst = max(factors(found, name, first)[verb] for name in queues)
        targets.append((f"{verb}, x the smallest queue", f"<= {FLAT}", f"{worst:.2f}", worst <= FLAT))
    how = (
        f"{place}. Built by the public verbs in {built:.0f} s; {rounds} rounds of {times} calls, medians; "
        f"factors are medians of the rounds' factors, of times plus {NOISE_SECONDS * 1e6:.0f} microseconds"
    )
    name = "scale" if options.backend == "sqlite" else f"scale --backend {options.backend}"
    tell(name, [f"{how}.", asked(targets), table(heads, rows)], write=options.write)


if __name__ == "__main__":
    main()
