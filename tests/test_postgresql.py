"""What only the PostgreSQL backend promises: a server's clock, its transactions, its words, its secrets."""

import json
import logging
import os
import subprocess
import sys
from datetime import timedelta
from multiprocessing import TimeoutError as NotYetError
from multiprocessing.pool import ThreadPool

import psycopg
import pytest
from processes import run_python, wait_for
from sqlalchemy import text

import pq
from pq import NewJob, Outcome, Status
from pq.listing import asked
from pq.postgresql import schema, sql, work
from pq.postgresql.session import native
from pq.sql import listing, statements

SECOND = timedelta(seconds=1)


@pytest.fixture
def queue(url):
    with pq.connect(url) as opened:
        yield opened


@pytest.fixture
def raw(url):
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


# -- the server's clock ---------------------------------------------------------------------------

ON_A_HOST_WITH_ANOTHER_CLOCK = """
import sys, time
shift = float(sys.argv[2])
now, monotonic = time.time, time.monotonic
time.time = lambda: now() + shift
time.monotonic = lambda: monotonic() + shift
import datetime, pq
with pq.connect(sys.argv[1]) as queue:
    rescued = [job.id for job in queue.rescue()]
    taken = queue.dequeue("elsewhere", lease=datetime.timedelta(seconds=30))
    late = queue.enqueue("late", delay=3600, queue="other")
    soon = queue.enqueue("soon", queue="other")
    again = queue.dequeue("elsewhere", queues=("other",))
    print(rescued, taken and taken.id, late.status, soon.status, again.task)
"""


@pytest.mark.parametrize("shift", [600, -600])
def test_a_host_whose_clock_is_ten_minutes_off_neither_steals_nor_loses_leases(url, queue, raw, shift):
    held = queue.enqueue("stamp")
    queue.dequeue("here", lease=timedelta(seconds=30))
    free = queue.enqueue("stamp")
    said = run_python(ON_A_HOST_WITH_ANOTHER_CLOCK, url, str(shift))
    assert said == f"[] {free.id} scheduled pending soon"
    assert queue.rescue() == []
    left = dict(raw.execute(
        "select id, lease_until - extract(epoch from clock_timestamp()) from pq.jobs where queue = 'default'"
    ).fetchall())  # fmt: skip
    assert 0 < left[held.id] <= 30
    assert 0 < left[free.id] <= 30
    (late,) = queue.list(task="late")
    assert late.due_at - late.created_at == timedelta(hours=1)


# -- transactions -----------------------------------------------------------------------------------


def test_jobs_and_the_users_own_rows_are_stored_together_or_not_at_all(queue, raw):
    raw.execute("drop table if exists public.invoices")
    raw.execute("create table public.invoices (number integer)")
    with pytest.raises(ZeroDivisionError), queue.transaction() as connection:  # noqa: PT012
        connection.execute(text("insert into invoices values (:number)"), {"number": 1})
        queue.enqueue("print", {"number": 1})
        _ = 1 / 0
    assert raw.execute("select count(*) from invoices").fetchall() == [(0,)]
    assert queue.counts()["pending"] == 0
    with queue.transaction() as connection:
        connection.execute(text("insert into invoices values (:number)"), {"number": 2})
        with queue.transaction() as same:
            assert same is connection
            queue.enqueue("print", {"number": 2})
    assert raw.execute("select number from invoices").fetchall() == [(2,)]
    assert queue.counts()["pending"] == 1


def test_a_verb_that_fails_within_a_transaction_leaves_the_rest_whole(queue, raw):
    first = queue.enqueue("a", unique_key="k")
    queue.complete(queue.dequeue("c"))
    with queue.transaction():
        queue.enqueue("b", unique_key="k")
        with pytest.raises(pq.DuplicateJobError, match="is pending"):
            queue.resubmit(first)
        with pytest.raises(pq.TransitionError):
            queue.cancel(first)
        queue.enqueue("c")
    assert sorted(job.task for job in queue.pending()) == ["b", "c"]


def test_a_resubmit_that_loses_the_race_for_its_key_names_the_winner(url, queue):
    first = queue.enqueue("a", unique_key="k")
    queue.complete(queue.dequeue("c"))
    with pq.connect(url) as other, ThreadPool(1) as pool:
        with other.transaction():
            winner = other.enqueue("b", unique_key="k")
            losing = pool.apply_async(queue.resubmit, (first,))
            with pytest.raises(NotYetError):
                losing.get(0.3)  # the index makes it wait for the other's transaction
        with pytest.raises(pq.DuplicateJobError, match=f"job {winner.id} is pending"):
            losing.get(30)


def test_what_a_person_decides_waits_for_a_consumer_that_is_just_finishing(url, queue):
    job = queue.enqueue("a")
    taken = queue.dequeue("c")
    with pq.connect(url) as person, ThreadPool(1) as pool:
        with queue.transaction():
            queue.complete(taken)
            asked = pool.apply_async(person.mark_failed, (job, "too slow"))
            with pytest.raises(NotYetError):
                asked.get(0.3)
        with pytest.raises(pq.TransitionError, match="is completed"):
            asked.get(30)
    assert queue.get(job).status is Status.COMPLETED


