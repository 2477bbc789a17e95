"""Runs programs under Honcho's manager: `python -m pq.system.honcho_manager PLAN.json`."""

from __future__ import annotations

import json
import logging
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import honcho.manager

from pq.log_file import LogFile
from pq.system.programs import LOG_BYTES, LOG_COPIES, SUPERVISOR_SECONDS

if TYPE_CHECKING:
    from honcho.printer import Message


class LogPrinter:
    """What Honcho prints of each program goes to that program's log file."""

    width = 0  # Honcho sets it

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs: dict[str, LogFile] = {}

    def write(self, message: Message) -> None:
        """Append the message's lines."""
        data = message.data.decode(errors="replace") if isinstance(message.data, bytes) else message.data
        log = self._log("supervisor" if message.name == "system" else message.name)
        log.emit(logging.makeLogRecord({"msg": data.rstrip("\n")}))

    def _log(self, name: str) -> LogFile:
        if name not in self.logs:
            self.logs[name] = LogFile(
                self.folder / f"{name}.log", maxBytes=LOG_BYTES, backupCount=LOG_COPIES, encoding="utf-8"
            )
        return self.logs[name]


def main(plan: str) -> int:
    """Run the programs until told to stop."""
    words: dict[str, Any] = json.loads(Path(plan).read_text(encoding="utf-8"))
    honcho.manager.KILL_WAIT = SUPERVISOR_SECONDS  # its five seconds are less than a graceful stop may take
    manager = honcho.manager.Manager(LogPrinter(Path(words["logs"])))
    join = subprocess.list2cmdline if sys.platform == "win32" else shlex.join
    for name, command in words["commands"].items():
        # `exec`: the signal then goes to the guard alone, and not to a shell before it.
        manager.add_process(name, ("" if sys.platform == "win32" else "exec ") + join(command))
    manager.loop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
