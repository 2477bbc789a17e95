"""The papermill engine `pq`: `papermill --engine pq in.ipynb out.ipynb` runs in a warm kernel.

Every `import papermill` loads this module, whatever engine is asked for: it imports nothing itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pq.kernels.pool import KernelPool

_CONFIG_OF_THE_KERNEL_ITSELF = ("km", "kernel_manager_class", "config", "extra_arguments")


class PQEngine:
    """What papermill asks of an engine; the pool of kernels lives as long as this process."""

    def __init__(self) -> None:
        self._pool: KernelPool | None = None
        self._owner = 0

    def execute_notebook(self, nb: Any, kernel_name: str, **keywords: Any) -> Any:
        """Run the notebook as papermill's own engine does, in a kernel of the pool."""
        from papermill.engines import NBClientEngine

        engine = self

        class InWarmKernel(NBClientEngine):  # type: ignore[misc]  # papermill has no types
            @classmethod
            def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **keywords: Any) -> Any:
                engine.run(nb_man, kernel_name, super().execute_managed_notebook, keywords)

        return InWarmKernel.execute_notebook(nb, kernel_name, **keywords)

    def nb_kernel_name(self, nb: Any, name: str | None = None) -> Any:
        """The kernel that is asked for, else the notebook's."""
        from papermill.utils import nb_kernel_name

        self._open()  # the server loads while papermill prepares the notebook
        return nb_kernel_name(nb, name)

    def nb_language(self, nb: Any, language: str | None = None) -> Any:
        """The language that is asked for, else the notebook's."""
        from papermill.utils import nb_language

        return nb_language(nb, language)

    def run(self, nb_man: Any, kernel_name: str, execute: Any, keywords: dict[str, Any]) -> None:
        """Run in a new kernel, gone afterwards; who passes a kernel manager of his own gets that."""
        if any(keywords.get(name) is not None for name in _CONFIG_OF_THE_KERNEL_ITSELF):
            execute(nb_man, kernel_name, **keywords)
            return
        from pathlib import Path

        kernel = self._open().start(kernel_name, cwd=Path.cwd())
        manager = kernel.manager
        try:
            execute(nb_man, kernel_name, km=manager, **keywords)
        finally:
            manager.close()
            kernel.kill()

    def close(self) -> None:
        """End the kernels; the next run starts new ones."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _open(self) -> KernelPool:
        import os

        from pq.kernels.choice import choose
        from pq.kernels.pool import KernelPool

        if self._pool is None or self._owner != os.getpid():
            import atexit

            choice = choose()
            self._pool = KernelPool(preload=choice.preload, cold=choice.cold)
            self._owner = os.getpid()
            self._pool.__enter__()
            atexit.register(self.close)
        return self._pool


engine = PQEngine()
