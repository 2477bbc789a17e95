"""Takes the pictures of both pages for docs/ and README: `python docs/pictures.py`, or `make screenshots`.

The jobs are real ones, done here by consumers of this process; only the past hour of the charts is made up.
"""

# ruff: noqa: INP001, S311, E402  # a script, which uses the tests' browser; its jobs come by chance, always the same

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "tests"))

from browsing import browsing, ready, serving

from pq.notebook.runs import published

QUEUES = {
    "stamp": "default",
    "send_mail": "mail",
    "train_model": "gpu",
    "resize_image": "default",
    "sync_orders": "nightly",
}
WORKING = ("default", "mail", "gpu")
# name, page, width, height, colours, what is clicked, what is shown then
PICTURES = [
    ("ops", "ops.ipynb", 1280, 900, "light", [], "health"),
    ("ops-dark", "ops.ipynb", 1280, 900, "dark", [], "health"),
    ("ops-phone", "ops.ipynb", 390, 844, "light", [], "health"),
    ("admin", "admin.ipynb?job={failed}", 1400, 900, "light", ["run-1"], "run"),
    ("admin-dark", "admin.ipynb?status=failed", 1280, 900, "dark", ["", "action-resubmit"], "dialog"),
    ("admin-phone", "admin.ipynb", 390, 844, "dark", [], "jobs"),
]

# Written anew by the page only when it changes.
NEUTRAL = """(folder) => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(folder, "/srv/reports");
}"""


def work(queue: Any, folder: Path) -> int:
    """Fill the queue; the id of a failed job that has an executed notebook."""
    chance = random.Random(3)
    consumers = [(f"consumer-{n}", queue.register_consumer(f"consumer-{n}", WORKING)) for n in (1, 2, 3)]
    for number in range(400):
        task = chance.choice(list(QUEUES))
        parameters = {"path": f"inbox/{chance.randrange(10**5)}.txt", "customer": chance.randrange(900)}
        tags = ("import",) if number % 3 == 0 else ()
        queue.enqueue(task, parameters, queue=QUEUES[task], max_attempts=1 + 2 * (number % 2), tags=tags)
    for number in range(270):
        job = queue.dequeue(consumers[number % 3][0], WORKING)
        if chance.random() < 0.12:
            queue.fail(job, missing(job.parameters["path"]), retry=chance.random() < 0.2)
        else:
            queue.complete(job, {"lines": chance.randrange(1000)})
    for name, identity in consumers:
        job = queue.dequeue(name, ("gpu", "mail", "default"))
        if job is not None:
            queue.heartbeat(job, progress=chance.random(), message=f"row {chance.randrange(5000):,} of 5,000")
            queue.beat_consumer(identity, f"job {job.id}: {job.task}")
    for day in range(1, 13):
        queue.enqueue("sync_orders", {"day": f"2026-01-{day:02}"}, queue="nightly", delay=3600.0 * day)
    queue.pause("nightly", "the shop is being moved")
    first, second, *_ = queue.failed(5)
    queue.resubmit(first, reason="the file is there now", by="anna")
    queue.mark_failed(queue.pending(1)[0], "not wanted any more", by="ben")
    past_hour(queue, chance)
    write_notebook(folder / "runs" / published(second.id, 1), second)
    return int(second.id)


def missing(path: str) -> Exception:
    """An error with its traceback."""
    try:
        Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        return error
    raise AssertionError(path)


def past_hour(queue: Any, chance: random.Random) -> None:
    """Minutes in which others ended."""
    minute = int(time.time() // 60)
    statement = "insert into buckets values (?, ?, ?, ?, ?, 1, 1.0) on conflict do update set jobs = jobs + 1"
    with queue.transaction() as db:
        for ago in range(1, 70):
            for task, name in QUEUES.items():
                for _ in range(chance.randrange(8, 40)):
                    outcome = "failed" if chance.random() < 0.05 else "completed"
                    slot = int(chance.gauss(38 + len(task) % 4, 3))
                    db.conn.execute(statement, (minute - ago, name, task, outcome, slot))


def write_notebook(path: Path, job: Any) -> None:
    """What papermill leaves of a failed attempt."""
    trace = [
        "FileNotFoundError  Traceback (most recent call last)",
        "----> 1 text = Path(path).read_text()",
        job.error,
    ]
    error = {"output_type": "error", "ename": "FileNotFoundError", "evalue": "", "traceback": trace}
    sources = [
        "from pathlib import Path",
        f"path = {job.parameters['path']!r}",
        "text = Path(path).read_text()",
    ]
    cells = [
        {
            "cell_type": "code",
            "source": source,
            "metadata": {},
            "outputs": [error] if source == sources[-1] else [],
        }
        for source in sources
    ]
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")


def take(browser: Any, server: Any, failed: int) -> None:
    """All pictures, each from a page that is ready."""
    for name, address, width, height, colours, clicks, shown in PICTURES:
        page = browser.new_page()
        page.emulate_media(color_scheme=colours)
        page.set_viewport_size({"width": width, "height": height})
        page.goto(f"{server.url}voila/render/{address.format(failed=failed)}")
        ready(page)
        for click in clicks:
            target = page.get_by_test_id(click) if click else page.locator("tbody input[type=checkbox]").first
            target.click()
        page.get_by_test_id(shown).wait_for(state="attached")
        page.wait_for_timeout(2_500)
        # A click scrolls whatever holds its target.
        page.evaluate("document.querySelectorAll('*').forEach((one) => { one.scrollTop = 0; })")
        page.evaluate(NEUTRAL, str(server.folder))  # not the folder of whoever takes them
        page.screenshot(path=DOCS / f"{name}.png")
        page.close(run_before_unload=True)


def main() -> None:
    """Everything from an empty folder."""
    with tempfile.TemporaryDirectory(prefix="pq-") as name:
        folder = Path(name) / "shop"
        folder.mkdir()
        with serving(folder) as server, browsing(server) as browser:
            failed = work(server.queue, folder)
            take(browser, server, failed)


if __name__ == "__main__":
    main()
