"""Hypothesis drives the queue with random calls; after each one it must equal a plain model."""

import tempfile
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest
from fake_clock import FakeClock
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from postgresql import empty

import pq
from pq.job import FINISHED, TRANSITIONS, Job, Status

LEASE = 30
CONSUMERS = st.sampled_from(["c1", "c2"])


@dataclass(frozen=True)
class Model:
    """What a job must look like."""

    status: Status
    attempt: int = 0
    token: int = 0
    most: int = 3
    cancel: bool = False
    assigned: str | None = None
    key: str | None = None
    group: str | None = None
    priority: int = 0
    due: float = 0.0
    lease: float = field(default=0.0, compare=False)
    tries: int = 0


class QueueMachine(RuleBasedStateMachine):
    jobs = Bundle("jobs")
    leases = Bundle("leases")

    def __init__(self):
        super().__init__()
        self.clock = FakeClock()
        self.queue = self.open()
        self.model: dict[int, Model] = {}
        self.paused = False
        self.limits: dict[str, int] = {}

    def open(self):
        self.folder = tempfile.TemporaryDirectory()
        return pq.connect(Path(self.folder.name) / "queue.db", clock=self.clock)

    def teardown(self):
        self.queue.close()
        self.folder.cleanup()

    def change(self, job, **changes):
        self.model[job.id] = replace(self.model[job.id], **changes)
        self.fit(self.model[job.id].group)

    def of_group(self, group, *statuses):
        return [id_ for id_, model in self.model.items() if model.group == group and model.status in statuses]

    def at_its_turn(self, group):
        """Who comes to its turn in a limited group stands in line first."""
        return Status.BLOCKED if group in self.limits else Status.PENDING

    def fit(self, group):
        """Let in, or turn out, as many as the limit says."""
        room = self.limits.get(group, 1000) - len(self.of_group(group, Status.PENDING, Status.PROCESSING))
        blocked = sorted(self.of_group(group, Status.BLOCKED), key=lambda i: (-self.model[i].priority, i))
        pending = sorted(self.of_group(group, Status.PENDING), key=lambda i: (self.model[i].priority, -i))
        for id_ in blocked[: max(0, room)]:
            self.model[id_] = replace(self.model[id_], status=Status.PENDING)
        for id_ in pending[: max(0, -room)]:
            self.model[id_] = replace(self.model[id_], status=Status.BLOCKED)

    def end(self, job, status, **changes):
        self.change(job, status=status, cancel=False, tries=self.model[job.id].tries + 1, **changes)
        if status in FINISHED:
            self.change(job, assigned=None)

    def live(self, job: Job) -> bool:
        model = self.model.get(job.id)
        return model is not None and model.status is Status.PROCESSING and model.token == job.token

    # -- a producer

    @rule(
        target=jobs,
        delay=st.sampled_from([None, 0, 5, 100]),
        most=st.integers(1, 3),
        priority=st.integers(-1, 1),
        key=st.sampled_from([None, "k1"]),
        group=st.sampled_from([None, "g1", "g1"]),
    )
    def enqueue(self, delay, most, priority, key, group):
        if len(self.model) >= 4:  # few jobs, so that stale leases meet new ones
            return multiple()
        twins = [i for i, m in self.model.items() if key and m.key == key and m.status not in FINISHED]
        job = self.queue.enqueue(
            "t", delay=delay, max_attempts=most, priority=priority, unique_key=key, group=group
        )
        assert job.existed == bool(twins)
        if twins:
            assert job.id == twins[0]
            return multiple()
        status = Status.SCHEDULED if delay else self.at_its_turn(group)
        due = self.clock.wall + (delay or 0)
        self.model[job.id] = Model(status, most=most, priority=priority, key=key, group=group, due=due)
        self.fit(group)
        assert job.status is self.model[job.id].status
        return job

    # -- a consumer

    def promote(self):
        for id_, model in self.model.items():
            if model.status is Status.SCHEDULED and model.due <= self.clock.wall:
                self.model[id_] = replace(model, status=self.at_its_turn(model.group))
        for group in self.limits:
            self.fit(group)

    def claimable(self, consumer):
        if self.paused:
            return []
        ready = [
            (model.assigned is None, -model.priority, id_)
            for id_, model in self.model.items()
            if model.status is Status.PENDING and model.assigned in (None, consumer)
        ]
        return [id_ for *_order, id_ in sorted(ready)]

    def claimed(self, job):
        model = self.model[job.id]
        self.change(
            job,
            status=Status.PROCESSING,
            attempt=model.attempt + 1,
            token=model.token + 1,
            lease=self.clock.mono + LEASE,
        )

    @rule(target=leases, consumer=CONSUMERS, limit=st.integers(1, 3))
    def dequeue(self, consumer, limit):
        # A claim that finds nothing to do does not promote either; the model promotes when it may matter.
        self.promote()
        expected = self.claimable(consumer)[:limit]
        taken = self.queue.dequeue_many(consumer, limit, lease=timedelta(seconds=LEASE))
        assert [job.id for job in taken] == expected
        for job in taken:
            self.claimed(job)
        return multiple(*taken)

    def attempt(self, job, call, then):
        """The call must change what `then` says with a live lease, and nothing with a stale one."""
        if self.live(job):
            call()
            then()
        else:
            with pytest.raises(pq.LeaseLostError):
                call()

    @rule(job=leases)
    def heartbeat(self, job):
        if self.live(job) and self.model[job.id].cancel:
            with pytest.raises(pq.CancelRequestedError):
                self.queue.heartbeat(job)
            self.change(job, lease=self.clock.mono + LEASE)
            return
        self.attempt(
            job,
            lambda: self.queue.heartbeat(job, lease=timedelta(seconds=LEASE)),
            lambda: self.change(job, lease=self.clock.mono + LEASE),
        )

    @rule(job=leases)
    def complete(self, job):
        model = self.model.get(job.id)
        if model and model.status is Status.COMPLETED and model.token == job.token:
            self.queue.complete(job)
            return
        self.attempt(job, lambda: self.queue.complete(job), lambda: self.end(job, Status.COMPLETED))

    def failed(self, job, *, retry, delay):
        model = self.model[job.id]
        if model.cancel:
            self.end(job, Status.CANCELLED)
        elif retry and model.attempt < model.most:
            self.end(job, Status.SCHEDULED, due=self.clock.wall + delay)
        else:
            self.end(job, Status.FAILED)

    @rule(job=consumes(leases), retry=st.booleans())
    def fail(self, job, retry):
        self.attempt(
            job,
            lambda: self.queue.fail(job, "no", retry=retry, delay=timedelta(seconds=7)),
            lambda: self.failed(job, retry=retry, delay=7),
        )

    @rule(job=leases, snooze=st.booleans())
    def give_back(self, job, snooze):
        def call():
            if snooze:
                self.queue.snooze(job, timedelta(seconds=9))
            else:
                self.queue.release(job)

        def then():
            model = self.model[job.id]
            if model.cancel:
                self.end(job, Status.CANCELLED)
            elif snooze:
                self.end(job, Status.SCHEDULED, attempt=model.attempt - 1, due=self.clock.wall + 9)
            else:
                self.change(job, status=Status.PENDING, attempt=model.attempt - 1)

        self.attempt(job, call, then)

    @rule(target=leases, consumer=CONSUMERS)
    def a_lease_runs_out_and_somebody_takes_the_job(self, consumer):
        self.clock.advance(LEASE + 1)
        self.rescue()
        self.clock.advance(10)
        return self.dequeue(consumer, 2)

    @rule()
    def rescue(self):
        overdue = [
            id_
            for id_, model in self.model.items()
            if model.status is Status.PROCESSING and model.lease < self.clock.mono
        ]
        rescued = self.queue.rescue()
        assert sorted(job.id for job in rescued) == sorted(overdue)
        for job in rescued:
            self.failed(job, retry=True, delay=job.due_at.timestamp() - self.clock.wall)

    # -- a person

    @rule(job=jobs, verb=st.sampled_from(["cancel", "resubmit", "mark_failed", "assign", "delete"]))
    def act(self, job, verb):
        call = {
            "cancel": lambda: self.queue.cancel(job),
            "resubmit": lambda: self.queue.resubmit(job),
            "mark_failed": lambda: self.queue.mark_failed(job, "why"),
            "assign": lambda: self.queue.assign(job, "c2"),
            "delete": lambda: self.queue.delete(job),
        }[verb]
        model = self.model.get(job.id)
        if model is None:
            with pytest.raises(pq.JobNotFoundError):
                call()
            return
        if model.status not in TRANSITIONS[verb]:
            with pytest.raises(pq.TransitionError):
                call()
            return
        if verb == "resubmit" and model.key:
            twin = any(m.key == model.key and m.status not in FINISHED for m in self.model.values())
            if twin:
                with pytest.raises(pq.DuplicateJobError):
                    call()
                return
        call()
        running = model.status is Status.PROCESSING
        tries = model.tries + running
        if verb == "delete":
            del self.model[job.id]
            self.fit(model.group)
        elif verb == "cancel" and running:
            self.change(job, cancel=True)
        elif verb == "cancel":
            self.change(job, status=Status.CANCELLED, assigned=None)
        elif verb == "mark_failed":
            self.change(job, status=Status.FAILED, cancel=False, assigned=None, tries=tries)
        elif verb == "resubmit":
            status, most = self.at_its_turn(model.group), max(model.most, model.attempt + 1)
            self.change(job, status=status, most=most, due=self.clock.wall)
        else:
            status = Status.PENDING if running else model.status
            most = max(model.most, model.attempt + running)
            self.change(job, status=status, assigned="c2", most=most, cancel=False, tries=tries)

    @rule(most=st.sampled_from([None, 1, 1, 2]))
    def limit_the_group(self, most):
        self.queue.limit_group("g1", most)
        self.limits = {} if most is None else {"g1": most}
        self.fit("g1")

    @rule(pause=st.booleans())
    def pause_or_resume(self, pause):
        (self.queue.pause if pause else self.queue.resume)("default")
        self.paused = pause

    @rule(seconds=st.sampled_from([1, 10, 31, 200]))
    def time_passes(self, seconds):
        self.clock.advance(seconds)

    # -- what must hold

    @invariant()
    def the_database_equals_the_model(self):
        found = {}
        for job in self.queue.list(limit=1000):
            expected = self.model.get(job.id)
            status = job.status
            # Due jobs are promoted by the next claim that looks; both words are right until then.
            if expected and {status, expected.status} == {Status.SCHEDULED, Status.PENDING}:
                assert job.due_at.timestamp() <= self.clock.wall
                status = expected.status
            found[job.id] = Model(
                status,
                attempt=job.attempt,
                token=job.token,
                most=job.max_attempts,
                cancel=job.cancel_requested,
                assigned=job.assigned_to,
                key=job.unique_key,
                group=job.group,
                priority=job.priority,
                due=job.due_at.timestamp(),
                tries=len(self.queue.attempts(job)),
            )
        assert {i: replace(m, due=round(m.due, 3)) for i, m in found.items()} == {
            i: replace(m, due=round(m.due, 3)) for i, m in self.model.items()
        }

    @invariant()
    def the_counters_equal_the_rows(self):
        rows = {}
        for job in self.queue.list(limit=1000):
            rows[job.status.value] = rows.get(job.status.value, 0) + 1
        assert {status: jobs for status, jobs in self.queue.counts().items() if jobs} == rows


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.deep
class TestQueueMachineDeep(QueueMachine.TestCase):
    settings = settings(
        max_examples=3000, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
    )


class PostgreSQLMachine(QueueMachine):
    url = ""

    def open(self):
        empty(self.url)
        return pq.connect(self.url, clock=self.clock)

    def teardown(self):
        self.queue.close()


@pytest.mark.usefixtures("machine_url")
class TestPostgreSQLMachine(PostgreSQLMachine.TestCase):
    settings = settings(
        max_examples=20, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )


@pytest.mark.deep
@pytest.mark.usefixtures("machine_url")
class TestPostgreSQLMachineDeep(PostgreSQLMachine.TestCase):
    settings = settings(
        max_examples=1000, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
    )


@pytest.fixture
def machine_url(shared_postgresql_url, monkeypatch):
    monkeypatch.setattr(PostgreSQLMachine, "url", shared_postgresql_url)
    yield
    empty(shared_postgresql_url)
