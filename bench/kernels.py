"""Seconds for one notebook: the papermill command, papermill in a running process, and warm kernels.

    python bench/kernels.py [--samples 7]

Prints a Markdown table of medians, all from one run. The libraries must have their bytecode: where
PYTHONDONTWRITEBYTECODE is set, run `python -m compileall` on site-packages first.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import papermill
from nbformat.v4 import new_code_cell, new_notebook
from papermill.engines import NBClientEngine, papermill_engines

from pq.kernels.pool import KernelPool

NOTEBOOKS = {
    "trivial": ["x = 1", "x + 1"],
    "pandas": ["import pandas as pd", "pd.DataFrame({'a': range(100), 'b': range(100)}).describe()"],
}
PAUSE_SECONDS = 0.4  # the next spare kernel is made in it, as between two jobs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=7)
    samples = parser.parse_args().samples
    with tempfile.TemporaryDirectory() as folder:
        paths = [write(name, cells, Path(folder)) for name, cells in NOTEBOOKS.items()]
        rows = measure(paths, samples)
    print(
        f"| one run, median of {samples}, ms | "
        + " | ".join(NOTEBOOKS)
        + " |\n|---|"
        + "---|" * len(NOTEBOOKS)
    )
    first = rows["papermill, the command"]
    for name, medians in rows.items():
        cells = [
            f"{value * 1000:.0f} ({base / value:.1f} x)" for value, base in zip(medians, first, strict=True)
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")


def write(name, cells, folder):
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells], metadata={"kernelspec": kernel})
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


def measure(paths, samples):
    rows = {
        "papermill, the command": [median(lambda p=path: command(p), samples) for path in paths],
        "papermill, in a running process": [median(lambda p=path: api(p, None), samples) for path in paths],
    }
    for name, options in {
        "pq engine, cold kernel": {"cold": True},
        "pq engine, forked for the run": {"spare": 0, "preload": ("numpy", "pandas")},
        "pq engine, spare kernel": {"preload": ("numpy", "pandas")},
    }.items():
        with KernelPool(**options) as pool:
            papermill_engines.register("bench", engine_for(pool))
            api(paths[0], "bench")
            rows[name] = [median(lambda p=path: api(p, "bench"), samples) for path in paths]
    with KernelPool(preload=("numpy", "pandas")) as pool:
        connect(pool, paths[0].parent)
        rows["only start, answer and end of a spare kernel"] = [
            median(lambda p=path: connect(pool, p.parent), samples) for path in paths
        ]
    return rows


def median(call, samples):
    taken = []
    for _ in range(samples):
        time.sleep(PAUSE_SECONDS)
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def command(path):
    words = [
        Path(sys.executable).parent / "papermill",
        "--no-progress-bar",
        path,
        path.with_suffix(".out.ipynb"),
    ]
    subprocess.run(words, check=True, capture_output=True)


def api(path, engine):
    papermill.execute_notebook(path, path.with_suffix(".out.ipynb"), engine_name=engine, progress_bar=False)


def engine_for(pool):
    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, **keywords):
            kernel = pool.start(kernel_name, cwd=Path.cwd())
            manager = kernel.manager
            try:
                super().execute_managed_notebook(nb_man, kernel_name, km=manager, **keywords)
            finally:
                manager.close()
                kernel.kill()

    return Engine


def connect(pool, folder):
    kernel = pool.start(None, cwd=folder)
    kernel.client().stop_channels()
    kernel.kill()


if __name__ == "__main__":
    main()
