"""Notebooks as jobs: what may be enqueued, and the task that runs one."""

import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pq import values
from pq.errors import InvalidJobError, LeaseLostError, NotebookMissingError, TransitionError
from pq.interface import PersistentQInterface
from pq.job import FINISHED, Job, NewJob
from pq.notebook.inspecting import (
    Inspected,
    allowed_roots,
    inspect_notebook,
    locate,
    read_notebook,
    spoken,
    within,
)
from pq.notebook.masking import Masking
from pq.notebook.memory import MemoryWatch, memory_bytes
from pq.notebook.owning import check_runs, claim_runs
from pq.notebook.places import place_of
from pq.notebook.provenance import git_state, provenance
from pq.notebook.runs import TASK, Draft, published
from pq.tasks import Context, task

if TYPE_CHECKING:
    from pq.notebook.executed import Executed
    from pq.notebook.execution import Run

RUN_OPTIONS = ("kernel", "cell_timeout", "memory", "cold")
MENDS = "mends:"
NO_PARAMETERS: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class NotebookSource:
    """A notebook that was found and read, ready for any number of jobs."""

    given: str
    inspected: Inspected

    @classmethod
    def find(cls, path: str | os.PathLike[str], folder: Path) -> "NotebookSource":
        """Raises NotebookMissingError where it is not there, is none, or lies outside the allowed folders."""
        real = locate(path, folder)
        home = Path(os.path.realpath(folder))
        given = real.relative_to(home).as_posix() if real.is_relative_to(home) else str(real)
        return cls(given, inspect_notebook(real))

    def new_job(
        self,
        parameters: Mapping[str, Any],
        *,
        kernel: str | None = None,
        cell_timeout: Any = None,
        memory: Any = None,
        cold: bool = False,
        **options: Any,
    ) -> NewJob:
        """A job that runs it. Raises InvalidJobError where the parameters do not fit."""
        if not isinstance(parameters, Mapping):
            raise InvalidJobError(f"parameters must be a mapping, not {type(parameters).__name__}")
        values.parameters(parameters)
        self.inspected.check(parameters)
        asked: dict[str, Any] = {
            "notebook": self.given,
            "parameters": dict(parameters),
            "sha256": self.inspected.sha256,
        }
        if kernel is not None:
            asked["kernel"] = values.name(kernel, "kernel")
        if cell_timeout is not None:
            asked["cell_timeout"] = values.seconds(cell_timeout, "cell_timeout", positive=True)
        if memory is not None:
            asked["memory"] = memory_bytes(memory)
        if cold:
            asked["cold"] = True
        return NewJob(TASK, asked, **options)


def enqueue_notebook(
    queue: PersistentQInterface,
    path: str | os.PathLike[str],
    parameters: Mapping[str, Any] = NO_PARAMETERS,
    **options: Any,
) -> Job:
    """Store a job that runs the notebook with these parameters; nothing is stored where they do not fit.

    `options` are those of `queue.enqueue`, and `kernel` (another than the notebook's), `cell_timeout`
    (seconds for one cell), `memory` ("2G": the limit of the run) and `cold` (no warm kernel).
    """
    new = NotebookSource.find(path, queue.folder).new_job(parameters, **options)
    check_runs(queue)
    return queue.enqueue_many([new])[0]


def enqueue_mended(queue: PersistentQInterface, job: Job | int, path: str | os.PathLike[str]) -> Job:
    """Store a twin of a finished notebook job that runs another notebook with the same parameters.

    The first job keeps its attempts and runs; the twin has its group, its key and the tag `mends:ID`.
    """
    old = queue.get(job)
    if old.task != TASK or old.status not in FINISHED:
        raise TransitionError(
            f"cannot mend job {old.id}: only a notebook job that has finished can be mended"
        )
    kept = {name: old.parameters[name] for name in RUN_OPTIONS if name in old.parameters}
    new = NotebookSource.find(path, queue.folder).new_job(
        old.parameters.get("parameters") or {},
        **kept,
        queue=old.queue,
        priority=old.priority,
        max_attempts=old.max_attempts,
        timeout=old.timeout,
        unique_key=old.unique_key,
        group=old.group,
        tags=(*(tag for tag in old.tags if not tag.startswith(MENDS)), f"{MENDS}{old.id}"),
    )
    return queue.enqueue_many([new])[0]


