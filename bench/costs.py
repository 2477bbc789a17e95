"""What one job costs on PostgreSQL: bytes of the log, processor time of server and client, bytes on the disk.

Unlike jobs per second these hardly depend on what else the machine does; docs/scaling.md reckons with them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
import servers
from hosted import HOSTED, HOSTED_PEERS
from places import choose
from report import arguments, machine, table, tell, working_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from contenders import Contender
    from places import Places

LANES = {
    "pq": "pq, prefetch 100",
    "by hand": "by hand, fused, by 100",
    "procrastinate": "procrastinate, batches of 100",
}
"""One job at a time, and the same contender by hundreds."""


@dataclass(frozen=True)
class Cost:
    """Of one job."""

    log_bytes: float
    server_seconds: float
    client_seconds: float


def server_seconds(url: str) -> float:
    """The processor time that the server's processes have used so far."""
    found = servers.execute(url, "select pid from pg_stat_activity where pid <> pg_backend_pid()")
    total = 0.0
    for (number,) in found:
        try:
            times = psutil.Process(number).cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def log_position(url: str) -> int:
    """How many bytes have been written to the server's log since it was made."""
    return int(servers.execute(url, "select pg_current_wal_insert_lsn() - '0/0'::pg_lsn")[0][0])


def measured(url: str, jobs: int, act: Callable[[], int]) -> Cost:
    """The cost of each of `jobs` jobs, which `act` does a few at a time."""
    before = log_position(url), server_seconds(url), time.process_time()
    done = 0
    while done < jobs:
        count = act()
        if not count:
            raise SystemExit("the queue ran empty while it was measured")
        done += count
    client = time.process_time() - before[2]
    server = server_seconds(url) - before[1]
    return Cost((log_position(url) - before[0]) / done, server / done, client / done)


def stored_bytes(url: str) -> int:
    """Tables with their indexes, as small as they can be, without the system's own."""
    servers.execute(url, "vacuum full")
    return int(servers.execute(url, """
        select sum(pg_total_relation_size(pg_class.oid)) from pg_class
        join pg_namespace on pg_namespace.oid = relnamespace
        where relkind = 'r' and nspname not like 'pg_%' and nspname <> 'information_schema'
    """)[0][0])  # fmt: skip


def measure(places: Places, name: str, jobs: int) -> dict[str, Cost | float]:
    """One contender, from an empty place."""
    kinds: dict[str, type[Contender]] = {**HOSTED, **HOSTED_PEERS}
    place = places.fresh("costs")
    one = kinds[name](place)
    one.enqueue()
    costs: dict[str, Cost | float] = {"enqueue": measured(place, jobs, one.enqueue)}
    one.prepare()
    costs["claim and finish"] = measured(place, jobs // 2, one.work)
    one.close()
    many = kinds[LANES[name]](place)
    empty = stored_bytes(place)
    costs["enqueue by 100"] = measured(place, 10 * jobs, many.enqueue)
    costs["bytes of a pending job"] = (stored_bytes(place) - empty) / (10 * jobs)
    if name != "procrastinate":  # which takes one at a time
        many.prepare()
        costs["claim and finish by 100"] = measured(place, 10 * jobs, many.work)
        costs["bytes of a finished job"] = (stored_bytes(place) - empty) / (10 * jobs)
    many.close()
    return costs


def main() -> None:
    """Measure, tell, and write."""
    options = arguments(__doc__ or "").parse_args()
    jobs = 50 if options.quick else 2_000
    with working_folder(options.folder) as folder:
        place = machine(folder)
        with choose("postgresql", folder) as (places, told):
            found = {
                name: measure(places, name, jobs)
                for name, many in LANES.items()
                if {name, many} <= HOSTED.keys() | HOSTED_PEERS.keys()
            }
    rows = [
        (f"{name}: {what}", f"{cost.log_bytes:,.0f}", f"{cost.server_seconds * 1e6:,.0f}",
         f"{cost.client_seconds * 1e6:,.0f}")
        for name, costs in found.items()
        for what, cost in costs.items()
        if isinstance(cost, Cost)
    ]  # fmt: skip
    sizes = [
        (f"{name}: {what}", f"{cost:,.0f}")
        for name, costs in found.items()
        for what, cost in costs.items()
        if not isinstance(cost, Cost)
    ]
    parts = [
        f"{place}{told}. {jobs:,} jobs one at a time, {10 * jobs:,} by hundreds.",
        table(("each job", "log bytes", "server µs", "client µs"), rows),
        table(("on the disk, with indexes", "bytes"), sizes),
    ]
    tell("costs", parts, write=options.write)


if __name__ == "__main__":
    main()
