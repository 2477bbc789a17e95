"""Kernels for runs: each in a process of its own, warm where a kernel server can fork one, else cold.

with KernelPool(preload=("pandas",)) as pool:
    kernel = pool.start("python3", cwd="/data", environment={"STAGE": "test"})
    client = kernel.client()
    ...
    kernel.kill()

All kernels of a pool, and all that they start, end with the pool's process, whatever ends it.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pq.errors import KernelStartError
from pq.kernels import specs as kernel_specs
from pq.kernels.server import KernelServer, can_fork, private_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pq.kernels.client import AsyncClient, BlockingClient, KernelHandle

TRIAL_SECONDS = 20.0  # for one forked kernel, before the pool relies on them
LOAD_SECONDS = 90.0  # the server imports the libraries, after up to 30 s behind other servers
START_SECONDS = 60.0
END_SECONDS = 15.0

log = logging.getLogger("pq")


@dataclass(frozen=True, slots=True)
class Exit:
    """How a kernel ended.

    `code` is its exit status, None where signal `signal` ended it; `by_us`: it was killed on request.
    `for_memory`: the system killed it for memory, or it broke at its memory limit. `peak_bytes` is the
    most memory it had (None: not known), `tail` the last lines of what it wrote past Jupyter.
    """

    code: int | None
    signal: int | None
    by_us: bool
    for_memory: bool
    peak_bytes: int | None
    tail: str = ""

    @property
    def status(self) -> int:
        """The exit status, or the signal as a negative number, as subprocess has it."""
        return -self.signal if self.signal is not None else self.code or 0

    def last_words(self) -> str:
        """What it wrote last, as a few lines for a message."""
        return "\n".join(self.tail.splitlines()[-8:]) or "it wrote nothing"

    def __str__(self) -> str:
        if self.for_memory:
            return "the kernel was ended for memory"
        if self.signal is None:
            return f"the kernel ended with status {self.code}"
        return f"the kernel was ended by {_signal_name(self.signal)}"


class Kernel:
    """One kernel, used for one run.

    `mode` is warm or cold, `reason` why it is not warm; `connection_file` holds addresses and key.
    """

    def __init__(self, pool: KernelPool, server: KernelServer, number: int, plan: kernel_specs.Plan) -> None:
        self.pid = 0
        self.mode: Literal["warm", "cold"] = "warm" if plan.warm else "cold"
        self.reason = plan.reason
        self.name = plan.name
        self.connection_file = ""
        self._pool = pool
        self._server = server
        self._number = number
        self._interrupt_by_message = plan.interrupt_by_message
        self._killed = False
        self._exit: Exit | None = None

    @property
    def manager(self) -> KernelHandle:
        """What nbclient and papermill take for their kernel manager: they then start and stop nothing."""
        from pq.kernels.client import KernelHandle

        return KernelHandle(self)

    def client(self) -> BlockingClient:
        """A started client of a kernel that has answered. Raises KernelStartError where it does not."""
        from pq.kernels.client import BlockingClient

        client = BlockingClient(self)
        client.start_channels()
        try:
            client.wait_for_ready(START_SECONDS)
        except BaseException:
            client.stop_channels()
            raise
        return client

    async def async_client(self) -> AsyncClient:
        """The same for an event loop."""
        client = self.manager.client()
        client.start_channels()
        try:
            await client.wait_for_ready(START_SECONDS)
        except BaseException:
            client.stop_channels()
            raise
        return client

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the running cell, and in what its process group runs."""
        if self._interrupt_by_message:
            self._send_interrupt_request()
        else:
            self._pool.send(self._server, {"do": "interrupt", "kernel": self._number})

    def _send_interrupt_request(self) -> None:
        from jupyter_client.blocking.client import BlockingKernelClient

        client: Any = BlockingKernelClient()
        client.load_connection_file(self.connection_file)
        client.start_channels(shell=False, iopub=False, stdin=False, hb=False, control=True)
        client.control_channel.send(client.session.msg("interrupt_request"))
        client.control_channel.socket.close(linger=1000)

    def kill(self) -> None:
        """End it and everything that it started, at once; returns when all are gone."""
        self._killed = True
        if self.is_alive():
            self._pool.send(self._server, {"do": "kill", "kernel": self._number})
            self._pool.wait(self._server, lambda: self._exit is not None, END_SECONDS)

    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self.exit() is None

    def exit(self) -> Exit | None:
        """How it ended, None while it runs."""
        if self._exit is None:
            self._pool.look(self._server)
        return self._exit

    def belongs_to(self, server: KernelServer) -> bool:
        """Whether this server runs it."""
        return self._server is server

    def is_told_of(self) -> bool:
        """Whether its start or its end is known here."""
        return bool(self.pid or self._exit)

    def began(self, event: Mapping[str, Any]) -> None:
        """Take what the server tells of the start."""
        self.pid, self.connection_file = event["pid"], event["connection"]

    def ended(self, event: Mapping[str, Any], limit: int | None) -> None:
        """Take what the server tells of the end."""
        code = event["code"]
        signal = -code if code < 0 else None
        peak = event["peak_bytes"]
        at_limit = signal is not None and limit is not None and (peak or 0) > 0.8 * limit
        self._exit = Exit(
            code=None if signal else code,
            signal=signal,
            by_us=self._killed,
            for_memory=not self._killed and (event["for_memory"] or at_limit),
            peak_bytes=peak,
            tail=event["tail"],
        )


