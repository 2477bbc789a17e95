"""What `pq doctor` finds: from the facts that a queue gives about itself to findings, each with its cure."""

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from pq.interface import PersistentQInterface

Level = Literal["ok", "warning", "error"]
LEVELS: tuple[Level, ...] = ("ok", "warning", "error")

MEGABYTE = 2**20
LARGE_WAL_BYTES = 128 * MEGABYTE
FREE_PAGES_SHARE = 0.5
FREE_PAGES_BYTES = 64 * MEGABYTE
SHOWN = 5
SIDES = ("-wal", "-shm", "-gate", "-consumers", "-run", "-token")
FOLDERS = ("inbox", "processed", "runs", "logs")

# The WAL-reset bug: https://www.sqlite.org/wal.html#the_wal_reset_bug
FIRST_BAD_SQLITE = (3, 7, 0)
FIRST_GOOD_SQLITE = (3, 51, 3)
BACK_PORTS = {(3, 50): 7, (3, 44): 6}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: how bad it is, what is true now, and the command that mends it (None: nothing to do)."""

    check: str
    level: Level
    text: str
    mend: str | None = None


@runtime_checkable
class Examinable(Protocol):
    """A backend that can tell about its database; one in a file has its `path` too."""

    def health(self, *, full: bool = False) -> Mapping[str, Any]:
        """The facts by name; `full` reads every page."""


Check = Callable[[Mapping[str, Any]], Finding]


def examine(queue: PersistentQInterface, *, full: bool = False) -> list[Finding]:
    """All findings about a queue, the good ones too. Raises StorageError where it cannot be read at all."""
    if not isinstance(queue, Examinable):
        return [Finding("database", "ok", f"{queue.url} answers; its server looks after it")]
    facts = dict(queue.health(full=full))
    if not hasattr(queue, "path"):
        from pq.doctor_server import judge_server, with_host_clock

        return judge_server(with_host_clock(facts))
    blocked = bool(facts["wal_blocked_frames"])
    return judge(
        facts
        | {
            "gate": gate_state(Path(f"{queue.path}-gate")),
            "sides": side_modes(queue.path),
            "holders": holders(queue.path) if blocked else [],
        }
    )


def judge(facts: Mapping[str, Any]) -> list[Finding]:
    """Every check on the facts, in the order in which one would mend."""
    return [check(facts) for check in CHECKS]


def worst(findings: Sequence[Finding]) -> Level:
    """The level of the worst finding."""
    return max((finding.level for finding in findings), key=LEVELS.index, default="ok")


def integrity(facts: Mapping[str, Any]) -> Finding:
    """Whether the pages and indexes are whole."""
    problems = [line for line in facts["quick_check"] if line != "ok"]
    if not problems:
        return Finding("integrity", "ok", "the database is whole")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return Finding(
        "integrity",
        "error",
        f"the database is damaged: {problems[0]}{more}; stop all consumers and keep the file",
        "restore the last copy made by `pq backup PATH`, or `sqlite3 FILE .recover | sqlite3 NEW`",
    )


def file_system(facts: Mapping[str, Any]) -> Finding:
    """Whether SQLite's locks can be trusted there."""
    kind = facts["file_system"] or "of an unknown kind"
    if not facts["local"]:
        return Finding(
            "file system",
            "error",
            f"the file system is {kind}, shared with other machines, where SQLite's locks fail",
            "`pq backup PATH` to a local disk, then use that with --db",
        )
    if kind.startswith("fuse"):
        return Finding(
            "file system",
            "warning",
            f"the file system is {kind}: whether its locks hold depends on the program behind it",
            "`pq backup PATH` to a local disk, then use that with --db",
        )
    return Finding("file system", "ok", f"local ({kind})")


def free_disk(facts: Mapping[str, Any]) -> Finding:
    """Whether `enqueue` still accepts jobs."""
    free, reserve = facts["free_bytes"], facts["reserve_bytes"]
    if free < reserve:
        return Finding(
            "free disk",
            "error",
            f"{megabytes(free)} free, less than the reserve of {megabytes(reserve)}: new jobs are refused",
            "`pq delete-files --all` or `pq prune --older-than 7d`, or free space by other means",
        )
    if free < 4 * reserve:
        return Finding(
            "free disk",
            "warning",
            f"{megabytes(free)} free; below {megabytes(reserve)} new jobs are refused",
            "`pq delete-files --all` or `pq prune --older-than 7d`, or free space by other means",
        )
    return Finding("free disk", "ok", f"{megabytes(free)} free, reserve {megabytes(reserve)}")


