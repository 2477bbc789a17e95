"""What a kernel server imports, and in how many places at once."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import sysconfig
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

LOADING_AT_ONCE = 2
SLOT_SECONDS = 30.0


def load(names: Sequence[str], notes: list[str]) -> str | None:
    """Import ipykernel and the modules; notes what was left out, and gives why forking is off."""
    os.environ.pop("JPY_PARENT_PID", None)
    # Where matplotlib is loaded before a kernel sets this, its figures would not be shown.
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    sys.modules["debugpy"] = None  # type: ignore[assignment]  # 175 ms for what no run needs
    try:
        importlib.import_module("ipykernel.kernelapp")
    except Exception as error:  # noqa: BLE001  # whatever an import raises
        return f"ipykernel cannot be imported: {error}"
    for name in names:
        why = _why_not(name)
        if why is None:
            try:
                importlib.import_module(name)
            except Exception as error:  # noqa: BLE001  # whatever an import raises
                why = f"it cannot be imported: {error}"
        if why is not None:
            notes.append(f"{name} is not preloaded: {why}")
    return None


def _why_not(name: str) -> str | None:
    """Why a module must not be imported here; a user's own could have changed by the next run."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        spec = None
    if spec is None:
        return "there is no such module"
    if name.partition(".")[0] in ("pq", "__main__", "__mp_main__"):
        return "it is not of a library"
    places = spec.submodule_search_locations or [spec.origin or ""]
    if spec.origin in ("built-in", "frozen") or all(_in_library(place) for place in places):
        return None
    return "it is not in site-packages"


def _in_library(place: str) -> bool:
    folders = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")}
    return any(Path(place).is_relative_to(folder) for folder in folders)


def import_quietly(names: Iterable[str]) -> None:
    """Import those that are of installed libraries; one that cannot be is left to who needs it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            with contextlib.suppress(Exception):
                if _why_not(name) is None:
                    importlib.import_module(name)


def runs_startup_code() -> bool:
    """Whether the user has code or settings that run in each new kernel."""
    if "IPython" not in sys.modules:
        return False
    from IPython.paths import get_ipython_dir

    folder = Path(get_ipython_dir()) / "profile_default"
    files = [*folder.glob("startup/*.*py"), *folder.glob("startup/*.py"), *folder.glob("*_config.*")]
    return bool(files or os.environ.get("PYTHONSTARTUP"))


@contextlib.contextmanager
def slot(folder: Path) -> Iterator[None]:
    """One of the places for loading, of all consumers of this user: many at once would only be slower.

    After a while it goes on without: a stopped process must not hold up the others.
    """
    import fcntl

    with contextlib.ExitStack() as stack:
        deadline = time.monotonic() + SLOT_SECONDS
        files = []
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            if folder.lstat().st_uid == os.getuid():
                paths = [folder / f"slot-{number}" for number in range(LOADING_AT_ONCE)]
                files = [stack.enter_context(path.open("a")) for path in paths]
        while files and time.monotonic() < deadline:
            for file in files:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    files = []
                    break
            else:
                time.sleep(0.02)
        yield
