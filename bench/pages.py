"""What the pages cost: opening, refreshing, memory and idling, at 1,000 and at 1,000,000 jobs.

`python bench/pages.py [--jobs 1000 1000000] [--rounds 5] [--tabs 10] [--out FILE]` makes a queue for each
size, serves it, opens both pages in Chromium, and prints one JSON line per measurement. It needs playwright
and a Chromium, and takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from browsing import browsing, serving, wait_for

import pq
from pq.history import SPANS, History
from pq.widgets import AdminBoard, OpsBoard

SHARES = (("completed", 0.86), ("failed", 0.04), ("cancelled", 0.02), ("pending", 0.06), ("scheduled", 0.02))
DAY = 86_400


def fill(queue: Any, jobs: int) -> None:
    """Jobs of the last seven days, and the minutes in which they ended; in chunks of one transaction each."""
    now = time.time()
    bounds = [round(jobs * sum(share for _, share in SHARES[: index + 1])) for index in range(len(SHARES))]
    with queue.transaction() as db:
        for status, first, last in zip((name for name, _ in SHARES), [0, *bounds], bounds, strict=False):
            done = status in ("completed", "failed", "cancelled")
            db.conn.execute(
                """
                with recursive n(i) as (select :first union all select i + 1 from n where i + 1 < :last)
                insert into jobs (task, queue, status, priority, parameters, tags, due_at, max_attempts,
                    attempt, token, created_at, started_at, finished_at, error)
                select 'task-' || (i % 5), 'queue-' || (i % 3), :status, 0,
                    json_object('path', 'inbox/' || i || '.txt', 'number', i), '[]', :now + 3600, 3, 1, 1,
                    :now - (:jobs - i) * :step, :now - (:jobs - i) * :step,
                    case when :done then :now - (:jobs - i) * :step + 1 end,
                    case when :status = 'failed' then 'ValueError: number ' || i end
                from n
                """,
                {
                    "first": first, "last": last, "status": status, "now": now, "jobs": jobs,
                    "step": 7 * DAY / max(jobs, 1), "done": done,
                },
            )  # fmt: skip
        db.conn.execute(
            """
            insert into buckets
            select cast(finished_at / 60 as integer), queue, task, status, 30 + id % 12, count(*),
                count(*) * 0.5
            from jobs
            where status in ('completed', 'failed') and finished_at < :now
            group by 1, 2, 3, 4, 5
            """,
            {"now": now},
        )


def refresh(queue: Any, rounds: int) -> dict[str, Any]:
    """CPU and wall time of one refresh in Python, and the bytes of what it would send."""
    result: dict[str, Any] = {}
    for name, make in (("ops", OpsBoard), ("admin", AdminBoard)):
        board = make(queue)
        board.tick()
        cpu, wall = [], []
        for _ in range(max(rounds, 5) * 4):
            queue.enqueue("bench")
            before = time.process_time(), time.perf_counter()
            board._read()  # noqa: SLF001  # what a tick costs without the comm
            cpu.append((time.process_time() - before[0]) * 1000)
            wall.append((time.perf_counter() - before[1]) * 1000)
        result[name] = {
            "cpu_ms": round(statistics.median(cpu), 2),
            "wall_ms": round(statistics.median(wall), 2),
            "bytes": len(json.dumps(board.view, default=str)),
        }
        board.close()
    for span, (minutes, step) in SPANS.items():
        began = time.perf_counter()
        history = History(queue, minutes, step)
        history.read()
        first = time.perf_counter()
        history.read()
        again = time.perf_counter()
        result[f"span {span}"] = {
            "first_ms": round((first - began) * 1000, 1),
            "again_ms": round((again - first) * 1000, 1),
        }
    return result


def opened(browser: Any, url: str, first: str, live: str) -> tuple[Any, float, float]:
    """A page, and the seconds until its first numbers and until it is live."""
    page = browser.new_page()
    began = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.wait_for_selector(first)
    numbers = time.perf_counter() - began
    page.wait_for_selector(live)
    return page, round(numbers, 3), round(time.perf_counter() - began, 3)


def opening(browser: Any, server: Any, rounds: int) -> dict[str, Any]:
    """Medians of opening each page, one at a time; with `--preheat` the pool is full before each visit."""
    result = {}
    for name in ("ops", "admin"):
        times = []
        for _ in range(rounds):
            page, *seconds = opened(
                browser,
                f"{server.url}voila/render/{name}.ipynb",
                "#pq-first, [data-ready]",
                '[data-ready="1"]',
            )
            times.append(seconds)
            page.wait_for_timeout(4_000)  # the pool fills again
            page.close(run_before_unload=True)
        result[name] = {
            "first_s": statistics.median(one[0] for one in times),
            "live_s": statistics.median(one[1] for one in times),
        }
    return result


def tabs(browser: Any, server: Any, most: int) -> list[dict[str, Any]]:
    """Memory and CPU of the server and of its kernels, idle, with ever more tabs open; then what is left."""
    result, pages = [], []
    for count in sorted({1, min(5, most), min(10, most), most}):
        while len(pages) < count:
            page, *_ = opened(
                browser, f"{server.url}voila/render/ops.ipynb", "[data-ready]", '[data-ready="1"]'
            )
            pages.append(page)
        time.sleep(3)
        result.append({"tabs": count} | cost(server, 5.0))
    for page in pages:
        page.close(run_before_unload=True)
    wait_for(lambda: not server.kernels(), "the kernels of closed tabs to end", 60)
    result.append({"tabs": 0} | cost(server, 5.0))
    return result


def cost(server: Any, seconds: float) -> dict[str, Any]:
    """Private memory and the share of a core."""
    main, kernels = psutil.Process(server.process.pid), server.kernels()
    before = {one.pid: sum(one.cpu_times()[:2]) for one in (main, *kernels)}
    time.sleep(seconds)
    used = [sum(one.cpu_times()[:2]) - before[one.pid] for one in (main, *kernels)]
    memory = [one.memory_full_info().uss // 1_000_000 for one in (main, *kernels)]
    return {
        "server_mb": memory[0],
        "kernel_mb": round(statistics.mean(memory[1:])) if kernels else 0,
        "server_cpu_percent": round(100 * used[0] / seconds, 1),
        "kernel_cpu_percent": round(100 * sum(used[1:]) / seconds / max(len(kernels), 1), 1),
    }


def say(out: Any, **record: Any) -> None:
    """One line of JSON."""
    line = json.dumps(record)
    print(line, flush=True)
    if out:
        out.write(line + "\n")


def measure(jobs: int, options: argparse.Namespace, out: Any) -> None:
    """All measurements on one queue."""
    with tempfile.TemporaryDirectory(prefix="pq-") as name:
        folder = Path(name)
        with pq.connect(folder / "queue.db") as queue:
            began = time.perf_counter()
            fill(queue, jobs)
            say(out, jobs=jobs, what="filled", seconds=round(time.perf_counter() - began, 1))
            say(out, jobs=jobs, what="refresh", **refresh(queue, options.rounds))
        for words in ((), ("--preheat",)):
            with serving(folder, *words) as server, browsing(server) as browser:
                label = "preheated" if words else "cold"
                say(out, jobs=jobs, what=f"open {label}", **opening(browser, server, options.rounds))
                if not words:
                    for row in tabs(browser, server, options.tabs):
                        say(out, jobs=jobs, what="tabs", **row)


def main() -> None:
    """Measure each size in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tabs", type=int, default=10)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    out = options.out.open("a") if options.out else None
    try:
        for jobs in options.jobs:
            measure(jobs, options, out)
    finally:
        if out:
            out.close()


if __name__ == "__main__":
    main()
