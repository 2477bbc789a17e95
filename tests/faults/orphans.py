"""Kills at every stage of a notebook run: no orphan, no half-published run, and the job ends right.

    python -m tests.faults.orphans --rounds 3

A consumer (alone, or under run_all.py) runs a notebook whose cell starts a process of its own in another
session. The run stops at one stage and waits; then one process is killed by SIGKILL: the consumer, the
kernel server, its guard, the kernel, and with run_all.py also that, the supervisor, and the guard and
papermill of the consumer. Then all must be gone that the notebook started, the job must end well, and
runs/ must hold one executed notebook for each attempt, which says what the attempt says. It prints one
line of figures and exits with 1 where that did not hold.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

import pq
from pq.system import processes

ROOT = Path(__file__).parents[2]
STAGES = (
    "before the kernel",
    "while the server loads",
    "mid-cell",
    "before the finish",
    "before the publishing",
)
# Who exists at which stage. The kernel is gone when the notebook has ended; its server and guard stay.
ALONE = ("consumer", "server", "kernel guard", "kernel")
SYSTEM = ("run_all", "supervisor", "guard", "papermill", "consumer", "server", "kernel guard", "kernel")
CASES = [
    *(("alone", stage, victim) for stage in STAGES for victim in ALONE),
    *(("system", stage, victim) for stage in ("mid-cell", "before the publishing") for victim in SYSTEM),
]
START_SECONDS, END_SECONDS, JOB_SECONDS = 120.0, 20.0, 180.0

TASKS = '''
"""Stops the consumer at the stage that STAGE names, until there is a file `again`."""
import os, pathlib, time
import pq.notebook.job, pq.settling

stage, folder = os.environ["STAGE"], pathlib.Path(os.environ["MARKS"])

def pause():
    (folder / "on").touch()
    while not (folder / "again").exists():
        time.sleep(0.01)

def before(module, name, asked=lambda *_, **__: True, after=False):
    original = getattr(module, name)
    def paused(*words, **options):
        if not after and asked(*words, **options):
            pause()
        answer = original(*words, **options)
        if after:
            pause()
        return answer
    setattr(module, name, paused)

if stage == "before the kernel":
    before(pq.notebook.job, "open_pool")
if stage == "while the server loads":
    before(pq.notebook.job, "open_pool", after=True)
if stage == "before the finish":
    before(pq.settling.Books, "settle", lambda books, *_, **__: bool(books._hand.outcomes))
if stage == "before the publishing":
    before(pq.settling, "after_settling")
'''
CELL = """
import os, pathlib, subprocess, time
folder = pathlib.Path(os.environ["MARKS"])
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
for pid in (os.getpid(), child.pid):
    (folder / f"pid-{pid}").touch()
(folder / "kernel").write_text(str(os.getpid()))
if os.environ["STAGE"] == "mid-cell":
    (folder / "on").touch()
    while not (folder / "again").exists():
        time.sleep(0.01)
