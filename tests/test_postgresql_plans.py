"""On a server a page is a range of one index, also by the plan that is made without knowing the values."""

import re
from datetime import timedelta

import pytest

import pq
from pq.listing import asked
from pq.postgresql import sql
from pq.postgresql.session import native
from pq.sql import listing


@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize("after", [None, 50])
def test_a_page_of_a_status_does_not_walk_the_jobs_of_others(postgresql_url, order, after):
    with pq.connect(postgresql_url) as queue:
        queue.enqueue_many([pq.NewJob("a") for _ in range(100)])
        queue.enqueue_many([pq.NewJob("a", delay=timedelta(days=1)) for _ in range(2_000)])
        page = asked(
            queue.get, status="pending", search=None, order=order, finished_after=None, finished_before=None,
            after=after, within=None, limit=50,
        )  # fmt: skip
        ((statement, values),) = listing.statements(page, sql.FILTERS, queue.with_index)
        names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", native(statement))))
        numbered = re.sub(
            r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", native(statement)
        ).replace("%%", "%")
        with queue.transaction() as connection:
            connection.exec_driver_sql("analyze pq.jobs")
            connection.exec_driver_sql("set local enable_seqscan = off")
            connection.exec_driver_sql("set local plan_cache_mode = force_generic_plan")
            connection.exec_driver_sql(f"prepare page as {numbered}")
            given = ", ".join(f"'{values[name]}'" for name in names)
            plan = connection.exec_driver_sql(f"explain execute page({given})").fetchall()
            connection.exec_driver_sql("deallocate page")
        text = "\n".join(line for (line,) in plan)
        assert "using jobs_status" in text
        assert "Filter" not in text
        assert "Sort" not in text
        assert [job.id for job in queue.list(status="pending", order=order, after=after)] == {
            ("newest", None): list(range(100, 50, -1)), ("newest", 50): list(range(49, 0, -1)),
            ("oldest", None): list(range(1, 51)), ("oldest", 50): list(range(51, 101)),
        }[order, after]  # fmt: skip
