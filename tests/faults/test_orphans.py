"""A kill amid a notebook run leaves nothing behind, and the harness notices where something is left."""

import sys

import pytest

from tests.faults.orphans import one

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")

# Imported by each Python at its start: nobody adopts what a dead kernel leaves.
NOBODY_ADOPTS = """
import pq.system.processes
pq.system.processes.become_subreaper = lambda: False
"""


def test_a_killed_kernel_leaves_nothing_behind():
    case = one("alone", "mid-cell", "kernel")
    assert (case.wrong, case.skipped) == ([], False)


@pytest.mark.deep
def test_the_harness_notices_a_planted_defect(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(NOBODY_ADOPTS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    case = one("alone", "mid-cell", "kernel")
    assert any("orphans within" in wrong for wrong in case.wrong)
