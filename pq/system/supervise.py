"""run_all.py: producers, consumers and dashboards under a supervisor, until Ctrl-C or the work is done."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import signal
import socket
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pq.dashboards import read_token
from pq.errors import PQError, ServerAwayError
from pq.system import ownership, processes
from pq.system.bounded import BoundedRun, newest_id, shares
from pq.system.programs import JOB_SECONDS, SUPERVISOR_SECONDS, Place, dashboards_program, notebook_program
from pq.system.screen import Screen
from pq.system.supervisors import supervisor_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pq.interface import PersistentQInterface
    from pq.system.programs import Program
    from pq.system.supervisors import SupervisingProcess

LOOK_SECONDS = 0.5
DOUBLED_SECONDS = 1.0  # what runs run_all.py may pass a signal on that the terminal has sent as well


class UsageError(PQError, ValueError):
    """The system cannot be started like this."""


@dataclass
class System:
    """One run of the whole system on one queue, from its start to its last process."""

    options: argparse.Namespace
    queue: PersistentQInterface
    place: Place
    screen: Screen = field(default_factory=Screen)
    stopping: threading.Event = field(default_factory=threading.Event)
    bounded: BoundedRun | None = None
    trouble: str | None = None
    ready: bool = False
    asked_at: float = 0.0
    explained: set[str] = field(default_factory=set)
    port: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    away: bool = False

    def run(self) -> int:
        """Start, watch and stop everything; the exit status."""
        started = time.monotonic()
        supervisor: SupervisingProcess | None = None
        with self._signals():
            try:
                self.place.prepare()
                supervisor = self._supervisor()
                supervisor.start()
                self.screen.begin(self._rows(supervisor))
                self._watch(supervisor, started)
            finally:
                self._stop(supervisor)
        return self._summary(time.monotonic() - started)

    def _supervisor(self) -> SupervisingProcess:
        if self.options.jobs is not None:
            names = [f"producer-{index + 1}" for index in range(self.options.producers)]
            self.bounded = BoundedRun(self.queue, self.options.jobs, names, newest_id(self.queue))
        return supervisor_for(self.options.supervisor)(self.place, list(self._programs()))

    def _programs(self) -> Iterator[Program]:
        options = self.options
        # An address may hold a password, which an executed notebook must not show: PQ_URL has it.
        common = {"db": None if "://" in self.place.url else self.place.url, "headless": True}
        counts = shares(options.jobs, options.producers) if options.jobs is not None else []
        for index in range(options.producers):
            name = f"producer-{index + 1}"
            parameters: dict[str, object] = {**common, "name": name, "interval": options.interval}
            plan: dict[str, object] = {"parameters": parameters}
            if self.bounded is not None:
                parameters["count"] = counts[index]
                plan["produced_after"] = self.bounded.newest
            yield notebook_program(self.place, "producer", name, plan)
        for index in range(options.consumers):
            name = f"consumer-{index + 1}"
            parameters = {**common, "name": name, "tasks": ",".join(options.tasks), "grace": JOB_SECONDS}
            yield notebook_program(self.place, "consumer", name, {"parameters": parameters})
        if options.dashboards:
            self.port = free_port(options.port)
            token = token_file(self.place)
            yield dashboards_program(self.place, self.port, token, read_only=options.read_only)

    def _rows(self, supervisor: SupervisingProcess) -> dict[str, str]:
        options = self.options
        rows = {
            "pq": f"producers: {options.producers}, consumers: {options.consumers}, "
            f"kept alive by {type(supervisor).__name__} (pid {os.getpid()})",
            "queue": self.queue.url,
            "runs": f"{self.place.folder / 'runs'}",
            "logs": f"{self.place.logs}",
        }
        if options.dashboards:
            token = read_token(str(token_file(self.place)))
            for page in ("ops", "admin"):
                rows[page] = f"http://127.0.0.1:{self.port}/{page}?token={token}"
        end = f"ends when {options.jobs} jobs are finished; " if options.jobs is not None else ""
        return rows | {"stop": f"{end}Ctrl-C stops everything within 10 seconds"}

    def _watch(self, supervisor: SupervisingProcess, started: float) -> None:
        until = started + self.options.seconds if self.options.seconds is not None else None
        while not self.stopping.is_set():
            states = supervisor.states()
            self.screen.show(states, self._counts(), time.monotonic() - started)
            self._greet_dashboards()
            self._explain(states)
            given_up = [name for name, state in states.items() if state == "FATAL"]
            if supervisor.ended():
                self.trouble = f"the supervisor has ended; see {self.place.logs / 'supervisor.log'}"
            elif given_up:
                self.trouble = f"{', '.join(given_up)} crashed too often; see {self.place.logs}"
            if self._is_over(supervisor, states, until):
                return
            self.stopping.wait(LOOK_SECONDS)

    def _counts(self) -> dict[str, int]:
        """The jobs by status; while a server does not answer, as they were."""
        try:
            self.counts, self.away = self.queue.counts(), False
        except ServerAwayError as error:
            if not self.away:
                self.screen.say(f"  waiting for the queue: {error}")
            self.away = True
        return self.counts

    def _is_over(self, supervisor: SupervisingProcess, states: dict[str, str], until: float | None) -> bool:
        if supervisor.ended() or (until is not None and time.monotonic() >= until):
            return True
        if self.bounded is None:
            return False
        # Of a role that is given up the others cannot make a bounded run whole.
        lost = any(state == "FATAL" and name != "dashboards" for name, state in states.items())
        return lost or (not self.away and self._finished(self.bounded))

    def _finished(self, bounded: BoundedRun) -> bool:
        try:
            return bounded.finished()
        except ServerAwayError:  # it is looked at again
            return False

    def _explain(self, states: dict[str, str]) -> None:
        """Say once of each role in trouble what its log says last, so that nobody has to look there first."""
        for name, state in states.items():
            if state in {"BACKOFF", "FATAL"} and name not in self.explained:
                self.explained.add(name)
                self.screen.say(f"  {name} crashed: {last_line(self.place.logs / f'{name}.log')}")

    def _greet_dashboards(self) -> None:
        if self.options.dashboards and not self.ready and answers(self.port):
            self.ready = True
            self.screen.say("  the dashboards are ready")

    def _stop(self, supervisor: SupervisingProcess | None) -> None:
        self.screen.end()
        if supervisor is not None:
            supervisor.stop()
            if not supervisor.wait(SUPERVISOR_SECONDS + 2):
                self.trouble = self.trouble or "the supervisor did not stop in time and was ended"
        processes.end_marked(self.place.system)
        self.place.remove()

    def _summary(self, seconds: float) -> int:
        if self.bounded is not None:
            done = self._finished(self.bounded)
            outcome = self.bounded.outcome or {}
            failed = outcome.get("failed", 0) + outcome.get("cancelled", 0)
            self.screen.say(
                f"{outcome.get('completed', 0)} completed, {failed} failed, {seconds:.1f} seconds"
                if done
                else f"not all of the {self.options.jobs} jobs were finished after {seconds:.1f} seconds"
            )
            if failed or not done:
                self.trouble = self.trouble or f"see `pq --db {self.queue.url} failed`"
        if self.trouble:
            print(f"run_all: {self.trouble}", file=sys.stderr)  # noqa: T201  # for a person
            return 1
        self.screen.say("everything has stopped")
        return 0

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, *_: object) -> None:
        now = time.monotonic()
        if not self.stopping.is_set():
            self.asked_at = now
        elif now > self.asked_at + DOUBLED_SECONDS:  # a person who asks twice does not want to wait
            threading.Thread(target=processes.end_marked, args=(self.place.system,)).start()
        self.stopping.set()


def free_port(wanted: int) -> int:
    """`wanted`, or any free one for 0. Raises UsageError where it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except (OSError, OverflowError):
            raise UsageError(f"port {wanted} cannot be used; --port 0 takes any free one") from None
        return int(probe.getsockname()[1])


