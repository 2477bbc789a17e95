"""What the tests share: a clock moved by hand, a queue on every backend, and the proof that nothing leaks."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from fake_clock import FakeClock
from postgresql import Databases, Server, empty

import pq
from pq.interface import PersistentQInterface


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--deep", action="store_true", help="run the long tests too")
    parser.addoption("--kills", type=int, default=50, help="SIGKILLs in tests/test_crash.py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--deep"):
        for item in items:
            item.add_marker(pytest.mark.timeout(0))
        return
    for item in items:
        if item.get_closest_marker("deep"):
            item.add_marker(pytest.mark.skip(reason="deep: run with --deep"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """In .ci/run a test that skips for a missing tool has failed."""
    outcome = yield
    report = outcome.get_result()
    permitted = any(word in str(report.longrepr) for word in ("deep", "only root may mount"))
    if report.skipped and os.environ.get("PQ_CI") and not permitted:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """In .ci/run a failure is told at once: what follows it may never come to the summary."""
    if report.failed and os.environ.get("PQ_CI") and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.nodeid}, {report.when}\n{report.longreprtext}", flush=True)  # noqa: T201  # for the log


@pytest.fixture(scope="session")
def postgresql_databases() -> Iterator[Databases]:
    """One server for all tests: PQ_TEST_URL, or one from the wheel, also as root."""
    if url := os.environ.get("PQ_TEST_URL"):
        yield Databases(url)
        return
    server = Server()
    server.start()
    try:
        yield Databases(server.url())
    finally:
        server.stop()


@pytest.fixture
def own_postgresql() -> Iterator[Server]:
    """A server of this test's own, to be killed."""
    server = Server()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def postgresql_url(postgresql_databases: Databases) -> Iterator[str]:
    """An empty database of this test's own."""
    url = postgresql_databases.make()
    yield url
    postgresql_databases.drop(url)


BACKENDS = ("sqlite", "postgresql")
Connect = Callable[..., PersistentQInterface]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def shared_postgresql_url(postgresql_databases: Databases) -> Iterator[str]:
    """A database for all tests of one process that leave it empty."""
    url = postgresql_databases.make()
    yield url
    postgresql_databases.drop(url)


@pytest.fixture
def url(shared_postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty queue on the server, whose files are in a folder of this test's own."""
    monkeypatch.setenv("PQ_FOLDER", str(tmp_path))
    yield shared_postgresql_url
    empty(shared_postgresql_url)


@pytest.fixture(params=BACKENDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty queue may be opened: the path of a file, or an address."""
    return str(tmp_path / "queue.db") if request.param == "sqlite" else request.getfixturevalue("url")


@pytest.fixture
def connect(place: str) -> Iterator[Connect]:
    """Opens the same queue again and again, with the clock that is given."""
    opened: list[PersistentQInterface] = []

    def open_queue(clock: FakeClock | None = None) -> PersistentQInterface:
        opened.append(pq.connect(place, clock=clock))
        return opened[-1]

    yield open_queue
    for queue in opened:
        queue.close()


@pytest.fixture
def queue(connect: Connect, clock: FakeClock) -> PersistentQInterface:
    return connect(clock)


@pytest.fixture(autouse=True)
def no_setting_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "QUEUE_DB_FILE",
        "PQ_URL",
        "MAX_ATTEMPTS",
        "TIMEOUT_SECONDS",
        "INTERVAL_TIME",
        "PQ_INPUT_ROOT",
        "PQ_RUNS",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """A test that leaves a child process behind fails."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    deadline = time.monotonic() + 20
    while True:
        left = [
            child
            for child in psutil.Process().children(recursive=True)
            if child.pid not in before and _is_running(child)
        ]
        if not left:
            return
        if time.monotonic() > deadline:
            names = [child.cmdline() for child in left]
            for child in left:
                child.kill()
            pytest.fail(f"left behind: {names}")
        time.sleep(0.05)


def _is_running(process: psutil.Process) -> bool:
    try:
        # Python's own helpers of multiprocessing live as long as the test run.
        helper = any("multiprocessing" in part for part in process.cmdline())
        return process.status() != psutil.STATUS_ZOMBIE and not helper
    except psutil.NoSuchProcess:
        return False
