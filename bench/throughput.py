"""Jobs a second, beside other queues and beside a loop written by hand, every commit synced by all.

In one run and in rounds, so that ratios can be trusted where numbers cannot.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from contenders import OURS
from peers import MISSING, PEERS
from report import arguments, asked, machine, table, tell, working_folder
from rounds import Lane, Results, durability, measure, ratio

if TYPE_CHECKING:
    from pathlib import Path

WORK_ALONE = [
    *("pq", "pq, dequeue then complete", "pq, prefetch 100", "pq.consume", "pq.consume, prefetch 100"),
    *("huey", "huey, results kept", "huey, dequeue alone", "litequeue", "persist-queue"),
    *("by hand", "by hand, fused", "by hand, fused, by 100", "bare 4 kB write and fsync"),
]
ENQUEUE_ALONE = [
    *("pq", "pq, batches of 100", "huey", "litequeue", "litequeue, 100 in a transaction", "persist-queue"),
    *("by hand", "by hand, batches of 100"),
]
# persist-queue gives the same item to two processes, so that it has no place here.
WORK_TOGETHER = ["pq", "pq, prefetch 100", "huey", "huey, results kept", "litequeue", "by hand"]
ENQUEUE_TOGETHER = ["pq", "pq, batches of 100", "huey", "litequeue", "by hand"]
NO_SINGLE_CALLS = ("pq.consume", "pq.consume, prefetch 100")
# Those that write when a job has ended, as pq does; huey without results forgets a task as it takes it.
SAFE_PEERS = ("huey, results kept", "litequeue", "persist-queue")
ALL_PEERS = ("huey", *SAFE_PEERS)


def lanes(names: list[str], verb: str, processes: int = 1) -> list[Lane]:
    """The lanes of those that are installed."""
    return [Lane(name, verb, processes) for name in names if name in OURS | PEERS]


def alone_table(results: Results, verb: str) -> str:
    """One process: rates, and ratios to pq."""
    mine = Lane("pq", verb)
    rows = []
    for lane, result in results.items():
        if lane.verb == verb and lane.processes == 1:
            single = lane.name not in NO_SINGLE_CALLS
            rows.append(
                (
                    lane.name,
                    f"{result.rate:,.0f}",
                    f"{1 / ratio(results, mine, [lane]):.2f}",
                    f"{max(result.longest) * 1000:.0f} ms" if single else "",
                )
            )
    return table((f"one process: {TITLES[verb]}", "jobs/s", "x pq", "longest call"), rows)


def together_table(results: Results, verb: str) -> str:
    """Several processes: rates, the longest wait, and how evenly the jobs fell."""
    rows = []
    for lane, result in results.items():
        if lane.verb == verb and lane.processes > 1:
            mine = Lane("pq", verb, lane.processes)
            rows.append(
                (
                    f"{lane.processes} x {lane.name}",
                    f"{result.rate:,.0f}",
                    f"{1 / ratio(results, mine, [lane]):.2f}",
                    f"{max(result.longest) * 1000:,.0f} ms",
                    f"{statistics.median(result.worst):.2f}",
                    f"{min(result.worst):.2f}",
                    str(result.locked or ""),
                )
            )
    heads = (
        *(f"several processes: {TITLES[verb]}", "jobs/s", "x pq", "longest call"),
        *("worst process / mean", "in its worst round", "“locked”"),
    )
    return table(heads, rows)


TITLES = {"work": "claim and finish", "enqueue": "enqueue"}


def targets(results: Results, counts: list[int]) -> str:
    """What the project set itself, against what was measured."""
    rows = []

    def at_least(what: str, wanted: float, found: float) -> None:
        rows.append((what, f">= {wanted:g}", f"{found:.2f}", found >= wanted))

    one, many = Lane("pq", "work"), Lane("pq, prefetch 100", "work")
    for which, names in (
        ("that keeps a job till its end", SAFE_PEERS),
        ("of all (huey at most once)", ALL_PEERS),
    ):
        peers = [Lane(name, "work") for name in names if name in PEERS]
        if peers:
            at_least(f"one durable job at a time, x the best peer {which}", 2, ratio(results, one, peers))
            at_least(f"prefetch 100, x the best peer {which}", 10, ratio(results, many, peers))
    by_hand = Lane("by hand", "work")
    at_least("one at a time, x the loop by hand", 0.8, ratio(results, Lane("pq", "work"), [by_hand]))
    for count in [count for count in counts if count >= 8]:
        huey = Lane("huey", "work", count)
        for name in ("pq", "pq, prefetch 100"):
            mine = Lane(name, "work", count)
            if huey in results:
                at_least(f"{count} x {name}, x huey", 3, ratio(results, mine, [huey]))
            longest = max(results[mine].longest) * 1000
            rows.append((f"{count} x {name}, longest call", "<= 500 ms", f"{longest:.0f} ms", longest <= 500))
            worst = statistics.median(results[mine].worst)
            at_least(f"{count} x {name}, worst process / mean (median of rounds)", 0.8, worst)
    return asked(rows)


def durabilities(folder: Path) -> str:
    """What each connection says of itself."""
    names = ["pq", *(name for name in ("huey", "litequeue", "persist-queue") if name in PEERS), "by hand"]
    found = "; ".join(f"{name}: {durability(name, folder)}" for name in names)
    missing = f" Not installed, and so left out: {', '.join(MISSING)}." if MISSING else ""
    return f"Read from the connections: {found}.{missing}"


def main() -> None:
    """Measure, tell, and write."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one lane in one round")
    parser.add_argument("--processes", type=int, nargs="*", default=[2, 4, 8, 16])
    options = parser.parse_args()
    rounds, seconds, counts = options.rounds, options.seconds, options.processes
    if options.quick:
        rounds, seconds, counts = min(rounds, 2), min(seconds, 0.1), counts[:1]
    with working_folder(options.folder) as folder:
        place, modes = machine(folder), durabilities(folder)
        alone = lanes(WORK_ALONE, "work") + lanes(ENQUEUE_ALONE, "enqueue")
        results = measure(alone, folder, rounds=rounds, seconds=seconds)
        for count in counts:
            several = lanes(WORK_TOGETHER, "work", count) + lanes(ENQUEUE_TOGETHER, "enqueue", count)
            # Twice as long: sixteen processes on few cores need time to show what they get.
            results |= measure(several, folder, rounds=rounds, seconds=seconds * 2)
    how = (
        f"{rounds} rounds of {seconds:g} s (several processes: {seconds * 2:g} s); medians; "
        "ratios are medians of the rounds' ratios; the longest call is that of all rounds"
    )
    parts = [
        f"{place}. {how}.",
        modes,
        targets(results, counts),
        *(alone_table(results, verb) for verb in TITLES),
    ]
    if counts:
        parts += [together_table(results, verb) for verb in TITLES]
    tell("throughput", parts, write=options.write)


if __name__ == "__main__":
    main()
