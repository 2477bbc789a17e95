"""Whose runs/ is: two queues in one folder would give their runs the same names, and close each other's."""

import os
from contextlib import suppress
from pathlib import Path

from pq.errors import MovedError, NotebookError, PQError
from pq.interface import PersistentQInterface
from pq.notebook.places import RUNS
from pq.private import make_folder, opener
from pq.settings import read_settings

OWNER = ".queue"


def check_runs(queue: PersistentQInterface) -> None:
    """Raises NotebookError where runs/ beside this database is that of another one."""
    owner = _owner(queue)
    if not owns_runs(queue) and owner is not None and _lives(queue.folder / owner):
        raise NotebookError(
            f"{queue.folder / RUNS} has the runs of {owner}, and the ids of {_name(queue)} are the same; "
            "put one of the two into a folder of its own, or set PQ_RUNS"
        )


def claim_runs(queue: PersistentQInterface) -> None:
    """Note that runs/ beside this database is its own. Raises NotebookError where it is another's."""
    check_runs(queue)
    if not _may_be_shared(queue) or _owner(queue) == _name(queue):
        return
    note = queue.folder / RUNS / OWNER
    make_folder(note.parent)
    note.unlink(missing_ok=True)
    with suppress(FileExistsError), open(note, "x", encoding="utf-8", opener=opener) as file:
        file.write(_name(queue))
    check_runs(queue)  # another may have been quicker


def owns_runs(queue: PersistentQInterface) -> bool:
    """Whether the drafts there can be of this queue's jobs."""
    return not _may_be_shared(queue) or _owner(queue) in (None, _name(queue))


def _may_be_shared(queue: PersistentQInterface) -> bool:
    return "://" not in queue.url and read_settings().runs is None


def _name(queue: PersistentQInterface) -> str:
    return Path(queue.url).name


def _owner(queue: PersistentQInterface) -> str | None:
    with suppress(OSError):
        number = os.open(queue.folder / RUNS / OWNER, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(number, encoding="utf-8", errors="replace") as file:
            return Path(file.read(1000)).name or None
    return None


def _lives(database: Path) -> bool:
    """Whether there is such a queue still; one that has moved has no use for its runs here."""
    from pq.factory import connect

    if not database.is_file():
        return False
    try:
        with connect(database):
            return True
    except MovedError:
        return False
    except PQError:
        return True
