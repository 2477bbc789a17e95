"""The two supervisors that can keep the programs alive: Supervisor, and Honcho where it cannot run."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shlex
import subprocess
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pq.private import opener
from pq.system.programs import GUARD_SECONDS, LEAST_SECONDS, LOG_BYTES, LOG_COPIES, SUPERVISOR_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pq.system.programs import Place, Program

START_ATTEMPTS = 8  # with Supervisor's back-off of 1, 2, 3 … seconds


@dataclass
class SupervisingProcess(ABC):
    """A supervisor as a child of its own; a guard ends it, and all below it, with the owner of the lock."""

    place: Place
    programs: Sequence[Program]
    child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Write its configuration and start it, in a session that the terminal's Ctrl-C does not reach."""
        command = self.prepare()
        guard = [
            sys.executable,
            "-m",
            "pq.system.guard",
            "--grace",
            str(SUPERVISOR_SECONDS),
            "--umask",
            "077",
        ]
        guard += ["--remove", str(self.place.private), "--", *command]
        with open(self.place.logs / "supervisor-errors.log", "wb", opener=opener) as output:
            self.child = subprocess.Popen(  # noqa: S603  # our own words
                guard,
                env=self.place.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def ended(self) -> bool:
        """True when the supervisor is not running."""
        return self.child is None or self.child.poll() is not None

    def stop(self) -> None:
        """Ask it, and with it all roles at once, to stop; `wait` for the end."""
        if self.child is not None and not self.ended():
            self.child.terminate()

    def wait(self, seconds: float) -> bool:
        """True when it has ended within that time."""
        try:
            if self.child is not None:
                self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    @abstractmethod
    def prepare(self) -> list[str]:
        """Write the configuration; the command to start."""

    @abstractmethod
    def states(self) -> dict[str, str]:
        """The state of each role in Supervisor's words; empty while it cannot be asked."""


@dataclass
class Supervisor(SupervisingProcess):
    """supervisord, with a socket in the private folder."""

    password: str = field(default_factory=secrets.token_hex)

    def prepare(self) -> list[str]:
        """One file that only this user can read, as it has the socket's password."""
        path = self.place.private / "supervisord.conf"
        path.touch(mode=0o600)
        path.write_text(supervisor_config(self.place.private, self.programs, self.password), encoding="utf-8")
        return [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(path)]

    def states(self) -> dict[str, str]:
        """Asked of supervisord itself."""
        from xmlrpc.client import Error, ServerProxy

        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport("pq", self.password, f"unix://{self.place.private}/socket")
        proxy = ServerProxy("http://127.0.0.1", transport=transport)
        try:
            answer: Any = proxy.supervisor.getAllProcessInfo()
        except (OSError, Error, http.client.HTTPException):
            return {}
        finally:
            transport.close()
        return {str(role["name"]): str(role["statename"]) for role in answer}


def supervisor_config(private: Path, programs: Sequence[Program], password: str) -> str:
    """The configuration file: all roles in one group, so that they are stopped at the same time."""
    user = "user=root\n" if hasattr(os, "getuid") and os.getuid() == 0 else ""
    logs = f"logfile_maxbytes={LOG_BYTES}\nlogfile_backups={LOG_COPIES}"
    login = f"username=pq\npassword={password}"
    return f"""\
[supervisord]
nodaemon=true
silent=true
minfds=256
minprocs=50
pidfile={private}/pid
childlogdir={private}
logfile={private}/logs/supervisor.log
{logs}
{user}
[unix_http_server]
file={private}/socket
chmod=0700
{login}

[supervisorctl]
serverurl=unix://{private}/socket
{login}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[group:pq]
programs={",".join(program.name for program in programs)}

{"".join(_program_section(private, program) for program in programs)}"""


def _program_section(private: Path, program: Program) -> str:
    command = shlex.join(program.guarded()).replace("%", "%%")
    return f"""\
[program:{program.name}]
command={command}
autorestart=unexpected
exitcodes=0
startsecs={LEAST_SECONDS}
startretries={START_ATTEMPTS}
stopsignal=TERM
stopwaitsecs={GUARD_SECONDS + 1}
killasgroup=false
redirect_stderr=true
stdout_logfile={private}/logs/{program.name}.log
stdout_logfile_maxbytes={LOG_BYTES}
stdout_logfile_backups={LOG_COPIES}

"""


@dataclass
class Honcho(SupervisingProcess):
    """Honcho's manager; as it ends all programs when one ends, the guards do the restarting."""

    def prepare(self) -> list[str]:
        """The commands, each with the file in which its guard tells its state."""
        states = self.place.private / "states"
        commands = {program.name: program.guarded(states / program.name) for program in self.programs}
        path = self.place.private / "honcho.json"
        path.write_text(json.dumps({"logs": str(self.place.logs), "commands": commands}), encoding="utf-8")
        return [sys.executable, "-m", "pq.system.honcho_manager", str(path)]

    def states(self) -> dict[str, str]:
        """Read from those files."""
        states = {}
        for program in self.programs:
            path = self.place.private / "states" / program.name
            states[program.name] = (path.read_text(encoding="utf-8") if path.exists() else "") or "STARTING"
        return states


def supervisor_for(choice: str) -> type[SupervisingProcess]:
    """`auto` is Supervisor wherever it can run, which is not on Windows."""
    if choice == "auto":
        choice = "honcho" if sys.platform == "win32" else "supervisor"
    return Honcho if choice == "honcho" else Supervisor
