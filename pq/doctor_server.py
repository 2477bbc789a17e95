"""What `pq doctor` finds about a queue on a PostgreSQL server: from the facts it gives to findings."""

import time
from collections.abc import Mapping
from typing import Any

from pq.doctor import Check, Finding, dead_consumers, expired_leases, megabytes

CLOCK_SECONDS = 5.0
CONNECTIONS_SHARE = 0.8
DEAD_ROWS = 1_000_000


def judge_server(facts: Mapping[str, Any]) -> list[Finding]:
    """Every check on the facts, in the order in which one would mend."""
    return [check(facts) for check in CHECKS]


def server(facts: Mapping[str, Any]) -> Finding:
    """Its version, and whether it takes writes."""
    if facts["is_replica"]:
        return Finding(
            "server", "error", "it is a replica, which takes no writes", "name the primary server with --db"
        )
    steps = len(facts["steps"])
    return Finding("server", "ok", f"PostgreSQL {facts['version']}, schema at step {steps}")


def durability(facts: Mapping[str, Any]) -> Finding:
    """What the durability promise stands on."""
    for name in ("fsync", "synchronous_commit"):
        if facts[name] == "off":
            return Finding(
                "durability",
                "error",
                f"{name} is off: a power cut loses accepted jobs",
                f"`alter system set {name} = on; select pg_reload_conf()`",
            )
    return Finding("durability", "ok", f"fsync on, synchronous_commit {facts['synchronous_commit']}")


def clock(facts: Mapping[str, Any]) -> Finding:
    """The clock of this host beside the server's, which alone counts for leases and due times."""
    off = facts["host_now"] - facts["server_now"]
    if abs(off) < CLOCK_SECONDS:
        return Finding("clock", "ok", "this host and the server agree; only the server's clock counts")
    return Finding(
        "clock",
        "warning",
        f"this host is {abs(off):,.0f} s {'ahead of' if off > 0 else 'behind'} the server; leases and due "
        "times are the server's and stay right, but times in logs differ",
        "set the clock, such as by `timedatectl set-ntp true`",
    )


def connections(facts: Mapping[str, Any]) -> Finding:
    """How many are left."""
    used, most = facts["connections"], facts["max_connections"]
    text = f"{used} of {most} used, {facts['own_connections']} of them by pq"
    if used < CONNECTIONS_SHARE * most:
        return Finding("connections", "ok", text)
    return Finding(
        "connections", "warning", text, "raise max_connections, or put PgBouncer before it (docs/scaling.md)"
    )


def open_transactions(facts: Mapping[str, Any]) -> Finding:
    """Transactions that somebody left open, which keep dead rows from being removed."""
    number = facts["idle_in_transaction"]
    if not number:
        return Finding("transactions", "ok", "none is left open")
    return Finding(
        "transactions",
        "warning",
        f"{number} stand open and idle for more than a minute: claims become slower and slower",
        "end them, such as by `set idle_in_transaction_session_timeout = '1min'`",
    )


def rows(facts: Mapping[str, Any]) -> Finding:
    """How large it is, and whether the server keeps up with tidying."""
    text = f"{megabytes(facts['bytes'])}, {facts['dead_rows']:,} dead rows wait for vacuum"
    if facts["dead_rows"] < DEAD_ROWS:
        return Finding("size", "ok", text)
    return Finding("size", "warning", f"{text}; is autovacuum on?", "`vacuum pq.jobs`")


CHECKS: tuple[Check, ...] = (
    server,
    durability,
    clock,
    connections,
    open_transactions,
    dead_consumers,
    expired_leases,
    rows,
)


def with_host_clock(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts, and the time on this host."""
    return dict(facts) | {"host_now": time.time()}
