"""Progress shown in place, in a terminal or a notebook: a few named facts, drawn at most twice a second."""

import html
import sys
import time
import uuid
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

INTERVAL_SECONDS = 0.5
WIDTH = 100


class Display:
    """Shows nothing, for headless runs; the base of the two that show something.

    `show` may come from any thread. Facts are plain text: what a job carries cannot become markup or
    move the cursor.
    """

    def __init__(self) -> None:
        self._next = 0.0

    def show(self, facts: Mapping[str, object]) -> None:
        """Draw the facts, unless the last drawing is younger than half a second."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + INTERVAL_SECONDS
            self._draw(facts)

    def finish(self, facts: Mapping[str, object]) -> None:
        """Draw the facts a last time and leave them standing."""
        self._draw(facts)
        self.close()

    def close(self) -> None:
        """Give the terminal back; calling it again does no harm."""

    def _draw(self, facts: Mapping[str, object]) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class TerminalDisplay(Display):
    """A block of lines at the end of a terminal; what is printed meanwhile appears above it."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), auto_refresh=False)
        self._live.start()

    def close(self) -> None:
        """Stop drawing; the last lines stay."""
        self._live.stop()

    def _draw(self, facts: Mapping[str, object]) -> None:
        from rich.text import Text

        self._live.update(Text(_lines(facts), no_wrap=True, overflow="ellipsis"), refresh=True)


class NotebookDisplay(Display):
    """One output of the running cell, replaced in place."""

    def __init__(self) -> None:
        super().__init__()
        self._id = f"pq-{uuid.uuid4().hex}"
        self._shown = False

    def _draw(self, facts: Mapping[str, object]) -> None:
        from IPython.display import publish_display_data

        text = _lines(facts)
        publish_display_data(
            {"text/plain": text, "text/html": f"<pre>{html.escape(text)}</pre>"},
            transient={"display_id": self._id},
            update=self._shown,
        )
        self._shown = True


def open_display(*, enabled: bool = True) -> Display:
    """The display that fits where this process runs: a notebook, a terminal, or none."""
    if not enabled:
        return Display()
    if _kernel() is not None:
        return NotebookDisplay()
    return TerminalDisplay() if sys.stderr is not None and sys.stderr.isatty() else Display()


def in_notebook() -> bool:
    """Whether this process is a Jupyter kernel, where widgets may be shown."""
    return _kernel() is not None


def harmless(text: str) -> str:
    """`text` whose control characters, escape sequences and turned letters are shown and not obeyed."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign in "\n\t" else repr(sign)[1:-1] for sign in text)


def plain(value: object, width: int = WIDTH) -> str:
    """One printable line of at most `width` characters; control characters become escapes."""
    text = str(value)[: 4 * width]
    text = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
    return text if len(text) <= width else text[: width - 1] + "…"


def _lines(facts: Mapping[str, object]) -> str:
    shown = {name: plain(value) for name, value in facts.items() if value not in (None, "")}
    width = max(map(len, shown), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in shown.items())


def _kernel() -> Any:
    """The Jupyter kernel this process is, or None; asked without importing IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None)
