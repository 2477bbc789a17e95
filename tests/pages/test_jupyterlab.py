"""The list of jobs as a widget in a real JupyterLab, where `x` would cut the cell that holds it."""

import json
import os
import shutil
import socket
import subprocess

import pytest
from browsing import ask, confirm, expect_rows, select, stop, wait_for

import pq

TOKEN = "a-token-of-the-lab-0123456789"
CELLS = (
    "import pq\nfrom pq.widgets import JobTable",
    'JobTable(pq.connect("queue.db"), status="failed", since="24h")',
)


def write(path):
    cells = [
        {
            "cell_type": "code",
            "id": f"cell-{number}",
            "source": source,
            "metadata": {},
            "outputs": [],
            "execution_count": None,
        }
        for number, source in enumerate(CELLS)
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.write_text(json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))


def answers(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def fail_one(queue):
    queue.enqueue("stamp", max_attempts=1)
    job = queue.dequeue("c-1")
    queue.fail(job, "no such file")
    return job.id


@pytest.mark.deep
def test_the_list_lives_in_jupyterlab_and_takes_its_keys_there(browser, tmp_path):
    program = shutil.which("jupyter-lab")
    if program is None:
        pytest.skip("deep: jupyterlab is not installed")
    write(tmp_path / "demo.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lab = subprocess.Popen(
        [
            program,
            "--no-browser",
            "--allow-root",
            f"--port={port}",
            f"--IdentityProvider.token={TOKEN}",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            "--LabApp.news_url=None",
        ],
        cwd=tmp_path,
        env=os.environ | {"HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "lab.log").open("w"),
        text=True,
    )
    page = browser.new_page()
    try:
        wait_for(lambda: answers(port), "JupyterLab", 60)
        with pq.connect(tmp_path / "queue.db") as queue:
            first = fail_one(queue)
            queue.enqueue("stamp", queue="other")
            page.goto(f"http://127.0.0.1:{port}/lab/tree/demo.ipynb?token={TOKEN}")
            page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
            page.locator(".jp-Notebook .jp-Cell").first.click()
            for _ in CELLS:
                page.keyboard.press("Shift+Enter")
            page.wait_for_selector('[data-ready="1"]')
            expect_rows(page, [first])
            second = fail_one(queue)
            expect_rows(page, [second, first])

            page.get_by_role("button", name=f"Open job {second}", exact=True).focus()
            page.keyboard.press("x")
            page.wait_for_function(
                "document.querySelector('[data-testid=selected]').textContent.includes('1 selected')"
            )
            assert page.locator(".jp-Notebook .jp-CodeCell").count() >= len(CELLS)
            page.keyboard.press("x")
            select(page, first)
            page.screenshot(path=tmp_path / "lab.png")
            confirm(ask(page, "resubmit"))
            wait_for(lambda: queue.get(first).status == "pending", "the job to be resubmitted")
            expect_rows(page, [second])
    finally:
        page.close()
        stop(lab)
