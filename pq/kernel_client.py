"""The Jupyter side of a kernel: a client that is ready in milliseconds, and the manager nbclient wants."""

from __future__ import annotations

import time
from queue import Empty
from typing import TYPE_CHECKING, Any

from jupyter_client.asynchronous.client import AsyncKernelClient

if TYPE_CHECKING:
    from pq.kernels import Kernel

LOOK_SECONDS = 0.1
AGAIN_SECONDS = 1.0


class KernelClient(AsyncKernelClient):
    """jupyter_client's, but alive is what the process is, and ready as soon as nothing can be lost."""

    def __init__(self, *, owner: Kernel, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._owner = owner
        self.allow_stdin = False

    def start_channels(self, *_: Any, **__: Any) -> None:
        """Open the channels, once, without the heartbeat: the process itself is watched."""
        if not self.channels_running:
            super().start_channels(hb=False)
            self.allow_stdin = False

    async def is_alive(self) -> bool:
        """Whether the kernel's process runs."""
        return self._owner.is_alive()

    async def wait_for_ready(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  # as in the base
        """Wait until the kernel has answered and its outputs reach this client.

        That is when its iopub channel has welcomed us (JEP 65) or, for kernels that do not, has told
        of our request. Raises KernelStartError when it ends before, or does not in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        requests: set[str] = set()
        answered = heard = False
        asked = 0.0
        while not (answered and heard):
            self._check(deadline)
            if time.monotonic() - asked > AGAIN_SECONDS:
                requests.add(self.kernel_info())
                asked = time.monotonic()
            heard = heard or await self._hears(requests)
            answered = answered or await self._is_answered(requests)

    def _check(self, deadline: float | None) -> None:
        from pq.kernels import KernelStartError

        ended = self._owner.exit()
        if ended is not None:
            lines = "\n".join(ended.tail.splitlines()[-8:]) or "it wrote nothing"
            raise KernelStartError(f"kernel {self._owner.name} did not come up: {ended}; {lines}")
        if deadline is not None and time.monotonic() > deadline:
            raise KernelStartError(f"kernel {self._owner.name} did not answer in time")

    async def _hears(self, requests: set[str]) -> bool:
        try:
            message = await self.iopub_channel.get_msg(timeout=LOOK_SECONDS)
        except Empty:
            return False
        return message["msg_type"] == "iopub_welcome" or message["parent_header"].get("msg_id") in requests

    async def _is_answered(self, requests: set[str]) -> bool:
        try:
            message = await self.shell_channel.get_msg(timeout=LOOK_SECONDS)
        except Empty:
            return False
        if message["parent_header"].get("msg_id") not in requests:
            return False
        self._handle_kernel_info_reply(message)
        return True


class KernelHandle:
    """Stands for a jupyter_client KernelManager of a kernel that somebody else starts and ends."""

    has_kernel = True

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.kernel_name = kernel.name
        self.kernel_id = f"pq-{kernel.pid}"
        self.ipykernel = kernel.mode == "warm"

    def client(self, **_: Any) -> KernelClient:
        """A client whose channels are still closed, as a manager's."""
        return self._kernel.unconnected_client()

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