@task(TASK)
def run_notebook(
    context: Context,
    notebook: str,
    parameters: Mapping[str, Any] | None = None,
    sha256: str | None = None,
    kernel: str | None = None,
    cell_timeout: float | None = None,
    memory: int | None = None,
    *,
    cold: bool = False,
) -> dict[str, Any]:
    """Run one notebook job; its result is where the run will be published, and what it recorded."""
    claim_runs(context.queue)
    given = _given(parameters)
    path = _trusted(notebook, context.folder)
    if kernel is not None:
        values.name(kernel, "kernel")
    if cell_timeout is not None:
        cell_timeout = values.seconds(cell_timeout, "cell_timeout", positive=True)
    if memory is not None:
        memory = memory_bytes(memory)
    document, now_sha256 = read_notebook(path)
    inspected = inspect_notebook(path)
    inspected.check(given)
    load_papermill()
    masking = Masking(given)
    facts = {
        **provenance(),
        "job": context.job.id,
        "attempt": context.job.attempt,
        "token": context.job.token,
        "claimed_at": None if context.job.started_at is None else context.job.started_at.isoformat(),
        "consumer": context.job.consumer,
        "notebook": str(path),
        "sha256": now_sha256,
        "changed_since_enqueue": None if sha256 is None else sha256 != now_sha256,
        "git": git_state(path, now_sha256),
        "parameters": given,
    }
    prepared = _prepared(document, given, masking, path, _address(context))
    attempt = _Attempt(context, prepared, masking, facts, cold=cold)
    name = kernel or spoken(document)[1] or "python3"
    # Old notebooks call it so, and Jupyter understands.
    return attempt.run("python3" if name == "python" else name, path.parent, cell_timeout, memory)


def _given(parameters: Any) -> dict[str, Any]:
    """The parameters of a job that `enqueue_notebook` has not looked at."""
    if parameters is not None and not isinstance(parameters, Mapping):
        raise InvalidJobError(f"a notebook's parameters must be an object, not {parameters!r:.100}")
    return dict(parameters or {})


class _Attempt:
    """One try: its notebook, its kernel, and the one way out for all that may end it."""

    def __init__(
        self, context: Context, notebook: Any, masking: Masking, facts: Mapping[str, Any], *, cold: bool
    ) -> None:
        self._context = context
        self._notebook = notebook
        self._masking = masking
        self._facts = facts
        self._cold = cold
        self._executed: Executed | None = None
        self._run: Run | None = None
        self._kernel: Any = None
        self._client: Any = None

    def run(
        self, kernel_name: str, folder: Path, cell_timeout: float | None, memory: int | None
    ) -> dict[str, Any]:
        """The job's result; whatever ends the run earlier is raised after the notebook tells it."""
        unbroken = self._context.unbroken
        watch = MemoryWatch(memory)
        try:
            unbroken(self._open)
            unbroken(lambda: self._start(kernel_name, folder, watch))
            run = self._begin(watch, cell_timeout)
            why = run.run()
            result = self._result()
            unbroken(lambda: self._end("completed", why))
        except BaseException as error:
            stopped = error
            unbroken(lambda: self._stop(stopped))
            raise
        return result

    def _open(self) -> None:
        from pq.notebook.executed import Executed

        draft = Draft.of(self._context.folder, self._context.job)
        self._executed = Executed(self._notebook, draft, self._masking, self._facts)
        self._executed.touch()

    def _start(self, kernel_name: str, folder: Path, watch: MemoryWatch) -> None:
        began = time.monotonic()
        job = self._context.job
        environment = {"PQ_RUN": f"{job.id}.{job.token}", "PQ_URL": self._context.queue.url}
        self._kernel = open_pool(cold=self._cold).start(kernel_name, cwd=folder, environment=environment)
        watch.attach(self._kernel.pid)
        self._client = self._kernel.client()
        self._facts_of().update(
            kernel=kernel_name,
            start=self._kernel.mode,
            why_cold=self._kernel.reason,
            start_seconds=round(time.monotonic() - began, 3),
        )

    def _begin(self, watch: MemoryWatch, cell_timeout: float | None) -> "Run":
        from pq.notebook.execution import Run

        executed = self._executed
        assert executed is not None  # noqa: S101  # opened before
        self._run = Run(executed, self._kernel, self._client, watch, self._context.progress, cell_timeout)
        return self._run

    def _result(self) -> dict[str, Any]:
        from pq.notebook.recording import records

        found = self._masking.value(records(self._notebook))
        result = {"run": _address(self._context), "records": found}
        values.to_json(result, "the records of a run")
        return result

    def _end(self, outcome: str, why: str | None) -> None:
        if self._executed is not None:
            self._executed.close(outcome, None if why is None else self._masking.text(why))
        self._end_kernel()

    def _stop(self, error: BaseException) -> None:
        from pq.notebook.execution import outcome_of, why

        if isinstance(error, LeaseLostError):  # another consumer tells what became of this attempt
            self._end_kernel()
            Draft.of(self._context.folder, self._context.job).discard()
            return
        try:
            if self._run is not None:
                self._run.stop(error)
        finally:
            self._end(outcome_of(error), f"{type(error).__name__}: {why(error)}")

    def _end_kernel(self) -> None:
        """End the process at once: a polite shutdown takes 0.2 to 3 s, and nothing in it is needed."""
        client, self._client = self._client, None
        if client is not None:
            client.stop_channels()
        kernel, self._kernel = self._kernel, None
        if kernel is not None:
            kernel.kill()

    def _facts_of(self) -> dict[str, Any]:
        return {} if self._executed is None else self._executed.facts