def last_line(log: Path) -> str:
    """The end of a log, where the cause of a crash stands; nothing of it is obeyed by the terminal."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 5_000))
            text = file.read().decode(errors="replace").strip()
    except OSError:
        return f"see {log}"
    line = text.rpartition("\n")[2] or f"see {log}"
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:200]


def token_file(place: Place) -> Path:
    """The file with the dashboards' token: one per database, beside it."""
    return place.lock.with_name(place.lock.name.removesuffix("-run") + "-token")


def answers(port: int) -> bool:
    """True when the dashboards serve."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=0.3)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def parser() -> argparse.ArgumentParser:
    """The options of run_all.py."""
    words = argparse.ArgumentParser(prog="run_all.py", description=__doc__)
    words.add_argument("--db", help="file or URL of the queue (default: PQ_URL, QUEUE_DB_FILE, queue.db)")
    words.add_argument("--producers", type=_whole, default=1, metavar="N")
    words.add_argument("--consumers", type=_whole, default=2, metavar="N")
    words.add_argument(
        "--interval", type=_positive, metavar="SECONDS", help="between two files of a producer"
    )
    words.add_argument("--port", type=_whole, default=8866, help="of the dashboards; 0 takes any free one")
    words.add_argument("--jobs", type=_whole, metavar="N", help="end when the producers' N jobs are finished")
    words.add_argument("--for", dest="seconds", type=_positive, metavar="SECONDS", help="end after that time")
    words.add_argument("--no-dashboards", dest="dashboards", action="store_false")
    words.add_argument("--read-only", action="store_true", help="the dashboards refuse every action")
    words.add_argument(
        "--tasks", action="append", default=[], metavar="SOURCE", help="a module or .py file with tasks"
    )
    words.add_argument("--supervisor", choices=("auto", "supervisor", "honcho"), default="auto")
    return words


def _whole(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must not be negative: {text}")
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < 1e9:
        raise argparse.ArgumentTypeError(f"must be more than 0: {text}")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the system; 0 when it stopped as wanted, 1 when something failed, 2 for wrong options."""
    options = parser().parse_args(arguments)
    if options.jobs is not None and options.producers < 1:
        parser().error("--jobs needs at least one producer")
    if not (options.producers or options.consumers or options.dashboards):
        parser().error("there is nothing to run")
    try:
        return _run(options)
    except (PQError, OSError) as error:
        print(f"run_all: {error}", file=sys.stderr)  # noqa: T201  # for a person
        return 1
    except KeyboardInterrupt:
        return 130


def _run(options: argparse.Namespace) -> int:
    import pq
    from pq.settings import read_settings

    settings = read_settings()
    if options.interval is None:
        options.interval = settings.interval.total_seconds()
    url = options.db or settings.database
    system = uuid.uuid4().hex
    with pq.connect(url) as queue:
        if "://" not in queue.url:
            url = queue.url  # two names of one file must meet at one lock
        owned = ownership.take(ownership.lock_path(url, queue.folder), system)
        if not isinstance(owned, ownership.Ownership):
            pid = owned.pid if owned else "unknown"
            raise UsageError(f"the system already runs on {queue.url} (pid {pid}); stop that one first")
        with contextlib.closing(owned):
            place = Place(url, queue.folder.absolute(), owned.path, system)
            if owned.previous:  # what is left of a run that was killed together with its guards
                processes.end_marked(owned.previous.system)
                replace(place, system=owned.previous.system).remove()
            return System(options, queue, place).run()


if __name__ == "__main__":
    sys.exit(main())
