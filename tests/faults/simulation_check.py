"""What must hold after every commit of a simulated history, whoever made it."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from pq.job import FINISHED, UNFINISHED, Job

COLUMNS = (
    "id, queue, task, status, attempt, max_attempts, token, consumer, incarnation, lease_until, unique_key, "
    "assigned_to, job_group, due_at, error, result"
)
AFTER = {
    "completed": {"completed"},
    "failed": {"scheduled", "failed", "cancelled"},
    "released": {"pending", "blocked", "cancelled"},
    "snoozed": {"scheduled", "cancelled"},
}
TAKING = {"dequeue_many", "settle"}
BY_A_PERSON = {"cancel", "resubmit", "mark_failed", "assign", "delete_all"}
REMOVING = {"delete", "delete_all", "prune"}


class ViolationError(AssertionError):
    """The queue broke a promise."""


@dataclass(frozen=True, slots=True)
class Row:
    """One job as it stands in the table."""

    id: int
    queue: str
    task: str
    status: str
    attempt: int
    max_attempts: int
    token: int
    consumer: str | None
    incarnation: str | None
    lease_until: float | None
    unique_key: str | None
    assigned_to: str | None
    group: str | None
    due_at: float
    error: str | None
    result: str | None

    @property
    def is_running(self) -> bool:
        return self.status == "processing"


class Checker:
    """Compares every committed state with the one before it."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.rows: dict[int, Row] = {}
        self.paused: set[str] = set()
        self.limits: dict[str, int] = {}
        self.seen: set[int] = set()
        self.completed: set[tuple[int, int]] = set()
        self.claimed: dict[tuple[int, int], str] = {}
        self.commits = 0

    def demand(self, condition: bool, text: str) -> None:
        if not condition:
            raise ViolationError(f"seed {self.world.seed}, step {self.world.steps}: {text}")

    # -- after each commit ------------------------------------------------------------------------

    def committed(self, process: Any, session: Any) -> None:
        """Look at what the transaction changed."""
        self.commits += 1
        execute = session.connection.execute
        rows = {row[0]: Row(*row) for row in execute(f"select {COLUMNS} from jobs order by id").fetchall()}
        before, self.rows = self.rows, rows
        process.live = {
            told for told in process.told if (row := before.get(told[0])) and row.is_running
            and row.token == told[1]
        }  # fmt: skip
        for id_ in before.keys() - rows.keys():
            self._removed(before[id_], process)
        for row in rows.values():
            old = before.get(row.id)
            if old is None:
                self._added(row, process)
            elif old != row:
                self._changed(old, row, process)
        self._whole(execute)

    def _added(self, row: Row, process: Any) -> None:
        self.demand(row.id not in self.seen, f"id {row.id} was used again")
        self.demand(process.verb == "enqueue_many" and not row.is_running, f"{process.verb} made {row}")
        self.seen.add(row.id)

    def _removed(self, old: Row, process: Any) -> None:
        by_hand = process.verb in REMOVING and not (old.is_running and process.verb != "delete_all")
        self.demand(by_hand, f"job {old.id} is gone after {process.verb} by {process.name}")

    def _changed(self, old: Row, new: Row, process: Any) -> None:
        verb, who = process.verb, f"{process.verb} by {process.name}: {old} became {new}"
        told = process.told.get((old.id, old.token))
        is_taken = new.token != old.token
        if old.is_running and (is_taken or not new.is_running):
            self._left(old, new, process, told, who)
        elif old.is_running and new.lease_until != old.lease_until:
            self.demand(told == "heartbeat" or (verb == "open" and new.lease_until == -1), f"lease, {who}")
        if not old.is_running and new.status != old.status and not is_taken:
            is_due = old.status == "scheduled" and new.status in ("pending", "blocked") and verb in TAKING
            unblocked = (old.status, new.status) == ("blocked", "pending")
            turned_out = (old.status, new.status) == ("pending", "blocked") and verb == "limit_group"
            self.demand(is_due or unblocked or turned_out or verb in BY_A_PERSON, f"status, {who}")
        if is_taken:
            self._taken(old, new, process, told, who)
        if new.status == "failed":
            self.demand(bool(new.error), f"failed without a reason, {who}")

    def _left(self, old: Row, new: Row, process: Any, told: str | None, who: str) -> None:
        if process.verb == "settle" and told is not None:
            self.demand(self._may_be(new, AFTER[told]), f"another end than told, {who}")
            if new.status == "completed":
                self.completed.add((old.id, old.token))
        elif process.verb == "rescue":
            self.demand(self._is_forsaken(old), f"a live consumer's job was rescued, {who}")
        else:
            self.demand(process.verb in BY_A_PERSON, f"taken from its consumer, {who}")

    def _is_forsaken(self, row: Row) -> bool:
        """Whether nobody works on it any more, as far as one who looks from outside can tell."""
        return row.is_running and (
            (row.lease_until or 0) < self.world.clock.mono
            or (row.incarnation is not None and row.incarnation not in self.world.living)
            or self.claimed[row.id, row.token] != self.world.clock.boot_id
        )

    def forsaken(self) -> list[Row]:
        """What a rescue that begins now must take back, unless its lease is extended meanwhile."""
        return [row for row in self.rows.values() if self._is_forsaken(row)]

    def rescued(self, forsaken: list[Row]) -> None:
        left = [row for row in forsaken if self.rows.get(row.id) == row]
        self.demand(not left, f"a rescue left behind: {left}")

    def _may_be(self, row: Row, statuses: set[str]) -> bool:
        """Whether the row has such a status, or went on from there in the same transaction."""
        if row.status in ("pending", "blocked") and "scheduled" in statuses:
            return row.due_at <= self.world.clock.wall
        return row.status in statuses or (row.is_running and bool(statuses & {"pending", "scheduled"}))

    def _taken(self, old: Row, new: Row, process: Any, told: str | None, who: str) -> None:
        self.demand(process.verb in TAKING and new.is_running and new.token == old.token + 1, f"token, {who}")
        self.demand((new.id, new.token) not in self.claimed, f"a token was used twice, {who}")
        self.claimed[new.id, new.token] = self.world.clock.boot_id
        given_back = old.is_running and told in ("released", "snoozed")
        self.demand(new.attempt == old.attempt + 1 - given_back, f"the attempt was not counted, {who}")
        self.demand(old.assigned_to in (None, new.consumer), f"assigned to another, {who}")
        self.demand(old.queue not in self.paused, f"from a paused queue, {who}")
        self.demand(old.due_at <= self.world.clock.wall or old.status in ("pending", "blocked", "processing"),
                    f"before it was due, {who}")  # fmt: skip
        running = sum(row.is_running and row.group == new.group for row in self.rows.values())
        self.demand(running <= self.limits.get(new.group, running), f"the group had no room, {who}")

    def _whole(self, execute: Any) -> None:
        """What holds for the table as a whole."""
        rows = self.rows.values()
        keys = Counter(row.unique_key for row in rows if row.unique_key and row.status in UNFINISHED)
        self.demand(all(number == 1 for number in keys.values()), f"two unfinished jobs of a key: {keys}")
        self.demand(all(row.attempt <= row.max_attempts for row in rows), "more attempts than allowed")
        counted = {
            tuple(row[:3]): row[3]
            for row in execute("select queue, task, status, jobs from counters where jobs > 0").fetchall()
        }
        self.demand(counted == Counter((row.queue, row.task, row.status) for row in rows), "wrong counters")
        self.limits = dict(execute("select job_group, max_running from group_limits").fetchall())
        inside = Counter((row.group, row.status) for row in rows)
        for group in {row.group for row in rows}:
            pending, blocked = inside[group, "pending"], inside[group, "blocked"]
            room = self.limits.get(group, len(rows)) - pending - inside[group, "processing"]
            self.demand(room >= 0 or not pending, f"group {group} has {-room} too many, and they may start")
            self.demand(room <= 0 or not blocked, f"group {group} has room for {room}, and {blocked} wait")
        self.paused = {name for (name,) in execute("select name from queues").fetchall()}

    # -- after each answer ------------------------------------------------------------------------

    def enqueued(self, jobs: list[Job]) -> None:
        self.demand(all(job.id in self.seen for job in jobs), "an acknowledged enqueue is not there")

    def took(self, process: Any, jobs: list[Job]) -> None:
        for job in jobs:
            self.demand((job.id, job.token) in self.claimed, f"job {job.id} was handed out without a lease")
            self.demand(job.consumer == process.name, f"{process.name} was given another's job {job.id}")

    def settled(self, process: Any, lost: list[Job]) -> None:
        """The live ones were accepted, the stale ones were not, and a repeated completion was."""
        refused = {(job.id, job.token) for job in lost}
        for told, kind in process.told.items():
            row = self.rows.get(told[0])
            if told in process.live:
                self.demand(told not in refused, f"the live lease {told} was refused")
            elif kind == "completed" and told in self.completed:
                same = row is not None and row.status == "completed" and row.token == told[1]
                self.demand(not (same and told in refused), f"the repeated completion {told} was refused")
            else:
                self.demand(told in refused, f"the stale lease {told} was accepted")

    # -- at the end -------------------------------------------------------------------------------

    def is_drained(self) -> bool:
        return all(row.status in FINISHED for row in self.rows.values())

    def finished(self, queue: Any) -> None:
        """The history that is kept agrees with what was seen."""
        self.demand(
            self.is_drained(), f"stuck: {[row for row in self.rows.values() if row.status not in FINISHED]}"
        )
        for row in self.rows.values():
            done = [one for one in queue.attempts(row.id) if one.outcome == "completed"]
            seen = [told for told in self.completed if told[0] == row.id]
            self.demand(len(done) == len(seen), f"job {row.id} was completed {len(seen)} times, kept: {done}")
            if row.status == "completed":
                self.demand(row.result == str(row.token), f"the result of another try: {row}")
