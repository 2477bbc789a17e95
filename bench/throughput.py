"""Jobs a second, beside other queues and beside a loop written by hand, every commit synced by all.

In one run and in rounds, so that ratios can be trusted where numbers cannot.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from contenders import OURS
from hosted import HOSTED, HOSTED_MISSING, HOSTED_PEERS
from peers import MISSING, PEERS
from places import choose
from report import arguments, asked, machine, table, tell, working_folder, written
from rounds import Ground, Lane, Results, durability, measure, ratio

if TYPE_CHECKING:
    from collections.abc import Mapping

    from contenders import Contender

Target = tuple[str, float, str, tuple[str, ...], str]
NO_SINGLE_CALLS = ("pq.consume", "pq.consume, prefetch 100", "procrastinate, its worker")
OUR_WAYS = (
    *("pq", "pq, dequeue then complete", "pq, prefetch 100"),
    *("pq.consume", "pq.consume, prefetch 100"),
)
TITLES = {"work": "claim and finish", "enqueue": "enqueue"}
# Those that write when a job has ended, as pq does; huey without results forgets a task as it takes it.
SAFE_PEERS = ("huey, results kept", "litequeue", "persist-queue")
ALL_PEERS = ("huey", *SAFE_PEERS)


@dataclass(frozen=True)
class Backend:
    """What is measured on one backend: who, alone and together, and what is to be reached.

    A target is: what, the least factor, who, against the best of whom, and the verb.
    """

    section: str
    ours: Mapping[str, type[Contender]]
    peers: Mapping[str, type[Contender]]
    missing: list[str]
    alone: Mapping[str, list[str]]
    together: Mapping[str, list[str]]
    processes: list[int]
    targets: list[Target]
    rival: str | None = None
    modes_of: tuple[str, ...] = field(default=("pq", "by hand"))

    @property
    def kinds(self) -> Mapping[str, type[Contender]]:
        """All that are installed, by name."""
        return {**self.ours, **self.peers}

    def lanes(self, of: Mapping[str, list[str]], processes: int = 1) -> list[Lane]:
        """The lanes of those that are installed."""
        return [
            Lane(name, verb, processes) for verb, names in of.items() for name in names if name in self.kinds
        ]


SQLITE = Backend(
    section="throughput",
    ours=OURS,
    peers=PEERS,
    missing=MISSING,
    alone={
        "work": [
            *OUR_WAYS,
            *("huey", "huey, results kept", "huey, dequeue alone", "litequeue", "persist-queue"),
            *("by hand", "by hand, fused", "by hand, fused, by 100", "bare 4 kB write and fsync"),
        ],
        "enqueue": [
            *("pq", "pq, batches of 100", "huey", "litequeue", "litequeue, 100 in a transaction"),
            *("persist-queue", "by hand", "by hand, batches of 100"),
        ],
    },
    # persist-queue gives the same item to two processes, so that it has no place here.
    together={
        "work": ["pq", "pq, prefetch 100", "huey", "huey, results kept", "litequeue", "by hand"],
        "enqueue": ["pq", "pq, batches of 100", "huey", "litequeue", "by hand"],
    },
    processes=[2, 4, 8, 16],
    targets=[
        (
            "one durable job at a time, x the best peer that keeps a job till its end",
            2,
            "pq",
            SAFE_PEERS,
            "work",
        ),
        (
            "prefetch 100, x the best peer that keeps a job till its end",
            10,
            "pq, prefetch 100",
            SAFE_PEERS,
            "work",
        ),
        ("one durable job at a time, x the best peer of all (huey at most once)", 2, "pq", ALL_PEERS, "work"),
        (
            "prefetch 100, x the best peer of all (huey at most once)",
            10,
            "pq, prefetch 100",
            ALL_PEERS,
            "work",
        ),
        ("one at a time, x the loop by hand", 0.8, "pq", ("by hand",), "work"),
    ],
    rival="huey",
    modes_of=("pq", "huey", "litequeue", "persist-queue", "by hand"),
)
POSTGRESQL = Backend(
    section="throughput --backend postgresql",
    ours=HOSTED,
    peers=HOSTED_PEERS,
    missing=HOSTED_MISSING,
    alone={
        "work": [
            *OUR_WAYS,
            *("procrastinate", "procrastinate, its worker"),
            *("by hand", "by hand, fused", "by hand, fused, by 100"),
        ],
        "enqueue": [
            *("pq", "pq, batches of 100", "procrastinate", "procrastinate, batches of 100"),
            *("by hand", "by hand, batches of 100"),
        ],
    },
    together={
        "work": ["pq", "pq, prefetch 100", "procrastinate", "by hand", "by hand, fused"],
        "enqueue": ["pq", "pq, batches of 100", "procrastinate", "by hand"],
    },
    processes=[2, 4, 8],
    targets=[
        ("one durable job at a time, x procrastinate", 2, "pq", ("procrastinate",), "work"),
        ("enqueue, x procrastinate", 2, "pq", ("procrastinate",), "enqueue"),
        ("prefetch 100, x procrastinate", 10, "pq, prefetch 100", ("procrastinate",), "work"),
        ("one at a time, x the loop by hand", 0.8, "pq", ("by hand",), "work"),
        ("enqueue, x the loop by hand", 0.8, "pq", ("by hand",), "enqueue"),
    ],
)
BACKENDS = {"sqlite": SQLITE, "postgresql": POSTGRESQL}


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


def targets(backend: Backend, results: Results, counts: list[int]) -> str:
    """What the project set itself, against what was measured."""
    rows = []

    def at_least(what: str, wanted: float, found: float) -> None:
        rows.append((what, f">= {wanted:g}", f"{found:.2f}", found >= wanted))

    for what, wanted, name, others, verb in backend.targets:
        lanes = [Lane(other, verb) for other in others if other in backend.kinds]
        if lanes:
            at_least(what, wanted, ratio(results, Lane(name, verb), lanes))
    for count in [count for count in counts if count >= 8]:
        for name in ("pq", "pq, prefetch 100"):
            mine = Lane(name, "work", count)
            rival = Lane(backend.rival or "", "work", count)
            if rival in results:
                at_least(f"{count} x {name}, x {rival.name}", 3, ratio(results, mine, [rival]))
            longest = max(results[mine].longest) * 1000
            rows.append((f"{count} x {name}, longest call", "<= 500 ms", f"{longest:.0f} ms", longest <= 500))
            worst = statistics.median(results[mine].worst)
            at_least(f"{count} x {name}, worst process / mean (median of rounds)", 0.8, worst)
    return asked(rows)


def durabilities(backend: Backend, ground: Ground) -> str:
    """What each connection says of itself."""
    names = [name for name in backend.modes_of if name in ground.kinds]
    found = "; ".join(f"{name}: {durability(name, ground)}" for name in names)
    missing = f" Not installed, and so left out: {', '.join(backend.missing)}." if backend.missing else ""
    return f"Read from the connections: {found}.{missing}"


def compare() -> str:
    """Who is measured on both backends, as README.md has them: each column is of its own run."""
    found: list[dict[tuple[str, str], str]] = []
    for backend in BACKENDS.values():
        verb, rates = "", {}
        for line in written(backend.section).splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if cells[0].startswith(("one process: ", "several processes: ")):
                verb = cells[0].rpartition(": ")[2]
            elif verb and len(cells) > 2 and not cells[0].startswith("-"):
                rates[verb, cells[0]] = cells[1]
        found.append(rates)
    here, there = found
    rows = [
        (f"{verb}: {name}", rate, there[verb, name])
        for (verb, name), rate in here.items()
        if (verb, name) in there
    ]
    return table(("jobs/s", "SQLite", "PostgreSQL"), rows)


def main() -> None:
    """Measure, tell, and write."""
    parser = arguments(__doc__)
    parser.add_argument("--backend", choices=BACKENDS, default="sqlite")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one lane in one round")
    parser.add_argument("--processes", type=int, nargs="*")
    parser.add_argument("--compare", action="store_true", help="both backends side by side, from README.md")
    options = parser.parse_args()
    if options.compare:
        tell("throughput --compare", [compare()], write=options.write)
        return
    backend = BACKENDS[options.backend]
    counts = backend.processes if options.processes is None else options.processes
    rounds, seconds = options.rounds, options.seconds
    if options.quick:
        rounds, seconds, counts = min(rounds, 2), min(seconds, 0.1), counts[:1]
    with ExitStack() as stack:
        folder = stack.enter_context(working_folder(options.folder))
        places, server = stack.enter_context(choose(options.backend, folder))
        place, ground = machine(folder) + server, Ground(backend.kinds, places)
        modes = durabilities(backend, ground)
        results = measure(backend.lanes(backend.alone), ground, rounds=rounds, seconds=seconds)
        for count in counts:
            # Twice as long: sixteen processes on few cores need time to show what they get.
            several = backend.lanes(backend.together, count)
            results |= measure(several, ground, rounds=rounds, seconds=seconds * 2)
    how = (
        f"{rounds} rounds of {seconds:g} s (several processes: {seconds * 2:g} s); medians; "
        "ratios are medians of the rounds' ratios; the longest call is that of all rounds"
    )
    parts = [
        f"{place}. {how}.",
        modes,
        targets(backend, results, counts),
        *(alone_table(results, verb) for verb in TITLES),
    ]
    if counts:
        parts += [together_table(results, verb) for verb in TITLES]
    tell(backend.section, parts, write=options.write)


if __name__ == "__main__":
    main()
