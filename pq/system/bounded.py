"""The bounded run: which jobs were made since it began, and when they have all finished."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pq.job import UNFINISHED, Status

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from pq.interface import PersistentQInterface
    from pq.job import Job

TASK = "stamp"
PAGE = 500


def newest_id(queue: PersistentQInterface) -> int:
    """The id of the newest job; later ones have greater ids, as none is used twice."""
    newest = queue.list(limit=1)
    return newest[0].id if newest else 0


def made_since(queue: PersistentQInterface, newest: int, names: Collection[str]) -> Iterator[Job]:
    """The jobs of these producers (each has its producer's name as a tag) above `newest`, newest first."""
    after = None
    while page := queue.list(task=TASK, after=after, limit=PAGE):
        for job in page:
            if job.id <= newest:
                return
            if not set(names).isdisjoint(job.tags):
                yield job
        after = page[-1].id


def shares(jobs: int, producers: int) -> list[int]:
    """`jobs` spread over the producers as evenly as whole numbers allow."""
    return [jobs // producers + (index < jobs % producers) for index in range(producers)]


@dataclass
class BoundedRun:
    """`jobs` jobs that this run's producers make, from the one after `newest` on."""

    queue: PersistentQInterface
    jobs: int
    names: Collection[str]
    newest: int
    made: int = 0
    seen: int = 0
    outcome: dict[str, int] | None = None

    def finished(self) -> bool:
        """True when all are made and none is unfinished; `outcome` then counts them by status."""
        if self.outcome is None:
            self._count_new_ones()
            if self.made >= self.jobs and not self._unfinished():
                found = [job.status for job in made_since(self.queue, self.newest, self.names)]
                self.outcome = {status: found.count(status) for status in Status if status in found}
        return self.outcome is not None

    def _count_new_ones(self) -> None:
        # Only those since the last look: listing all of a long run twice a second would be felt.
        fresh = list(made_since(self.queue, max(self.newest, self.seen), self.names))
        self.made += len(fresh)
        self.seen = max([self.seen, *(job.id for job in fresh)])

    def _unfinished(self) -> bool:
        pages = (self.queue.list(task=TASK, tag=name, status=[*UNFINISHED], limit=1) for name in self.names)
        return any(page and page[0].id > self.newest for page in pages)
