"""Every error that pq raises on purpose: one class per cause, each also a fitting built-in."""


class PQError(Exception):
    """The base of all deliberate errors; its text is one line for a person."""


class JobNotFoundError(PQError, LookupError):
    """No job has this id; it was deleted, or never existed."""


class LeaseLostError(PQError, RuntimeError):
    """The caller no longer holds the job: nothing was changed, and its work on the job must stop."""


class CancelRequestedError(PQError, RuntimeError):
    """A person asked to cancel the running job: stop, then `fail` it."""


class TransitionError(PQError, ValueError):
    """The job's status does not allow this verb."""


class DuplicateJobError(PQError, ValueError):
    """Another unfinished job has the same unique key."""


class UnknownTaskError(PQError, LookupError):
    """No task is registered under this name."""


class InvalidJobError(PQError, ValueError):
    """A value cannot be stored or asked for: wrong type, out of range, too large, or not JSON."""


class NotebookError(PQError, RuntimeError):
    """A notebook cannot be run, or its run did not end well. `retry` False: trying again would not help."""

    retry = True


class NotebookMissingError(NotebookError):
    """The notebook is not there, is none, or lies outside the allowed folders."""

    retry = False


class CellError(NotebookError):
    """A cell raised; the message names the cell and the exception, a note holds the kernel's traceback."""


class CellTimeoutError(NotebookError, TimeoutError):
    """A cell ran longer than the limit for one cell."""


class KernelStartError(NotebookError):
    """The kernel did not start, or did not answer in time; nothing of the notebook has run."""


class KernelDiedError(NotebookError):
    """The kernel's process ended while a cell ran."""


class KernelMemoryError(KernelDiedError, MemoryError):
    """The run needed more memory than its limit, or than the machine has; the same again would too."""

    retry = False


class StorageError(PQError, OSError):
    """The database cannot be opened, read or written: full, locked, read-only, damaged, or not ours."""


class FileGoneError(StorageError):
    """The file of an open queue was deleted, moved or replaced: nothing that is stored there would last."""


class MovedError(StorageError):
    """The queue has moved, or is being moved, to the place that the message names; nothing was changed."""


class MoveError(PQError, RuntimeError):
    """The move of a queue cannot begin or go on; what is stored is as safe as before."""


class ServerAwayError(StorageError):
    """The database's server cannot be reached, or is just starting or stopping; later it may answer."""


class UnsafePathError(PQError, OSError):
    """A path leads through a symbolic link out of its folder, or to something that is no regular file."""


class WaitTimeoutError(PQError, TimeoutError):
    """The job did not finish within the time the caller gave."""


class TaskTimeoutError(PQError, TimeoutError):
    """The task ran longer than its job's time limit."""
