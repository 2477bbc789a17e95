"""`pq delete-files`: what it takes, what it spares, and that it never leaves the folder."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import CommandLine, answer

import pq
from pq.cli.files import unlink_below
from pq.interface import PersistentQInterface


@pytest.fixture
def run(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "queue.db")


@pytest.fixture
def jobs(run: CommandLine) -> Iterator[PersistentQInterface]:
    """The same queue, opened by the test itself."""
    with pq.connect(run.database) as queue:
        yield queue


def write(path: Path, *, old: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("text")
    if old:
        os.utime(path, (1_000_000_000, 1_000_000_000))
    return path


def below(folder: Path) -> set[str]:
    tops = ("inbox", "processed", "runs")
    return {
        str(path.relative_to(folder)) for top in tops for path in (folder / top).rglob("*") if path.is_file()
    }


def test_delete_files_takes_the_files_of_the_chosen_finished_jobs(
    run: CommandLine, jobs: PersistentQInterface, tmp_path: Path
) -> None:
    for name in ("inbox/a.txt", "inbox/b.txt", "processed/a.txt", "runs/other.ipynb"):
        write(tmp_path / name)
    finished, waiting = jobs.enqueue("stamp", {"path": "inbox/a.txt"}), None
    taken = jobs.dequeue("consumer-1")
    assert taken is not None
    jobs.complete(taken, {"output": str(tmp_path / "processed/a.txt")})
    waiting = jobs.enqueue("stamp", {"path": "inbox/b.txt"})
    assert run("delete-files", str(finished.id)).exit_code == 1
    matched = answer(run("delete-files", str(finished.id), str(waiting.id), "--dry-run", "--json"))["matched"]
    assert [file["path"] for file in matched] == ["inbox/a.txt", "processed/a.txt"]
    assert run("delete-files", "--status", "completed", "--yes").output.endswith("2 files deleted\n")
    assert below(tmp_path) == {"inbox/b.txt", "runs/other.ipynb"}
    assert jobs.get(finished.id).status == "completed"


def test_delete_files_all_spares_what_is_needed_or_young(
    run: CommandLine, jobs: PersistentQInterface, tmp_path: Path
) -> None:
    for name in ("inbox/gone.txt", "inbox/sub/gone.txt", "inbox/needed.txt", "processed/gone.txt"):
        write(tmp_path / name)
    write(tmp_path / "inbox/young.txt", old=False)
    write(tmp_path / "runs/consumer-1.ipynb")
    write(tmp_path / "runs/consumer-2.ipynb")
    write(tmp_path / "logs/consumer-1.log")
    alias = tmp_path / "alias"
    alias.symlink_to(tmp_path / "inbox")
    jobs.enqueue("stamp", {"deep": [{"path": str(alias / "needed.txt")}]})
    jobs.register_consumer("consumer-1")
    assert "4 files deleted" in run("delete-files", "--all", "--yes").output
    assert below(tmp_path) == {"inbox/needed.txt", "inbox/young.txt", "runs/consumer-1.ipynb"}
    assert (tmp_path / "logs/consumer-1.log").exists()


def test_delete_files_never_leaves_the_folder(
    run: CommandLine, jobs: PersistentQInterface, tmp_path: Path
) -> None:
    outside = write(tmp_path.parent / f"{tmp_path.name}-outside" / "secret.txt")
    write(tmp_path / "inbox/a.txt")
    (tmp_path / "inbox/link").symlink_to(outside.parent)
    (tmp_path / "inbox/file-link.txt").symlink_to(outside)
    (tmp_path / "processed").symlink_to(outside.parent)
    for path in (
        str(outside),
        f"inbox/../../{outside.parent.name}/secret.txt",
        "inbox/link/secret.txt",
        "inbox/file-link.txt",
        "processed/secret.txt",
        "queue.db",
        "inbox/../queue.db",
    ):
        jobs.cancel(jobs.enqueue("stamp", {"path": path}))
    assert "0 files match" in run("delete-files", "--status", "cancelled", "--yes").output
    assert "1 files deleted" in run("delete-files", "--all", "--yes").output
    assert outside.exists()
    assert (tmp_path / "queue.db").exists()


def test_a_link_put_in_the_way_after_the_count_is_not_followed(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside" / "a.txt")
    folder = tmp_path / "folder"
    (folder / "inbox").mkdir(parents=True)
    (folder / "inbox" / "sub").symlink_to(outside.parent)
    assert not unlink_below(folder, "inbox/sub/a.txt")
    assert not unlink_below(folder, "inbox/gone.txt")
    assert outside.exists()
