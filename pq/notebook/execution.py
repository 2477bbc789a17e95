"""Running the cells of one notebook in a kernel: a message loop that notices death, limits and interrupts.

The messages become outputs by nbclient's own code, so that what is stored is what papermill would store;
the loop itself is ours, because nbclient's takes a second to see a dead kernel and then lies about it.
"""

import re
import time
from collections.abc import Callable
from typing import Any, Protocol

from pq.errors import (
    CancelRequestedError,
    CellError,
    CellTimeoutError,
    KernelDiedError,
    KernelMemoryError,
    NotebookError,
    TaskTimeoutError,
)
from pq.notebook.executed import RAISES_TAG, SKIP_TAG, Executed
from pq.notebook.memory import MemoryWatch

POLL_SECONDS = 0.1
ALIVE_SECONDS = 0.25
GRACE_SECONDS = 2.0
STOP_GRACE_SECONDS = 1.0
LATE_OUTPUT_SECONDS = 10.0
# ipykernel 7.0 to 7.3 may miss a request and sleep until the next message comes (its issue 1554).
WAKE_SECONDS = 2.0
OUTPUT_BYTES = 100_000_000
ANSI = re.compile(r"\x1b(?:\[[0-9;:?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
MEMORY_ERRORS = ("MemoryError", "_ArrayMemoryError", "OutOfMemoryError")


class RunningKernel(Protocol):
    """What the loop needs of a kernel."""

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the running cell."""

    def kill(self) -> None:
        """End it and all that it started."""

    def is_alive(self) -> bool:
        """Whether its process runs."""
        ...

    def exit(self) -> Any:
        """How it ended, None while it runs."""


class Run:
    """One notebook in one kernel. `run` returns after the last cell, or raises what ended it before."""

    def __init__(
        self,
        executed: Executed,
        kernel: RunningKernel,
        client: Any,
        memory: MemoryWatch,
        progress: Callable[[float, str], None],
        cell_timeout: float | None,
    ) -> None:
        self._executed = executed
        self._kernel = kernel
        self._client = client
        self._memory = memory
        self._progress = progress
        self._cell_timeout = cell_timeout
        self._outputs = _nbclient(executed.notebook, client)
        self._bytes = 0
        self._alive_at = 0.0
        self._parent: str | None = None
        self._begun = self._idle = False
        self._reply: dict[str, Any] | None = None
        self._iopub, self._shell = (
            _plain(one.socket) for one in (client.iopub_channel, client.shell_channel)
        )
        self._poller = _poller(self._iopub, self._shell)

    def run(self) -> str | None:
        """Run all cells in their order; why it ended before the last one without an error, else None."""
        executed = self._executed
        self._client.kernel_info()  # the answer is taken when it comes
        for number, cell in enumerate(executed.cells, 1):
            if not cell.source.strip() or SKIP_TAG in cell.metadata.get("tags", []):
                executed.skip(number, "not run" if cell.source.strip() else "completed")
                continue
            executed.begin(number)
            self._progress((number - 1) / len(executed.cells), f"{self._where()}: {executed.first_line()}")
            reply = self._run_cell(cell)
            if reply["status"] == "ok" or RAISES_TAG in cell.metadata.get("tags", []):
                executed.end("completed", exception=reply["status"] != "ok")
            elif reply.get("ename") == "SystemExit" and str(reply.get("evalue")) in {"", "0", "None"}:
                executed.end("completed")
                return f"{self._where()} ended the notebook by sys.exit()"
            else:
                executed.end("failed", exception=True)
                executed.facts["cell"] = number
                raise self._cell_error(reply)
        self._outputs.set_widgets_metadata()
        return None

    def stop(self, error: BaseException) -> None:
        """Interrupt the running cell, collect what it still says, and kill the kernel if it does not obey."""
        executed = self._executed
        try:
            if self._parent is not None and self._kernel.is_alive():
                self._interrupt(STOP_GRACE_SECONDS if isinstance(error, KeyboardInterrupt) else GRACE_SECONDS)
            self._outputs.set_widgets_metadata()
        finally:
            executed.interrupt(type(error).__name__, executed.masking.text(why(error)))

    def _interrupt(self, grace: float) -> None:
        cell = self._executed.cells[self._executed.number - 1]
        deadline = time.monotonic() + grace
        self._kernel.interrupt()
        while time.monotonic() < deadline and self._kernel.is_alive():
            if self._pump(cell, min(POLL_SECONDS, deadline - time.monotonic())) == (True, True):
                return

    # -- one cell ---------------------------------------------------------------------------------

    def _run_cell(self, cell: Any) -> dict[str, Any]:
        allows_errors = RAISES_TAG in cell.metadata.get("tags", [])
        self._parent = self._client.execute(
            cell.source, store_history=True, allow_stdin=False, stop_on_error=not allows_errors
        )
        self._begun, self._idle, self._reply = False, False, None
        self._outputs.clear_before_next_output = False
        began = woken_at = time.monotonic()
        replied_at: float | None = None
        while not (self._idle and self._reply is not None):
            now = time.monotonic()
            self._check_kernel(cell, now)
            if self._cell_timeout is not None and now - began > self._cell_timeout:
                raise CellTimeoutError(
                    f"{self._where()} ran longer than its limit of {self._cell_timeout:g} s"
                )
            if self._reply is not None:
                replied_at = replied_at or now
                if now - replied_at > LATE_OUTPUT_SECONDS:
                    self._executed.facts["late_output"] = self._executed.number
                    break
            elif (self._idle or not self._begun) and now - woken_at > WAKE_SECONDS:
                self._client.kernel_info()
                woken_at = now
            self._pump(cell, POLL_SECONDS)
            self._executed.save()
        self._parent = None
        content: dict[str, Any] = (self._reply or {})["content"]
        return content

    def _pump(self, cell: Any, seconds: float) -> tuple[bool, bool]:
        """Take in what the kernel says within that time; whether the cell is idle, and has replied."""
        for socket, _ in self._poller.poll(max(0, int(seconds * 1000))):
            if socket is self._iopub:
                self._take_outputs(cell)
            else:
                self._take_reply(self._received(socket))
        return self._idle, self._reply is not None

    def _take_reply(self, message: dict[str, Any] | None) -> None:
        if message is None:
            return
        if message["msg_type"] == "kernel_info_reply":
            self._executed.speaks(message["content"])
        elif message["parent_header"].get("msg_id") == self._parent:
            self._reply = message

    def _take_outputs(self, cell: Any) -> None:
        """All waiting outputs; those of no cell of this notebook are not for it."""
        from nbclient.exceptions import CellExecutionComplete

        executed = self._executed
        for _ in range(1_000):  # then limits and interrupts have their turn
            message = self._received(self._iopub)
            if message is None:
                return
            if message["parent_header"].get("msg_id") != self._parent or not self._has_room(message, cell):
                continue
            self._begun = True
            try:
                self._outputs.process_message(message, cell, executed.number - 1)
            except CellExecutionComplete:
                self._idle = True
                return
            executed.touch()

    def _received(self, socket: Any) -> dict[str, Any] | None:
        """The next message, None where there is none now; a torn or forged one is passed over."""
        import zmq

        try:
            message: dict[str, Any] | None = self._client.session.recv(socket, mode=zmq.NOBLOCK)[1]
        except ValueError:
            return self._received(socket)
        return message

    def _has_room(self, message: dict[str, Any], cell: Any) -> bool:
        """Whether the run may still store outputs; an endless print must not fill memory and disk."""
        if message["msg_type"] not in {"stream", "display_data", "execute_result", "update_display_data"}:
            return True
        content = message["content"]
        before = self._bytes
        self._bytes += len(content.get("text", "")) + sum(map(_size, content.get("data", {}).values()))
        if self._bytes <= OUTPUT_BYTES:
            return True
        if before <= OUTPUT_BYTES:
            from nbformat.v4 import new_output

            text = f"pq: outputs after the first {OUTPUT_BYTES:,} bytes of this run were left out\n"
            cell.outputs.append(new_output("stream", name="stderr", text=text))
        return False

    def _check_kernel(self, cell: Any, now: float) -> None:
        if now - self._alive_at < ALIVE_SECONDS:
            return
        self._alive_at = now
        if self._memory.is_over():
            self._kernel.kill()
            raise KernelMemoryError(f"{self._where()} took more memory than {self._memory.told()}")
        if not self._kernel.is_alive():
            while self._poller.poll(50) and not self._idle:
                self._pump(cell, 0)
            raise self._death()

    def _death(self) -> KernelDiedError:
        ended = self._kernel.exit()
        kind = KernelMemoryError if ended.for_memory else KernelDiedError
        error = kind(f"{self._where()}: {ended}")
        if ended.tail:
            error.add_note(self._executed.masking.text(ended.tail))
        return error

    def _cell_error(self, reply: dict[str, Any]) -> NotebookError:
        mask = self._executed.masking.text
        name, value = str(reply.get("ename")), mask(str(reply.get("evalue")))
        count = self._executed.cells[self._executed.number - 1].execution_count
        text = f"{self._where()}, In [{count}]: {name}: {value}"
        if self._memory.limit is not None and name in MEMORY_ERRORS:
            error: NotebookError = KernelMemoryError(f"{text} (the limit is {self._memory.told()})")
        else:
            error = CellError(text)
        error.add_note(mask(ANSI.sub("", "\n".join(map(str, reply.get("traceback") or [])))))
        return error

    def _where(self) -> str:
        return f"cell {self._executed.number} of {len(self._executed.cells)}"


def why(error: BaseException) -> str:
    """The reason as one line."""
    if isinstance(error, KeyboardInterrupt):
        return "the consumer was stopped, and the job is given back"
    return str(error) or type(error).__name__


def outcome_of(error: BaseException) -> str:
    """The word that the attempt will carry."""
    if isinstance(error, TaskTimeoutError):
        return "timeout"
    if isinstance(error, CancelRequestedError):
        return "cancelled"
    return "failed"


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str) else len(str(value))


def _nbclient(notebook: Any, client: Any) -> Any:
    from nbclient import NotebookClient

    outputs = NotebookClient(notebook, km=_NoManager())
    outputs.kc = client
    return outputs


class _NoManager:
    """nbclient makes a manager of its own where it gets none; ours stays with the kernel."""


def _plain(socket: Any) -> Any:
    """A view of the client's socket that blocks instead of awaiting; the loop has nothing else to do."""
    import zmq

    return zmq.Socket.shadow(getattr(socket, "underlying", socket))


def _poller(*sockets: Any) -> Any:
    import zmq

    poller = zmq.Poller()
    for socket in sockets:
        poller.register(socket, zmq.POLLIN)
    return poller