def test_a_setting_that_is_read_within_a_transaction_holds_until_its_end(url, queue):
    with pq.connect(url) as other, ThreadPool(1) as pool:

        def look():
            with other.transaction():
                return other.setting("seen")

        with queue.transaction():
            assert queue.setting("seen") is None
            looking = pool.apply_async(look)
            with pytest.raises(NotYetError):
                looking.get(0.3)
            queue.set_setting("seen", "yes")
        assert looking.get(30) == "yes"


# -- waking -------------------------------------------------------------------------------------------


def test_who_waits_is_woken_by_the_server_and_not_by_looking(url, queue, monkeypatch):
    monkeypatch.setattr(work, "SLOW_POLL_SECONDS", 1000.0)
    monkeypatch.setattr(work, "SECOND_LOOK_SECONDS", 1000.0)
    assert queue.dequeue("c") is None
    with ThreadPool(1) as pool:
        waiting = pool.apply_async(lambda: (queue.dequeue("c"), queue.wait_for_work(timedelta(seconds=60))))
        listener = queue._listening()
        wait_for(lambda: "default" in listener._held, what="somebody to wait")
        run_python("import sys, pq; pq.connect(sys.argv[1]).enqueue('stamp')", url)
        assert waiting.get(60) == (None, True)


def test_nobody_is_notified_while_nobody_waits(url, queue):
    with psycopg.connect(url, autocommit=True) as hearing:
        hearing.execute("listen pq")
        queue.enqueue("unheard")
        queue._listening().announce(["other"])
        queue.enqueue("unheard")
        queue.enqueue("heard", queue="other")
        assert [word.payload for word in hearing.notifies(timeout=0.5)] == ["other"]


def test_a_wait_ends_when_a_scheduled_job_is_due(queue):
    queue.enqueue("later", delay=0.3)
    assert queue.dequeue("c") is None
    assert queue.wait_for_work(timedelta(seconds=60)) is True
    assert queue.dequeue("c").task == "later"


def test_a_thousand_jobs_need_no_more_connections_than_one(queue, raw):
    queue.register_consumer("c")
    queue.enqueue_many([NewJob("stamp")] * 1000)
    jobs = queue.dequeue_many("c", 10)
    while jobs:
        jobs = queue.settle([Outcome(job) for job in jobs], consumer="c", limit=10).jobs
    assert queue.counts()["completed"] == 1000
    ours = """
        select count(*) from pg_stat_activity
        where application_name like 'pq%' and datname = current_database()"""
    assert raw.execute(ours).fetchall() == [(2,)]  # one from the pool, and the listener's


# -- counters ---------------------------------------------------------------------------------------


def test_counters_and_buckets_are_the_same_before_and_after_they_are_folded(queue, raw):
    queue.enqueue_many([NewJob("a"), NewJob("b"), NewJob("a", queue="other", delay=60)])
    queue.complete(queue.dequeue("c"))
    start = queue.list()[0].created_at - timedelta(minutes=2)

    def told():
        return sorted(map(str, queue.counters())), sorted(map(str, queue.buckets(start)))

    before = told()
    assert raw.execute("select count(*) > 0 from pq.counter_deltas").fetchall() == [(True,)]
    raw.execute("select pq.fold(1)")
    assert raw.execute("select count(*) from pq.counter_deltas").fetchall() == [(0,)]
    assert raw.execute("select count(*) from pq.bucket_deltas").fetchall() == [(0,)]
    assert told() == before
    queue.fail(queue.dequeue("c"), "no", retry=False)
    raw.execute("select pq.fold(1)")
    assert queue.counts() == {status: len(queue.list(status=status)) for status in Status}


PARAMETERS = {"queue": "default", "consumer": "c", "limit": 1, "id": 1, "token": 1, "now": None,
              "monotonic": None, "lease": 30.0, "incarnation": None, "promoted": False, "alone": True,
              "ids": [1], "tokens": [1], "results": [None], "progress": None, "message": None, "dead": [],
              "unique_key": "k", "keys": ["k"]}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "indexes"),
    [
        ("CLAIM", {"jobs_due", "jobs_ready", "jobs_assigned", "jobs_pkey"}),
        ("SETTLE", {"jobs_due", "jobs_ready", "jobs_assigned", "jobs_pkey"}),
        ("LOOK", {"jobs_due", "jobs_ready", "jobs_assigned"}),
        ("TWINS", {"jobs_unique"}),
        ("HEARTBEAT", set()),
        ("STANDING", {"jobs_pkey"}),
        ("GET", {"jobs_pkey"}),
    ],
)
def test_a_statement_reads_its_own_index_and_never_all_jobs(queue, raw, name, indexes):
    queue.enqueue_many([NewJob("stamp", delay=3600)] * 500 + [NewJob("stamp")] * 500)
    statement = native(getattr(sql, name, None) or getattr(statements, name))
    with queue._session._connected() as connection:
        rows = connection.execute(f"explain (format json) {statement}", PARAMETERS).fetchall()
    plan = json.dumps(rows[0][0])
    assert "Seq Scan" not in plan.replace("Seq Scan on queues", "")
    assert "Hashed" not in plan
    used = {word for word in indexes if f'"Index Name": "{word}"' in plan}
    assert used == indexes, plan