def sqlite_version(facts: Mapping[str, Any]) -> Finding:
    """Whether this SQLite has the WAL-reset bug, and what the gate does about it."""
    version = str(facts["sqlite_version"])
    if not has_wal_reset_bug(version):
        return Finding("SQLite", "ok", f"{version} is free of the WAL-reset bug")
    return Finding(
        "SQLite",
        "warning",
        f"{version} has the WAL-reset bug, which loses committed rows when connections write and checkpoint "
        "at the same time; pq's own processes are safe, because its gate lets one at a time: "
        "let no other program write to the file",
        "use a Python with a newer SQLite, such as `conda install -c conda-forge 'libsqlite>=3.51.3'`",
    )


def has_wal_reset_bug(version: str) -> bool:
    """3.7.0 to 3.51.2, without the back-ports 3.50.7 and 3.44.6."""
    major, minor, patch = (int(part) for part in f"{version}.0".split(".")[:3])
    if not FIRST_BAD_SQLITE <= (major, minor, patch) < FIRST_GOOD_SQLITE:
        return False
    fixed_from = BACK_PORTS.get((major, minor))
    return fixed_from is None or patch < fixed_from


def library(facts: Mapping[str, Any]) -> Finding:
    """Whether the standard library's SQLite is the one that is used."""
    name = str(facts["library"])
    if name.partition(".")[0] in {"sqlite3", "_sqlite3"}:
        return Finding("library", "ok", "one SQLite library in the process")
    package = name.partition(".")[0]
    return Finding(
        "library",
        "warning",
        f"sqlite-utils uses {name}: code that opens the file by Python's own sqlite3 in the same process "
        "would drop pq's locks",
        f"`pip uninstall {package} {package}-binary`",
    )


def journal(facts: Mapping[str, Any]) -> Finding:
    """Write-ahead log and fsync: what the durability promise stands on."""
    if facts["journal_mode"] != "wal":
        return Finding(
            "journal mode",
            "error",
            f"journal mode is {facts['journal_mode']}, not wal: readers and writers block one another; "
            "another program changed it, or the file system cannot do it",
            "close other programs on the file, then `pq checkpoint`, which sets it to wal again",
        )
    if facts["synchronous"] < 2:
        return Finding(
            "journal mode",
            "error",
            "synchronous is not full: a power cut loses accepted jobs",
            "restart every process that uses the queue: pq sets it when it opens a file",
        )
    return Finding("journal mode", "ok", "wal, synchronous full")


def wal(facts: Mapping[str, Any]) -> Finding:
    """The size of the write-ahead log, and whether a long reader keeps it from shrinking."""
    size, blocked = facts["wal_bytes"], facts["wal_blocked_frames"]
    if facts.get("read_only"):  # who may not write cannot try to move it
        if size < LARGE_WAL_BYTES:
            return Finding("WAL", "ok", megabytes(size))
        return Finding(
            "WAL",
            "warning",
            f"{megabytes(size)}: it grew, most often because a process reads an old state and holds it open",
            "`pq doctor` tells which",
        )
    if blocked is None:
        return Finding(
            "WAL", "warning", f"{megabytes(size)}; another process is checkpointing now", "`pq checkpoint`"
        )
    if blocked:
        return Finding(
            "WAL",
            "warning" if size < LARGE_WAL_BYTES else "error",
            f"{megabytes(size)}, of which {blocked} pages cannot be moved: a process reads an old state and "
            f"holds it open, most often an unfinished query in a notebook{_held_by(facts)}",
            "end that query or process, then `pq checkpoint`",
        )
    if size >= LARGE_WAL_BYTES:
        return Finding("WAL", "warning", f"{megabytes(size)}: it grew and was not shrunk", "`pq checkpoint`")
    return Finding("WAL", "ok", f"{megabytes(size)}, no reader holds it")


def _held_by(facts: Mapping[str, Any]) -> str:
    pids = facts.get("holders") or []
    return f"; the file is open in {_some(pids)}" if pids else ""


def dead_consumers(facts: Mapping[str, Any]) -> Finding:
    """Consumers that ended without a word; their jobs are taken back by the next one that looks."""
    names = sorted(facts["dead_consumers"])
    if not names:
        return Finding("consumers", "ok", "none is dead")
    return Finding("consumers", "warning", f"{len(names)} died: {_some(names)}", "`pq rescue`")


