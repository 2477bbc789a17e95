"""The registry: which function runs for a task's name, and the context that it is given."""

import importlib
import importlib.metadata
import importlib.util
import inspect
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pq.errors import CancelRequestedError, InvalidJobError, PQError, StorageError, UnknownTaskError
from pq.interface import LEASE, PersistentQInterface
from pq.job import Job
from pq.values import name as checked_name

GROUP = "pq.tasks"
BUILT_IN = {"stamp": "pq.stamp"}
PROGRESS_SECONDS = 0.25

log = logging.getLogger("pq")
Function = TypeVar("Function", bound=Callable[..., Any])


def task(name: str) -> Callable[[Function], Function]:
    """Let jobs of this name run the function, called with the job's parameters as keywords.

    A parameter named `context` receives a Context. Running a notebook cell again replaces the function;
    another function under a taken name raises InvalidJobError.
    """
    checked_name(name, "a task's name")

    def register(function: Function) -> Function:
        _enter(_read(name, function))
        return function

    return register


class Context:
    """What a task may ask of its run: `job`, `queue`, `folder`, `key`, and `progress`."""

    def __init__(self, job: Job, queue: PersistentQInterface, lease: Any = LEASE) -> None:
        self.job = job
        self.queue = queue
        self._lease = lease
        self.interrupt: BaseException | None = None
        self._next = 0.0
        self._waiting: tuple[float | None, str | None] | None = None
        self._lock = threading.Lock()

    @property
    def folder(self) -> Path:
        """The folder of inbox/, processed/, runs/ and logs/."""
        return self.queue.folder

    @property
    def key(self) -> str:
        """The same text in every attempt of this job: the key for calls that must not happen twice."""
        return str(self.job.id)

    def progress(self, fraction: float | None, message: str | None = None) -> None:
        """Store how far the task is (0 to 1) and a line on it; cheap enough to call in a loop.

        At most four a second are written, the latest of them for certain. Raises CancelRequestedError when a
        person wants the job stopped, LeaseLostError when it is no longer this consumer's, and whatever else
        interrupts the task (`interrupt`).
        """
        if fraction is not None and not 0 <= fraction <= 1:
            raise InvalidJobError(f"progress goes from 0 to 1: {fraction!r:.50}")
        if self.interrupt is not None:
            raise self.interrupt
        with self._lock:
            self._waiting = (fraction, message)
        self.flush()

    def flush(self) -> None:
        """Write the latest progress if it is not written yet and the last write is old enough."""
        now = time.monotonic()
        if self._waiting is None or now < self._next:
            return
        with self._lock:
            waiting, self._waiting, self._next = self._waiting, None, now + PROGRESS_SECONDS
        if waiting is None:
            return
        fraction, message = waiting
        try:
            self.queue.heartbeat(self.job, progress=fraction, message=message, lease=self._lease)
        except CancelRequestedError:
            raise
        except StorageError as error:  # a locked database must not end hours of work
            log.warning("the progress of job %d could not be stored: %s", self.job.id, error)


