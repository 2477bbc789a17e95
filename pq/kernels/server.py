"""The consumer's end of a kernel server: the process under its guard, the socket, and when it is stale."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pq.errors import KernelStartError
from pq.system import ownership

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LONGEST_ADDRESS = 80  # a socket's path may have 107 bytes, and the kernel's own part is added
PATIENCE_SECONDS = 0.5
LEFTOVER_SECONDS = 60.0
PREFIX = "pq-kernels-"
CLOSE_SECONDS = 15.0


def can_fork() -> bool:
    """Whether warm kernels are safe here: macOS has threads that no fork survives, Windows has no fork."""
    return sys.platform == "linux"


class KernelServer:
    """One running server. `environment` is what it was started with, `ready` that it takes requests."""

    def __init__(self, folder: Path, plan: Mapping[str, Any], flags: Sequence[str]) -> None:
        self.folder = folder
        self.ready = False
        self.flags = tuple(flags)
        self.preload = tuple(plan["preload"])
        self.is_warm = bool(plan["warm"])
        self.environment = dict(os.environ)
        self._owner = os.getpid()
        self._input = b""
        self._closed = False
        self._libraries = _libraries()
        self._lock = ownership.take(folder / "lock", uuid.uuid4().hex)
        self.channel, theirs = socket.socketpair()
        # Under a guard: it ends all of it when this process dies in any way, and when the server does.
        guard = [
            sys.executable,
            "-m",
            "pq.system.guard",
            "--lock",
            str(folder / "lock"),
            "--remove",
            str(folder),
        ]
        server = [sys.executable, *flags, "-m", "pq.kernels.zygote", json.dumps(plan)]
        with theirs, (folder / "log").open("wb") as log:
            self._guard = subprocess.Popen(  # noqa: S603  # our own words
                [*guard, "--", *server],
                stdin=theirs.fileno(),
                stdout=log,
                stderr=log,
                cwd=folder,
                env=self.environment,  # exactly this: C libraries add variables that Python does not see
                start_new_session=True,  # a Ctrl-C in the terminal is the consumer's affair
            )

    @property
    def pid(self) -> int | None:
        """The process id of the server itself."""
        import psutil

        with suppress(psutil.Error):
            for child in psutil.Process(self._guard.pid).children():
                return int(child.pid)
        return None

    def is_usable(self) -> bool:
        """Whether it can still be spoken to; a copy in a forked process must not."""
        return not self._closed and os.getpid() == self._owner

    def is_stale(self) -> bool:
        """Whether libraries were installed, removed or changed since it imported them."""
        return self._libraries != _libraries()

    def events(self, seconds: float) -> Iterator[dict[str, Any]]:
        """The events that have come; waits for the first at most so long."""
        while self.is_usable() and select.select([self.channel], [], [], seconds)[0]:
            try:
                data = self.channel.recv(1 << 16)
            except ConnectionError:
                data = b""
            if not data:
                self.close()
                return
            seconds = 0.0
            *lines, self._input = (self._input + data).split(b"\n")
            yield from (json.loads(line) for line in lines)

    def log_tail(self) -> str:
        """The last lines that the server wrote."""
        with suppress(OSError):
            return "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-8:])
        return ""

    def close(self) -> None:
        """End the server and its kernels; returns when they are gone."""
        if self._closed:
            return
        self._closed = True
        self.channel.close()
        if os.getpid() != self._owner:
            return
        for seconds in (PATIENCE_SECONDS, CLOSE_SECONDS):
            with suppress(subprocess.TimeoutExpired):
                self._guard.wait(seconds)
                break
            if isinstance(self._lock, ownership.Ownership):
                self._lock.close()  # the server does not listen: the guard ends it and all that is below
        else:
            self._guard.kill()
            self._guard.wait()
        if isinstance(self._lock, ownership.Ownership):
            self._lock.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def private_folder(parent: str | Path | None) -> Path:
    """A new folder for this user alone, with a path short enough for sockets."""
    for place in (parent, tempfile.gettempdir(), "/tmp"):  # noqa: S108  # mkdtemp makes it private
        if place is not None:
            _remove_leftovers(Path(place))
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=Path(place).absolute()))
            if len(os.fsencode(folder)) <= LONGEST_ADDRESS:
                return folder
            shutil.rmtree(folder)
    raise KernelStartError("there is no folder for temporary files with a path short enough for sockets")


def _remove_leftovers(place: Path) -> None:
    """Remove the folders whose owner, guard and server were all killed, or the machine stopped."""
    for folder in place.glob(f"{PREFIX}*"):
        lock = folder / "lock"
        with suppress(OSError):
            # A new one gets its lock in a moment.
            settled = time.time() - folder.stat().st_mtime > LEFTOVER_SECONDS
            mine = not hasattr(os, "getuid") or folder.lstat().st_uid == os.getuid()
            if settled and mine and (not lock.exists() or ownership.owner_is_gone(lock)):
                shutil.rmtree(folder, ignore_errors=True)


def _libraries() -> tuple[object, ...]:
    """What tells that installed libraries have changed; any change touches their folder."""
    folders = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    return tuple((folder, folder.stat().st_mtime_ns) for folder in sorted(folders) if folder.is_dir())