@pytest.mark.parametrize("order", ["priority", "due", "finished"])
def test_each_order_of_the_list_walks_along_its_index(queue, raw, order):
    queue.enqueue_many([NewJob("stamp", delay=3600)] * 300 + [NewJob("stamp")] * 3000)
    queue.settle([Outcome(job) for job in queue.dequeue_many("c", 100)])
    raw.execute("analyze pq.jobs")
    # Among equals of priority the next page may as well be found by id.
    after = None if order == "priority" else queue.list(order=order, limit=1)[0]
    filters = dict.fromkeys(("status", "search", "finished_after", "finished_before", "within"))
    page = asked(queue.get, **filters, order=order, after=after, limit=50)
    for statement, parameters in listing.statements(page, sql.FILTERS, queue.with_index):
        with queue._session._connected() as connection:
            rows = connection.execute(f"explain (format json) {native(statement)}", parameters).fetchall()
        plan = json.dumps(rows[0][0])
        assert f'"Index Name": "jobs_{order}"' in plan, plan
        assert "Sort" not in plan, plan


# -- the schema ---------------------------------------------------------------------------------------


def test_many_processes_open_an_empty_database_at_once(postgresql_url):
    code = "import sys, pq; print(pq.connect(sys.argv[1]).enqueue('stamp').status)"
    running = [
        subprocess.Popen([sys.executable, "-c", code, postgresql_url], stdout=subprocess.PIPE, text=True)
        for _ in range(5)
    ]
    assert [process.communicate(timeout=120)[0] for process in running] == ["pending\n"] * 5
    with pq.connect(postgresql_url) as queue:
        assert queue.counts()["pending"] == 5


def test_an_old_client_is_told_that_the_schema_is_newer(postgresql_url):
    pq.connect(postgresql_url).close()
    with psycopg.connect(postgresql_url) as connection:
        connection.execute("insert into pq.migrations values (99, 'of the future')")
    with pytest.raises(pq.StorageError, match=r"newer version of pq \(step of the future\); upgrade pq"):
        pq.connect(postgresql_url)


def test_a_schema_of_another_program_is_left_alone(postgresql_url):
    with psycopg.connect(postgresql_url) as connection:
        connection.execute("create schema pq")
        connection.execute("create table pq.jobs (mine integer)")
    with pytest.raises(pq.StorageError, match="of another program, with a table jobs"):
        pq.connect(postgresql_url)


def test_tables_of_the_user_may_have_the_same_names(queue, raw):
    raw.execute("drop table if exists public.jobs")
    raw.execute("create table public.jobs (mine integer)")
    try:
        queue.enqueue("stamp")
        assert queue.counts()["pending"] == 1
    finally:
        raw.execute("drop table public.jobs")


def test_every_step_has_its_number():
    assert [number for number, _, _ in schema.STEPS] == list(range(1, len(schema.STEPS) + 1))


# -- secrets and errors -----------------------------------------------------------------------------

SECRET = "open-sesame"


def test_a_password_is_shown_nowhere(url, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    host = url.partition("?host=")[2]
    place = url.partition("?")[0].replace("postgres@", f"postgres:{SECRET}@")
    address = f"{place}?host={host}&password={SECRET}" if host else place
    with pq.connect(address) as queue:
        queue.enqueue("stamp")
        with queue.transaction() as connection:
            shown = [queue.url, repr(queue), repr(connection), repr(connection.engine)]
        queue._listening()
    with pytest.raises(pq.StorageError) as caught:
        pq.connect(f"postgresql://postgres:{SECRET}@127.0.0.1:1/nowhere?password={SECRET}")
    shown += [str(caught.value), repr(caught.value.__cause__), caplog.text]
    assert not [one for one in shown if SECRET in one]
    assert "127.0.0.1:1/nowhere" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda url: url.replace("/pq_test_", "/no_such_"), "/no_such_.*does not exist"),
        (lambda url: url.replace("postgres@", "nobody_at_all@"), "nobody_at_all.* does not exist"),
        (lambda _: "postgresql://host:port/database", "address cannot be read"),
        (lambda _: "mysql://host/database", "give the path of an SQLite file, or postgresql://…"),
    ],
)
def test_a_wrong_address_is_told_in_one_line(url, change, told):
    with pytest.raises(pq.StorageError, match=told) as caught:
        pq.connect(change(url))
    assert "\n" not in str(caught.value)


def test_the_child_of_a_fork_has_connections_of_its_own(queue, raw):
    queue.register_consumer("parent")
    queue.enqueue("parent")
    child = os.fork()
    if child == 0:
        try:
            queue.enqueue("child")
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    queue.enqueue("parent again")
    assert queue.counts()["pending"] == 3
    assert queue.consumers()[0].alive
