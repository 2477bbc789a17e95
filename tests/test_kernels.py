"""Kernels: each run has a fresh one, warm or cold, and a pool leaves nothing."""

import gc
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import cells
import psutil
import pytest
from cells import run_cell, run_once
from processes import wait_for

from pq.errors import KernelStartError
from pq.kernels.pool import KernelPool

pool, private, nothing_left_behind = cells.pool, cells.private, cells.nothing_left_behind
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="warm kernels need Linux")


# -- one run -----------------------------------------------------------------------------------------


def test_a_warm_kernel_runs_in_the_folder_and_environment_that_are_given(pool, tmp_path):
    kernel = pool.start("python3", cwd=tmp_path, environment={"STAGE": "test", "TZ": "Asia/Tokyo"})
    client = kernel.client()

    said = run_cell(
        client, "import os, time; print(os.getpid(), os.getcwd(), os.environ['STAGE'], time.tzname[0])"
    )

    assert kernel.mode == "warm"
    assert said.text.split() == [str(kernel.pid), str(tmp_path), "test", "JST"]
    assert (kernel.is_alive(), kernel.exit()) == (True, None)
    client.stop_channels()
    kernel.kill()
    assert kernel.exit().signal == signal.SIGKILL
    assert kernel.exit().by_us


def test_a_module_that_was_preloaded_is_there_without_an_import(pool):
    assert run_once(pool, "import sys; 'pandas' in sys.modules") == "True"


def test_what_one_run_leaves_behind_is_not_seen_by_the_next(pool, tmp_path):
    (tmp_path / "mine.py").write_text("value = 1\n")
    files = "[os.path.realpath('/proc/self/fd/' + name) for name in os.listdir('/proc/self/fd')]"
    trace = (
        "import builtins, os, sys, json, pandas\n"
        "print('left' in globals(), hasattr(builtins, 'left'), hasattr(json, 'left'))\n"
        f"print('mine' in sys.modules, any({str(tmp_path)!r} in name for name in {files}))\n"
        "print(os.environ.get('LEFT'), os.getcwd(), os.umask(0o22), sys.getrecursionlimit(), sys.path)\n"
        "print(pandas.options.display.max_rows)\n"
    )
    stain = (
        "left = 1; builtins.left = 1; json.left = 1; import mine; os.environ['LEFT'] = '1'; os.chdir('/')\n"
        "os.umask(0); sys.setrecursionlimit(5000); sys.path.insert(0, '/nonexistent')\n"
        f"pandas.options.display.max_rows = 3; file = open({str(tmp_path / 'left.txt')!r}, 'w')\n"
    )

    first = run_once(pool, trace + stain, cwd=tmp_path)
    second = run_once(pool, trace, cwd=tmp_path)

    assert first == second


def test_each_run_draws_other_random_numbers(pool):
    code = "import random, uuid, numpy; print(random.random(), numpy.random.rand(), uuid.uuid4())"

    drawn = [run_once(pool, code).split() for _ in range(2)]

    assert not set(drawn[0]) & set(drawn[1])


def test_an_interrupt_stops_the_cell_and_leaves_the_kernel(pool, tmp_path):
    kernel = pool.start(None, cwd=tmp_path)
    client = kernel.client()
    # Otherwise ipykernel answers what comes within a moment after an error with "aborted".
    client.execute("print('begun'); import time\nwhile True: time.sleep(0.01)", stop_on_error=False)
    wait_for(lambda: client.get_iopub_msg(timeout=20)["content"].get("text") == "begun\n")

    kernel.interrupt()

    wait_for(lambda: client.get_iopub_msg(timeout=20)["content"].get("ename") == "KeyboardInterrupt")
    client.get_shell_msg(timeout=20)
    assert run_cell(client, "print('still here')").text == "still here\n"
    client.stop_channels()
    kernel.kill()


