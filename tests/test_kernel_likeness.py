"""A warm kernel is like a cold one: what a cell can find out about its process is the same."""

import re
import sys

import cells
import pytest
from cells import run_once

pool, nothing_left_behind = cells.pool, cells.nothing_left_behind
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="warm kernels need Linux")

# A warm kernel has no debugger, whose import sets PYDEVD_USE_FRAME_EVAL; numpy has added filters of its own.
QUESTIONS = """
import sys; print(sys.flags, sys._xoptions, sys.getrecursionlimit(), sys.dont_write_bytecode)
import sys; print(sys.path, sys.executable, sys.stdin)
import sys; print(sys.argv[0], sys.argv[1], sys.argv[3:], sys.orig_argv[1:3])
import os; print(sorted({*os.environ} - {'PYDEVD_USE_FRAME_EVAL'}), os.environ['TERM'])
import os; print(os.getpid() == os.getsid(0) == os.getpgrp(), os.umask(0o22))
import __main__, sys; print(__name__, __main__ is sys.modules['__main__'], hasattr(__main__, '__file__'))
import signal; print([signal.getsignal(n) for n in (1, 2, 13, 15, 17)], signal.pthread_sigmask(0, ()))
import warnings; print([f for f in warnings.filters if 'numpy' not in str(f)])
import logging; print(logging.getLogger().handlers, logging.getLogger().level)
import gc; print(gc.isenabled(), gc.get_threshold())
import locale, time; print(locale.setlocale(locale.LC_ALL), time.tzname)
import tempfile, os; print(tempfile.gettempdir(), os.getcwd(), _dh, get_ipython().starting_dir)
import resource as r; print([r.getrlimit(kind) for kind in (r.RLIMIT_NOFILE, r.RLIMIT_DATA, r.RLIMIT_CORE)])
import threading as t; print(t.current_thread() is t.main_thread(), t.current_thread().name)
import os; print([os.readlink(f'/proc/self/fd/{n}')[:4] for n in range(1)], os.nice(0))
import asyncio; print(asyncio.get_event_loop().is_running()); print(await asyncio.sleep(0, 5))
import concurrent.futures as f; print(list(f.ProcessPoolExecutor(1).map(abs, [-1])))
import concurrent.futures as f; print(list(f.ThreadPoolExecutor(1).map(abs, [-1])))
import multiprocessing as m; print(m.get_context('spawn').Pool(1).map(abs, [-1]), m.current_process().name)
import subprocess as s, sys; print(s.run([sys.executable, '-c', 'print(3)'], capture_output=True).stdout)
import os; os.system('echo from below'); _ = os.write(1, b'past Python\\n')
import os, sys; sys.stdout.flush(); print(os.fork() if False else 'no fork')
import sys; print(type(sys.stdout), sys.stdout.encoding, sys.stdout.isatty(), type(sys.displayhook))
import inspect; print(get_ipython().history_manager.hist_file, get_ipython().profile, inspect.__file__)
import numpy, pandas; print(numpy.__file__, pandas.Series([1, 2]).sum())
!echo shell
%whos
get_ipython().run_line_magic('pwd', '')
import atexit; print(atexit.register(print) is print)
""".strip().splitlines()


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_warm_kernel_answers_as_a_cold_one(pool, tmp_path, question):
    warm = run_once(pool, question, cwd=tmp_path)
    cold = run_once(pool, question, cwd=tmp_path, cold=True)

    assert _without_names(warm) == _without_names(cold)


def _without_names(text):
    """Addresses of objects and the kernel's own folder differ between any two kernels."""
    return re.sub(r"0x[0-9a-f]+|/tmp/pq-kernels-\w+/\w+", "…", text)
