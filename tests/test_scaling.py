"""docs/scaling.md: what it shows to copy can be copied, and starts `pq consume` with options that exist."""

import configparser
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from pq.cli import app

TEXT = (Path(__file__).parents[1] / "docs" / "scaling.md").read_text()
OPTIONS = {
    option
    for parameter in typer.main.get_command(app).commands["consume"].params
    for option in parameter.opts
}


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def unit_command():
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str
    unit.read_string(blocks("ini")[0])
    return shlex.split(unit["Service"]["ExecStart"])


def container_command():
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", blocks("dockerfile")[0], re.MULTILINE)
    return shlex.split(yaml.safe_load(entry)[-1])


def pod_command():
    pod = yaml.safe_load(blocks("yaml")[0])["spec"]["template"]["spec"]
    return pod["containers"][0]["command"]


@pytest.mark.parametrize("command", [unit_command, container_command, pod_command])
def test_each_way_to_start_a_consumer_starts_pq_consume(command):
    words = [Path(word).name if word.endswith("/pq") else word for word in command()]
    assert " pq consume " in f" {' '.join(words)} "
    after = words[words.index("consume") + 1 :]
    assert {word for word in after if word.startswith("--")} <= OPTIONS
    assert "--tasks" in after


def test_the_reckoning_adds_up():
    def row(name):
        (cells,) = re.findall(rf"^\| {name} \| (.*) \|$", TEXT, re.MULTILINE)
        return cells

    assert row("bytes of the log") == "2,300 | 2,000"
    per_day = [bytes_ * 10_000 * 86_400 / 1e12 for bytes_ in (2_300, 2_000)]
    assert [f"{one:.1f} TB a day" in row("log") for one in per_day] == [True, True]
    assert f"{520 * 10**9 // 10**9} GB" in TEXT
    assert f"{1e9 / 10_000 / 3_600:.0f}\nhours" in TEXT
    assert f"{2**63 / 10_000 / 86_400 / 365 / 1e6:.0f} million years" in TEXT
