"""The Jupyter side of a kernel: clients that are ready in milliseconds, and the manager nbclient wants.

jupyter_client's own way to readiness always waits 200 ms more, for outputs that might come late.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from functools import cache
from queue import Empty
from typing import TYPE_CHECKING, Any

import zmq
import zmq.asyncio
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from traitlets import Type

from pq.errors import KernelStartError

if TYPE_CHECKING:
    from pq.kernels.pool import Kernel

LOOK_SECONDS = 0.1
AGAIN_SECONDS = 1.0
WAKE_SECONDS = 2.0


@cache
def _context(kind: type[zmq.Context[Any]], _pid: int) -> zmq.Context[Any]:
    """One for all clients of this process, which it keeps.

    A client that nobody closed would be collected together with a context of its own, and the end of a
    context waits for its sockets, in the collector and for ever.
    """
    context = kind()
    context.linger = 0  # or the end of this process would wait for a kernel that is gone
    return context


@dataclass
class Handshake:
    """Done when the kernel has answered and its outputs reach the client.

    That is when iopub has welcomed us (JEP 65) or, with kernels that do not, has told of our request.
    """

    kernel: Kernel
    client: Any
    seconds: float
    began: float = field(default_factory=time.monotonic)
    asked_at: float = float("-inf")
    requests: set[str] = field(default_factory=set)
    answered: bool = False
    heard: bool = False

    def goes_on(self) -> bool:
        """False when done; asks again now and then. Raises KernelStartError when there is no hope."""
        if self.answered and self.heard:
            return False
        now = time.monotonic()
        if (ended := self.kernel.exit()) is not None:
            raise KernelStartError(
                f"kernel {self.kernel.name} did not come up: {ended}; {ended.last_words()}"
            )
        if now - self.began > self.seconds:
            raise KernelStartError(f"kernel {self.kernel.name} did not answer within {self.seconds:g} s")
        if now - self.asked_at > AGAIN_SECONDS:
            self.requests.add(self.client.kernel_info())
            self.asked_at = now
        return True

    def take_output(self, message: dict[str, Any]) -> None:
        """One message of iopub."""
        welcome = message["msg_type"] == "iopub_welcome"
        self.heard = self.heard or welcome or message["parent_header"].get("msg_id") in self.requests

    def take_reply(self, message: dict[str, Any]) -> None:
        """One message of the shell."""
        if message["parent_header"].get("msg_id") in self.requests:
            self.answered = True
            self.client._handle_kernel_info_reply(message)  # noqa: SLF001  # as its own wait_for_ready does


class BlockingClient(BlockingKernelClient):
    """jupyter_client's, but alive is what the process is, and there is no heartbeat thread."""

    def __init__(self, owner: Kernel) -> None:
        super().__init__(context=_context(zmq.Context, os.getpid()))
        self._owner = owner
        self.load_connection_file(owner.connection_file)

    def start_channels(self, *_: Any, **__: Any) -> None:
        """Open the channels, once."""
        if not self.channels_running:
            super().start_channels(hb=False)
            self.allow_stdin = False

    def is_alive(self) -> bool:
        """Whether the kernel's process runs."""
        return self._owner.is_alive()

    def wait_for_ready(self, timeout: float | None = None) -> None:
        """Wait until the kernel has answered and no output can be lost. Raises KernelStartError."""
        handshake = Handshake(self._owner, self, float("inf") if timeout is None else timeout)
        iopub, shell = self.iopub_channel, self.shell_channel
        poller = zmq.Poller()
        for channel in (iopub, shell):
            poller.register(channel.socket, zmq.POLLIN)
        while handshake.goes_on():
            ready = dict(poller.poll(int(LOOK_SECONDS * 1000)))
            if iopub.socket in ready:
                handshake.take_output(iopub.get_msg(timeout=0))
            if shell.socket in ready:
                handshake.take_reply(shell.get_msg(timeout=0))


