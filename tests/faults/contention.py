"""Contention: many processes write at once, others checkpoint and read; who waits how long, and is all there?

    python -m tests.faults.contention --seconds 60
    python -m tests.faults.contention --seconds 60 --hunt

Each writer enqueues, takes and completes jobs of its own as quickly as it can. No call may raise, no job that
was answered may be gone, and nobody may get less than a tenth of another's turns (without the gate somebody
gets none at all). It ends with one line of figures, and exits with 1 where a promise was broken. In the hunt
for the WAL-reset bug every commit checkpoints, and two more processes do so all the time.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pq
from pq.sqlite import session as sessions
from tests.faults import mutants

LEAST_SHARE = 0.1
READ_SECONDS, HAND_SECONDS = 0.05, 0.02


@dataclass
class Tally:
    """What one process did and met."""

    calls: int = 0
    longest: float = 0.0
    errors: list[str] = field(default_factory=list)
    enqueued: list[int] = field(default_factory=list)
    completed: list[int] = field(default_factory=list)

    def call(self, act: Callable[[], Any]) -> Any:
        """The answer; None, and an entry, where it raises."""
        began = time.monotonic()
        try:
            return act()
        except pq.PQError as error:
            self.errors.append(str(error))
            return None
        finally:
            self.longest = max(self.longest, time.monotonic() - began)
            self.calls += 1


Role = Callable[[Any, Tally, float], None]


def write(queue: Any, tally: Tally, until: float, name: str) -> None:
    """Enqueue, take, complete, again and again."""
    while time.monotonic() < until:
        job = tally.call(lambda: queue.enqueue("work", queue=name))
        if job is not None:
            tally.enqueued.append(job.id)
        taken = tally.call(lambda: queue.dequeue(name, queues=[name]))
        if taken is not None and tally.call(lambda job=taken: queue.complete(job) or True):
            tally.completed.append(taken.id)


def enqueue_by_hand(queue: Any, tally: Tally, until: float) -> None:
    """A person in a notebook: now and then a job."""
    while time.monotonic() < until:
        job = tally.call(lambda: queue.enqueue("by hand", queue="by hand"))
        if job is not None:
            tally.enqueued.append(job.id)
        time.sleep(HAND_SECONDS)


def checkpoint(queue: Any, tally: Tally, until: float) -> None:
    while time.monotonic() < until:
        tally.call(queue.checkpoint)


def read(queue: Any, tally: Tally, until: float) -> None:
    """Somebody who looks at one moment for a while."""
    while time.monotonic() < until:
        with queue._session.snapshot():
            tally.call(lambda: queue._session.rows("select count(*) from jobs"))
            time.sleep(READ_SECONDS)


@dataclass(frozen=True, slots=True)
class Start:
    """All open the queue, and then begin at the same time."""

    ready: tuple[int, int] = field(default_factory=os.pipe)
    gone: tuple[int, int] = field(default_factory=os.pipe)

    def wait(self) -> None:
        os.write(self.ready[1], b"x")
        os.close(self.gone[1])
        os.read(self.gone[0], 1)

    def give(self, processes: int) -> None:
        for _ in range(processes):
            os.read(self.ready[0], 1)
        os.close(self.gone[1])


def fork(
    path: str, file: Path, act: Callable[[Any, Tally, float], None], start: Start, seconds: float
) -> int:
    """A process that acts so long, and leaves its tally in that file."""
    pid = os.fork()
    if pid:
        return pid
    status, tally = 1, Tally()
    try:
        with pq.connect(path) as queue:
            start.wait()
            act(queue, tally, time.monotonic() + seconds)
        status = 0
    except pq.PQError as error:
        tally.errors.append(f"at its end: {error}")
        status = 0
    finally:
        file.write_text(json.dumps(vars(tally)))
        os._exit(status)


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The figures of one run."""
    path = str(folder / "queue.db")
    roles: dict[str, Role] = {
        f"writer-{number}": partial(write, name=f"q{number}") for number in range(4 if options.hunt else 16)
    }
    roles |= {f"checkpointer-{number}": checkpoint for number in range(2 if options.hunt else 0)}
    roles |= {"by-hand": enqueue_by_hand, "reader": read}
    start = Start()
    # This process never has the database open while others run: it forks.
    pids = [fork(path, folder / f"{name}.json", act, start, options.seconds) for name, act in roles.items()]
    start.give(len(pids))
    ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    tallies = {file.stem: Tally(**json.loads(file.read_text())) for file in folder.glob("*.json")}
    writers = [tally for name, tally in tallies.items() if name.startswith("writer")]
    errors = [text for tally in tallies.values() for text in tally.errors]
    lost, whole = _missing(path, list(tallies.values()))
    share = min(tally.calls for tally in writers) / max(tally.calls for tally in writers)
    found = [f"died: {end}" for end in ends if end] + [f"error: {text}" for text in errors]
    found += [f"lost: {text}" for text in lost]
    found += [] if share >= LEAST_SHARE else [f"unfair: somebody had {share:.2f} of another's turns"]
    found += [] if whole == ["ok"] else [f"damaged: {whole[:3]}"]
    return {
        "harness": "contention",
        "writers": len(writers),
        "commits": sum(tally.calls for tally in writers),
        "checkpoints": sum(tally.calls for name, tally in tallies.items() if name.startswith("check")),
        "longest_wait_of_a_writer_ms": round(1000 * max(tally.longest for tally in writers)),
        "longest_wait_by_hand_ms": round(1000 * tallies["by-hand"].longest),
        "least_share": round(share, 2),
        "errors": len(errors),
        "lost": len(lost),
        "violations": len(found),
        "first": found[:10],
        "seconds": options.seconds,
    }


def _missing(path: str, tallies: list[Tally]) -> tuple[list[str], list[str]]:
    """What was answered and is not there, and what SQLite says of the file."""
    with pq.connect(path) as queue:
        rows = dict(queue._session.rows("select id, status from jobs"))
        whole = [row[0] for row in queue._session.rows("pragma integrity_check")]
    lost = [f"job {id_}" for tally in tallies for id_ in tally.enqueued if id_ not in rows]
    lost += [
        f"the completion of job {id_}, which is {rows.get(id_)}"
        for tally in tallies
        for id_ in tally.completed
        if rows.get(id_) != "completed"
    ]
    return lost, whole


def main() -> int:
    """Run, print the figures as one line of JSON, and say whether a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.contention")
    parser.add_argument("--hunt", action="store_true", help="checkpoint all the time")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    if options.hunt:
        sessions.CHECKPOINT_PAGES = 1
    plain_set_up = sessions.Session._set_up

    def set_up(session: sessions.Session) -> None:
        plain_set_up(session)
        session._sync_commits(durable=True)  # with that many pages

    sessions.Session._set_up = set_up
    mutants.apply()
    # A disk has slow moments, which are not what is measured here.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="pq-contention-", dir=memory) as folder:
        figures = run(options, Path(folder))
    print(json.dumps(figures))
    return bool(figures["violations"])


if __name__ == "__main__":
    sys.exit(main())
