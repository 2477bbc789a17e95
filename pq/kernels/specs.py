"""From a kernel's name to what is started: the kernelspec, and whether a fork can stand in for it."""

from __future__ import annotations

import os
import re
import secrets
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from pq.kernels.child import ADDRESS, MARKER, connection_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pq.kernels.server import KernelServer

NATIVE = "python3"
LAUNCHERS = ("ipykernel_launcher", "ipykernel")

# Read once, when the interpreter or a library starts: a fork would not see another value.
READ_AT_START = (
    "PYTHON", "LD_", "DYLD_", "GLIBC_", "MALLOC_", "LANG", "LC_", "OMP_", "KMP_", "GOMP_", "MKL_",
    "OPENBLAS_", "GOTO_", "BLIS_", "VECLIB_", "NUMEXPR_", "NPY_", "ARROW_", "POLARS_", "NUMBA_",
)  # fmt: skip
READ_BY_LIBRARIES = ("MPL",)
# Read when a kernel is prepared: a fork sees it, a spare that is ready already does not.
READ_BY_KERNELS = (
    "HOME",
    "USERPROFILE",
    "IPYTHON",
    "JUPYTER_",
    "XDG_",
    "MPL",
    "VIRTUAL_ENV",
    "TERM",
    "PAGER",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """How one kernel is started.

    Warm: `changes` against the server's environment (None: unset), `early` if they must be there before
    the kernel is prepared. Cold: `argv` and the whole `environment`; `reason` says why.
    """

    name: str
    warm: bool
    reason: str | None
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    changes: Mapping[str, str | None]
    early: bool
    resource_dir: str
    interrupt_by_message: bool

    def made_cold(self, reason: str) -> Plan:
        """The same kernel, started cold."""
        return replace(self, warm=False, reason=reason, interrupt_by_message=False)


def plan(
    name: str | None, server: KernelServer, environment: Mapping[str, str], *, why_cold: str | None
) -> Plan:
    """How to start the kernel of this name (None: Python's); LookupError where there is none."""
    spec = _spec(name or NATIVE)
    wanted = _environment(spec, environment)
    changes = _changes(server.environment, wanted)
    reason = (
        why_cold
        or _not_ours(spec, server.flags)
        or _fixed(changes, READ_AT_START)
        or (_fixed(changes, READ_BY_LIBRARIES) if server.preload else None)
    )
    return Plan(
        name=name or NATIVE,
        warm=reason is None,
        reason=reason,
        argv=tuple(spec.argv),
        environment=wanted,
        changes=changes,
        early=any(name.startswith(READ_BY_KERNELS) for name in changes),
        resource_dir=str(spec.resource_dir),
        interrupt_by_message=spec.interrupt_mode == "message" and reason is not None,
    )


def command(plan: Plan, folder: Path) -> list[str]:
    """The words of a cold kernel's command, after its connection file is written."""
    ours = any(word in LAUNCHERS for word in plan.argv)
    file = str(connection_file(folder))
    _write_connection(file, folder, ipc=ours, name=plan.name)
    values = {"connection_file": file, "resource_dir": plan.resource_dir, "prefix": sys.prefix}
    words = [re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), word) for word in plan.argv]
    if _is_a_python(words[0]):
        words[0] = sys.executable
    # As nbclient does: many kernels in one history file would wait for each other.
    return [*words, "--HistoryManager.hist_file=:memory:"] if ours else words


def python_flags() -> tuple[str, ...]:
    """The interpreter's options in the Python kernelspec; a server must run with the same."""
    try:
        return _flags(_spec(NATIVE).argv) or ()
    except LookupError:
        return ()


def _spec(name: str) -> Any:
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    manager = KernelSpecManager()
    try:
        spec = manager.get_kernel_spec(name)
    except NoSuchKernel:
        known = ", ".join(sorted(manager.find_kernel_specs())) or "none"
        raise LookupError(f"no kernel is called {name!r}; installed are: {known}") from None
    provisioner = (spec.metadata or {}).get("kernel_provisioner", {}).get("provisioner_name")
    if provisioner not in (None, "local-provisioner"):
        raise LookupError(
            f"kernel {name!r} is started by {provisioner}; pq starts kernels of this machine only"
        )
    return spec


def _not_ours(spec: Any, flags: tuple[str, ...]) -> str | None:
    if spec.language.lower() != "python":
        return f"its language is {spec.language}"
    found = _flags(spec.argv)
    if found is None:
        return "its kernelspec starts another program"
    return None if found == flags else "its kernelspec has other options of Python"


def _flags(argv: Sequence[str]) -> tuple[str, ...] | None:
    """The options between python and `-m ipykernel_launcher`, None for another interpreter or program."""
    *head, dash_m, launcher, dash_f, file = ("", "", "", *argv)[-max(4, len(argv)) :]
    usual = dash_m == "-m" and launcher in LAUNCHERS and dash_f == "-f" and file == "{connection_file}"
    if not usual or not head:
        return None
    same = _is_a_python(head[0]) or Path(head[0]).absolute() == Path(sys.executable).absolute()
    return tuple(head[1:]) if same else None


def _is_a_python(word: str) -> bool:
    """jupyter_client takes these for the interpreter that it runs in."""
    major, minor = sys.version_info[:2]
    return word in ("python", f"python{major}", f"python{major}.{minor}")


def _environment(spec: Any, environment: Mapping[str, str]) -> dict[str, str]:
    wanted = dict(os.environ)
    for name in ("JPY_PARENT_PID", "JPY_SESSION_NAME", "PYTHONEXECUTABLE", MARKER):
        wanted.pop(name, None)
    wanted |= {name: Template(value).safe_substitute(os.environ) for name, value in (spec.env or {}).items()}
    return wanted | dict(environment)


def _changes(base: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str | None]:
    gone: dict[str, str | None] = {name: None for name in base if name not in wanted}
    return gone | {name: value for name, value in wanted.items() if base.get(name) != value}


def _fixed(changes: Mapping[str, object], prefixes: tuple[str, ...]) -> str | None:
    found = sorted(name for name in changes if name.startswith(prefixes))
    return f"{found[0]} is read only when Python or a library starts" if found else None


def _write_connection(file: str, folder: Path, *, ipc: bool, name: str) -> None:
    from jupyter_client.connect import write_connection_file

    # Sockets in the private folder where that is known to work: ports are seen by others, and collide.
    place: dict[str, Any] = {"transport": "ipc", "ip": str(folder / ADDRESS)} if ipc else {}
    write_connection_file(file, key=secrets.token_hex(32).encode(), kernel_name=name, **place)