"""


@dataclass
class Case:
    """One kill: in which system, at which stage, of whom."""

    place: str
    stage: str
    victim: str
    folder: Path
    system: str = field(default_factory=lambda: uuid.uuid4().hex)
    wrong: list[str] = field(default_factory=list)
    milliseconds: float = 0.0
    skipped: bool = False

    def run(self) -> None:
        """Begin, kill, look, end, and look again."""
        self.marks = self.folder / "marks"
        for path in (self.marks, self.folder / "t"):
            path.mkdir()
        (self.folder / "staged.py").write_text(TASKS)
        _write(self.folder / "a.ipynb", "x = 1", CELL, "print('last')")
        with pq.connect(self.folder / "queue.db") as queue:
            self.queue = queue
            job = queue.enqueue_notebook(self.folder / "a.ipynb", max_attempts=5)
            with self._started() as process:
                self._wait((self.marks / "on").exists, START_SECONDS, "the stage was not reached")
                if self.stage == "while the server loads":  # it is on its way
                    self._waited(lambda: self._pid_of(process) or self.victim == "kernel", 10.0)
                pid = self._pid_of(process)
                if pid is None:
                    self.skipped = True
                else:
                    self._kill(pid, process)
                (self.marks / "again").touch()
                self._let_it_end(process, job)
            self._look_at_the_end(job)

    @contextlib.contextmanager
    def _started(self) -> Iterator["subprocess.Popen[bytes]"]:
        words = ["--tasks", str(self.folder / "staged.py")]
        if self.place == "alone":
            command = [sys.executable, "-m", "pq.cli", "--db", str(self.queue.url), "consume", *words]
        else:
            command = [sys.executable, str(ROOT / "run_all.py"), "--db", str(self.queue.url), *words]
            command += ["--producers", "0", "--consumers", "1", "--no-dashboards"]
        with self._process(command) as process:
            yield process

    @contextlib.contextmanager
    def _process(self, command: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
        with (self.folder / "out.txt").open("a") as out:
            process = subprocess.Popen(
                command, stdout=out, stderr=out, cwd=self.folder, env=self._environment()
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(END_SECONDS)
            process.kill()
            process.wait()
            if not self._gone():
                self.wrong.append(f"left at the end: {[_words(one) for one in self._marked()]}")
                for one in self._marked():
                    with contextlib.suppress(psutil.Error):
                        one.kill()

    def _environment(self) -> dict[str, str]:
        own = {"STAGE": self.stage, "MARKS": str(self.marks), "ORPHANS": self.system}
        return {**os.environ, **own, processes.SYSTEM: self.system, "TMPDIR": str(self.folder / "t")}

    def _marked(self) -> list[Any]:
        """All living processes of this case; run_all.py gives its own a marker of its own."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get("ORPHANS") == self.system and process.status() != "zombie":
                    found.append(process)
        return found

    def _gone(self) -> bool:
        return self._waited(lambda: not self._marked(), END_SECONDS)

    def _pid_of(self, process: "subprocess.Popen[bytes]") -> int | None:
        if self.victim == "run_all":
            return process.pid
        if self.victim == "kernel":
            return self._kernel() if self.stage == "mid-cell" else None
        if self.victim == "consumer":
            return process.pid if self.place == "alone" else self.queue.consumers()[0].pid
        words = {
            "supervisor": ("supervisord",),
            "guard": ("pq.system.guard", "--role", "consumer-1"),
            "papermill": ("pq.system.launch",),
            "kernel guard": ("pq.system.guard", "pq.kernels.zygote"),
            "server": ("pq.kernels.zygote",),
        }[self.victim]
        # The oldest: a forked kernel has the words of its server, and a role's words stand in its guard's.
        fitting = [one for one in self._marked() if all(word in _words(one) for word in words)]
        if self.victim in ("server", "papermill"):
            fitting = [one for one in fitting if "pq.system.guard" not in _words(one)]
        return min(fitting, key=lambda one: one.create_time()).pid if fitting else None

    def _kernel(self) -> int:
        return int((self.marks / "kernel").read_text())

    def _kill(self, pid: int, process: "subprocess.Popen[bytes]") -> None:
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        if pid == process.pid:
            process.wait()
        ends_all = self.victim == "run_all" or (self.place == "alone" and self.victim == "consumer")
        if self.stage == "mid-cell":
            self._wait(lambda: not any(map(_lives, self._started_by_the_notebook())), END_SECONDS, "orphans")
        if ends_all:
            self._wait(lambda: not self._marked(), END_SECONDS, "processes stayed")
        self.milliseconds = (time.monotonic() - began) * 1000

    def _started_by_the_notebook(self) -> list[int]:
        return [int(path.name.partition("-")[2]) for path in self.marks.glob("pid-*")]

    def _let_it_end(self, process: "subprocess.Popen[bytes]", job: pq.Job) -> None:
        def has_ended() -> bool:
            return self.queue.get(job).status in ("completed", "failed", "cancelled")

        if process.poll() is None and self.victim != "supervisor":
            self._wait(has_ended, JOB_SECONDS, "the job did not end")
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
        words = ["consume", "--count", "1", "--tasks", str(self.folder / "staged.py")]
        while not has_ended():
            command = [sys.executable, "-m", "pq.cli", "--db", str(self.queue.url), *words]
            with self._process(command) as second:
                second.wait(JOB_SECONDS)

    def _look_at_the_end(self, job: pq.Job) -> None:
        from pq.notebook.runs import close_runs

        close_runs(self.queue)
        found = self.queue.get(job)
        if found.status != "completed":
            self.wrong.append(f"the job is {found.status}: {found.error}")
        attempts = {attempt.attempt: attempt.outcome for attempt in self.queue.attempts(job)}
        root = self.folder / "runs"
        there = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.ipynb"))
        # Without a supervisor's papermill of the consumer itself, whose executed notebook lies there too.
        there = [name for name in there if not name.startswith(("consumer-1", ".papermill"))]
        if there != [f"{job.id}/{attempt}.ipynb" for attempt in sorted(attempts)]:
            self.wrong.append(f"runs holds {there}, the attempts are {attempts}")
            return
        for attempt, outcome in attempts.items():
            notebook = pq.open_run(job, self.queue, attempt=attempt)
            states = [cell.metadata.papermill.status for cell in notebook.cells if cell.cell_type == "code"]
            told = notebook.metadata.pq.outcome
            if told != outcome or (outcome == "completed" and set(states) != {"completed"}):
                self.wrong.append(f"attempt {attempt} ended {outcome}, its run says {told} with {states}")
            if {"running", "pending"} & set(states):
                self.wrong.append(f"the run of attempt {attempt} says {states}")

    def _waited(self, condition: Any, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def _wait(self, condition: Any, seconds: float, wrong: str) -> None:
        if not self._waited(condition, seconds):
            self.wrong.append(f"{wrong} within {seconds:g} s: {[_words(one) for one in self._marked()]}")


def _words(process: Any) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _lives(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def _write(path: Path, *sources: str) -> None:
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
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    document = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(document))


def one(place: str, stage: str, victim: str) -> Case:
    """One case in a folder of its own; its path is short, because sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="pq-orph-", dir="/tmp", ignore_cleanup_errors=True) as name:
        case = Case(place, stage, victim, Path(name))
        case.run()
        if case.wrong:
            print((case.folder / "out.txt").read_text()[-3000:], file=sys.stderr)
        return case


def main() -> None:
    """Run, print the figures as one line of JSON, and exit with 1 where something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.orphans")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", default="", help="only cases whose name has this text")
    options = parser.parse_args()
    began = time.monotonic()
    times: list[float] = []
    violations: list[str] = []
    kills = 0
    for _ in range(options.rounds):
        for place, stage, victim in CASES:
            name = f"{place}, {stage}, {victim}"
            if options.only not in name:
                continue
            case = one(place, stage, victim)
            if not case.skipped:
                kills += 1
                times.append(case.milliseconds)
            violations += [f"{name}: {wrong}" for wrong in case.wrong]
            told = "not there" if case.skipped else f"{case.milliseconds:,.0f} ms"
            print(f"{name}: {told} {case.wrong or ''}", file=sys.stderr, flush=True)
    times = sorted(times) or [0.0]
    figures = {
        "harness": "orphans",
        "kills": kills,
        "median_milliseconds_until_all_are_gone": round(times[len(times) // 2]),
        "longest_milliseconds": round(times[-1]),
        "violations": violations,
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps(figures))
    sys.exit(bool(violations))


if __name__ == "__main__":
    main()
