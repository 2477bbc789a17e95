"""Notebooks written for the tests, and what became of their runs."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import pq
from pq.interface import PersistentQInterface
from pq.job import Job

LOSES_THE_NEXT_REQUEST = """
kernel = get_ipython().kernel
handle, held = kernel.shell_channel_thread_main, []

async def handle_late(message):
    held.append(message)
    while len(held) > 1:
        await handle(held.pop(0))

kernel.shell_channel_thread.io_loop.add_callback(kernel.shell_stream.on_recv, handle_late, copy=False)
"""


def plain_papermill(*arguments: Any, **options: Any) -> Any:
    """papermill as it is, but over sockets in a private folder: two kernels may choose the same port."""
    import papermill
    from traitlets.config import Config

    with tempfile.TemporaryDirectory(prefix="pq-test-", dir="/tmp" if os.name == "posix" else None) as folder:
        if os.name == "posix" and options.get("engine_name") is None:
            sockets = {"transport": "ipc", "ip": f"{folder}/s", "connection_file": f"{folder}/c.json"}
            options["config"] = Config(KernelManager=sockets)
        return papermill.execute_notebook(*arguments, progress_bar=False, execution_timeout=120, **options)


@contextmanager
def meanwhile(store: PersistentQInterface, act: Callable[[PersistentQInterface], object]) -> Iterator[None]:
    """Act on the queue in another thread; where that fails, what runs is ended too, and its error raised."""

    def acting() -> None:
        with pq.connect(store.url) as other:
            try:
                act(other)
            except BaseException:
                for consumer in other.consumers():
                    other.stop_consumer(consumer.name)
                for job in other.list(status="processing"):
                    other.cancel(job)
                raise

    with ThreadPool(1) as pool:
        result = pool.apply_async(acting)
        yield
        result.get(60)


def write_notebook(path: Path, *cells: str, parameters: str | None = "", kernel: str = "python3") -> Path:
    """A notebook of code cells; the parameters cell comes first, None leaves it out."""
    sources = [*([] if parameters is None else [parameters]), *cells]
    document = {
        "cells": [
            {
                "cell_type": "code",
                "id": f"cell-{number}",
                "metadata": {"tags": ["parameters"]} if number == 0 and parameters is not None else {},
                "source": source.splitlines(keepends=True),
                "outputs": [],
                "execution_count": None,
            }
            for number, source in enumerate(sources)
        ],
        "metadata": {"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def consume(queue: PersistentQInterface, count: int | None = None) -> Any:
    """Run what is there in this process."""
    return pq.consume(queue, until_empty=count is None, count=count, display=False)


def run(queue: PersistentQInterface, *cells: str, parameters: str = "", **options: Any) -> tuple[Job, Any]:
    """A job of these cells after its only attempt, and its executed notebook."""
    path = write_notebook(queue.folder / "notebook.ipynb", *cells, parameters=parameters)
    values = options.pop("values", {})
    job = queue.enqueue_notebook(path, values, max_attempts=1, **options)
    consume(queue, count=1)
    return queue.get(job), pq.open_run(job, queue)


def statuses(notebook: Any) -> list[str]:
    """The statuses of its code cells."""
    return [cell.metadata.papermill.status for cell in notebook.cells if cell.cell_type == "code"]


def files(queue: PersistentQInterface) -> list[str]:
    """Every file below runs/, but the note of whose it is."""
    root = queue.folder / "runs"
    return sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file() and path.name != ".queue"
    )
