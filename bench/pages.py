"""What the pages cost: opening, refreshing, memory and idling, at 1,000 and at 1,000,000 jobs.

Both pages are opened in Chromium, cold and with kernels ready. Needs playwright and a Chromium; takes
some minutes.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from browsing import browsing, serving, wait_for
from report import arguments, asked, machine, table, tell, working_folder

import pq
from pq.history import SPANS, History
from pq.widgets import AdminBoard, OpsBoard

SHARES = (("completed", 0.86), ("failed", 0.04), ("cancelled", 0.02), ("pending", 0.06), ("scheduled", 0.02))
DAY = 86_400
PAGES = ("ops", "admin")


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
    for name in PAGES:
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


def measure(folder: Path, jobs: int, rounds: int, most: int) -> dict[str, Any]:
    """All measurements on one queue."""
    folder.mkdir()
    with pq.connect(folder / "queue.db") as queue:
        fill(queue, jobs)
        result: dict[str, Any] = {"refresh": refresh(queue, rounds)}
    for label, words in (("cold", ()), ("preheated", ("--preheat",))):
        with serving(folder, *words) as server, browsing(server) as browser:
            result[label] = opening(browser, server, rounds)
            if not words:
                result["tabs"] = tabs(browser, server, most)
    return result


def judged(found: dict[int, dict[str, Any]]) -> str:
    """What was to be reached."""
    small, large = found[min(found)], found[max(found)]
    first = max(one["first_s"] for size in found.values() for one in size["preheated"].values())
    costs = {page: (small["refresh"][page]["cpu_ms"], large["refresh"][page]["cpu_ms"]) for page in PAGES}
    most = max(max(pair) for pair in costs.values())
    growth = max(after / before for before, after in costs.values())
    return asked(
        [
            ("first numbers, preheated", "<= 1 s", f"{first:.2f} s", first <= 1.0),
            ("CPU of a refresh", "<= 20 ms", f"{most:.1f} ms", most <= 20.0),
            (
                f"the same at {max(found):,} jobs as at {min(found):,}",
                "1.2 x",
                f"{growth:.2f} x",
                growth <= 1.2,
            ),
        ]
    )


def tables(found: dict[int, dict[str, Any]]) -> list[str]:
    """Opening, refreshing, tabs, spans."""
    opens = [
        (f"{page}, {label}, {jobs:,} jobs", f"{one['first_s']:.2f}", f"{one['live_s']:.2f}")
        for jobs, size in found.items()
        for label in ("cold", "preheated")
        for page, one in size[label].items()
    ]
    costs = [
        (f"{page}, {jobs:,} jobs", f"{one['cpu_ms']:.2f}", f"{one['wall_ms']:.2f}", f"{one['bytes']:,}")
        for jobs, size in found.items()
        for page, one in size["refresh"].items()
        if page in PAGES
    ]
    spans = [
        (f"{name}, {jobs:,} jobs", f"{one['first_ms']:.1f}", f"{one['again_ms']:.1f}")
        for jobs, size in found.items()
        for name, one in size["refresh"].items()
        if name not in PAGES
    ]
    idle = [
        (f"{one['tabs']} open, {jobs:,} jobs", *cells(one))
        for jobs, size in found.items()
        for one in size["tabs"]
    ]
    return [
        table(("opening", "first numbers, s", "live, s"), opens),
        table(("refresh", "CPU ms", "wall ms", "bytes of the whole view"), costs),
        table(("charts", "first look, ms", "again, ms"), spans),
        table(("idle tabs", "server MB", "MB per kernel", "server, % of a core", "% per kernel"), idle),
    ]


def cells(one: dict[str, Any]) -> tuple[str, ...]:
    """The numbers of one row on tabs."""
    names = ("server_mb", "kernel_mb", "server_cpu_percent", "kernel_cpu_percent")
    return tuple(str(one[name]) for name in names)


def main() -> None:
    """Measure, tell, and write."""
    options = arguments(__doc__ or "").parse_args()
    sizes, rounds, most = ((200, 400), 1, 1) if options.quick else ((1_000, 1_000_000), 5, 20)
    with working_folder(options.folder) as folder:
        place = machine(folder)
        found = {jobs: measure(folder / str(jobs), jobs, rounds, most) for jobs in sizes}
    tell("pages", [f"{place}. {rounds} rounds; medians.", judged(found), *tables(found)], write=options.write)


if __name__ == "__main__":
    main()