@pytest.mark.parametrize("of_nbclient", [False, True])
def test_a_client_that_nobody_closed_holds_nobody_up(pool, tmp_path, of_nbclient):
    kernel = pool.start(None, cwd=tmp_path)
    client = kernel.manager.client() if of_nbclient else kernel.client()
    client.start_channels()
    client.execute("1 + 1")
    client.itself = client  # so that only the collector finds it
    kernel.kill()
    del client
    gc.collect()


def test_an_interrupt_reaches_neither_another_kernel_nor_a_spare(pool, tmp_path):
    first, second = (pool.start(None, cwd=tmp_path) for _ in range(2))

    first.interrupt()

    client = second.client()
    assert run_cell(client, "1 + 1").text == "2"
    client.stop_channels()
    for kernel in (first, second):
        kernel.kill()


@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize(
    ("cell", "code", "number"),
    [("import os; os._exit(7)", 7, None), ("import os; os.kill(os.getpid(), 11)", None, signal.SIGSEGV)],
)
def test_how_a_kernel_ended_is_told(pool, tmp_path, cell, code, number, cold):
    kernel = pool.start(None, cwd=tmp_path, cold=cold)
    client = kernel.client()
    client.execute(cell)

    wait_for(lambda: not kernel.is_alive())

    ended = kernel.exit()
    assert (ended.code, ended.signal, ended.by_us, ended.for_memory) == (code, number, False, False)
    assert ended.peak_bytes > 10_000_000
    client.stop_channels()


def test_killing_a_kernel_ends_what_it_started_and_no_other_kernel(pool, tmp_path):
    first, second = (pool.start(None, cwd=tmp_path) for _ in range(2))
    clients = [kernel.client() for kernel in (first, second)]
    start = (
        "import subprocess; words = ['sh', '-c', 'setsid sleep 600 & exec sleep 600']\n"
        "print(subprocess.Popen(words, start_new_session=True).pid)"
    )
    pids = [int(run_cell(client, start).text) for client in clients]
    assert all(map(psutil.pid_exists, pids))

    first.kill()

    assert not psutil.pid_exists(pids[0])
    assert psutil.pid_exists(pids[1])
    assert run_cell(clients[1], "'alive'").text == "'alive'"
    for client in clients:
        client.stop_channels()
    second.kill()
    assert not psutil.pid_exists(pids[1])
    wait_for(lambda: not [p for p in psutil.Process(pool.server_pid).children() if p.name() == "sleep"])


def test_a_memory_limit_makes_the_allocation_fail(tmp_path):
    with KernelPool(max_memory_bytes=1 << 30) as limited:
        kernel = limited.start(None, cwd=tmp_path)
        client = kernel.client()

        assert run_cell(client, "x = bytearray(3 << 30)").error.startswith("MemoryError")

        assert run_cell(client, "len(bytearray(1 << 20))").text == str(1 << 20)
        client.stop_channels()


# -- when it is cold, and why ------------------------------------------------------------------------


def test_a_pool_can_be_cold(tmp_path):
    with KernelPool(cold=True) as pool:
        kernel = pool.start(None, cwd=tmp_path)
        client = kernel.client()

        assert (kernel.mode, kernel.reason) == ("cold", "warm kernels are switched off")
        assert run_cell(client, "import os; print(os.getpid())").text == f"{kernel.pid}\n"
        client.stop_channels()


def test_a_variable_that_is_read_at_the_start_of_python_makes_a_kernel_cold(pool, tmp_path):
    kernel = pool.start(None, cwd=tmp_path, environment={"PYTHONHASHSEED": "0"})

    assert (kernel.mode, kernel.reason) == (
        "cold",
        "PYTHONHASHSEED is read only when Python or a library starts",
    )
    kernel.kill()


def test_a_variable_that_a_kernel_reads_when_it_is_prepared_is_seen(pool, tmp_path):
    text = run_once(pool, "get_ipython().ipython_dir", environment={"IPYTHONDIR": str(tmp_path)})

    assert text == str(tmp_path)


