"""The judgement of the soak, and the soak itself, which is long."""

import json
import random
import subprocess
import sys

import pytest

from tests.faults.soak import Sample, trends


def samples(memory):
    return [Sample(2.0 * number, memory(number), 600, 18, 4, 60, 300) for number in range(300)]


def test_noise_around_a_level_is_flat():
    noise = random.Random(1)
    assert all(one.is_flat for one in trends(samples(lambda _: 1000 + noise.gauss(0, 30))))


def test_warming_up_is_not_growth():
    assert all(one.is_flat for one in trends(samples(lambda number: min(1000, 500 + 10 * number))))


def test_a_slow_leak_is_found():
    noise = random.Random(1)
    found = trends(samples(lambda number: 1000 + number / 2 + noise.gauss(0, 30)))
    assert [one.name for one in found if not one.is_flat] == ["memory_mb"]


@pytest.mark.deep
def test_the_whole_system_stays_flat_for_three_minutes():
    command = [sys.executable, "-m", "tests.faults.soak", "--seconds", "180"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["violations"] == 0
