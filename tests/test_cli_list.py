"""`pq list` in its orders, and by the finishing time."""

from pathlib import Path

from command_line import CommandLine, answer

import pq


def test_list_sorts_and_bounds_the_finishing_time(tmp_path: Path) -> None:
    run = CommandLine(tmp_path / "queue.db")
    with pq.connect(run.database) as jobs:
        first, second = jobs.enqueue("a"), jobs.enqueue("b", priority=5)
        done = jobs.dequeue("c")
        assert done is not None
        jobs.complete(done)
    assert [job["id"] for job in answer(run("list", "--order", "oldest", "--json"))] == [first.id, second.id]
    assert [job["id"] for job in answer(run("list", "--finished-after", "1h", "--json"))] == [second.id]
    assert answer(run("list", "--order", "finished", "--finished-before", "1h", "--json")) == []
    assert answer(run("list", "--order", "priority", "--after", str(first.id), "--json")) == []
