"""Power cuts: the writes and syncs of real work are recorded, and the disks that a cut may leave are opened.

    python -m tests.faults.powercut --images 50000 --seed 1

makes images of cuts at all points of many workloads, opens each with `pq.connect`, and ends with one line of
figures. It exits with 1 where an answered enqueue or completion is gone, or where the state is none of those
that were committed. `--lying-disk` and the mutants show that it would notice.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.faults import mutants, recorder
from tests.faults.powercut_check import Answers, violations, write
from tests.faults.powercut_disk import SURVIVORS, Disk, Files
from tests.faults.powercut_workload import make_older, record

MODULE = "tests.faults.powercut"
STEPS = 60
IMAGES_OF_A_WORKLOAD = 800
SECOND_CUTS, IMAGES_OF_A_SECOND_CUT = 8, 24
MIGRATIONS = 0.2
ENOUGH_VIOLATIONS = 10


@dataclass(frozen=True, slots=True)
class Image:
    """One disk after a cut, what it owes, and how it came about."""

    files: Files
    answers: Answers
    how: str


@dataclass(frozen=True, slots=True)
class Share:
    """What one process of the harness has to do."""

    seeds: range
    images: int
    until: float
    obeys: bool
    folder: str | None


def cuts(trace: Path, disk: Disk, known: Answers | None, chance: random.Random, most: int) -> Iterator[Image]:
    """Different images of cuts at all points of a trace, about `most`; what they owe moves on under them."""
    records = list(recorder.read(trace))
    answers = Answers.before(records, known)
    share, seen = most / max(len(records), 1), set()
    for number, one in enumerate(records):
        if one.kind == "M":
            answers.replay(one)
        else:
            disk.replay(one)
        for _ in range(int(share) + (chance.random() < share % 1)):
            way = chance.choice(list(SURVIVORS)) if disk.pending else "none"
            files = disk.image(SURVIVORS[way](disk.pending, chance))
            key = hash((answers.answered, answers.committed, len(answers.done), *sorted(files.items())))
            if key not in seen:
                seen.add(key)
                yield Image(files, answers, f"cut after record {number} of {len(records)}, {way} survived")


def second_cuts(image: Image, folder: Path, chance: random.Random) -> Iterator[Image]:
    """Open an image, work, and cut the power again: also while what the first cut left is put right."""
    path, trace = folder / "again" / "queue.db", folder / "second.trace"
    trace.unlink(missing_ok=True)
    write(image.files, path)
    disk = Disk.holding(path, chance)
    record(path, trace, chance.randrange(2**32), processes=1, steps=4)
    for again in cuts(trace, disk, deepcopy(image.answers), chance, IMAGES_OF_A_SECOND_CUT):
        yield Image(again.files, again.answers, f"{image.how}, then {again.how}")


def one_workload(seed: int, share: Share) -> tuple[Counter[str], list[str]]:
    """Record one workload and check images of it: how many, and what was wrong."""
    chance = random.Random(seed)
    figures: Counter[str] = Counter(workloads=1)
    found: list[str] = []
    folder = Path(tempfile.mkdtemp(prefix="pq-powercut-", dir=share.folder))

    def check(kind: str, image: Image) -> None:
        figures[kind] += 1
        wrong = violations(image.files, folder / "image" / "queue.db", image.answers, chance)
        found.extend(f"seed {seed}: {image.how}: {text}" for text in wrong)

    try:
        path, trace = folder / "recorded" / "queue.db", folder / "first.trace"
        path.parent.mkdir()
        processes, steps = chance.choice([1, 1, 2, 3, 4]), STEPS
        if chance.random() < MIGRATIONS:
            make_older(path, seed)
            processes, steps = 1, 6
            figures["migrations"] += 1
        disk = Disk.holding(path, chance, obeys=share.obeys)
        record(path, trace, seed, processes=processes, steps=steps // processes)
        for image in cuts(trace, disk, None, chance, IMAGES_OF_A_WORKLOAD):
            check("images", image)
            if chance.random() < SECOND_CUTS / IMAGES_OF_A_WORKLOAD and not found:
                for again in second_cuts(image, folder, chance):
                    check("second_cuts", again)
        if not image.answers.answered:
            raise RuntimeError("the recorder has not seen the workload")
        figures["commits"] += image.answers.committed
    finally:
        shutil.rmtree(folder)
    return figures, found


def work_through(share: Share) -> tuple[Counter[str], list[str]]:
    """Workloads until there are enough images, time is over, or too much is wrong."""
    figures: Counter[str] = Counter()
    found: list[str] = []
    for seed in share.seeds:
        enough = figures["images"] + figures["second_cuts"] >= share.images
        if enough or time.monotonic() > share.until or len(found) > ENOUGH_VIOLATIONS:
            break
        more, wrong = one_workload(seed, share)
        figures += more
        found += wrong
    return figures, found


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one run on all processors."""
    began, jobs = time.monotonic(), os.cpu_count() or 1
    shares = [
        Share(
            range(options.seed + number, 2**62, jobs),
            options.images // jobs,
            began + options.seconds,
            not options.lying_disk,
            "/dev/shm" if os.access("/dev/shm", os.W_OK) else None,
        )
        for number in range(jobs)
    ]
    with ProcessPoolExecutor(jobs, mp_context=get_context("fork")) as pool:
        parts = list(pool.map(work_through, shares))
    figures = sum((part for part, _ in parts), Counter())
    found = [text for _, texts in parts for text in texts]
    kinds = Counter(text.split(": ")[2] for text in found)
    return {
        "harness": "powercut",
        "seed": options.seed,
        **figures,
        **{kind: kinds[kind] for kind in ("lost", "corrupt", "inconsistent", "stuck")},
        "violations": found[:ENOUGH_VIOLATIONS],
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> None:
    """Run, print the figures as one line of JSON, and exit with 1 where something was wrong."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lying-disk", action="store_true", help="a disk that ignores syncs: must fail")
    options = parser.parse_args()
    recorder.preload(MODULE)
    mutants.apply()
    figures = run(options)
    print(json.dumps(figures))
    sys.exit(bool(figures["violations"]))


if __name__ == "__main__":
    main()
