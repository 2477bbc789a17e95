"""The documents are true: generated parts are fresh, the example runs, links and names lead somewhere."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import pq
from pq.cli import app
from pq.job import TRANSITIONS, Status
from pq.settings import read_settings
from pq.sqlite.store import RESERVE_BYTES
from pq.values import VALUE_BYTES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = sorted(typer.main.get_command(app).commands)
NOT_OUR_WORDS = re.compile(r"\b(workers?|payloads?|retries|args|kwargs)\b")


def code_blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def test_the_generated_parts_are_fresh():
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_example_of_the_readme_runs_and_fits_15_lines(tmp_path):
    (example,) = code_blocks(ROOT / "README.md", "python")
    assert len([line for line in example.splitlines() if line]) <= 15
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "{'text': 'Hello, Ada!'} 3\n"), done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if not target.startswith("https://") and not target.endswith(".png"):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page):
    names = re.findall(
        r"`((?:pq|tests|docs|notebooks|bench)/[^`\s:]*|run_all\.py|Makefile)(?:::\w+)?`", page.read_text()
    )
    assert [name for name in names if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_named_exists(page):
    spans = re.findall(r"`([^`\n]+)`", page.read_text()) + code_blocks(page, "sh")
    named = re.findall(r"^pq ([a-z][a-z-]+)", "\n".join(spans), re.MULTILINE)
    assert set(named) <= set(COMMANDS)


def test_the_readme_names_the_targets_that_make_has():
    targets = set(re.findall(r"^make (\w+)", "\n".join(code_blocks(ROOT / "README.md", "sh")), re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text()
    assert targets == {"run", "test"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_the_readme_links_every_document():
    text = (ROOT / "README.md").read_text()
    assert [page.name for page in PAGES[2:] if f"(docs/{page.name})" not in text] == []


def test_the_defaults_of_the_readme_are_those_of_the_code():
    settings = read_settings({})
    rows = dict(
        re.findall(r"^\| ([A-Z_, ]+) \|.*\| (\S+) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    )
    assert rows == {
        "QUEUE_DB_FILE, PQ_URL": settings.database,
        "MAX_ATTEMPTS": str(settings.max_attempts),
        "TIMEOUT_SECONDS": f"{settings.lease.total_seconds():g}",
        "INTERVAL_TIME": f"{settings.interval.total_seconds():g}",
    }


def test_the_sizes_of_the_readme_are_those_of_the_code():
    text = " ".join((ROOT / "README.md").read_text().split())
    assert (
        f"at most {VALUE_BYTES // 10**6} MB each, and below {RESERVE_BYTES // 2**20} MB of free disk" in text
    )


def test_every_verb_status_and_error_is_documented():
    lifecycle = (ROOT / "docs" / "lifecycle.md").read_text()
    assert [
        verb for verb in TRANSITIONS if f"| {verb} | a" not in lifecycle and f"| {verb} | w" not in lifecycle
    ] == []
    assert [status for status in Status if status not in lifecycle] == []
    api = (ROOT / "docs" / "api.md").read_text()
    errors = [name for name in pq.__all__ if name.endswith("Error")]
    assert [name for name in errors if f"| {name} |" not in api] == []


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_the_help_uses_the_words_of_the_glossary(command):
    text = CliRunner().invoke(app, [*command.split(), "--help"]).output
    assert NOT_OUR_WORDS.findall(text) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_documents_use_the_words_of_the_glossary(page):
    if page.name != "glossary.md":  # which names the words that are not ours
        assert NOT_OUR_WORDS.findall(page.read_text()) == []


def test_the_changelog_and_the_package_have_one_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version == pq.__version__
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