@dataclass(frozen=True, slots=True)
class Task:
    """A registered function, and which keywords it takes."""

    name: str
    function: Callable[..., Any]
    required: frozenset[str]
    accepted: frozenset[str]
    takes_any: bool
    takes_context: bool

    def keywords(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters, if they fit the signature. Raises InvalidJobError naming those that do not."""
        names = parameters.keys()
        if self.required <= names and (names <= self.accepted or self.takes_any):
            if self.takes_context and "context" in names:
                raise InvalidJobError(
                    f"task {self.name} sets `context` itself; leave it out of the parameters"
                )
            return dict(parameters)
        raise InvalidJobError(self._misfit(set(names)))

    def _misfit(self, names: set[str]) -> str:
        parts = []
        if missing := sorted(self.required - names):
            parts.append(f"missing {', '.join(missing)}")
        if not self.takes_any and (unknown := sorted(names - self.accepted)):
            parts.append(f"unknown {', '.join(unknown)}")
        takes = ", ".join(sorted(self.accepted)) or "none"
        return f"the parameters do not fit task {self.name}: {'; '.join(parts)}; it takes {takes}"


def lookup(name: str) -> Task:
    """The task of this name. Raises UnknownTaskError with the names there are."""
    found = _registry.tasks.get(name)
    return found if found is not None else _registry.find(name)


def known() -> list[str]:
    """The names of all tasks, built-in and installed ones too, in order."""
    _registry.load()
    return sorted(_registry.tasks)


def load_tasks(sources: Sequence[str]) -> None:
    """Import modules by name, or .py files by path, so that their tasks are registered.

    Whoever starts a consumer names them; a job never does. Raises PQError naming what cannot be loaded.
    """
    if isinstance(sources, str):
        raise InvalidJobError(f"tasks must be a list of modules or files, not one text: [{sources!r}]")
    for source in sources:
        try:
            _load_file(Path(source)) if source.endswith(".py") else _load_module(source)
        except PQError:
            raise
        except (Exception, SystemExit) as error:
            raise PQError(f"cannot load tasks from {source}: {type(error).__name__}: {error}") from error


@dataclass
class _Registry:
    tasks: dict[str, Task] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    loaded: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    def find(self, name: str) -> Task:
        self.load()
        if name in self.tasks:
            return self.tasks[name]
        if name in self.broken:
            raise PQError(f"task {name} is installed but cannot be loaded: {self.broken[name]}")
        broken = "".join(f"; {name} cannot be loaded: {error}" for name, error in self.broken.items())
        raise UnknownTaskError(f"unknown task {name!r}; known are {', '.join(sorted(self.tasks))}{broken}")

    def load(self) -> None:
        """Import the built-in tasks and the installed ones, once, at the first name that is not there."""
        with self.lock:
            if self.loaded:
                return
            self.loaded = True
            for module in set(BUILT_IN.values()):
                importlib.import_module(module)
            for entry in importlib.metadata.entry_points(group=GROUP):
                self._load_entry(entry)

    def _load_entry(self, entry: importlib.metadata.EntryPoint) -> None:
        try:
            value = entry.load()
            if callable(value) and entry.name not in self.tasks:
                _enter(_read(entry.name, value))
        except Exception as error:  # noqa: BLE001  # somebody else's module: it may raise anything
            self.broken[entry.name] = f"{entry.value}: {type(error).__name__}: {error}"
            log.warning("the tasks of entry point %s cannot be loaded: %s", entry.name, error)


_registry = _Registry()


def _enter(new: Task) -> None:
    home = BUILT_IN.get(new.name)
    if home is not None and new.function.__module__ != home:
        raise InvalidJobError(f"task {new.name} is built in; choose another name")
    with _registry.lock:
        old = _registry.tasks.get(new.name)
        if old is not None and _origin(old.function) != _origin(new.function):
            raise InvalidJobError(
                f"task {new.name} is already {_origin(old.function)}; "
                f"choose another name for {_origin(new.function)}"
            )
        _registry.tasks[new.name] = new


def _origin(function: Callable[..., Any]) -> str:
    module = getattr(function, "__module__", None)
    return f"{module}.{getattr(function, '__qualname__', repr(function))}"


def _read(name: str, function: Callable[..., Any]) -> Task:
    if not callable(function):
        raise InvalidJobError(f"task {name} must be a function, not {type(function).__name__}")
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise InvalidJobError(f"task {name} must be a plain function; call asyncio.run inside it")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise InvalidJobError(f"task {name} has no signature ({error}); wrap it in a function") from None
    named = [one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    if any(one.kind is one.POSITIONAL_ONLY and one.default is one.empty for one in parameters):
        raise InvalidJobError(f"task {name} has positional-only parameters; jobs pass theirs by name")
    accepted = frozenset(one.name for one in named)
    required = frozenset(one.name for one in named if one.default is one.empty)
    return Task(
        name,
        function,
        required=required - {"context"},
        accepted=accepted - {"context"},
        takes_any=any(one.kind is one.VAR_KEYWORD for one in parameters),
        takes_context="context" in accepted,
    )


def _load_module(name: str) -> None:
    # The command's own folder is on the path of `python x.py`, but not of an installed command.
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.append(str(Path.cwd()))
    importlib.import_module(name)


def _load_file(path: Path) -> None:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise PQError(f"cannot load tasks from {path}: there is no such file")
    name = f"pq_tasks_of.{path}"
    if name in sys.modules:
        return
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # so that it can import what lies beside it
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PQError(f"cannot load tasks from {path}: it is not Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
