"""The producer: writes random text files, or watches a folder, and enqueues one stamp job per file."""

import contextlib
import hashlib
import logging
import math
import os
import queue as waiting
import random
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from pq.display import Display, open_display
from pq.errors import FileGoneError, InvalidJobError, MovedError, StorageError
from pq.factory import connect_for
from pq.interface import PersistentQInterface
from pq.job import NewJob
from pq.private import make_folder, opener
from pq.settings import read_settings
from pq.stamp import input_roots, sync_folder
from pq.values import name as checked_name

log = logging.getLogger("pq.producer")

INTERVAL_SETTING = "interval"
BEAT_SECONDS = 1.0
LONGEST_BACK_OFF_SECONDS = 60.0
BATCH = 100
UNFINISHED_NAMES = (".tmp", ".part", ".partial", ".crdownload", ".swp", "~")
WORDS = (
    "a",
    "job",
    "waits",
    "in",
    "line",
    "until",
    "one",
    "consumer",
    "takes",
    "it",
    "and",
    "stamps",
    "each",
)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a producer did: how many jobs it enqueued, for how long it ran, and why it ended."""

    name: str
    jobs: int
    seconds: float
    ended: str


def produce(
    db: str | os.PathLike[str] | PersistentQInterface | None = None,
    *,
    name: str = "producer-1",
    source: str | os.PathLike[str] | None = None,
    interval: float | None = None,
    count: int | None = None,
    queue: str = "default",
    display: bool = True,
    headless: bool = False,
) -> Summary:
    """Enqueue a stamp job for a new random file in inbox/ every `interval` seconds, until stopped.

    With `source`, each file that appears directly in that folder becomes one job instead, once, also
    across restarts and with several producers; a file whose size or time of change differs later counts
    as new. A file is taken when two looks, `interval` apart, find it unchanged. Names that begin with a
    dot or end like an unfinished download (.tmp, .part, .partial, .crdownload, .swp, ~) wait for their
    final name. Sub-folders and links are left alone.

    `interval` None means the setting INTERVAL_TIME (5 s); `queue.set_setting("interval", "2.5")` changes
    it for all producers that run then. Ends after `count` jobs, when somebody asks it to stop
    (`stop_consumer`), on SIGTERM and on Ctrl-C. A full disk is waited out. The jobs carry `name` as a
    tag. `headless`, like `display` False, shows nothing.
    """
    checked_name(name, "a producer's name")
    checked_name(queue, "queue")
    with contextlib.ExitStack() as stack:
        opened = db if isinstance(db, PersistentQInterface) else connect_for(db, patient=headless)
        stack.enter_context(contextlib.nullcontext() if opened is db else opened)
        producer = _Producer(
            opened,
            name,
            _seconds(interval),
            _count(count),
            _Texts(opened, name, queue) if source is None else _Folder(opened, name, queue, Path(source)),
            stack.enter_context(open_display(enabled=display and not headless)),
        )
        stack.enter_context(_signals(producer.stops.put))
        return producer.run()


class _Source(Protocol):
    """Where jobs come from."""

    @property
    def more(self) -> bool:
        """Whether there are some to submit without waiting."""

    def submit(self, limit: float) -> int:
        """Enqueue up to `limit`, as many as take no longer than a moment; how many they were."""


@dataclass
class _Producer:
    """The loop: submit, then wait for the interval while beating and listening."""

    queue: PersistentQInterface
    name: str
    interval: float
    count: int | None
    source: _Source
    display: Display
    jobs: int = 0
    failures: int = 0
    # Its put may run in a signal handler while get waits, which threading.Event does not allow.
    stops: "waiting.SimpleQueue[str]" = field(default_factory=waiting.SimpleQueue)

    def run(self) -> Summary:
        self.ignored = self._age_interval()
        self.identity = self.queue.register_consumer(self.name, queues=())
        self.beat_at = begun = time.monotonic()
        try:
            reason = self._loop()
        finally:
            self.queue.unregister_consumer(self.identity)
        self.display.finish(self._facts(reason))
        return Summary(self.name, self.jobs, round(time.monotonic() - begun, 3), reason)

    def _loop(self) -> str:
        since = time.monotonic()
        while self.count is None or self.jobs < self.count:
            self._submit()
            if self.jobs == self.count:
                break
            at_once = self.source.more and not self.failures
            if reason := self._wait(-math.inf if at_once else since):
                return reason
            if at_once:
                continue
            # Keep the beat, but do not catch up on what a pause or a slow disk cost.
            since = max(since + self._pause(), time.monotonic() - self._pause())
        return "count reached"

    def _submit(self) -> None:
        try:
            self.jobs += self.source.submit(math.inf if self.count is None else self.count - self.jobs)
        except OSError as error:  # StorageError is one
            self.failures += 1
            if self.failures & (self.failures - 1) == 0:  # the 1st, 2nd, 4th …: a long wait fills no log
                log.warning("%s cannot enqueue, and tries again: %s", self.name, error)
        else:
            self.failures = 0

    def _facts(self, doing: str) -> dict[str, object]:
        return {"producer": self.name, "jobs": self.jobs, "interval": f"{self.interval:g} s", "doing": doing}

    def _wait(self, since: float) -> str | None:
        """Wait until the pause after `since` is over; the reason where it is time to end."""
        while True:
            self.display.show(self._facts("cannot enqueue" if self.failures else "running"))
            if (reason := self._beat()) is not None:
                return reason
            left = since + self._pause() - time.monotonic()
            try:
                return (
                    self.stops.get(timeout=min(left, BEAT_SECONDS)) if left > 0 else self.stops.get_nowait()
                )
            except waiting.Empty:
                if left <= 0:
                    return None

    def _pause(self) -> float:
        if not self.failures:
            return self.interval
        return max(self.interval, min(2.0 ** min(self.failures - 1, 10), LONGEST_BACK_OFF_SECONDS))

    def _beat(self) -> str | None:
        """Once a second: tell what goes on, read the interval, and see whether somebody wants it to stop."""
        now = time.monotonic()
        if now < self.beat_at:
            return None
        self.beat_at = now + BEAT_SECONDS
        try:
            self._read_interval()
            doing = f"{self.jobs} jobs, every {self.interval:g} s"
            stop = self.queue.beat_consumer(self.identity, "cannot enqueue" if self.failures else doing)
        except (FileGoneError, MovedError):  # waiting would not bring the queue back
            raise
        except StorageError as error:
            log.warning("%s cannot reach the queue: %s", self.name, error)
            return None
        return "asked to stop" if stop else None

    def _age_interval(self) -> str | None:
        """Mark the interval that an earlier change left as old, by a space, so that a new one shows.

        Otherwise the same number, set again after the start, could not be told from the old one.
        """
        with self.queue.transaction():
            text = self.queue.setting(INTERVAL_SETTING)
            if text is not None and not text.endswith(" "):
                self.queue.set_setting(INTERVAL_SETTING, text := f"{text} ")
        return text

    def _read_interval(self) -> None:
        text = self.queue.setting(INTERVAL_SETTING)
        if text is None or text == self.ignored:
            return
        self.ignored = text
        try:
            self.interval = _seconds(float(text))
        except (ValueError, OverflowError):  # InvalidJobError is a ValueError
            log.warning(
                "%s goes on every %g s: the interval %.50r is not a number of seconds",
                self.name,
                self.interval,
                text,
            )


class _Texts:
    """Random text files in inbox/: the file first, then its job."""

    more = False

    def __init__(self, queue: PersistentQInterface, name: str, line: str) -> None:
        self.queue, self.name, self.line = queue, name, line
        self.waiting: Path | None = None

    def submit(self, limit: float) -> int:  # noqa: ARG002  # one at a time is always allowed
        # A file whose job was refused is offered again, so that a full disk does not fill further.
        if self.waiting is None:
            self.waiting = _write_text(self.queue.folder / "inbox")
        path = f"inbox/{self.waiting.name}"
        # The key makes offering it again harmless where the first answer was lost.
        self.queue.enqueue(
            "stamp", {"path": path}, queue=self.line, tags=(self.name,), unique_key=f"stamp {path}"
        )
        self.waiting = None
        return 1


class _Folder:
    """The files of a folder, each once for its size and time of change."""

    def __init__(self, queue: PersistentQInterface, name: str, line: str, source: Path) -> None:
        self.queue, self.name, self.line = queue, name, line
        self.folder = queue.folder.resolve()
        self.source = _checked_source(self.folder, source)
        self.before: dict[Path, str] = {}
        self.taken: dict[Path, str] = {}
        self.ready: list[Path] = []

    def submit(self, limit: float) -> int:
        if not self.ready:
            now = self._look()
            self.ready = [
                path for path, mark in now.items() if self.before.get(path) == mark != self.taken.get(path)
            ]
            self.before = now
            self.taken = {path: mark for path, mark in self.taken.items() if path in now}
        jobs = self._take(self.ready[:BATCH], limit) if self.ready else 0
        del self.ready[:BATCH]
        return jobs

    @property
    def more(self) -> bool:
        return bool(self.ready)

    def _look(self) -> dict[Path, str]:
        """The finished-looking files, oldest first, each with its time of change and size."""
        found = []
        with os.scandir(self.source) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower().endswith(UNFINISHED_NAMES):
                    continue
                with contextlib.suppress(FileNotFoundError):  # gone since the listing
                    if entry.is_file(follow_symlinks=False):
                        state = entry.stat(follow_symlinks=False)
                        found.append((state.st_mtime_ns, entry.name, state.st_size))
        return {self.source / name: f"{changed}:{size}" for changed, name, size in sorted(found)}

    def _take(self, paths: Sequence[Path], limit: float) -> int:
        """Enqueue those files that no producer has taken yet and remember them, in one transaction."""
        fresh: list[Path] = []
        with self.queue.transaction():
            for path in paths:
                if len(fresh) >= limit:
                    break
                if self.queue.setting(_seen(path)) != self.before[path]:
                    fresh.append(path)
            self.queue.enqueue_many([self._job(path) for path in fresh])
            for path in fresh:
                self.queue.set_setting(_seen(path), self.before[path])
        if len(fresh) < limit:
            self.taken |= {path: self.before[path] for path in paths}
        return len(fresh)

    def _job(self, path: Path) -> NewJob:
        inside = path.is_relative_to(self.folder)
        name = path.relative_to(self.folder).as_posix() if inside else str(path)
        return NewJob("stamp", {"path": name}, queue=self.line, tags=(self.name,))


def _seen(path: Path) -> str:
    """The name of the setting that remembers a file, of bounded length."""
    return "seen:" + hashlib.sha256(os.fsencode(path)).hexdigest()


def _checked_source(folder: Path, source: Path) -> Path:
    real = source.resolve()
    if not real.is_dir():
        raise InvalidJobError(f"source {source} is not a folder; make it first")
    if real in {folder, folder / "processed"}:
        raise InvalidJobError(
            f"source {source} holds the queue's own files; use another, such as {folder / 'inbox'}"
        )
    if not any(real.is_relative_to(root) for root in input_roots(folder)):
        raise InvalidJobError(
            f"source {source} lies outside {folder}; set PQ_INPUT_ROOT={real} for producer and consumers"
        )
    return real


def _write_text(inbox: Path) -> Path:
    """A new file of random lines, durable under its name when this returns."""
    make_folder(inbox)
    sync_folder(inbox.parent)
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    path = inbox / f"text-{moment}-{secrets.token_hex(4)}.txt"
    temporary = inbox / f".{path.name}.tmp"
    try:
        with open(temporary, "x", encoding="utf-8", newline="\n", opener=opener) as file:
            file.writelines(_random_lines())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(inbox)
    return path


def _random_lines() -> Iterator[str]:
    for _ in range(random.randint(1, 10)):  # noqa: S311  # sample text, not a secret
        yield " ".join(random.choices(WORDS, k=random.randint(1, 12))) + "\n"  # noqa: S311  # as above


def _seconds(interval: object) -> float:
    """`interval` as seconds, or the setting where it is None."""
    if interval is None:
        return read_settings().interval.total_seconds()
    if isinstance(interval, bool) or not isinstance(interval, int | float) or not 0 < interval <= 1e9:
        raise InvalidJobError(f"interval must be a number of seconds above 0, not {interval!r:.50}")
    return float(interval)


def _count(count: object) -> int | None:
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 0):
        raise InvalidJobError(f"count must be a whole number from 0, or None, not {count!r:.50}")
    return count


@contextlib.contextmanager
def _signals(stop: Callable[[str], None]) -> Iterator[None]:
    """Call `stop` on SIGTERM and Ctrl-C; a second one does what it did before. Only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, _frame: object) -> None:
        restore()
        stop(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.getsignal(number) or signal.SIG_DFL
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
