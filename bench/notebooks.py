"""Seconds per run and runs per minute of notebooks: papermill's command, papermill's API, and pq.

One after the other on one machine, medians. The environment should have JupyterLab, as most users' has.
"""

import json
import os
import statistics
import subprocess
import sys
import time

import psutil
from report import arguments, machine, table, tell, working_folder

import pq

NOTEBOOKS = {
    "trivial": ["print('hello')"],
    "pandas": ["import pandas as pd", "pd.DataFrame({'a': range(9)}).describe()"],
}
API = """
import sys, time, json, papermill
path, output, runs = sys.argv[1], sys.argv[2], int(sys.argv[3])
times = []
for number in range(runs + 1):
    began = time.perf_counter()
    papermill.execute_notebook(path, output, {"x": number}, progress_bar=False)
    times.append(time.perf_counter() - began)
print(json.dumps(times[1:]))
"""
CONSUME = """
import sys, pq
pq.consume(sys.argv[1], name=sys.argv[2], display=False, until_empty=True)
"""


def write(folder, name):
    """The notebook, with a parameters cell."""
    sources = ["x = 0", *NOTEBOOKS[name]]
    cells = [
        {
            "cell_type": "code",
            "id": f"c{number}",
            "metadata": {"tags": ["parameters"]} if number == 0 else {},
            "source": source,
            "outputs": [],
            "execution_count": None,
        }
        for number, source in enumerate(sources)
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path = folder / f"{name}.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))
    return path


def by_command(path, folder, runs):
    """Seconds of whole processes."""
    times = []
    for number in range(runs):
        words = [
            "papermill",
            str(path),
            str(folder / "out.ipynb"),
            "-p",
            "x",
            str(number),
            "--no-progress-bar",
        ]
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", *words], check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    return times


def by_api(path, folder, runs):
    """Seconds of calls in a process that has papermill loaded."""
    words = [sys.executable, "-c", API, str(path), str(folder / "out.ipynb"), str(runs)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def by_pq(path, folder, runs):
    """Seconds from the claim of a job to its stored end, jobs one at a time, the consumer warm."""
    with pq.connect(folder / "one.db") as queue:
        jobs = [queue.enqueue_notebook(path, {"x": number}) for number in range(runs + 3)]
        pq.consume(queue, until_empty=True, display=False)
        found = [queue.get(job) for job in jobs[3:]]
    assert all(job.status == "completed" for job in found)
    return [(job.finished_at - job.started_at).total_seconds() for job in found]


def sustained(path, folder, runs, consumers):
    """Runs per second over all but the first tenth, and the memory of consumers and kernel servers in MB."""
    place = folder / f"{path.stem}-{consumers}" / "queue.db"  # a folder each: its runs lie there
    place.parent.mkdir()
    with pq.connect(place) as queue:
        jobs = pq.sweep(queue, path, {"x": range(runs)}).jobs()
        started = [
            subprocess.Popen([sys.executable, "-c", CONSUME, str(place), f"c{n}"]) for n in range(consumers)
        ]
        memory = 0.0
        while any(process.poll() is None for process in started):
            memory = max(memory, sum(map(_megabytes, started)))
            time.sleep(0.5)
        ended = sorted(queue.get(job).finished_at for job in jobs)
        assert all(queue.get(job).status == "completed" for job in jobs)
    settled = ended[runs // 10 :]
    return (len(settled) - 1) / (settled[-1] - settled[0]).total_seconds(), memory


def _megabytes(process):
    total = 0
    try:
        for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            total += one.memory_full_info().pss
    except psutil.Error:
        pass
    return total / 2**20


def once(folder, runs):
    """A table of seconds per run."""
    rows = []
    for name in NOTEBOOKS:
        path = write(folder, name)
        ways = (by_command, by_api, by_pq)
        command, api, ours = (statistics.median(way(path, folder, runs)) for way in ways)
        times = [f"{seconds * 1000:,.0f} ms" for seconds in (command, api, ours)]
        rows.append([name, *times, f"{command / ours:.0f} times", f"{api / ours:.0f} times"])
    heads = ["notebook", "papermill's command", "papermill's API", "pq", "command / pq", "API / pq"]
    return table(heads, rows)


def again_and_again(folder, runs):
    """A table of throughput and memory."""
    rows = []
    for name in NOTEBOOKS:
        for consumers in (1, 2):
            speed, memory = sustained(folder / f"{name}.ipynb", folder, runs, consumers)
            rows.append(
                [f"{name}, {consumers} consumers", f"{speed:.1f}", f"{60 * speed:,.0f}", f"{memory:,.0f} MB"]
            )
    return table(["notebook", "runs per second", "runs per minute", "memory with kernels"], rows)


def main():
    options = arguments(__doc__).parse_args()
    os.environ.setdefault("PQ_PRELOAD", "pandas,numpy")
    with working_folder(options.folder) as folder:
        os.environ["PQ_NOTEBOOK_ROOT"] = str(folder)
        parts = [
            machine(folder),
            once(folder, 2 if options.quick else 7),
            again_and_again(folder, 10 if options.quick else 100),
        ]
    tell("notebooks", parts, write=options.write)


if __name__ == "__main__":
    main()
