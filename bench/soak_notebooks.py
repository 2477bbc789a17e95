"""Two thousand notebook runs by one consumer: does anything grow, and what is left in the end?

One run in twenty fails, one in fifty starts a process of its own and leaves it, one in a hundred ends its
kernel. The first tenth of the runs is warming up; then the least of each figure in the last tenth may be
5 % above that of the second (what leaks is there at every look). In the end no process, file or draft may
be left. The exit code is 1 where something grew or was left.
"""

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
from report import arguments, machine, table, tell, working_folder

import pq
from pq.system import processes

CELLS = (
    "x = 0",
    "import pandas as pd\npd.DataFrame({'a': range(9)}).describe()",
    "import pq\npq.record(square=x * x)",
    """import os, subprocess
if x % 20 == 1: raise ValueError("as it should")
if x % 50 == 2: subprocess.Popen(["sleep", "600"], start_new_session=True)
if x % 100 == 3: os._exit(7)""",
)
CONSUME = "import sys, pq; pq.consume(sys.argv[1], display=False, until_empty=True, preload=['pandas'])"
FIGURES = {
    "memory of the consumer, MB": lambda s: s["consumer_memory"],
    "memory of the kernel server, MB": lambda s: s["server_memory"],
    "open files of the consumer": lambda s: s["consumer_files"],
    "open files of the kernel server": lambda s: s["server_files"],
    "sockets of both": lambda s: s["sockets"],
    "processes": lambda s: s["processes"],
    "temporary files and folders": lambda s: s["temporary"],
}
LOOK_SECONDS = 0.5
TOLERANCE = 0.05


def write(path):
    """The notebook."""
    cells = [
        {
            "cell_type": "code",
            "id": f"c{number}",
            "metadata": {"tags": ["parameters"]} if number == 0 else {},
            "source": source,
            "outputs": [],
            "execution_count": None,
        }
        for number, source in enumerate(CELLS)
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.write_text(json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))


def measure(consumer, temporary):
    """One look at the consumer, its kernel server and the temporary files; None while there is no server."""
    below = consumer.children(recursive=True)
    server = next((one for one in below if "pq.kernels.zygote" in one.cmdline() and _is_forker(one)), None)
    if server is None:
        return None
    return {
        "consumer_memory": consumer.memory_info().rss / 2**20,
        "server_memory": server.memory_info().rss / 2**20,
        "consumer_files": consumer.num_fds(),
        "server_files": server.num_fds(),
        "sockets": _sockets(consumer) + _sockets(server),
        "processes": 1 + len(below),
        # How many a kernel has in its own folder depends on the moment.
        "temporary": len([*temporary.iterdir(), *temporary.glob("pq-kernels-*/*")]),
    }


def _is_forker(process):
    """A forked kernel has the server's command line; the server is the guard's child."""
    parent = process.parent()
    return parent is not None and "pq.system.guard" in parent.cmdline()


def _sockets(process):
    links = Path(f"/proc/{process.pid}/fd").iterdir()
    return sum(_target(link).startswith("socket:") for link in links)


def _target(link):
    try:
        return str(link.readlink())
    except OSError:  # closed meanwhile
        return ""


def soak(folder, runs):
    """The looks, each with the number of runs that had ended; and what was wrong in the end."""
    (folder / "t").mkdir()
    write(folder / "soak.ipynb")
    system = uuid.uuid4().hex
    environment = dict(os.environ, TMPDIR=str(folder / "t"), **{processes.SYSTEM: system})
    looks = []
    with pq.connect(folder / "soak.db") as queue:
        sweep = pq.sweep(queue, folder / "soak.ipynb", {"x": range(runs)}, max_attempts=1)
        with subprocess.Popen([sys.executable, "-c", CONSUME, str(queue.path)], env=environment) as consumer:
            while consumer.poll() is None:
                counts = queue.counts()
                try:
                    look = measure(psutil.Process(consumer.pid), folder / "t")
                except (psutil.Error, OSError):  # a kernel has just ended
                    continue
                if look is not None:
                    looks.append((counts["completed"] + counts["failed"], look))
                time.sleep(LOOK_SECONDS)
        return looks, left_or_wrong(sweep, folder, system, runs)


def left_or_wrong(sweep, folder, system, runs):
    """What was left, and runs that did not end as they should."""
    wrong = [f"{process} was left" for process in processes.marked(system)]
    # The places for loading stay: all consumers of a user share them.
    wrong += [f"{path} was left" for path in (folder / "t").iterdir() if not path.name.endswith("-loading")]
    wrong += [f"draft {path.name} was left" for path in (folder / "runs" / ".running").glob("*")]
    published = len(list((folder / "runs").glob("*/*.ipynb")))
    if published != runs:
        wrong.append(f"{published} of {runs} runs were published")
    for job in sweep.jobs():
        x = job.parameters["parameters"]["x"]
        fails = x % 20 == 1 or x % 100 == 3
        if job.status != ("failed" if fails else "completed"):
            wrong.append(f"job {job.id} with x={x} is {job.status}: {job.error}")
    return wrong


def told(looks, runs):
    """The table, and the names of what grew."""
    tenth = max(1, runs // 10)
    rows, grew = [], []
    for name, figure in FIGURES.items():
        parts = [
            [figure(look) for ended, look in looks if begin <= ended <= begin + tenth]
            for begin in (tenth, runs // 2, runs - tenth)
        ]
        first, middle, last = (min(part, default=float("nan")) for part in parts)
        rows.append([name, *(f"{value:,.1f}" for value in (first, middle, last))])
        if not last <= first * (1 + TOLERANCE):
            grew.append(f"{name} grew from {first:,.1f} to {last:,.1f}")
    heads = ["the least in a tenth of the runs", "after the first tenth", "in the middle", "at the end"]
    return table(heads, rows), grew


def main():
    options = arguments(__doc__)
    options.add_argument("--runs", type=int, default=2_000, help="how many notebooks are run")
    options = options.parse_args()
    runs = 100 if options.quick else options.runs
    with working_folder(options.folder) as folder:
        about = machine(folder)
        began = time.monotonic()
        looks, wrong = soak(folder, runs)
        seconds = time.monotonic() - began
        text, grew = told(looks, runs)
    wrong += grew
    verdict = "; ".join(wrong[:10]) or "nothing grew, and no process, file or draft was left"
    summary = f"{runs:,} runs in {seconds:,.0f} s, {len(looks):,} looks: {verdict}."
    tell("soak_notebooks", [about, text, summary], write=options.write)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
