"""bandit over the whole package: nothing is found but what is named here, each with its reason."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Of every module: (what bandit calls it): why it is no flaw here.
EVERYWHERE = {
    "B404": "importing subprocess starts nothing",
    "B603": "commands are lists of our own words, no shell; ruff's S603 asks a reason at each call",
    "B608": "statements are constant; tests/test_layout.py looks for SQL made from data",
}
ACCEPTED = {
    ("B607", "pq/notebook/provenance.py"): "git is the user's own, found as his shell finds it",
    ("B606", "pq/kernels/child.py"): "the command of a kernelspec, without a shell",
    ("B411", "pq/system/supervisors.py"): "the XML comes from our own supervisord over a private socket",
    ("B311", "pq/producer.py"): "sample text, not a secret",
    ("B108", "pq/kernels/server.py"): "mkdtemp makes a private folder there",
    ("B105", "pq/notebook/inspecting.py"): "how a reference to a secret begins",
    ("B105", "pq/dashboards.py"): "the empty text means: no token",
    ("B101", "pq/notebook/job.py"): "tells the type checker what the line before has done",
}


def test_bandit_finds_nothing_without_a_reason():
    done = subprocess.run(
        [sys.executable, "-m", "bandit", "-q", "-r", "pq", "run_all.py", "-f", "json"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert report["errors"] == []
    assert report["metrics"]["pq/values.py"]["loc"] > 50
    found = {
        (one["test_id"], one["filename"].removeprefix("./")): f"{one['line_number']}: {one['issue_text']}"
        for one in report["results"]
        if one["test_id"] not in EVERYWHERE
    }
    assert {key: text for key, text in found.items() if key not in ACCEPTED} == {}
    assert ACCEPTED.keys() - found.keys() == set(), "a reason for what is not there any more"