def test_a_kernel_that_is_not_installed_is_named_with_those_that_are(pool, tmp_path):
    with pytest.raises(KernelStartError, match=r"no kernel is called 'nonesuch'; installed are: .*python3"):
        pool.start("nonesuch", cwd=tmp_path)


def test_a_folder_that_is_not_there_is_named(pool, tmp_path):
    with pytest.raises(KernelStartError, match="there is no such folder"):
        pool.start(None, cwd=tmp_path / "missing")


def _install_kernel(folder, monkeypatch, argv):
    import json

    (folder / "kernels" / "other").mkdir(parents=True)
    spec = {"argv": argv, "display_name": "Other", "language": "python"}
    (folder / "kernels" / "other" / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(folder))


def test_a_kernel_that_ends_at_once_gives_its_last_words(pool, tmp_path, monkeypatch):
    words = [sys.executable, "-c", "import sys; sys.exit('no licence')", "{connection_file}"]
    _install_kernel(tmp_path, monkeypatch, words)

    with pytest.raises(KernelStartError, match=r"the kernel ended with status 1; no licence"):
        pool.start("other", cwd=tmp_path).client()


def test_a_kernel_whose_program_is_missing_gives_the_reason(pool, tmp_path, monkeypatch):
    _install_kernel(tmp_path, monkeypatch, ["/nonesuch/R", "--args", "{connection_file}"])

    with pytest.raises(KernelStartError, match=r"cannot start /nonesuch/R: .*No such file"):
        pool.start("other", cwd=tmp_path).client()


def test_another_kernel_runs_cold_over_the_ports_that_all_kernels_know(pool, tmp_path, monkeypatch):
    code = "import sys; from ipykernel.kernelapp import launch_new_instance as run; sys.exit(run())"
    _install_kernel(tmp_path, monkeypatch, [sys.executable, "-c", code, "-f", "{connection_file}"])
    kernel = pool.start("other", cwd=tmp_path)
    client = kernel.client()

    assert kernel.mode == "cold"
    assert '"transport": "tcp"' in Path(kernel.connection_file).read_text()
    assert run_cell(client, "2 + 3").text == "5"
    client.stop_channels()
    kernel.kill()


