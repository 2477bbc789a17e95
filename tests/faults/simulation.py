"""The deterministic simulation: whole histories of the queue from a seed, checked after every commit.

    python -m tests.faults.simulation --seeds 5000 --seed 1
    python -m tests.faults.simulation --seeds 1 --seed 4711 --trace     # replay one, and tell what happened

A history has producers, consumers (with names that come back), rescuers and people on one virtual host, with
crashes at every point, pauses past the lease, stale calls, commits that are not answered, clock jumps and
reboots. Then the faults end, and every job must come to its end too. It ends with one line of figures, and
exits with 1 where a promise was broken.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from tests.faults import simulation_actors as actors
from tests.faults.simulation_check import Checker, ViolationError
from tests.faults.simulation_mutants import MUTANTS
from tests.faults.simulation_world import LEASE_SECONDS, Process, World, simulated

FAULTY_STEPS = 220
MOST_STEPS = 6_000
JUMPS = (-86_400.0, -3_600.0, -60.0, -1.0, 1.0, 60.0, 3_600.0, 86_400.0)


@dataclass(frozen=True, slots=True)
class History:
    """What one seed made."""

    seed: int
    steps: int
    commits: int
    jobs: int
    violation: str
    digest: str
    trace: tuple[str, ...] = ()


def play(seed: int, folder: Path, *, keep_trace: bool = False) -> History:
    """One history, the same each time."""
    random.seed(seed)  # the jitter of the back-off
    place = folder / str(seed)
    place.mkdir()
    shutil.copy(folder / "template.db", place / "queue.db")
    world = World(seed, place)
    world.checker = Checker(world)
    violation = ""
    try:
        _play(world)
    except ViolationError as error:
        violation = str(error)
    except Exception as error:  # noqa: BLE001  # what the queue may not raise is a violation too
        violation = f"seed {seed}, step {world.steps}: {''.join(traceback.format_exception(error))}"
    finally:
        for process in list(world.processes):
            with suppress(Exception):
                process.kill()
        shutil.rmtree(place)
    trace = "\n".join(world.trace)
    return History(
        seed,
        world.steps,
        world.checker.commits,
        len(world.checker.seen),
        violation,
        hashlib.sha256(trace.encode()).hexdigest(),
        tuple(world.trace) if keep_trace or violation else (),
    )


def _play(world: World) -> None:
    _populate(world)
    while world.steps < FAULTY_STEPS:
        _respawn(world, world.step())
        _strike(world)
    _heal(world)
    while not (world.checker.is_drained() and all(one.work is not actors.heal for one in world.processes)):
        world.checker.demand(world.steps < MOST_STEPS, "it did not drain in time")
        _respawn(world, world.step())
    queue = world.open()
    try:
        world.checker.finished(queue)
    finally:
        queue.close()


def _populate(world: World) -> None:
    for name in actors.NAMES:
        world.start(name, actors.consume, after=world.random.random())
    world.start("producer", actors.produce)
    world.start("producer 2", actors.produce)
    world.start("hand", actors.consume_by_hand)
    world.start("rescuer", actors.rescue)
    world.start("person", actors.meddle)


def _respawn(world: World, gone: Process | None) -> None:
    """The supervisor: who ended is started again, under the same name."""
    if gone is not None and gone.work is not actors.heal:
        world.start(gone.name, gone.work, after=world.random.random() * 2)


def _strike(world: World) -> None:
    """What befalls the processes between two steps."""
    chance = world.random.random()
    if not world.processes:
        return
    process = world.random.choice(world.processes)
    if chance < 0.012:
        world.kill(process)
        _respawn(world, process)
    elif chance < 0.03:
        process.wakes_at = max(process.wakes_at, world.clock.mono) + LEASE_SECONDS * (
            0.5 + 2 * world.random.random()
        )
        world.note(f"{process.name} is paused until {process.wakes_at:.3f}")
        if process.work is actors.consume and world.random.random() < 0.3:
            world.start(process.name, actors.consume)  # a second one of the same name
    elif chance < 0.036:
        world.clock.wall += world.random.choice(JUMPS)
        world.note(f"the clock jumps to {world.clock.wall:.3f}")
    elif chance < 0.038:
        world.reboot()
        _populate(world)


def _heal(world: World) -> None:
    """From now on nothing bad happens: everything must come to its end."""
    world.is_healing = True
    world.note("healing")
    for process in list(world.processes):
        if process.work in (actors.produce, actors.meddle):
            process.kill()
            world.processes.remove(process)
    for name in set(actors.NAMES) - {process.name for process in world.processes}:
        world.start(name, actors.consume)
    world.start("healer", actors.heal)


# -- many of them ---------------------------------------------------------------------------------


def play_many(seeds: list[int], mutant: str = "", *, until_violation: bool = False) -> list[History]:
    """The histories of the seeds, in this process."""
    found = []
    with simulated() as folder, MUTANTS[mutant]():
        for seed in seeds:
            found.append(play(seed, folder))
            if until_violation and found[-1].violation:
                break
    return found


def main() -> int:
    """Play the seeds on all cores and tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--deep", action="store_true")
    parser.add_argument("--trace", action="store_true")
    options = parser.parse_args()
    began = time.monotonic()
    seeds = range(options.seed, options.seed + (5_000 if options.deep else options.seeds))
    mutant = os.environ.get("PQ_MUTANT", "")
    mutant = mutant if mutant in MUTANTS else ""
    if options.trace:
        with simulated() as folder, MUTANTS[mutant]():
            history = play(options.seed, folder, keep_trace=True)
        print("\n".join(history.trace))
        print(history.violation or "no violation")
        return bool(history.violation)
    chunks = [list(seeds[start : start + 25]) for start in range(0, len(seeds), 25)]
    totals = {"histories": 0, "steps": 0, "commits": 0, "jobs": 0}
    violations: list[str] = []
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for histories in pool.map(play_many, chunks, [mutant] * len(chunks)):
            totals["histories"] += len(histories)
            for one in histories:
                totals["steps"] += one.steps
                totals["commits"] += one.commits
                totals["jobs"] += one.jobs
            violations += [one.violation for one in histories if one.violation]
            if options.seconds is not None and time.monotonic() - began > options.seconds:
                pool.shutdown(cancel_futures=True)
                break
    figures = totals | {
        "harness": "simulation",
        "first_seed": options.seed,
        "violations": len(violations),
        "seconds": round(time.monotonic() - began, 1),
    }
    for text in violations[:20]:
        print(text, file=sys.stderr)
    print(json.dumps(figures))
    return bool(violations)


if __name__ == "__main__":
    sys.exit(main())
