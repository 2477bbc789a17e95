"""Notebooks that others wrote, run by plain papermill and by pq: the same outcome, cell by cell.

    python bench/foreign.py FOLDER... [--write]

Each FOLDER holds the unpacked source distribution of a package. A notebook runs in a fresh copy of the folder
it lies in: twice by papermill, each time in a process of its own, then by a pq consumer with warm kernels. A
cell whose outputs differ between the two runs of papermill (random numbers, dates) is compared by its kinds
of outputs alone.
"""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nbformat
from report import arguments, machine, table, tell, working_folder

import pq

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from executed_cells import kinds, told

LIMIT_SECONDS = 240
PAPERMILL = """
import json, sys, papermill
from papermill.exceptions import PapermillExecutionError
outcome = "completed"
# Papermill runs no notebook that does not name its kernel.
named = json.load(open(sys.argv[1])).get("metadata", {}).get("kernelspec", {}).get("name")
kernel = {} if named else {"kernel_name": "python3", "language": "python"}
try:
    papermill.execute_notebook(sys.argv[1], sys.argv[2], progress_bar=False, execution_timeout=200, **kernel)
except PapermillExecutionError as error:
    outcome = error.ename
except Exception as error:
    outcome = type(error).__name__
print(json.dumps(outcome))
"""
NOT_RUN = "not run"
# papermill's and nbclient's names of what pq tells apart.
SAME_ERROR = {"NoSuchKernel": "KernelStartError", "CellExecutionError": "CellError"}
# What may differ, and why.
EXPLAINED: dict[str, str] = {
    "complex_parameters.ipynb": "its parameters cell is not Python: pq refuses it when it is enqueued",
    "utokill.ipynb": "pq's notebook tells which signal ended the kernel, in the cell that ran",
    "Skip Exceptions with Cell Tags.ipynb": "pq honours the tag raises-exception, as Jupyter does",
    "Interrupt.ipynb": "it runs for ever: both end it at their time limits",
    "statespace_tvpvar_mcmc_cfa.ipynb": "it samples for minutes, and met the limit of 240 s",
    "no_kernelspec.ipynb": "papermill asks for a kernel name, pq takes python3",
    "tqdm-4.70.1/DEMO.ipynb": "how often a progress bar is drawn is a matter of time",
}


def fresh_copy(notebook, place):
    """The notebook's folder anew, always under the same path, because outputs may tell it."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(notebook.parent, place)
    return place / notebook.name


def read(path):
    """The executed notebook as nbformat; None where there is none."""
    return nbformat.read(path, as_version=4) if path.exists() else None


def by_papermill(path):
    """Its outcome and the executed notebook."""
    output = path.parent / "executed by papermill.ipynb"
    command = [sys.executable, "-c", PAPERMILL, str(path), str(output)]
    with subprocess.Popen(
        command, cwd=path.parent, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            said = process.communicate(timeout=LIMIT_SECONDS)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            return NOT_RUN, None
    return json.loads(said.splitlines()[-1]) if said else NOT_RUN, read(output)


def by_pq(path, folder):
    """The same of a job with one attempt."""
    with pq.connect(folder / "queue.db") as queue:
        try:
            job = queue.enqueue_notebook(path, max_attempts=1, timeout=LIMIT_SECONDS)
        except (pq.InvalidJobError, pq.PQError) as error:
            return type(error).__name__, None
        pq.consume(queue, count=1, display=False)
        job = queue.get(job)
        try:
            notebook = pq.open_run(job, queue)
        except pq.PQError:
            notebook = None
        return ("completed" if job.status == "completed" else job.error or ""), notebook


def compared(first, second, ours):
    """How many cells were told alike, how many by kind alone, and which not."""
    found, different = Counter(), []
    theirs, again, mine = (told(one) if one else [] for one in (first, second, ours))
    if len(theirs) != len(mine):
        return found, [f"{len(theirs)} cells against {len(mine)}"]
    for number, (a, b, c) in enumerate(zip(theirs, again, mine, strict=True), 1):
        if c in (a, b):
            found["same"] += 1
        elif a != b and a[:2] == c[:2] and kinds(a[2]) == kinds(c[2]):
            found["by kind"] += 1
        else:
            different.append(f"cell {number}")
    return found, different


def look(notebook, root, folder):
    """One line of the table, and whether it is alike."""
    place = folder / "work"
    theirs, first = by_papermill(fresh_copy(notebook, place))
    _, second = by_papermill(fresh_copy(notebook, place))
    ours, run = by_pq(fresh_copy(notebook, place), folder)
    name = f"{root.name}/{notebook.relative_to(root).as_posix()}"
    cells, different = compared(first, second, run)
    refused = first is None and run is None
    alike = not different and (refused or (theirs == "completed") == (ours == "completed"))
    alike = alike and (theirs == "completed" or refused or SAME_ERROR.get(theirs, theirs) in ours)
    outcome = theirs if not refused else f"refused: {theirs}"
    reason = next((why for end, why in EXPLAINED.items() if name.endswith(end)), None)
    said = "yes" if alike else reason or "**no**: " + ", ".join([ours[:60], *different[:4]])
    print(
        name,
        "|",
        outcome,
        "|",
        ours[:100].replace("\n", " "),
        "|",
        dict(cells),
        different,
        file=sys.stderr,
        flush=True,
    )
    return [f"{name}", outcome, str(cells["same"]), str(cells["by kind"] or ""), said]


def main():
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    options = parser.parse_args()
    rows = []
    with working_folder(options.folder) as folder:
        where = machine(folder)
        for root in options.folders:
            notebooks = sorted(root.rglob("*.ipynb"))
            rows += [look(notebook, root.resolve(), folder) for notebook in notebooks]
    alike = sum(row[-1] == "yes" for row in rows)
    summary = f"{len(rows)} notebooks, {alike} with the same outcome in each cell; the others say why."
    heads = ("notebook", "outcome", "same cells", "same kinds", "alike")
    tell("foreign", [where, summary, table(heads, rows)], write=options.write)


if __name__ == "__main__":
    main()
