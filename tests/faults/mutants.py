"""pq with one guard taken out: a harness counts only while it notices. Never part of pq itself.

The processes of a harness apply the one that PQ_MUTANT names; pq does not know the variable.
"""

import os
import random
from collections.abc import Callable
from typing import Any

from pq.clock import SystemClock
from pq.sqlite.gate import WriteGate
from pq.sqlite.session import Session


def apply() -> None:
    """Take the guard out that PQ_MUTANT names, if any, in this process and those that it forks."""
    name = os.environ.get("PQ_MUTANT")
    if name:
        MUTANTS[name]()


def intercept(around: Callable[[Callable[..., Any], str, Any], Any]) -> None:
    """From now on each statement of this process goes through `around(execute, statement, parameters)`."""
    plain_set_up = Session._set_up

    def set_up(session: Session) -> None:
        plain = session.execute
        session.execute = lambda statement, parameters=(): around(plain, statement, parameters)
        plain_set_up(session)

    Session._set_up = set_up


def _sync_at_most(level: str) -> Callable[[], None]:
    def around(execute: Callable[..., Any], statement: str, parameters: Any) -> Any:
        if statement.startswith("pragma synchronous = "):
            statement = f"pragma synchronous = {level}"
        return execute(statement, parameters)

    return lambda: intercept(around)


def _answer_undone_commits() -> None:
    """One commit of a hundred is rolled back, and its caller is told that it was stored."""

    def around(execute: Callable[..., Any], statement: str, parameters: Any) -> Any:
        undo = statement == "commit" and random.random() < 0.01
        return execute("rollback" if undo else statement, parameters)

    intercept(around)


def _forget_failed_syncs() -> None:
    WriteGate.note_failed_sync = lambda _gate: None


def _let_everybody_in() -> None:
    WriteGate.enter = lambda _gate, _timeout_seconds: None
    WriteGate.leave = lambda _gate: None


def _leases_by_the_wall_clock() -> None:
    SystemClock.monotonic = SystemClock.now


MUTANTS: dict[str, Callable[[], None]] = {
    "failed_syncs_forgotten": _forget_failed_syncs,
    "leases_by_the_wall_clock": _leases_by_the_wall_clock,
    "no_gate": _let_everybody_in,
    "sync_off": _sync_at_most("off"),
    "sync_normal": _sync_at_most("normal"),
    "undone_commits": _answer_undone_commits,
}
"""What is taken out, by name."""
