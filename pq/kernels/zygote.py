"""The kernel server: a small process that imports what notebooks need once and forks a kernel for each run.

    python -m pq.kernels.zygote PLAN      with a socket to its consumer as standard input

It never runs code of a user, has one thread, and its only loop waits for the consumer, its children
and SIGCHLD. It adopts the orphans of its kernels. When the consumer closes the socket or dies, it ends
all of them. Requests and events are lines of JSON.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pq.kernels import child as kernel_child
from pq.kernels import family as kernel_family
from pq.kernels import loading as kernel_loading
from pq.system import processes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

TAIL_BYTES = 4000


@dataclass(eq=False)
class Member:
    """One kernel process; `number` is its name at the consumer, None while it is spare."""

    pid: int
    folder: Path
    control: socket.socket | None = None
    number: int | None = None
    known: int = field(default_factory=kernel_family.killed_for_memory)


class Server:
    """Serves one consumer until its socket closes."""

    def __init__(self, channel: socket.socket, plan: Mapping[str, Any]) -> None:
        self._channel = channel
        self._folder = Path(plan["folder"])
        self._preload: Sequence[str] = plan["preload"]
        self._warm: bool = plan["warm"]
        self._spare: int = plan["spare"]
        self._slots = Path(plan["slots"])
        self._trial_seconds: float = plan["trial_seconds"]
        self._members: dict[int, Member] = {}
        self._made = 0
        self._input = b""
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()

    def run(self) -> None:
        """Load, tell that this is done, then serve; where a fork is not safe, tell that and end."""
        self._listen_to_signals()
        notes: list[str] = []
        if self._warm:
            with kernel_loading.slot(self._slots):
                reason = kernel_loading.load(self._preload, notes) or self._try_out()
            if reason is not None:
                # What breaks in a forked kernel can break in every child: not even cold ones start here.
                self._tell("unfit", reason=reason)
                self.end()
        gc.collect()
        gc.freeze()  # children then share these pages, as no collection touches them
        self._tell("ready", notes=notes)
        if kernel_loading.runs_startup_code():
            self._spare = 0  # it may look at the folder and environment of the run
        self._serve()

    def end(self, *_: object) -> None:
        """End everything below this process, then itself."""
        processes.end_descendants()
        self._reap()  # not every system has a parent for them that does
        shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(0)

    def _listen_to_signals(self) -> None:
        for end in (self._wake, self._woken):
            end.setblocking(False)  # noqa: FBT003  # its only argument
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _nothing)
        signal.signal(signal.SIGTERM, self.end)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _serve(self) -> None:
        self._selector.register(self._channel, selectors.EVENT_READ, self._read_requests)
        self._selector.register(self._woken, selectors.EVENT_READ, self._bury)
        self._bury()
        while True:
            self._refill()
            for key, _ in self._selector.select():
                key.data()

    # -- the consumer -------------------------------------------------------------------------------

    def _read_requests(self) -> None:
        try:
            data = self._channel.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            self.end()
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            self._obey(json.loads(line))

    def _obey(self, request: Mapping[str, Any]) -> None:
        number = request["kernel"]
        if request["do"] == "start":
            self._start(number, request)
        elif (member := self._member(number)) is None:
            return  # it has ended meanwhile, and its end was told
        elif request["do"] == "interrupt":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(member.pid, signal.SIGINT)
        else:
            self._end_family(member)
            self._bury()

    def _tell(self, event: str, **values: Any) -> None:
        try:
            self._channel.sendall(json.dumps({"event": event, **values}).encode() + b"\n")
        except OSError:
            self.end()

    # -- kernels ------------------------------------------------------------------------------------

    def _start(self, number: int, request: Mapping[str, Any]) -> None:
        order = {"cwd": request["cwd"], "memory": request["memory"]}
        if command := request.get("command"):
            words = {kernel_child.MARKER: str(number), "JPY_PARENT_PID": str(os.getpid())}
            order["environment"] = {**request["environment"], **words}
            member = self._fork(Path(request["folder"]), lambda: kernel_child.become_program(command, order))
            member.number = number
            self._tell_started(member)
            return
        order["changes"] = {**request["changes"], kernel_child.MARKER: str(number)}
        spare = None if request["early"] else self._spare_member()
        if spare is None:
            self._fork_kernel(order).number = number
            return
        spare.number = number
        with contextlib.suppress(OSError):  # it has just died: its end will be told
            _control(spare).sendall(json.dumps(order).encode() + b"\n")

    def _spare_member(self) -> Member | None:
        return next((member for member in self._members.values() if member.number is None), None)

    def _member(self, number: int) -> Member | None:
        return next((member for member in self._members.values() if member.number == number), None)

    def _refill(self) -> None:
        spares = sum(member.number is None for member in self._members.values())
        if self._warm and spares < self._spare:
            self._fork_kernel(None)

    def _fork_kernel(self, order: Mapping[str, Any] | None) -> Member:
        ours, theirs = socket.socketpair()

        def child() -> None:
            ours.close()
            kernel_child.become_kernel(member_folder, theirs, order)

        member_folder = self._new_folder()
        member = self._fork(member_folder, child)
        theirs.close()
        member.control = ours
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._hear(member))
        return member

    def _new_folder(self) -> Path:
        self._made += 1
        folder = self._folder / f"w{self._made}"
        folder.mkdir(mode=0o700)
        return folder

    def _fork(self, folder: Path, child: Callable[[], None]) -> Member:
        parent = os.getpid()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of threads of libraries
            pid = os.fork()
        if pid:
            member = self._members[pid] = Member(pid, folder)
            return member
        try:
            kernel_child.detach(folder, parent)
            self._close_inherited()
            child()
        except BaseException:  # noqa: BLE001  # nothing may come back into the server's frames
            import traceback

            traceback.print_exc(file=sys.__stderr__)
        finally:
            with contextlib.suppress(Exception):
                (sys.__stderr__ or sys.stderr).flush()
            os._exit(kernel_child.FAILED)

    def _close_inherited(self) -> None:
        self._selector.close()
        for end in (self._channel, self._wake, self._woken):
            end.close()
        for member in self._members.values():
            if member.control is not None:
                member.control.close()

    def _hear(self, member: Member) -> None:
        """A warm kernel says `up` when its sockets are open and `on` when it runs."""
        try:
            said = _control(member).recv(64)
        except ConnectionError:
            said = b""
        if not said or said.endswith(b"on\n"):
            self._close_control(member)
        if said.endswith(b"on\n"):
            self._tell_started(member)

    def _close_control(self, member: Member) -> None:
        if member.control is not None:
            self._selector.unregister(member.control)
            member.control.close()
            member.control = None

    def _tell_started(self, member: Member) -> None:
        file = kernel_child.connection_file(member.folder)
        self._tell("started", kernel=member.number, pid=member.pid, connection=str(file))

    # -- ends ---------------------------------------------------------------------------------------

    def _bury(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(4096):
                pass
        ended = self._reap()
        while ended:
            for member, _, _ in ended:
                self._close_control(member)
                self._end_family(member)
            more = self._reap()  # their children, so that nothing is left when their end is told
            for member, status, peak in ended:
                self._tell_end(member, status, peak)
            ended = more

    def _reap(self) -> list[tuple[Member, int, int]]:
        """The kernels that have ended, with status and peak memory; orphans that have are buried silently."""
        found = []
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    break
                if member := self._members.pop(pid, None):
                    found.append((member, status, usage.ru_maxrss))
        return found

    def _tell_end(self, member: Member, status: int, peak: int) -> None:
        tail = _tail(member.folder / kernel_child.LOG)
        if member.number is None:
            # A spare that cannot come up must not be made again and again.
            self._spare = 0
            sys.stderr.write(f"a spare kernel ended with {status}: {tail}\n")
        else:
            self._tell(
                "ended",
                kernel=member.number,
                code=os.waitstatus_to_exitcode(status),
                peak_bytes=peak * (1 if sys.platform == "darwin" else 1024),
                for_memory=kernel_family.killed_for_memory() > member.known,
                tail=tail,
            )
        shutil.rmtree(member.folder, ignore_errors=True)

    def _end_family(self, member: Member) -> None:
        others = {m.pid: str(m.number) for m in self._members.values() if m is not member}
        alone = not any(m.number is not None for m in self._members.values() if m is not member)
        kernel_family.end(member.pid, str(member.number), others, alone=alone)

    # -- the trial ----------------------------------------------------------------------------------

    def _try_out(self) -> str | None:
        """Fork one child, let it use everything, and import what it had to; gives why it went wrong."""
        ours, theirs = socket.socketpair()
        folder = self._new_folder()
        member = self._fork(folder, lambda: kernel_child.try_out(folder, theirs))
        theirs.close()
        ours.settimeout(self._trial_seconds)
        try:
            with ours, ours.makefile("rb") as stream:
                names = json.loads(stream.readline())
        except TimeoutError:
            return f"a forked kernel did not come up within {self._trial_seconds:g} s"
        except ValueError:
            return f"a forked kernel died on its trial: {_tail(folder / kernel_child.LOG)}"
        finally:
            self._end_family(member)
            os.waitpid(member.pid, 0)
            del self._members[member.pid]
            shutil.rmtree(folder, ignore_errors=True)
        kernel_loading.import_quietly(names)
        return None


def _control(member: Member) -> socket.socket:
    if member.control is None:
        raise BrokenPipeError
    return member.control


def _tail(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return file.read().decode("utf-8", "replace").strip()
    return ""


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """A handler must be there, or the wake-up descriptor is not written to."""


def main(arguments: Sequence[str]) -> None:
    """Serve the consumer at the other end of standard input."""
    plan = json.loads(arguments[0])
    kernel_child.die_with_parent(os.getppid(), signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    processes.become_subreaper()
    channel = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    server = Server(channel, plan)
    try:
        server.run()
    except BaseException:  # noqa: BLE001  # nothing may be left, whatever it was
        import traceback

        traceback.print_exc()
        server.end()


if __name__ == "__main__":
    if sys.path[0] in ("", str(Path.cwd())):
        del sys.path[0]  # or it would be on the path of every run
    main(sys.argv[1:])
