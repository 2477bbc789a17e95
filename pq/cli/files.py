"""`pq delete-files`: removes the input and output files of finished jobs, only inside the queue's folders."""

import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from pq.cli import invocation
from pq.cli.bulk import Choice, choose
from pq.cli.change import All, Ids, filters_of
from pq.cli.invocation import AsJson, DryRun, Yes, confirmed, every_job, opened, write_json
from pq.cli.terminal import say
from pq.job import FINISHED, UNFINISHED, Job

if TYPE_CHECKING:
    from pq.interface import PersistentQInterface

FOLDERS = ("inbox", "processed", "runs")
# A producer stores the file first and the job second, a task writes its output before it ends.
YOUNG_SECONDS = 60.0


@dataclass(frozen=True, order=True)
class Found:
    """A regular file in one of the folders, by its path below the queue's folder."""

    name: str
    size: int
    young: bool


def delete_files(
    context: typer.Context,
    ids: Ids = None,
    status: invocation.Statuses = None,
    queue: invocation.OfQueue = None,
    task: invocation.OfTask = None,
    tag: invocation.OfTag = None,
    group: invocation.OfGroup = None,
    search: invocation.Search = None,
    *,
    everything: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete the files of finished jobs in inbox/, processed/ and runs/ beside the database.

    A file is a job's when its parameters or its result name it. With --all, also files that no job
    names. Files that an unfinished job names, those of live consumers, links, and with --all those
    younger than a minute stay. Jobs stay too.
    """
    filters = filters_of(status, queue, task, None, tag, group, search)
    with opened(context) as jobs:
        choice = choose(jobs, ids or [], filters, everything=everything)
        found = list(files_below(jobs.folder))
        wanted = _wanted(jobs, choice, found, everything=everything) - _needed(jobs)
        chosen = sorted(file for file in found if file.name in wanted)
        size = sum(file.size for file in chosen)
        if not as_json:
            say(f"{len(chosen)} files match, {size:,} bytes")
        deleted: list[str] = []
        if chosen and not dry_run:
            confirmed(f"delete {len(chosen)} files below {jobs.folder}", yes=yes)
            needed = _needed(jobs)  # looked at again: the question may have stood for an hour
            names = [file.name for file in chosen if file.name not in needed]
            deleted = [name for name in names if unlink_below(jobs.folder, name)]
    _report(chosen, deleted, dry_run=dry_run, as_json=as_json)


def _report(chosen: Sequence[Found], deleted: Sequence[str], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        files = [{"path": file.name, "bytes": file.size} for file in chosen]
        write_json({"dry_run": dry_run, "matched": files, "deleted": deleted})
    elif dry_run:
        for file in chosen:
            say(f"  {file.name}")
    else:
        say(f"{len(deleted)} files deleted")


def _wanted(
    queue: "PersistentQInterface", choice: Choice, found: Sequence[Found], *, everything: bool
) -> set[str]:
    if everything:
        return {file.name for file in found if not file.young}
    finished = (queue.get(job.id) for job in choice.jobs if job.status in FINISHED)
    return named_files(queue.folder, finished)


def _needed(queue: "PersistentQInterface") -> set[str]:
    """The files that unfinished jobs name, and the notebooks in which live consumers run."""
    unfinished = every_job(queue, status=[status.value for status in UNFINISHED])
    notebooks = {str(Path("runs", f"{consumer.name}.ipynb")) for consumer in queue.consumers()}
    return named_files(queue.folder, unfinished) | notebooks


def named_files(folder: Path, jobs: Iterable[Job]) -> set[str]:
    """The paths below `folder` that jobs name in their parameters or results."""
    names: set[str] = set()
    for job in jobs:
        for text in (*_texts(job.parameters), *_texts(job.result)):
            names |= _below(folder, text)
    return names


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _below(folder: Path, text: str) -> set[str]:
    """`text` as a path below one of the folders, as written, and as links resolve it."""
    if not text or "\0" in text or len(text) > 4_096:
        return set()
    path = os.path.join(folder, text)  # noqa: PTH118  # keeps an absolute text absolute
    written = (os.path.relpath(place, folder) for place in (path, os.path.realpath(path)))
    return {name for name in written if Path(name).parts[:1] and Path(name).parts[0] in FOLDERS}


def files_below(folder: Path) -> Iterator[Found]:
    """The regular files in the folders; links are neither followed nor given."""
    limit = time.time() - YOUNG_SECONDS
    for top in FOLDERS:
        if (folder / top).is_symlink():
            continue
        for place, _, names in os.walk(folder / top, followlinks=False):
            for name in names:
                path = Path(place, name)
                try:
                    facts = path.lstat()
                except FileNotFoundError:  # a temporary file that was renamed meanwhile
                    continue
                if stat.S_ISREG(facts.st_mode):
                    yield Found(str(path.relative_to(folder)), facts.st_size, facts.st_mtime > limit)


def unlink_below(folder: Path, name: str) -> bool:
    """Delete one file, going down folder by folder without following a link; False where it is gone.

    A check of the whole path first would be stale when somebody puts a link there meanwhile.
    """
    *parents, last = Path(name).parts
    if os.unlink not in os.supports_dir_fd:  # Windows
        return _unlink_checked(folder, parents, last)
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for parent in parents:
            inner = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
            os.close(place)
            place = inner
        os.unlink(last, dir_fd=place)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        say(f"pq: {name} stays: {error.strerror}", error=True)
        return False
    finally:
        os.close(place)
    return True


def _unlink_checked(folder: Path, parents: Sequence[str], last: str) -> bool:
    place = folder
    for parent in parents:
        place = place / parent
        if place.is_symlink():
            return False
    try:
        (place / last).unlink()
    except OSError:
        return False
    return True
