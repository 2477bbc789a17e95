"""Where a run came from: versions, host, and the git commit of its notebook."""

import os
import platform
import socket
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

GIT_SECONDS = 5


def provenance() -> dict[str, Any]:
    """What is the same for every run of this consumer."""
    return {
        "pq": _version("pq-notebooks"),
        "papermill": _version("papermill"),
        "python": platform.python_version(),
        "host": socket.gethostname(),
    }


def git_state(path: Path, sha256: str) -> dict[str, Any] | None:
    """The commit that is checked out around the notebook, and whether the notebook differs from it."""
    top = next((one for one in path.parents if (one / ".git").exists()), None)
    if top is None:
        return None
    return _git_state(path, top, sha256, _head_stamp(top))


@lru_cache(maxsize=256)
def _git_state(path: Path, top: Path, _sha256: str, _stamp: int) -> dict[str, Any] | None:
    commit = _git(top, "rev-parse", "HEAD")
    if not commit:
        return None
    return {"commit": commit, "changed": bool(_git(top, "status", "--porcelain", "--", str(path)))}


def _git(top: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603  # fixed words, and a path that is no option
            ["git", "-C", str(top), *words],  # noqa: S607  # the user's own git
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _head_stamp(top: Path) -> int:
    """Changes with every commit and checkout."""
    folder = top / ".git"
    try:
        if folder.is_file():
            folder = Path(folder.read_text(encoding="utf-8").removeprefix("gitdir:").strip())
        return (folder / "logs" / "HEAD").stat().st_mtime_ns + (folder / "HEAD").stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
