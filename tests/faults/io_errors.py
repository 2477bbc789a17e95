"""I/O errors: each write, truncation, sync and creation of real work fails once, or from then on, or kills.

    python -m tests.faults.io_errors --runs 4000 --seed 1

Every error must reach the caller as StorageError; when the trouble is over the same process must be able to
work; and neither the files as they are then, nor the disk after a power cut, may lack what was answered.
"""

import argparse
import errno
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pq
from tests.faults import mutants, recorder
from tests.faults.powercut import ENOUGH_VIOLATIONS, cuts
from tests.faults.powercut_check import Answers, read, violations
from tests.faults.powercut_disk import Disk
from tests.faults.powercut_workload import Marks, Worker, connect, state

MODULE = "tests.faults.io_errors"
STEPS = 25
CUTS = 8
ALL = "WTSOU"
EVERY_WAY = [
    ("W", errno.EIO, False),
    ("W", errno.EIO, True),
    ("W", errno.ENOSPC, False),
    ("W", errno.ENOSPC, True),
    ("W", recorder.SHORT, False),
    ("W", recorder.SHORT, True),
    ("S", errno.EIO, False),
    ("S", errno.EIO, True),
    ("T", errno.EIO, False),
    ("T", errno.EIO, True),
    ("O", errno.ENOSPC, False),
    ("O", errno.EIO, True),
    ("U", errno.EIO, False),
    ("U", errno.EIO, True),
    ("WTOU", errno.EROFS, True),  # as when the system makes a file system with errors read-only
    (ALL, recorder.KILL, False),
]


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong: the operations that are counted, the one that fails, and how."""

    kinds: str
    at: int
    action: int
    sticky: bool

    def __str__(self) -> str:
        names = {recorder.KILL: "SIGKILL", recorder.SHORT: "a short write", **errno.errorcode}
        return f"{names[self.action]} at {self.kinds} {self.at}{' and later' if self.sticky else ''}"


def work_with(fault: Fault, path: Path, trace: Path, seed: int) -> None:
    """Work while the fault happens, then without it; raises where that goes in an unexpected way."""
    recorder.start(path, trace)
    chance = random.Random(seed)
    with Marks().watching(chance.choice([5, 20, 1000])) as marks:
        recorder.fault(fault.kinds, fault.at, fault.action, sticky=fault.sticky)
        worker = None
        for _ in range(STEPS):
            try:
                if worker is None:
                    worker = Worker(path, seed, "consumer-0", marks)
                worker.work(1)
            except pq.StorageError as error:
                recorder.mark(json.dumps({"pid": os.getpid(), "error": str(error)}))
        (trace.parent / "counted").write_text(str(recorder.counted()))
        recorder.fault("", 0, 0)
        if worker is None:
            worker = Worker(path, seed, "consumer-0", marks)
        if worker.queue._closed:
            worker.queue = worker._connect()
        worker.enqueue()
        worker.dequeue()
        worker.settle()
        if chance.random() < 0.5:
            worker.queue.close()


def in_a_child(act: Any, said: Path) -> int:
    """The exit status of a forked process that does it; what went wrong there is in `said`."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            act()
            code = 0
        except BaseException:  # noqa: BLE001  # a forked child must not return
            said.write_text(traceback.format_exc())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextmanager
def a_folder() -> Iterator[Path]:
    """A folder in memory, if there is one."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="pq-io-errors-", dir=place))
    try:
        (folder / "recorded").mkdir()
        yield folder
    finally:
        shutil.rmtree(folder)


def fresh_state() -> str:
    """What opening leads to where nothing was."""
    with a_folder() as folder, connect(folder / "queue.db") as queue:
        return state(queue._session)


def count_operations(kinds: str, seed: int) -> int:
    """How many there are when nothing fails."""
    with a_folder() as folder:
        path, trace = folder / "recorded" / "queue.db", folder / "first.trace"
        act = partial(work_with, Fault(kinds, 0, 0, sticky=False), path, trace, seed)
        if in_a_child(act, folder / "said"):
            raise RuntimeError((folder / "said").read_text())
        return int((folder / "counted").read_text())


def one_run(fault: Fault, seed: int, fresh: str) -> tuple[Counter[str], list[str]]:
    """Let the fault happen; how it went, and what was wrong."""
    chance = random.Random(seed)
    figures: Counter[str] = Counter(runs=1)
    found: list[str] = []
    with a_folder() as folder:
        path, trace = folder / "recorded" / "queue.db", folder / "first.trace"
        code = in_a_child(partial(work_with, fault, path, trace, seed), folder / "said")
        if code == -9 and fault.action == recorder.KILL:
            figures["kills"] += 1
        elif code:
            found.append(f"surprise: {(folder / 'said').read_text()}")
        records = list(recorder.read(trace))
        marks = [json.loads(record.data) for record in records if record.kind == "M"]
        figures["errors"] += sum("error" in said for said in marks)
        first = next((number for number, one in enumerate(records) if one.kind == "X"), 0)
        figures["failed_syncs"] += sum(one.kind == "X" for one in records)
        files = read(path)
        answers = Answers.before(records, Answers(opening=frozenset({fresh})))
        for image in cuts(records, Disk(chance), answers, chance, CUTS, first):
            figures["images"] += 1
            wrong = violations(image.files, folder / "image" / "queue.db", image.answers, chance)
            found += [f"after a cut: {text}, {image.how}" for text in wrong]
        found += [
            f"live: {text}" for text in violations(files, folder / "image" / "queue.db", answers, chance)
        ]
    return figures, [f"seed {seed}, {fault}: {text}" for text in found]


def faults(seed: int, kinds: str, runs: int, chance: random.Random) -> list[Fault]:
    """All faults of one workload, or as many of them as there may be runs."""
    ways = [way for way in EVERY_WAY if set(way[0]) <= set(kinds)]
    counts = {counted: count_operations(counted, seed) for counted, _, _ in ways}
    every = [
        Fault(counted, at, action, sticky)
        for counted, action, sticky in ways
        for at in range(1, counts[counted] + 1)
    ]
    return every if len(every) <= runs else chance.sample(every, runs)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one run on all processors."""
    began = time.monotonic()
    figures: Counter[str] = Counter()
    found: list[str] = []
    chance, seed, fresh = random.Random(options.seed), options.seed, fresh_state()
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("fork")) as pool:
        while figures["runs"] < options.runs and time.monotonic() - began < options.seconds:
            chosen = faults(seed, options.kinds, options.runs - figures["runs"], chance)
            for more, wrong in pool.map(partial(one_run, seed=seed, fresh=fresh), chosen, chunksize=20):
                figures += more
                found += wrong
            figures["workloads"] += 1
            seed += 1
    kinds = Counter(": ".join(text.split(": ")[1:3]) for text in found if ": surprise" not in text)
    return {
        "harness": "io_errors",
        "seed": options.seed,
        **figures,
        "kinds": dict(kinds),
        "surprise": sum(": surprise" in text for text in found),
        "violations": len(found),
        "first": found[:ENOUGH_VIOLATIONS],
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> None:
    """Run, print the figures as one line of JSON, and exit with 1 where something was wrong."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}")
    parser.add_argument("--runs", type=int, default=4_000)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", default=ALL, help="letters of the operations that fail")
    options = parser.parse_args()
    recorder.preload(MODULE)
    mutants.apply()
    figures = run(options)
    print(json.dumps(figures))
    sys.exit(bool(figures["violations"]))


if __name__ == "__main__":
    main()
