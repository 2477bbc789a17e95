"""Is a disk image what the contract promises? It is opened as a user would, looked at, and worked on."""

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pq.job import Job
from tests.faults.powercut_disk import Files
from tests.faults.powercut_workload import connect, digest, state
from tests.faults.recorder import NAMES, Record


@dataclass(slots=True)
class Answers:
    """What has been committed and answered up to a point of a trace."""

    serials: dict[str, int] = field(default_factory=dict)
    """The latest serial of each state that was to be committed, by its digest."""
    committed: int = 0
    answered: int = 0
    """The serial of the latest commit that a durable verb has returned for."""
    opening: frozenset[str] = frozenset()
    """States that opening the file leads to, whatever was there of it."""
    has: dict[int, str] = field(default_factory=dict)
    done: dict[int, str] = field(default_factory=dict)
    _last: dict[int, int] = field(default_factory=dict)
    _touched: set[int] = field(default_factory=set)
    _swept: int = 0
    _sweeping: int = 0

    @classmethod
    def before(cls, records: Sequence[Record], known: "Answers | None") -> "Answers":
        """What is owed before the first record; opening an image may do what it is about to do there."""
        opening: set[str] = set()
        for record in records:
            if record.kind == "M":
                said = json.loads(record.data)
                if "commit" in said:
                    opening.add(said["commit"])
                if said.get("answered"):
                    break
        answers = known or cls()
        answers.opening = frozenset(opening)
        return answers

    def replay(self, record: Record) -> None:
        """Take in one mark."""
        said = json.loads(record.data)
        if "commit" in said:
            self.committed += 1
            self.serials[said["commit"]] = self._last[said["pid"]] = self.committed
        if said.get("answered"):
            self.answered = max(self.answered, self._last[said["pid"]])
        if "forget" in said:
            self._touched.add(said["forget"])
        if "sweeping" in said:
            self._sweeping += said["sweeping"]
            self._swept = max(self._swept, said.get("newest", 0))
        self.has.update(said.get("has", ()))
        self.done.update(said.get("done", ()))

    def owed(self) -> Iterator[tuple[int, str, str | None]]:
        """Jobs that must be there: id, digest of the parameters, and of the result where it completed."""
        if self._sweeping:
            return
        for id_, parameters in self.has.items():
            if id_ > self._swept and id_ not in self._touched:
                yield id_, parameters, self.done.get(id_)


def write(files: Files, path: Path) -> None:
    """Put an image where a queue can be opened."""
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir(parents=True)
    for name, content in files.items():
        Path(f"{path}{NAMES[name]}").write_bytes(content)


def violations(files: Files, path: Path, answers: Answers, chance: random.Random) -> list[str]:
    """What is wrong with an image: corrupt, inconsistent, lost, stuck."""
    write(files, path)
    try:
        return _violations(path, answers, boots=chance.random() < 0.2)
    except Exception as error:  # noqa: BLE001  # whatever a damaged file leads to
        return [f"corrupt: {type(error).__name__}: {error}"]


def _violations(path: Path, answers: Answers, *, boots: bool) -> list[str]:
    with connect(path) as queue:
        session = queue._session
        if (integrity := session.rows("pragma integrity_check")) != [("ok",)]:
            return [f"corrupt: {integrity[:3]}"]
        jobs = {job.id: job for job in queue.list(limit=10_000)}
        found = [*_wrong_state(state(session), answers), *_missing(jobs, answers)]
        if queue.get(queue.enqueue("stamp", queue="after the cut")).status != "pending":
            found.append("stuck: a new job is not pending")
    if boots:
        found += _after_the_next_boot(path)
    return found


def _wrong_state(stored: str, answers: Answers) -> Iterator[str]:
    serial = answers.serials.get(stored, 0 if stored in answers.opening else None)
    if serial is None:
        yield "inconsistent: a state that was never to be committed"
    elif serial < answers.answered:
        yield f"lost: the state of commit {serial}, after commit {answers.answered} was answered"


def _missing(jobs: dict[int, Job], answers: Answers) -> Iterator[str]:
    for id_, parameters, result in answers.owed():
        job = jobs.get(id_)
        if job is None:
            yield f"lost: job {id_}"
        elif digest(dict(job.parameters)) != parameters:
            yield f"lost: the parameters of job {id_}"
        elif result is not None and (job.status != "completed" or digest(job.result) != result):
            yield f"lost: the completion of job {id_}, which is {job.status}"


def _after_the_next_boot(path: Path) -> list[str]:
    """All leases are void, and the queue works."""
    found = []
    with connect(path, boot="second boot") as queue:
        queue.rescue()
        if left := queue.counts()["processing"]:
            found.append(f"stuck: {left} jobs are leased to consumers of before the cut")
        job = queue.dequeue("after", queues=("after the cut",))
        queue.complete(job, {"works": True})
        if queue.get(job).result != {"works": True}:
            found.append("lost: a completion after the cut")
    return found
