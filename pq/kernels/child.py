"""What a forked child of the kernel server does until it is a kernel, or has become another program.

Everything here runs after a fork, in the only thread of the process. What was found out the hard way
(signals, seeds, folders that libraries remember) stands beside the line that answers it.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

MARKER = "PQ_KERNEL"  # in the environment of a kernel, so that its orphans are known for its own
LOG = "log"
CONNECTION = "connection.json"
ADDRESS = "s"
FAILED, NOT_STARTED = 70, 127
TRIAL_CELLS = (
    "1 + 1",
    "print(1)",
    "1 / 0",
    "import warnings; warnings.warn('x')",
    "await __import__('asyncio').sleep(0)",
)


def connection_file(folder: Path) -> Path:
    """Where a kernel's addresses and key stand."""
    return folder / CONNECTION


def detach(folder: Path, parent: int) -> None:
    """Make the child a process of its own: session, signals, streams; it dies with its parent (Linux)."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.setsid()  # or an interrupt of one run would reach all
    die_with_parent(parent, signal.SIGKILL)
    null = os.open(os.devnull, os.O_RDONLY)
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(log)


def die_with_parent(parent: int, number: int) -> None:
    """Ask the system for a signal when the parent dies; ends at once where it has died already."""
    if sys.platform != "linux":
        return
    import ctypes

    set_parent_death_signal = 1
    ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, int(number), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(FAILED)


def become_program(command: Sequence[str], order: Mapping[str, Any]) -> None:
    """Become a cold kernel."""
    try:
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and exec would keep that
            signal.signal(number, signal.SIG_DFL)
        os.chdir(order["cwd"])
        limit_memory(order["memory"])
        os.execvpe(command[0], list(command), order["environment"])  # noqa: S606  # of a kernelspec
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]}: {error}\n")
    sys.stderr.flush()
    os._exit(NOT_STARTED)


def become_kernel(folder: Path, control: socket.socket, order: Mapping[str, Any] | None) -> None:
    """Become a warm kernel: prepared at once, it runs when its order has come (None: it will come)."""
    gc.enable()
    atexit._clear()  # noqa: SLF001  # what the server registered is the server's
    if order is None:
        application = prepare(folder)
        control.sendall(b"up\n")
        order = _wait_for_order(control)
        settle(order, application)
    else:
        settle(order, None)
        application = prepare(folder)
        control.sendall(b"up\n")
    control.sendall(b"on\n")
    control.close()
    application.start()
    leave()


def _wait_for_order(control: socket.socket) -> Mapping[str, Any]:
    with control.makefile("rb") as stream:
        line = stream.readline()
    if not line.endswith(b"\n"):
        os._exit(0)  # the server is gone, or has no use for this one
    order: dict[str, Any] = json.loads(line)
    return order


def prepare(folder: Path) -> Any:
    """A kernel application with its sockets open, as `python -m ipykernel_launcher` would make it."""
    import ipykernel_launcher  # type: ignore[import-untyped]  # it has no marker
    from ipykernel.kernelapp import IPKernelApp

    file = str(connection_file(folder))
    words = ["-f", file, "--HistoryManager.hist_file=:memory:"]
    sys.argv = [str(ipykernel_launcher.__file__), *words]
    sys.orig_argv = [sys.executable, "-m", "ipykernel_launcher", *words]
    # The address is absolute: jupyter_client's own is relative, and two kernels in one folder would share it.
    application = IPKernelApp.instance(transport="ipc", ip=str(folder / ADDRESS))
    application.parent_handle = os.getppid()  # read from the environment when ipykernel was imported
    application.initialize(words)
    application.poller = None  # the system tells when the parent dies
    return application


def settle(order: Mapping[str, Any], application: Any) -> None:
    """Take over the environment, folder and limits of a run, and forget the server's."""
    _take_environment(order["changes"])
    os.chdir(order["cwd"])
    _move(application)
    reseed()
    for name in [name for name in sys.modules if name == "pq" or name.startswith("pq.")]:
        del sys.modules[name]  # the notebook's own import must find what is there now
    if sys.modules.get("debugpy", "") is None:
        del sys.modules["debugpy"]
    limit_memory(order["memory"])


def _take_environment(changes: Mapping[str, str | None]) -> None:
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    os.environ["JPY_PARENT_PID"] = str(os.getppid())
    if "TZ" in changes:
        time.tzset()
    if "tempfile" in sys.modules:
        sys.modules["tempfile"].tempdir = None  # type: ignore[attr-defined]  # it remembers the first answer


def _move(application: Any) -> None:
    """Correct what was remembered of the working folder before the order came."""
    here = Path.cwd()
    if (process := sys.modules.get("multiprocessing.process")) is not None:
        process.ORIGINAL_DIR = str(here)  # type: ignore[attr-defined]  # a module's variable
    if application is not None:
        application.shell.starting_dir = str(here)
        application.shell.user_ns["_dh"][:] = [here]


def reseed() -> None:
    """Without this all children of one server would draw the same numbers."""
    random.seed()
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        numpy_random.seed()
    if (process := sys.modules.get("multiprocessing.process")) is not None:
        process.current_process().authkey = os.urandom(32)


def limit_memory(most_bytes: int | None) -> None:
    """Let allocations beyond this fail in this process and in each that it starts."""
    if most_bytes is None:
        return
    import resource

    kind = resource.RLIMIT_DATA if sys.platform == "linux" else resource.RLIMIT_AS
    _, hard = resource.getrlimit(kind)
    most = most_bytes if hard == resource.RLIM_INFINITY else min(most_bytes, hard)
    resource.setrlimit(kind, (most, most))


def leave() -> None:
    """End as an interpreter does, without going back into the server's frames."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001  # waits for threads that are no daemons
        atexit._run_exitfuncs()  # noqa: SLF001  # nothing else runs them after a fork
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(0)


def try_out(folder: Path, control: socket.socket) -> None:
    """Be a kernel for a moment, use what was preloaded, and tell what else a kernel imports."""
    before = set(sys.modules)
    gc.enable()
    atexit._clear()  # noqa: SLF001  # see become_kernel
    os.environ["IPYTHONDIR"] = str(folder)  # nothing of the user's runs here
    application = prepare(folder)
    settle({"changes": {}, "cwd": str(folder), "memory": None}, application)
    for cell in TRIAL_CELLS:
        application.shell.run_cell(cell)
    thread = threading.Thread(target=_use_libraries)
    thread.start()
    thread.join()
    _use_libraries()
    control.sendall(json.dumps(sorted(set(sys.modules) - before)).encode() + b"\n")
    os._exit(0)


def _use_libraries() -> None:
    """The threads of a library that a fork has lost show here, as a hang that the server waits for."""
    if (numpy := sys.modules.get("numpy")) is not None:
        square = numpy.ones((200, 200))
        (square @ square).sum()
    if (pandas := sys.modules.get("pandas")) is not None:
        pandas.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "x"]}).groupby("b").sum()
