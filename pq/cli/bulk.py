"""One action on many jobs: choose and count them, ask, then do it to those that stayed as counted."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from pq.cli.invocation import confirmed, every_job, write_json
from pq.cli.terminal import say
from pq.errors import DuplicateJobError, JobNotFoundError, TransitionError
from pq.job import TRANSITIONS, Job, Status

if TYPE_CHECKING:
    from pq.interface import PersistentQInterface

DONE = {
    "resubmit": "resubmitted",
    "mark_failed": "marked as failed",
    "cancel": "cancelled",
    "assign": "assigned",
    "delete": "deleted",
}
SHOWN_PROBLEMS = 20
CHUNK = 100  # jobs in one transaction: others wait a few milliseconds

Act = Callable[["PersistentQInterface", int], object]


class Counted(NamedTuple):
    """A job as it was when it was counted; `attempt` and `token` tell whether it ran since."""

    id: int
    status: Status
    attempt: int
    token: int
    assigned_to: str | None


@dataclass(frozen=True)
class Choice:
    """The jobs that a bulk action means, frozen; `named` where the person gave their ids."""

    jobs: tuple[Counted, ...]
    problems: tuple[str, ...]
    named: bool

    @property
    def single(self) -> bool:
        """Whether one id alone was given."""
        return self.named and len(self.jobs) + len(self.problems) == 1

    def by_status(self) -> dict[str, int]:
        """How many jobs of each status."""
        return by_status(job.status for job in self.jobs)

    def able(self, verb: str) -> tuple[Counted, ...]:
        """Those that `verb` may change, in the order of their ids."""
        return tuple(sorted(job for job in self.jobs if job.status in TRANSITIONS[verb]))

    def sentence(self, verb: str) -> str:
        """`12 jobs match: 9 failed, 3 cancelled`, and which of them the verb cannot change."""
        text = f"{_jobs(len(self.jobs))} {'matches' if len(self.jobs) == 1 else 'match'}"
        if self.jobs:
            text += f": {_listed(self.by_status())}"
        unable = by_status(job.status for job in self.jobs if job.status not in TRANSITIONS[verb])
        if unable:
            text += f"; cannot be {DONE[verb]}: {_listed(unable)}"
        return text


@dataclass
class Tally:
    """What became of a bulk action, job by job."""

    changed: list[int] = field(default_factory=list)
    skipped: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Take over what became of some more jobs."""
        self.changed += other.changed
        self.skipped += other.skipped
        self.problems += other.problems

    def sentences(self, verb: str) -> list[str]:
        """What to tell the person."""
        lines = [f"{_jobs(len(self.changed))} {DONE[verb]}"]
        if self.skipped:
            ids = ", ".join(map(str, self.skipped[:SHOWN_PROBLEMS]))
            more = ", …" if len(self.skipped) > SHOWN_PROBLEMS else ""
            lines.append(f"{_jobs(len(self.skipped))} skipped, changed since the count: {ids}{more}")
        return lines


def by_status(statuses: Iterable[Status]) -> dict[str, int]:
    """How often each status occurs, the most frequent first."""
    counts = Counter(statuses)
    found = (status for status in Status if counts[status])
    return {status.value: counts[status] for status in sorted(found, key=lambda status: -counts[status])}


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {status}" for status, number in counts.items())


def _jobs(number: int) -> str:
    return "1 job" if number == 1 else f"{number} jobs"


def counted(job: Job) -> Counted:
    """The part of a job that must stay the same between the count and the action."""
    return Counted(job.id, job.status, job.attempt, job.token, job.assigned_to)


def choose(
    queue: "PersistentQInterface", ids: Sequence[int], filters: Mapping[str, Any], *, everything: bool
) -> Choice:
    """Count the jobs meant by ids, by filters, or by --all; none or two of these is a usage error."""
    if bool(ids) + bool(filters) + everything != 1:
        raise typer.BadParameter("give the ids of jobs, or filters such as --status failed, or --all")
    if not ids:
        return Choice(tuple(counted(job) for job in every_job(queue, **filters)), (), named=False)
    found, problems = [], []
    for job_id in dict.fromkeys(ids):
        try:
            found.append(counted(queue.get(job_id)))
        except JobNotFoundError as error:
            if len(ids) == 1:
                raise
            problems.append(str(error))
    return Choice(tuple(found), tuple(problems), named=True)


