"""A connection of its own on which a queue object is present, and hears that there is work.

Presence is a session's advisory lock: the server gives it up when the connection ends, as it does when the
process dies, however it dies. A connection that was lost is opened anew, and its locks are taken first.
"""

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import psycopg
from sqlalchemy.exc import DBAPIError

from pq.postgresql.session import readable
from pq.postgresql.triggers import WAITING

ANNOUNCED_SECONDS = 3.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 2.0
HOLD_SECONDS = 10.0

Connect = Callable[[], psycopg.Connection[Any]]


class Listener:
    """One thread that keeps one connection; made when a consumer registers, or when somebody waits."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._changed = threading.Condition()
        self._present: set[int] = set()
        self._waits: dict[str, float] = {}
        self._held: set[int | str] = set()
        self._heard: Counter[str] = Counter()
        self._connections = 0
        self._closed = False
        self._pid = os.getpid()
        self._wake_me, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="pq listener", daemon=True)
        self._thread.start()

    def hold(self, presence: int) -> None:
        """Be present; returns when the lock is held, or after ten seconds without a server."""
        with self._changed:
            self._present.add(presence)
            self._wake()
            self._changed.wait_for(lambda: presence in self._held, HOLD_SECONDS)

    def drop(self, presence: int) -> None:
        """Be present no more."""
        with self._changed:
            self._present.discard(presence)
            self._wake()
            self._changed.wait_for(lambda: presence not in self._held, 1.0)

    def announce(self, queues: Iterable[str]) -> None:
        """Say that somebody waits for these; for a while, so that a short wait is not said again."""
        until = time.monotonic() + ANNOUNCED_SECONDS
        with self._changed:
            fresh = [queue for queue in queues if queue not in self._held]
            self._waits |= dict.fromkeys(queues, until)
            if fresh:
                self._wake()
                self._changed.wait_for(lambda: self._held.issuperset(fresh), 0.2)

    def heard(self, queues: Iterable[str]) -> int:
        """A number that changes when there was a word about one of the queues, or silence was broken."""
        with self._changed:
            return self._connections + sum(self._heard[queue] for queue in queues)

    def wait(self, queues: Iterable[str], heard: int, timeout: float) -> bool:
        """Whether there was a word about one of the queues since `heard`, within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._connections + sum(self._heard[queue] for queue in queues) != heard, timeout
            )

    def close(self) -> None:
        """End the thread and its connection; after a fork only forget them."""
        self._closed = True
        if os.getpid() == self._pid:
            self._wake()
            self._thread.join(timeout=5)

    def _wake(self) -> None:
        with suppress(OSError):
            self._waker.send(b"w")

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._closed:
            try:
                with self._connect() as connection:
                    pause = FIRST_PAUSE_SECONDS
                    self._serve(connection)
            except (psycopg.Error, DBAPIError, OSError):
                with self._changed:
                    self._held.clear()
                # Not as a sleep: who closes the queue does not wait for it.
                readable(pause, self._wake_me)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        for end in (self._wake_me, self._waker):
            end.close()

    def _serve(self, connection: psycopg.Connection[Any]) -> None:
        held: set[int | str] = set()
        self._take(connection, held)
        connection.execute("listen pq")
        with self._changed:
            self._connections += 1  # words may have been missed
            self._changed.notify_all()
        while not self._closed:
            self._take(connection, held)
            ready = readable(1.0, connection, self._wake_me)
            if self._wake_me in ready:
                self._wake_me.recv(4096)
            if connection in ready:
                words = list(connection.notifies(timeout=0))
                with self._changed:
                    self._heard.update(word.payload for word in words)
                    self._changed.notify_all()

    def _take(self, connection: psycopg.Connection[Any], held: set[int | str]) -> None:
        """Take the locks that are wanted and give back the others."""
        now = time.monotonic()
        with self._changed:
            self._waits = {queue: until for queue, until in self._waits.items() if until > now}
            wanted: set[int | str] = {*self._present, *self._waits}
        for one in wanted - held:
            if isinstance(one, int):
                connection.execute("select pg_advisory_lock(%s::bigint)", (one,))
            else:
                connection.execute("select pg_advisory_lock_shared(%s, hashtext(%s))", (WAITING, one))
        for one in held - wanted:
            if isinstance(one, int):
                connection.execute("select pg_advisory_unlock(%s::bigint)", (one,))
            else:
                connection.execute("select pg_advisory_unlock_shared(%s, hashtext(%s))", (WAITING, one))
        if wanted != self._held:
            with self._changed:
                held.clear()
                held.update(wanted)
                self._held = set(wanted)
                self._changed.notify_all()
