"""pq: a durable job queue for people who work in notebooks.

import pq
queue = pq.connect("queue.db")
job = queue.enqueue("stamp", {"path": "inbox/a.txt"})
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pq.errors import (
    CancelRequestedError,
    CellError,
    CellTimeoutError,
    DuplicateJobError,
    FileGoneError,
    InvalidJobError,
    JobNotFoundError,
    KernelDiedError,
    KernelMemoryError,
    KernelStartError,
    LeaseLostError,
    MovedError,
    MoveError,
    NotebookError,
    NotebookMissingError,
    PQError,
    ServerAwayError,
    StorageError,
    TaskTimeoutError,
    TransitionError,
    UnknownTaskError,
    UnsafePathError,
    WaitTimeoutError,
)

if TYPE_CHECKING:
    from pq.consumer import consume
    from pq.factory import connect
    from pq.interface import PersistentQInterface
    from pq.job import Attempt, Job, NewJob, Status
    from pq.notebook.opening import open_run
    from pq.notebook.recording import displays, record
    from pq.notebook.sweeps import Sweep, sweep
    from pq.postgresql import PersistentQSQLAlchemy
    from pq.producer import produce
    from pq.records import Outcome
    from pq.sqlite import PersistentQSQLite
    from pq.tasks import Context, task

__version__ = "0.1.0"

# Loaded when first used, so that `import pq` and the command line stay quick.
_HOMES = {
    "connect": "pq.factory",
    "consume": "pq.consumer",
    "produce": "pq.producer",
    "PersistentQInterface": "pq.interface",
    "PersistentQSQLite": "pq.sqlite",
    "PersistentQSQLAlchemy": "pq.postgresql",
    "Attempt": "pq.job",
    "Job": "pq.job",
    "NewJob": "pq.job",
    "Outcome": "pq.records",
    "displays": "pq.notebook.recording",
    "record": "pq.notebook.recording",
    "open_run": "pq.notebook.opening",
    "Sweep": "pq.notebook.sweeps",
    "sweep": "pq.notebook.sweeps",
    "Status": "pq.job",
    "Context": "pq.tasks",
    "task": "pq.tasks",
}

__all__ = [
    "Attempt",
    "CancelRequestedError",
    "CellError",
    "CellTimeoutError",
    "Context",
    "DuplicateJobError",
    "FileGoneError",
    "InvalidJobError",
    "Job",
    "JobNotFoundError",
    "KernelDiedError",
    "KernelMemoryError",
    "KernelStartError",
    "LeaseLostError",
    "MoveError",
    "MovedError",
    "NewJob",
    "NotebookError",
    "NotebookMissingError",
    "Outcome",
    "PQError",
    "PersistentQInterface",
    "PersistentQSQLAlchemy",
    "PersistentQSQLite",
    "ServerAwayError",
    "Status",
    "StorageError",
    "Sweep",
    "TaskTimeoutError",
    "TransitionError",
    "UnknownTaskError",
    "UnsafePathError",
    "WaitTimeoutError",
    "connect",
    "consume",
    "displays",
    "open_run",
    "produce",
    "record",
    "sweep",
    "task",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'pq' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