def run_bulk(
    queue: "PersistentQInterface",
    verb: str,
    choice: Choice,
    act: Act,
    *,
    ask: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Say the count, ask where `ask`, act, and report. One single id that cannot be changed raises."""
    targets = choice.jobs if choice.named else choice.able(verb)
    tally = Tally(problems=list(choice.problems))
    if not as_json and not choice.single:
        say(choice.sentence(verb))
    if targets and not dry_run:
        what = f"job {targets[0].id}" if choice.single else _jobs(len(targets))
        confirmed(f"{verb.replace('_', ' ')} {what}", yes=not ask)
        try:
            perform(queue, targets, act, tally, tell_errors=choice.single)
        except KeyboardInterrupt:
            say(f"interrupted: {len(tally.changed)} of {_jobs(len(targets))} {DONE[verb]}", error=True)
            raise
    report(queue, verb, choice, tally, dry_run=dry_run, as_json=as_json)
    if choice.named and not dry_run and not tally.changed:
        raise typer.Exit(1)


def perform(
    queue: "PersistentQInterface", jobs: Sequence[Counted], act: Act, tally: Tally, *, tell_errors: bool
) -> None:
    """Do it to each job that is still as it was counted; look and change are one transaction."""
    for start in range(0, len(jobs), CHUNK):
        part = Tally()
        with queue.transaction():
            for job in jobs[start : start + CHUNK]:
                _perform_one(queue, job, act, part, tell_errors=tell_errors)
        tally.add(part)  # only now is it durable


def _perform_one(
    queue: "PersistentQInterface", job: Counted, act: Act, tally: Tally, *, tell_errors: bool
) -> None:
    try:
        if counted(queue.get(job.id)) != job:
            tally.skipped.append(job.id)
            return
        act(queue, job.id)
        tally.changed.append(job.id)
    except JobNotFoundError:
        tally.skipped.append(job.id)
    except (TransitionError, DuplicateJobError) as error:  # about this job alone
        if tell_errors:
            raise
        tally.problems.append(str(error))


def report(
    queue: "PersistentQInterface", verb: str, choice: Choice, tally: Tally, *, dry_run: bool, as_json: bool
) -> None:
    """The outcome on stdout; on stderr the jobs that refused."""
    if as_json:
        write_json(
            {
                "verb": verb,
                "dry_run": dry_run,
                "matched": len(choice.jobs),
                "by_status": choice.by_status(),
                "would_change": len(choice.able(verb)),
                "changed": tally.changed,
                "skipped": tally.skipped,
                "problems": tally.problems,
            }
        )
    elif choice.single:
        say(_one(queue, verb, choice, tally, dry_run=dry_run))
    elif choice.jobs and not dry_run:
        for sentence in tally.sentences(verb):
            say(sentence)
    for problem in tally.problems[:SHOWN_PROBLEMS]:
        say(f"pq: {problem}", error=True)
    if len(tally.problems) > SHOWN_PROBLEMS:
        say(f"pq: and {len(tally.problems) - SHOWN_PROBLEMS} more", error=True)


def _one(queue: "PersistentQInterface", verb: str, choice: Choice, tally: Tally, *, dry_run: bool) -> str:
    job = choice.jobs[0]
    if dry_run:
        return choice.sentence(verb)
    if not tally.changed:
        return f"job {job.id} skipped: it changed since the count"
    if verb == "delete":
        return f"job {job.id} deleted"
    if verb == "cancel" and job.status is Status.PROCESSING:
        return f"job {job.id} is asked to stop; it is cancelled when its consumer has stopped it"
    return f"job {job.id} {DONE[verb]}: it is {queue.get(job.id).status}"
