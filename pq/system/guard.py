"""The guard: runs one command and sees to it that nothing the command started outlives it or the owner.

    python -m pq.system.guard --lock queue.db-run --stop-db queue.db --stop-name consumer-1 -- COMMAND…

Kernels live in sessions of their own and notice a dead papermill only after a second, and what a
notebook started notices nothing at all. So the guard adopts every orphan below it (a subreaper) and
ends all of them when the command has ended, when the owner of the lock has died (by SIGKILL too), or
when it is told to stop and the command had its time to end by itself.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pq.display import harmless
from pq.system import ownership, processes
from pq.system.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

GRACE_SECONDS = 8.0
UNKNOWN_SECONDS = 2.0  # a role that is not registered by then holds no job: no need to wait for it
PRINT_SECONDS = 2.0
OWNER, STOP, EXIT = "owner", "stop", "exit"


@dataclass
class Guard:
    """One command and the reasons to end it; `run` gives its exit status as a shell would."""

    command: Sequence[str]
    lock: Path
    role: str | None = None
    stop_name: str | None = None
    stop_db: str | None = None
    grace: float = GRACE_SECONDS
    least: float = 0.0
    state: Path | None = None
    temporary: Path | None = None
    umask: int = -1
    harmless: bool = False
    events: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    backoff: Backoff = field(default_factory=Backoff)
    _printing: threading.Thread | None = None

    def run(self) -> int:
        """Run the command to its end (with `state`: again and again, until told to stop)."""
        processes.become_subreaper()
        self._listen()
        while True:
            status, reason = self._once()
            if self.state is None or reason != EXIT or not self._again(status):
                return status

    def _listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.events.put(STOP))
        if hasattr(signal, "SIGHUP"):
            # A closed terminal is the owner's affair. (SIG_IGN would be inherited by the command.)
            signal.signal(signal.SIGHUP, lambda *_: None)
        threading.Thread(target=self._watch_owner, daemon=True).start()

    def _watch_owner(self) -> None:
        ownership.wait_for_the_end(self.lock)
        self.events.put(OWNER)

    def _once(self) -> tuple[int, str]:
        if ownership.owner_is_gone(self.lock):
            return 0, OWNER
        self._end_leftovers()
        self._tell("RUNNING")
        started = time.monotonic()
        child = self._start()
        reason = self.events.get()
        if reason == STOP:
            self._stop_gracefully(child)
        processes.end_descendants()
        status = _shell_status(child.wait())
        if self._printing is not None:
            self._printing.join(PRINT_SECONDS)  # the last lines tell why it ended
        if reason == EXIT and status == 0 and self.state is None:
            reason = self._linger(started + self.least)
        return status, reason

    def _start(self) -> subprocess.Popen[bytes]:
        environment = dict(os.environ)
        if self.role:
            environment[processes.ROLE] = self.role
        if self.temporary:
            environment |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(self.temporary))
        try:
            # A session of its own: a Ctrl-C or a signal to the group must pass through the guard.
            child = subprocess.Popen(  # noqa: S603  # its own caller's words
                self.command,
                env=environment,
                start_new_session=True,
                umask=self.umask,
                stdout=subprocess.PIPE if self.harmless else None,
                stderr=subprocess.STDOUT if self.harmless else None,
            )
        except OSError as error:
            raise SystemExit(f"cannot start {self.command[0]}: {error.strerror}") from None
        threading.Thread(target=self._wait, args=(child,), daemon=True).start()
        if child.stdout is not None:
            self._printing = threading.Thread(target=print_harmless, args=(child.stdout,), daemon=True)
            self._printing.start()
        return child

    def _wait(self, child: subprocess.Popen[bytes]) -> None:
        processes.reap_until(child)
        self.events.put(EXIT)

    def _end_leftovers(self) -> None:
        """A guard that was killed could not end its command: the next one of the role does."""
        system = os.environ.get(processes.SYSTEM)
        if system and self.role:
            processes.end_marked(system, self.role)

    def _stop_gracefully(self, child: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self.grace
        if self.stop_name is None:
            child.terminate()
        else:
            deadline = self._ask_to_stop(self.stop_name, deadline)
        self._next(deadline)

    def _ask_to_stop(self, name: str, deadline: float) -> float:
        """Ask through the queue, as papermill has no other way to its kernel; returns the new deadline."""
        import pq

        patience = min(deadline, time.monotonic() + UNKNOWN_SECONDS)
        try:
            with pq.connect(self.stop_db) as connection:
                while not connection.stop_consumer(name, reason="the system stops", by="pq.system.guard"):
                    if self._next(min(patience, time.monotonic() + 0.2)) or time.monotonic() > patience:
                        return 0.0
        except pq.PQError as error:
            print(f"cannot ask {name} to stop: {error}", file=sys.stderr)  # noqa: T201  # the log
            return 0.0
        return deadline

    def _next(self, deadline: float) -> str | None:
        try:
            return self.events.get(timeout=max(0.001, deadline - time.monotonic()))
        except queue.Empty:
            return None

    def _linger(self, until: float) -> str:
        """Supervisor takes a quick end for a failure, even with status 0: stay for the least time."""
        return self._next(until) or EXIT if until > time.monotonic() else EXIT

    def _again(self, status: int) -> bool:
        """Wait as long as the back-off says; False when told to stop."""
        if status == 0:
            self._tell("EXITED")
            self.events.get()
            return False
        delay = self.backoff.after_a_crash(time.monotonic())
        self._tell("FATAL" if delay is None else "BACKOFF")
        if delay is None:
            self.events.get()
            return False
        return self._next(time.monotonic() + delay) is None

    def _tell(self, state: str) -> None:
        if self.state is not None:
            self.state.write_text(state, encoding="utf-8")


def print_harmless(stream: IO[bytes]) -> None:
    """Print what the command writes, so that no terminal that shows the log obeys any of it."""
    decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode
    with stream:
        while block := os.read(stream.fileno(), 65_536):
            # A log that cannot be written must not stop the command.
            with contextlib.suppress(OSError):
                os.write(1, harmless(decode(block)).encode())


def _shell_status(returncode: int) -> int:
    return returncode if returncode >= 0 else 128 - returncode


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of the guard."""
    parser = argparse.ArgumentParser(
        prog="python -m pq.system.guard", description="run a command under guard"
    )
    parser.add_argument("--lock", type=Path, default=os.environ.get("PQ_LOCK"), help="the owner's lock file")
    parser.add_argument("--role", help="the name of what runs, to find what a killed guard left")
    parser.add_argument("--stop-name", help="the consumer or producer to ask to stop through the queue")
    parser.add_argument("--stop-db", help="its queue; otherwise PQ_URL")
    parser.add_argument("--grace", type=float, default=GRACE_SECONDS, help="seconds to end by itself")
    parser.add_argument("--least", type=float, default=0.0, help="seconds to stay after a quick success")
    parser.add_argument("--restart", type=Path, metavar="STATE", help="restart, and write the state here")
    parser.add_argument("--umask", type=lambda text: int(text, 8), default=-1, help="of the command")
    parser.add_argument(
        "--harmless", action="store_true", help="pass its output on without control characters"
    )
    parser.add_argument("--temporary", type=Path, help="the folder for the command's temporary files")
    parser.add_argument("--remove", type=Path, help="a folder to remove in the end")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    if options.lock is None:
        parser.error("--lock or PQ_LOCK is needed")
    guard = Guard(
        options.command,
        Path(options.lock),
        role=options.role,
        stop_name=options.stop_name,
        stop_db=options.stop_db,
        grace=options.grace,
        least=options.least,
        state=options.restart,
        temporary=options.temporary,
        umask=options.umask,
        harmless=options.harmless,
    )
    try:
        return guard.run()
    finally:
        if options.remove:
            shutil.rmtree(options.remove, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
