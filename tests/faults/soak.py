"""The soak: the whole system under load and pruning, and whether anything grows that should not.

    python -m tests.faults.soak --seconds 3600

runs run_all.py with producer, consumers and both pages, gives it jobs without end (well, failing, with large
results), prunes what has finished a minute ago, and measures every few seconds. The first third is warming
up. Then each figure must be flat: a line through it rises by less than its noise, or by less than 5 %.
It prints a table and one line of figures, and exits with 1 where something grew or a job was lost.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from statistics import fmean, linear_regression, stdev

import psutil

import pq
from pq import NewJob

ROOT = Path(__file__).parents[2]
TASKS = '''
"""What the soak runs."""
import pq

@pq.task("soak-well")
def well(number):
    return {"number": number}

@pq.task("soak-large")
def large(number):
    return "x" * 20_000

@pq.task("soak-failing")
def failing(number):
    raise ValueError(f"job {number} fails on purpose")
'''
NAMES = ("soak-well",) * 8 + ("soak-large", "soak-failing")
BATCH, SAMPLE_SECONDS = 40, 2.0
MOST_KEPT_SECONDS = 60.0
TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class Sample:
    """The system at one moment."""

    seconds: float
    memory_mb: float
    open_files: float
    processes: float
    wal_mb: float
    database_mb: float
    files: float


@dataclass(frozen=True, slots=True)
class Trend:
    """A line through one figure: its mean, its growth over the time looked at, and whether that is noise."""

    name: str
    mean: float
    highest: float
    growth: float
    noise: float
    is_flat: bool


def measure(system: psutil.Process, folder: Path, began: float) -> Sample:
    """All processes below run_all.py, and the files beside the database."""
    memory = files = number = 0
    for process in [system, *system.children(recursive=True)]:
        try:
            memory += process.memory_info().rss
            files += process.num_fds()
            number += 1
        except psutil.Error:  # it has just ended
            continue

    def size(name: str) -> int:
        path = folder / name
        return path.stat().st_size if path.exists() else 0

    return Sample(
        time.monotonic() - began,
        memory / 2**20,
        files,
        number,
        size("queue.db-wal") / 2**20,
        size("queue.db") / 2**20,
        sum(len(names) for _, _, names in os.walk(folder)),
    )


def trends(samples: list[Sample]) -> list[Trend]:
    """A line through each figure, the warming up left out."""
    steady = samples[len(samples) // 3 :]
    times = [sample.seconds for sample in steady]
    found = []
    for field in fields(Sample)[1:]:
        values = [getattr(sample, field.name) for sample in steady]
        line = linear_regression(times, values)
        growth = line.slope * (times[-1] - times[0])
        rest = [value - line.intercept - line.slope * at for at, value in zip(times, values, strict=True)]
        mean, noise = fmean(values), stdev(rest)
        is_flat = growth <= max(noise, TOLERANCE * mean)
        found.append(Trend(field.name, mean, max(values), growth, noise, is_flat))
    return found


class Load:
    """Jobs without end, as many as the consumers take, and pruning behind them."""

    def __init__(self, queue: pq.PersistentQInterface, kept_seconds: float) -> None:
        self.queue = queue
        self.kept_seconds = kept_seconds
        self.enqueued = self.pruned = 0
        self.pruned_at = time.monotonic()

    def turn(self) -> None:
        counts = self.queue.counts()
        if counts["pending"] + counts["scheduled"] < 2 * BATCH:
            self.queue.enqueue_many(
                [
                    NewJob(NAMES[number % len(NAMES)], {"number": number}, max_attempts=1)
                    for number in range(self.enqueued, self.enqueued + BATCH)
                ]
            )
            self.enqueued += BATCH
        if time.monotonic() - self.pruned_at > self.kept_seconds / 3:
            self.pruned_at = time.monotonic()
            # The files of the producer's jobs first: a pruned job no longer knows its files.
            words = ["--db", self.queue.url, "delete-files", "--all", "--yes"]
            subprocess.run([sys.executable, "-m", "pq.cli", *words], check=True, stdout=subprocess.DEVNULL)
            self.pruned += self.queue.prune(timedelta(seconds=self.kept_seconds))


def soak(folder: Path, seconds: float) -> tuple[list[Sample], Load, list[str]]:
    """The samples, the load, and what went wrong."""
    tasks = folder / "soaking.py"
    tasks.write_text(TASKS)
    words = ["--db", str(folder / "queue.db"), "--tasks", str(tasks), "--interval", "0.2", "--port", "0"]
    with (folder / "out.txt").open("w") as out:
        system = subprocess.Popen([sys.executable, str(ROOT / "run_all.py"), *words], stdout=out, stderr=out)
    samples: list[Sample] = []
    wrong: list[str] = []
    try:
        with pq.connect(folder / "queue.db") as queue:
            load = Load(queue, min(MOST_KEPT_SECONDS, seconds / 10))
            began = time.monotonic()
            while time.monotonic() - began < seconds:
                turn_ends = time.monotonic() + SAMPLE_SECONDS
                while (left := turn_ends - time.monotonic()) > 0:
                    load.turn()
                    queue.wait_for_work(timedelta(seconds=min(left, 0.2)))
                samples.append(measure(psutil.Process(system.pid), folder, began))
            if system.poll() is not None:
                wrong.append(f"run_all.py ended with {system.returncode}")
            system.send_signal(signal.SIGINT)
            if system.wait(60) not in (0, 130):
                wrong.append(f"run_all.py answered {system.returncode} to Ctrl-C")
            wrong += _lost(queue, load)
    finally:
        if system.poll() is None:
            system.terminate()
            system.wait(60)
    return samples, load, wrong


def _lost(queue: pq.PersistentQInterface, load: Load) -> list[str]:
    """Jobs neither kept nor pruned, jobs without a consumer, and jobs that should not have failed."""
    wrong = []
    if queue.counts()["processing"]:
        wrong.append("jobs are processing though all consumers ended")
    if any(queue.counts(task=name)["failed"] for name in set(NAMES) - {"soak-failing"}):
        wrong.append("jobs failed that should not")
    # Ids are given in order and never again, so they count what was ever stored.
    newest = queue.list(limit=1)
    if newest and newest[0].id != sum(queue.counts().values()) + load.pruned:
        wrong.append("jobs are gone")
    return wrong


def main() -> int:
    """Soak, tell, and judge."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--deep", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pq-soak-") as folder:
        samples, load, wrong = soak(Path(folder), options.seconds)
    found = trends(samples)
    print("| figure | mean | highest | growth | noise | |")
    print("|---|---|---|---|---|---|")
    for one in found:
        word = "flat" if one.is_flat else "GROWS"
        numbers = f"{one.mean:.1f} | {one.highest:.1f} | {one.growth:+.2f} | {one.noise:.2f}"
        print(f"| {one.name} | {numbers} | {word} |")
    wrong += [f"{one.name} grows" for one in found if not one.is_flat]
    for text in wrong:
        print(text, file=sys.stderr)
    figures = {
        "harness": "soak",
        "seconds": options.seconds,
        "jobs": load.enqueued,
        "pruned": load.pruned,
        "samples": len(samples),
        "violations": len(wrong),
    }
    print(json.dumps(figures))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