def expired_leases(facts: Mapping[str, Any]) -> Finding:
    """Jobs that nobody has taken back yet."""
    number = facts["expired_leases"]
    if not number:
        return Finding("leases", "ok", "none has run out")
    return Finding(
        "leases", "warning", f"{number} ran out and no consumer has taken the jobs back", "`pq rescue`"
    )


def boot(facts: Mapping[str, Any]) -> Finding:
    """Whether leases count from the present start of the machine."""
    if facts["boot_matches"]:
        return Finding("clock", "ok", "leases count from this start of the machine")
    return Finding(
        "clock", "warning", "the machine was started anew since the leases were given", "`pq rescue`"
    )


def modes(facts: Mapping[str, Any]) -> Finding:
    """Whether others on this machine can read or write the jobs."""
    found = {"the database": facts["mode"]} | dict(facts.get("sides") or {})
    wide = {name: mode for name, mode in found.items() if mode & 0o077}
    if not wide or os.name == "nt":
        return Finding("file modes", "ok", "only the owner may read the files")
    writable = any(mode & 0o022 for mode in wide.values())
    listed = ", ".join(f"{name} {mode:04o}" for name, mode in wide.items())
    return Finding(
        "file modes",
        "warning",
        f"other users may {'write' if writable else 'read'} {listed}"
        + ("; whoever writes it can run code here" if writable else ""),
        "`chmod go= FILE` for each, unless you share it on purpose",
    )


def gate(facts: Mapping[str, Any]) -> Finding:
    """The file at which all writers stand in line."""
    state = facts["gate"]
    if state == "file":
        return Finding("gate", "ok", "the gate file is there")
    return Finding(
        "gate",
        "error",
        f"the gate file is {state}: processes that have the old one open no longer stand in one line",
        "restart every process that uses the queue (run_all.py, consumers, notebooks)",
    )


def free_pages(facts: Mapping[str, Any]) -> Finding:
    """How much of the file holds nothing."""
    size = facts["page_count"] * facts["page_size"]
    unused = facts["freelist_count"] * facts["page_size"]
    text = f"{megabytes(size)}, of which {megabytes(unused)} are free for new jobs"
    if unused > FREE_PAGES_BYTES and unused > FREE_PAGES_SHARE * size:
        return Finding(
            "file size",
            "warning",
            f"{text}; they are used again but not given back to the disk",
            "`sqlite3 FILE vacuum` while nothing else uses the file",
        )
    return Finding("file size", "ok", text)


CHECKS: tuple[Check, ...] = (
    integrity,
    file_system,
    free_disk,
    journal,
    gate,
    library,
    sqlite_version,
    wal,
    dead_consumers,
    expired_leases,
    boot,
    modes,
    free_pages,
)


def gate_state(path: Path) -> str:
    """`file`, `missing`, or `not a regular file`."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return "missing"
    return "file" if stat.S_ISREG(mode) else "not a regular file"


def side_modes(path: Path) -> dict[str, int]:
    """The modes of the files and folders beside the database; pq makes them private, a user may not."""
    places = {side: Path(f"{path}{side}") for side in SIDES} | {name: path.parent / name for name in FOLDERS}
    found = {}
    for name, place in places.items():
        try:
            found[name] = place.stat().st_mode & 0o777
        except FileNotFoundError:
            continue
    return found


def holders(path: Path) -> list[str]:
    """The other processes that have the database open, as `python (4711)`; only where /proc tells."""
    target = os.path.realpath(path)
    own = str(os.getpid())
    pids = [entry.name for entry in _entries(Path("/proc")) if entry.name.isdigit() and entry.name != own]
    return [f"{_process_name(pid)} ({pid})" for pid in pids if target in _open_files(pid)]


def _open_files(pid: str) -> Iterator[str]:
    for link in _entries(Path("/proc", pid, "fd")):
        try:
            yield str(link.readlink())
        except OSError:  # closed meanwhile
            continue


def _process_name(pid: str) -> str:
    try:
        return Path("/proc", pid, "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "process"


def _entries(folder: Path) -> list[Path]:
    """What is in `folder`; nothing where it is gone or another user's."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _some(words: Sequence[str]) -> str:
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more


def megabytes(size: int) -> str:
    """A size for a person."""
    return f"{size / MEGABYTE:,.1f} MB" if size < 1_000 * MEGABYTE else f"{size / 2**30:,.1f} GB"