def _address(context: Context) -> str:
    """Where the executed notebook will lie."""
    return place_of(context.folder).reference(published(context.job.id, context.job.attempt))


def _trusted(notebook: Any, folder: Path) -> Path:
    """The real path of a job's notebook; PQ_NOTEBOOK_ROOT of this consumer bounds it again."""
    if not isinstance(notebook, str) or "\0" in notebook or "://" in notebook:
        raise NotebookMissingError(f"cannot run {notebook!r:.200}: it is no path")
    real = Path(os.path.realpath(folder / notebook))
    roots = allowed_roots()
    return within(real, roots) if roots else real


def _prepared(
    document: dict[str, Any], parameters: Mapping[str, Any], masking: Masking, path: Path, output: str
) -> Any:
    """The notebook with papermill's injected cell, and the code that fetches the secrets in it."""
    import nbformat
    from papermill.exceptions import PapermillException
    from papermill.parameterize import parameterize_notebook

    notebook = nbformat.v4.to_notebook(document)
    for cell in notebook.cells:
        cell.metadata.setdefault("tags", [])
    notebook.metadata["papermill"] = nbformat.from_dict(
        {
            "default_parameters": {},
            "environment_variables": {},
            "exception": None,
            "input_path": str(path),
            "output_path": output,
            "parameters": {},
            "version": provenance()["papermill"],
            "start_time": None,
            "end_time": None,
            "duration": None,
        }
    )
    if not parameters:
        return nbformat.v4.upgrade(notebook)
    plain = {name: value for name, value in parameters.items() if name not in masking.names}
    try:
        language = spoken(document)
        notebook = parameterize_notebook(
            notebook, plain, language=language[0], kernel_name=language[1] or "python3"
        )
    except PapermillException as error:
        raise NotebookMissingError(f"papermill cannot write parameters for this kernel: {error}") from None
    cell = next(cell for cell in notebook.cells if "injected-parameters" in cell.metadata.get("tags", []))
    cell.source += masking.code()
    notebook.metadata["papermill"]["parameters"] = nbformat.from_dict(dict(parameters))
    return notebook


def load_papermill() -> None:
    """Import papermill. With JupyterLab its import builds grammars for 1.3 s that nothing here uses."""
    if "papermill" in sys.modules or "jsonschema" in sys.modules or "rfc3987_syntax" in sys.modules:
        import papermill.parameterize
    else:
        sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # "not installed", for now
        try:
            import papermill.parameterize  # noqa: F401
        finally:
            del sys.modules["rfc3987_syntax"]


_pools: dict[int, ExitStack] = {}
_open: dict[tuple[int, bool], Any] = {}


def open_pool(*, cold: bool = False) -> Any:
    """The kernels of the consumer that runs in this thread, started with its first notebook."""
    from pq.kernels.choice import choose, chosen
    from pq.kernels.pool import KernelPool

    thread = threading.get_ident()
    choice = chosen.get() or choose()
    key = thread, cold or choice.cold
    if key not in _open:
        pool = KernelPool(preload=choice.preload, cold=key[1])
        _open[key] = _pools.setdefault(thread, ExitStack()).enter_context(pool)
    return _open[key]


def close_pool() -> None:
    """End the kernels of this thread's consumer."""
    thread = threading.get_ident()
    for key in [key for key in _open if key[0] == thread]:
        del _open[key]
    if (stack := _pools.pop(thread, None)) is not None:
        stack.close()
