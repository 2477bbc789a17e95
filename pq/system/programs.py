"""What the system consists of: its roles as programs, and the environment and files they run with."""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pq.errors import NotebookError
from pq.private import make_folder
from pq.system import processes

LOG_BYTES = 2_000_000
LOG_COPIES = 3
LEAST_SECONDS = 5  # a program that ends sooner has failed, for Supervisor
# A stop may take ten seconds: the running job has five to end before it is given back, the guard waits
# three more for the kernel and papermill, and the supervisor two more for all guards.
JOB_SECONDS = 5
GUARD_SECONDS = 8
SUPERVISOR_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Program:
    """One role: its name, its command, and whether it is asked to stop through the queue."""

    name: str
    command: tuple[str, ...]
    stops_by_queue: bool
    temporary: Path | None = None

    def guarded(self, state: Path | None = None) -> list[str]:
        """The command under its guard; with `state` the guard restarts it."""
        words = [sys.executable, "-m", "pq.system.guard", "--role", self.name, "--grace", str(GUARD_SECONDS)]
        if self.stops_by_queue:
            words += ["--stop-name", self.name]
        if self.temporary:
            words += ["--temporary", str(self.temporary)]
        # The supervisor writes its logs for this user alone; what jobs write is as the user wants it.
        words += ["--harmless", "--umask", f"{processes.current_umask():03o}"]
        words += ["--restart", str(state)] if state else ["--least", str(LEAST_SECONDS + 1)]
        return [*words, "--", *self.command]


@dataclass(frozen=True)
class Place:
    """Where one run of the system lives.

    `url` is the queue, `folder` its folder, `system` the marker of this run, `private` a folder that only
    this user can enter; its path is short, because sockets lie in it.
    """

    url: str
    folder: Path
    lock: Path
    system: str

    @property
    def private(self) -> Path:
        """Known from the marker alone, so that the next run can remove what a killed one left."""
        return Path(tempfile.gettempdir()) / f"pq-{self.system[:12]}"

    @property
    def logs(self) -> Path:
        """The logs of all roles."""
        return self.folder / "logs"

    def prepare(self) -> None:
        """Make the folders, and a way to the logs whose name no configuration file can misread."""
        for name in ("logs", "runs"):
            make_folder(self.folder / name)
        self.private.mkdir(mode=0o700)
        for name in ("runtime", "ipython", "states", "t"):
            (self.private / name).mkdir(mode=0o700)
        if sys.platform != "win32":
            (self.private / "logs").symlink_to(self.logs)

    def remove(self) -> None:
        """Remove what only this run needed."""
        shutil.rmtree(self.private, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """What all roles find in their environment."""
        values = dict(os.environ)
        values |= {
            processes.SYSTEM: self.system,
            "PQ_LOCK": str(self.lock),
            "PQ_URL": self.url,
            "PQ_FOLDER": str(self.folder),
            "PYTHONUNBUFFERED": "1",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            # The notebooks run in this Python, whatever kernels the user has installed elsewhere.
            "JUPYTER_PREFER_ENV_PATH": "1",
            # Connection files and histories of kernels: nothing of them is worth keeping.
            "JUPYTER_RUNTIME_DIR": str(self.private / "runtime"),
            "IPYTHONDIR": str(self.private / "ipython"),
        }
        values.pop(processes.ROLE, None)
        return values | _home(self.private, values.get("HOME"))


def _home(private: Path, home: str | None) -> dict[str, str]:
    if sys.platform == "win32" or (home and os.access(home, os.W_OK | os.X_OK)):
        return {}
    return {"HOME": str(private), "JUPYTER_CONFIG_DIR": str(private), "JUPYTER_DATA_DIR": str(private)}


def notebook_program(place: Place, kind: str, name: str, plan: dict[str, Any]) -> Program:
    """A role that is a notebook under papermill, with its plan in a private file. Raises NotebookError."""
    notebook = notebooks_folder() / f"{kind}.ipynb"
    if not notebook.is_file():
        raise NotebookError(f"cannot find {notebook}: it comes with pq; install pq again")
    path = place.private / f"{name}.json"
    words = {
        "notebook": str(notebook),
        "output": str(place.folder / "runs" / f"{name}.ipynb"),
        "cwd": str(Path.cwd()),
    }
    path.write_text(json.dumps(words | plan), encoding="utf-8")
    path.chmod(0o600)
    return Program(name, (sys.executable, "-m", "pq.system.launch", str(path)), stops_by_queue=True)


def dashboards_program(place: Place, port: int, token: Path, *, read_only: bool = False) -> Program:
    """The role that serves both pages; the token is in a file, never among the words of the command.

    Voilà's temporary files go where they are removed with the system, even if Voilà is killed.
    """
    words = [sys.executable, "-m", "pq.dashboards", "--port", str(port), "--token-file", str(token)]
    words += ["--preheat", *(["--read-only"] if read_only else [])]
    return Program("dashboards", tuple(words), stops_by_queue=False, temporary=place.private / "t")


def notebooks_folder() -> Path:
    """The folder of the four notebooks: of the checkout, or where the wheel has put them."""
    folder = Path(__file__).resolve().parents[2] / "notebooks"
    if (folder / "consumer.ipynb").is_file():
        return folder
    return Path(sysconfig.get_path("data")) / "share" / "pq" / "notebooks"