class KernelPool:
    """Starts kernels for one process, one user at a time; a context manager.

    `preload` are modules of installed libraries that warm kernels have imported, `spare` is how many of
    them wait ready. `cold` switches warm kernels off. `max_memory_bytes` limits what each process of a
    run may allocate. `folder` is where the private folder is made; None: the one for temporary files.
    `reason` says why the pool has no warm kernels, None while it has them. Without
    `with` the server starts with the first kernel, and `close` ends it.
    """

    def __init__(
        self,
        *,
        preload: Sequence[str] = (),
        spare: int = 1,
        cold: bool = False,
        max_memory_bytes: int | None = None,
        folder: str | Path | None = None,
    ) -> None:
        self.reason: str | None = None
        if cold:
            self.reason = "warm kernels are switched off"
        elif not can_fork():
            self.reason = "this system has no safe fork; warm kernels need Linux"
        self._preload = tuple(preload)
        self._spare = spare
        self._memory = max_memory_bytes
        self._parent = folder
        self._lock = threading.RLock()
        self._kernels: dict[int, Kernel] = {}
        self._count = 0
        self._server: KernelServer | None = None
        self._closed = False

    def __enter__(self) -> Self:
        with self._lock:
            self._launch()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all kernels and the server."""
        with self._lock:
            server, self._server, self._closed = self._server, None, True
            if server is not None:
                server.close()
                self._lose(server)

    @property
    def server_pid(self) -> int | None:
        """The kernel server's process, None while there is none or it is not known yet."""
        return None if self._server is None else self._server.pid

    def start(
        self,
        kernel_name: str | None,
        *,
        cwd: str | Path,
        environment: Mapping[str, str] | None = None,
        cold: bool = False,
    ) -> Kernel:
        """A new kernel: warm where it is the Python kernel of this interpreter, else cold.

        `environment` is set on top of this process's own; a variable that is read only when Python or a
        library starts makes the kernel cold, as `cold` does. Raises KernelStartError, as `Kernel.client` may.
        """
        folder = Path(cwd).absolute()
        if not folder.is_dir():
            raise KernelStartError(f"cannot start a kernel in {folder}: there is no such folder")
        with self._lock:
            server = self._ready_server()
            plan = self._plan(kernel_name, server, environment or {}, cold=cold)
            kernel = self._order(server, plan, folder)
            if plan.warm and (ended := kernel.exit()) is not None:
                # Whatever it is, the run goes on without it, and the next start has a new server.
                log.warning("a warm kernel did not come up: %s; %s", ended, ended.last_words())
                self._launch()
                server = self._ready_server()
                kernel = self._order(server, plan.made_cold("a warm kernel did not come up"), folder)
        if (ended := kernel.exit()) is not None:
            raise KernelStartError(f"cannot start kernel {plan.name}: {ended}; {ended.last_words()}")
        return kernel

    # -- the server ---------------------------------------------------------------------------------

    def _launch(self) -> KernelServer:
        if self._server is not None:
            self._server.close()
            self._lose(self._server)
        self._server = None
        folder = private_folder(self._parent)
        plan = {
            "folder": str(folder),
            "preload": self._preload,
            "spare": self._spare,
            "warm": self.reason is None,
            "trial_seconds": TRIAL_SECONDS,
            "slots": str(Path(tempfile.gettempdir()) / f"pq-{_user()}-loading"),
        }
        self._server = KernelServer(folder, plan, kernel_specs.python_flags())
        return self._server

    def _ready_server(self) -> KernelServer:
        if self._closed:
            raise KernelStartError("the kernel pool is closed; make a new one")
        if self._server is None or not self._server.is_usable() or self._server.is_stale():
            self._launch()
        server = self._server or self._launch()
        if (why := self._does_not_come_up(server)) and server.is_warm:
            if self.reason is None:
                self._note(why)
            server = self._launch()
            why = self._does_not_come_up(server)
        if why:
            raise KernelStartError(why)
        return server

    def _does_not_come_up(self, server: KernelServer) -> str | None:
        if server.ready or self.wait(server, lambda: server.ready, LOAD_SECONDS):
            return None
        return f"the kernel server did not come up: {server.log_tail() or 'it did not answer in time'}"

    def _note(self, reason: str) -> None:
        self.reason = reason
        log.warning("kernels are cold: %s", reason)

    def _plan(
        self, name: str | None, server: KernelServer, environment: Mapping[str, str], *, cold: bool
    ) -> kernel_specs.Plan:
        reason = "the run asked for a cold kernel" if cold else self.reason
        try:
            return kernel_specs.plan(name, server, environment, why_cold=reason)
        except LookupError as error:
            raise KernelStartError(str(error)) from None

    def _order(self, server: KernelServer, plan: kernel_specs.Plan, cwd: Path) -> Kernel:
        self._count += 1
        number = self._count
        kernel = self._kernels[number] = Kernel(self, server, number, plan)
        request = {"do": "start", "kernel": number, "cwd": str(cwd), "memory": self._memory}
        if plan.warm:
            request |= {"changes": plan.changes, "early": plan.early}
        else:
            folder = server.folder / f"c{number}"
            folder.mkdir(mode=0o700)
            command = kernel_specs.command(plan, folder)
            request |= {"command": command, "environment": plan.environment, "folder": str(folder)}
        self.send(server, request)
        if not self.wait(server, kernel.is_told_of, START_SECONDS):
            kernel.kill()
        return kernel

    def send(self, server: KernelServer, request: Mapping[str, Any]) -> None:
        """Send one request; a server that is gone has ended its kernels, which the next look tells."""
        with self._lock, suppress(OSError):
            server.channel.sendall(json.dumps(request).encode() + b"\n")

    def wait(self, server: KernelServer, condition: Any, seconds: float) -> bool:
        """Take events until the condition holds; False when it does not in time or the server is gone."""
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0 or not server.is_usable():
                return bool(condition())
            self.look(server, min(left, 0.1))
        return True

    def look(self, server: KernelServer, seconds: float = 0.0) -> None:
        """Take the events that have come."""
        with self._lock:
            for event in server.events(seconds):
                self._take(server, event)
            if not server.is_usable():
                self._lose(server)

    def _take(self, server: KernelServer, event: Mapping[str, Any]) -> None:
        kind = event["event"]
        if kind == "ready":
            server.ready = True
            for note in event["notes"]:
                log.warning("%s", note)
        elif kind == "unfit":
            self._note(event["reason"])
        elif kind == "started":
            self._kernels[event["kernel"]].began(event)
        elif (kernel := self._kernels.pop(event["kernel"], None)) is not None:
            kernel.ended(event, self._memory)

    def _lose(self, server: KernelServer) -> None:
        """The server has ended, and with it its kernels."""
        event = {"code": -9, "peak_bytes": None, "for_memory": False, "tail": "the kernel server has ended"}
        for number, kernel in list(self._kernels.items()):
            if kernel.belongs_to(server):
                kernel.ended(event, None)
                del self._kernels[number]


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _signal_name(number: int) -> str:
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
