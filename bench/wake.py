"""From `enqueue` in one process to the task's first line in another, and what an idle consumer costs."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import psutil
from report import arguments, asked, machine, table, tell, working_folder

import pq

if TYPE_CHECKING:
    from pathlib import Path

TASKS = """
import time
import pq

@pq.task("wake")
def wake():
    return time.monotonic()  # the same clock in all processes of a machine
"""
CONSUME = "import pq, sys; pq.consume(sys.argv[1], name='bench', tasks=[sys.argv[2]], display=False)"
PERCENTILE_LIMIT_SECONDS, IDLE_LIMIT = 0.010, 0.02


def start_consumer(path: Path) -> subprocess.Popen[bytes]:
    """A consumer in a process of its own."""
    tasks = path.with_name("waking.py")
    tasks.write_text(TASKS)
    return subprocess.Popen([sys.executable, "-c", CONSUME, str(path), str(tasks)])


def wake_times(queue: pq.PersistentQInterface, jobs: int) -> list[float]:
    """Seconds from the call of `enqueue` to the task's first line, after pauses of 0.05 to 0.5 s."""
    pauses = random.Random(7)  # the same pauses in each run
    taken = []
    for _ in range(jobs):
        time.sleep(pauses.uniform(0.05, 0.5))
        before = time.monotonic()
        job = queue.enqueue("wake")
        taken.append(queue.wait(job, timeout=60).result - before)
    return taken


def idle_share(process: subprocess.Popen[bytes], seconds: float) -> float:
    """The part of one core that the process uses while nothing happens."""
    watched = psutil.Process(process.pid)
    before, began = sum(watched.cpu_times()[:2]), time.monotonic()
    time.sleep(seconds)
    return float(sum(watched.cpu_times()[:2]) - before) / (time.monotonic() - began)


def main() -> None:
    """Measure, tell, and write."""
    options = arguments(__doc__ or "").parse_args()
    jobs, idle_seconds = (5, 0.5) if options.quick else (200, 20.0)
    with working_folder(options.folder) as folder:
        place = machine(folder)
        with pq.connect(folder / "queue.db") as queue:
            process = start_consumer(folder / "queue.db")
            try:
                queue.wait(queue.enqueue("wake"), timedelta(seconds=60))
                taken = sorted(wake_times(queue, jobs))
                idle = idle_share(process, idle_seconds)
            finally:
                process.terminate()
                process.wait(30)
    half = statistics.median(taken)
    milliseconds = [
        *(f"{half * 1000:.1f}", f"{taken[len(taken) * 95 // 100] * 1000:.1f}", f"{taken[-1] * 1000:.1f}"),
    ]
    parts = [
        f"{place}. {jobs} jobs after pauses of 0.05 to 0.5 s; idle for {idle_seconds:g} s.",
        asked(
            [
                ("median", "< 10 ms", f"{half * 1000:.1f} ms", half < PERCENTILE_LIMIT_SECONDS),
                ("idle consumer", "< 2 % of a core", f"{idle:.2%}", idle < IDLE_LIMIT),
            ]
        ),
        table(
            ("enqueue to the task's first line", "median ms", "95 of 100", "longest"),
            [("another process, idle before", *milliseconds)],
        ),
    ]
    tell("wake", parts, write=options.write)


if __name__ == "__main__":
    main()
