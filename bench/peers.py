"""The other queues, each used as its own documents say, and made to sync every commit.

huey removes a task before it runs it (at most once: a killed consumer loses the task); litequeue,
persist-queue and pq keep it until it is finished. By itself huey does not write that a task has ended: it
does so only with its results, which is a contender of its own here.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from contenders import PARAMETERS, Contender, chunks, pragmas


class Huey(Contender):
    """`dequeue` and `execute`, as huey's consumer does, without results."""

    jobs_per_second = 6_000
    results = False

    def __init__(self, place: str, number: int = 0) -> None:
        super().__init__(place, number)
        self.huey, self.task = self._open(fsync=True)

    def _open(self, *, fsync: bool) -> tuple[Any, Any]:
        from huey import SqliteHuey  # type: ignore[import-untyped]  # noqa: PLC0415  # may be missing

        huey = SqliteHuey(filename=str(Path(self.place, "huey.db")), fsync=fsync, results=self.results)
        huey.store_none = True
        return huey, huey.task(name="bench")(_nothing)

    def durability(self) -> str:
        return pragmas(self.huey.storage.conn)

    def fill(self, jobs: int) -> None:
        huey, task = self._open(fsync=False)
        for _ in range(jobs):
            task(**PARAMETERS)
        huey.storage.close()

    def enqueue(self) -> int:
        self.task(**PARAMETERS)
        return 1

    def work(self) -> int:
        task = self.huey.dequeue()
        if task is None:
            return 0
        self.huey.execute(task)
        return 1

    def close(self) -> None:
        self.huey.storage.close()


class HueyResults(Huey):
    """The same with results (which is how huey comes), so that the end of each task is on the disk."""

    results = True


class HueyDequeue(Huey):
    """`dequeue` alone: no look for a revoked task, and the task is not run."""

    def work(self) -> int:
        return int(self.huey.dequeue() is not None)


def _nothing(path: str, number: int) -> None:
    """A task that costs nothing."""


class LiteQueue(Contender):
    """`pop` and `done`. It sets synchronous to normal by itself; here it is set to full after that."""

    jobs_per_second = 6_000

    def __init__(self, place: str, number: int = 0) -> None:
        super().__init__(place, number)
        from litequeue import LiteQueue as Queue  # type: ignore[import-untyped]  # noqa: PLC0415  # may be missing

        self.queue = Queue(str(Path(place, "litequeue.db")))
        self.queue.conn.execute("pragma synchronous = full")

    def durability(self) -> str:
        return pragmas(self.queue.conn)

    def fill(self, jobs: int) -> None:
        for size in chunks(jobs):
            self._put(size)

    def _put(self, jobs: int) -> None:
        with self.queue.transaction(mode="IMMEDIATE"):
            for _ in range(jobs):
                self.queue.put(json.dumps(PARAMETERS))

    def enqueue(self) -> int:
        self.queue.put(json.dumps(PARAMETERS))
        return 1

    def work(self) -> int:
        message = self.queue.pop()
        if message is None:
            return 0
        json.loads(message.data)
        self.queue.done(message.message_id)
        return 1

    def close(self) -> None:
        self.queue.close()


class LiteQueueBatch(LiteQueue):
    """A hundred `put` in one transaction."""

    def enqueue(self) -> int:
        self._put(100)
        return 100


class PersistQueue(Contender):
    """`get` and `ack` of the SQLite ack queue; acknowledged rows are cleared, or each `get` reads them all.

    One process only: its `get` reads and then updates, so that two processes are given the same item.
    """

    jobs_per_second = 6_000
    clear_every = 100

    def __init__(self, place: str, number: int = 0) -> None:
        super().__init__(place, number)
        from persistqueue import SQLiteAckQueue  # noqa: PLC0415  # may be missing
        from persistqueue.serializers import json as as_json  # noqa: PLC0415  # may be missing

        self.queue = SQLiteAckQueue(place, serializer=as_json, auto_resume=False)
        self.acknowledged = 0

    def durability(self) -> str:
        return pragmas(self.queue._conn)  # noqa: SLF001  # it has no other way to look

    def fill(self, jobs: int) -> None:
        execute = self.queue._conn.execute  # noqa: SLF001  # see above
        execute("pragma synchronous = off")
        for _ in range(jobs):
            self.enqueue()
        execute("pragma synchronous = full")

    def enqueue(self) -> int:
        self.queue.put(PARAMETERS)
        return 1

    def work(self) -> int:
        item = self.queue.get(block=False, raw=True)
        self.queue.ack(id=item["pqid"])
        self.acknowledged += 1
        if self.acknowledged % self.clear_every == 0:
            self.queue.clear_acked_data(keep_latest=0)
        return 1

    def close(self) -> None:
        self.queue.close()


_ALL: dict[str, tuple[str, type[Contender]]] = {
    "huey": ("huey", Huey),
    "huey, results kept": ("huey", HueyResults),
    "huey, dequeue alone": ("huey", HueyDequeue),
    "litequeue": ("litequeue", LiteQueue),
    "litequeue, 100 in a transaction": ("litequeue", LiteQueueBatch),
    "persist-queue": ("persistqueue", PersistQueue),
}
PEERS = {name: kind for name, (module, kind) in _ALL.items() if importlib.util.find_spec(module) is not None}
MISSING = sorted(set(_ALL) - set(PEERS))