def test_a_module_that_cannot_be_preloaded_is_left_out_with_a_warning(tmp_path, monkeypatch, caplog):
    (tmp_path / "usersown.py").write_text("raise SystemExit('never imported')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with KernelPool(preload=("nonesuch", "usersown", "json")) as pool:
        mode = pool.start(None, cwd=tmp_path).mode

    assert mode == "warm"
    assert [record.message for record in caplog.records if "preload" in record.message] == [
        "nonesuch is not preloaded: there is no such module",
        "usersown is not preloaded: it is not in site-packages",
    ]


BREAKS = {
    "hangs": "import os, time; os.register_at_fork(after_in_child=lambda: time.sleep(600))",
    "dies": "import os; os.register_at_fork(after_in_child=lambda: os._exit(3))",
    "kills": "import os; os.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize(
    ("kind", "why"),
    [("hangs", "did not come up within"), ("dies", "died on its trial"), ("kills", "did not come up")],
)
def test_where_a_fork_is_not_safe_the_pool_goes_on_cold_and_says_why(tmp_path, monkeypatch, kind, why):
    """A sitecustomize runs in the server as a library would that breaks under it."""
    only_server = (
        "import sys\nif 'pq.kernels.zygote' in sys.orig_argv and '\"warm\": true' in sys.orig_argv[-1]: "
    )
    (tmp_path / "sitecustomize.py").write_text(only_server + BREAKS[kind])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("pq.kernels.pool.TRIAL_SECONDS", 1)
    with KernelPool() as pool:
        kernel = pool.start(None, cwd=tmp_path)
        client = kernel.client()

        assert (kernel.mode, run_cell(client, "1").text) == ("cold", "1")
        assert why in pool.reason
        assert kernel.reason == pool.reason
        client.stop_channels()


# -- the server --------------------------------------------------------------------------------------


def test_a_pool_leaves_no_process_and_no_file(private):
    with KernelPool(folder=private) as pool:
        kernel = pool.start(None, cwd=private)
        server = pool.server_pid
        assert [path.stat().st_mode & 0o777 for path in private.iterdir()] == [0o700]

    for pid in (server, kernel.pid):  # whoever reaps them may need a moment
        wait_for(lambda pid=pid: not psutil.pid_exists(pid), what="the end of all processes")
    assert not list(private.iterdir())


def test_many_runs_leave_no_process_file_or_descriptor(pool, tmp_path):
    def held():
        server = psutil.Process(pool.server_pid)
        return psutil.Process().num_fds(), server.num_fds(), len(server.children())

    def settled(count):
        for _ in range(count):
            run_once(pool, "1", cwd=tmp_path)
        import gc

        gc.collect()
        wait_for(lambda: len(psutil.Process(pool.server_pid).children()) == 1, what="one spare")

    settled(3)
    before = held()
    settled(20)

    assert held() == before


def test_after_the_server_was_killed_the_next_start_has_a_new_one(tmp_path):
    with KernelPool() as pool:
        kernel = pool.start(None, cwd=tmp_path)
        os.kill(pool.server_pid, signal.SIGKILL)
        wait_for(lambda: not kernel.is_alive())
        wait_for(lambda: not psutil.pid_exists(kernel.pid))

        again = pool.start(None, cwd=tmp_path)

        assert (again.mode, again.is_alive()) == ("warm", True)
        assert "the kernel server has ended" in kernel.exit().tail


def test_after_an_installation_the_next_start_has_a_new_server(tmp_path, monkeypatch):
    with KernelPool() as pool:
        pool.start(None, cwd=tmp_path).kill()
        server = pool.server_pid
        monkeypatch.setattr("pq.kernels.server._libraries", lambda: ("changed",))

        kernel = pool.start(None, cwd=tmp_path)

        assert pool.server_pid != server
        assert kernel.mode == "warm"


def test_two_pools_in_one_folder_do_not_meet(private):
    with KernelPool(folder=private) as one, KernelPool(folder=private) as two:
        assert run_once(one, "'one'") == "one"
        assert run_once(two, "'two'") == "two"


def test_a_closed_pool_starts_nothing(tmp_path):
    pool = KernelPool()
    pool.close()

    with pytest.raises(KernelStartError, match="is closed"):
        pool.start(None, cwd=tmp_path)


def test_importing_the_kernels_loads_nothing_heavy():
    code = "import sys, pq.kernels.pool; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"zmq", "jupyter_client", "psutil", "pandas", "papermill"} & set(done.stdout.split())


def test_consumers_that_start_together_load_two_at_a_time(tmp_path):
    import fcntl

    from pq.kernels import loading as kernel_loading

    tmp_path.chmod(0o700)
    with kernel_loading.slot(tmp_path), kernel_loading.slot(tmp_path):
        for path in sorted(tmp_path.iterdir()):
            with path.open() as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_pool_without_a_handler_logs_nothing_when_all_is_well(caplog, tmp_path):
    with caplog.at_level(logging.WARNING), KernelPool() as pool:
        pool.start(None, cwd=tmp_path)
    assert caplog.records == []


def test_a_client_that_was_left_open_does_not_hold_up_the_end_of_its_process(tmp_path):
    code = (
        "import sys; from pq.kernels.pool import KernelPool\n"
        "with KernelPool(cold=True) as pool:\n"
        "    kernel = pool.start(None, cwd=sys.argv[1]); client = kernel.client(); kernel.kill()\n"
        "    client.execute('never read'); client.context.destroy()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=120)

    assert done.returncode == 0