class OutputChannel(AsyncZMQSocketChannel):
    """iopub; `told` is the request that the kernel told of last, and its state."""

    told: tuple[str | None, str | None] = (None, None)

    async def get_msg(  # type: ignore[override]  # as jupyter_client's own
        self,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> dict[str, Any]:
        """The next message."""
        message = await super().get_msg(timeout)
        self.told = message["parent_header"].get("msg_id"), message["content"].get("execution_state")
        return message


class ShellChannel(AsyncZMQSocketChannel):
    """The shell; who waits for a reply of a kernel that sleeps wakes it, by any message.

    ipykernel 7.0 to 7.3 may miss a request and sleep until the next message comes (its issue 1554).
    """

    client: AsyncClient | None = None

    async def get_msg(  # type: ignore[override]  # as jupyter_client's own
        self,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> dict[str, Any]:
        """The next message; raises Empty when there is none in time."""
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        while True:
            left = max(0.0, deadline - time.monotonic())
            try:
                return await super().get_msg(min(left, WAKE_SECONDS))
            except Empty:
                if left <= WAKE_SECONDS:
                    raise
                if self.client is not None and self.client.seems_asleep():
                    self.client.kernel_info()


class AsyncClient(AsyncKernelClient):
    """The same for `await`, which nbclient needs."""

    shell_channel_class = Type(ShellChannel)
    iopub_channel_class = Type(OutputChannel)

    def __init__(self, owner: Kernel) -> None:
        super().__init__(context=_context(zmq.asyncio.Context, os.getpid()))
        self._owner = owner
        self._asked: str | None = None
        self.load_connection_file(owner.connection_file)

    def execute(self, *words: Any, **options: Any) -> Any:
        """Ask for a cell to be run; gives the request's id."""
        self._asked = super().execute(*words, **options)
        self.shell_channel.client = self
        return self._asked

    def seems_asleep(self) -> bool:
        """Whether the kernel has not begun with the latest cell, or has ended it, as far as it has told."""
        request, state = self.iopub_channel.told
        return bool(request != self._asked or state == "idle")

    def start_channels(self, *_: Any, **__: Any) -> None:
        """Open the channels, once."""
        if not self.channels_running:
            super().start_channels(hb=False)
            self.allow_stdin = False

    async def is_alive(self) -> bool:
        """Whether the kernel's process runs."""
        return self._owner.is_alive()

    async def wait_for_ready(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # as in the base
        """Wait until the kernel has answered and no output can be lost. Raises KernelStartError."""
        handshake = Handshake(self._owner, self, float("inf") if timeout is None else timeout)
        while handshake.goes_on():
            try:
                if not handshake.heard:
                    handshake.take_output(await self.iopub_channel.get_msg(timeout=LOOK_SECONDS))
                else:
                    handshake.take_reply(await self.shell_channel.get_msg(timeout=LOOK_SECONDS))
            except Empty:
                continue


class KernelHandle:
    """Stands for a jupyter_client KernelManager of a kernel that somebody else starts and ends."""

    has_kernel = True

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.kernel_name = kernel.name
        self.kernel_id = f"pq-{kernel.pid}"
        self.ipykernel = kernel.mode == "warm"
        self._clients: list[AsyncClient] = []

    def client(self, **_: Any) -> AsyncClient:
        """A client whose channels are still closed, as a manager's."""
        self._clients.append(AsyncClient(self._kernel))
        return self._clients[-1]

    def close(self) -> None:
        """Close the channels of its clients: nbclient leaves those of a manager that is not its own."""
        for client in self._clients:
            if client.channels_running:
                client.stop_channels()
        self._clients.clear()

    async def is_alive(self) -> bool:
        """Whether the kernel's process runs."""
        return self._kernel.is_alive()

    async def interrupt_kernel(self) -> None:
        """Interrupt the running cell."""
        self._kernel.interrupt()

    async def shutdown_kernel(self, **_: Any) -> None:
        """End it at once: a graceful end may hang, and nothing of the run is left in it."""
        self._kernel.kill()

    async def cleanup_resources(self, **_: Any) -> None:
        """Nothing: the server removes the kernel's files."""
