"""The measurements run and tell what they found; no time is judged here."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench"


def run(script: str, folder: Path, *more: str) -> str:
    command = [sys.executable, str(BENCH / f"{script}.py"), "--quick", "--folder", str(folder), *more]
    result = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert result.returncode == 0, result.stderr
    assert list(folder.iterdir()) == []
    return result.stdout


def test_throughput_measures_every_contender_that_is_installed(tmp_path: Path) -> None:
    output = run("throughput", tmp_path, "--rounds", "1", "--seconds", "0.02")
    assert "pq: wal, synchronous full" in output
    assert "| one at a time, x the loop by hand | >= 0.8 |" in output
    for contender in ("pq", "pq, prefetch 100", "pq.consume", "by hand", "2 x pq"):
        assert f"\n| {contender} |" in output
    for name in ("huey", "litequeue", "persist-queue"):
        assert f"\n| {name} |" in output or name in output.partition("Not installed")[2]
    assert "synchronous normal" not in output
    assert "synchronous off" not in output


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("scale", ["| claim |", "| counts |", "1,000 and 2,000 scheduled"]),
        ("wake", ["| idle consumer | < 2 % of a core |", "another process"]),
        ("startup", ["| pq list, more than python | <= 0.5 s |", "| pq list --json |"]),
    ],
)
def test_a_measurement_tells_what_it_found(tmp_path: Path, script: str, told: list[str]) -> None:
    output = run(script, tmp_path)
    for part in told:
        assert part in output


def test_every_measurement_has_its_place_in_the_readme() -> None:
    text = (BENCH / "README.md").read_text()
    for section in (
        *("throughput", "scale", "wake", "startup"),
        *("throughput --backend postgresql", "scale --backend postgresql"),
    ):
        script, _, options = section.partition(" ")
        command = " ".join(filter(None, (f"bench/{script}.py", options, "--write")))
        begin = text.index(f"<!-- {section}: written by {command} -->")
        assert text.index(f"<!-- end of {section} -->") > begin


@pytest.mark.deep
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["costs"], ["| pq: claim and finish by 100 |", "| pq: bytes of a finished job |"]),
        (["throughput", "--backend", "postgresql"], ["x procrastinate", "\n| by hand, fused |"]),
        (["scale", "--backend", "postgresql"], ["| claim |", "| counts |"]),
    ],
)
def test_a_measurement_on_postgresql_tells_what_it_found(
    tmp_path: Path, words: list[str], told: list[str]
) -> None:
    script, *more = words
    output = run(script, tmp_path, *more)
    assert all(part in output for part in told)
