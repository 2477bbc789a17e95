"""What others install: the lists of dependencies agree, nothing names an address, and the wheel is whole."""

import json
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
# In two halves each, so that this file does not name them.
HOSTS = ["".join(parts) for parts in (("py", "pi.org"), ("python", "hosted.org"), ("ana", "conda.org"))]


def tracked():
    """The files that git has, or would take."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(words, cwd=ROOT, capture_output=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listing.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def words(requirement):
    """`name>=1; marker` as (name, `>=1`)."""
    name, bounds = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*([^;]*)", requirement).groups()
    return canonical(name), bounds.strip()


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_environment_yml_has_the_dependencies_of_pyproject():
    lines = (ROOT / "environment.yml").read_text().split("dependencies:")[1].splitlines()
    listed = dict(words(line.strip().removeprefix("- ")) for line in lines if line.strip())

    assert listed.pop("python") == PROJECT["requires-python"]
    assert listed.pop("pip") == ""
    assert listed == dict(words(requirement) for requirement in PROJECT["dependencies"])


def test_constraints_are_names_and_versions_and_cover_every_dependency():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    strange = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)]
    assert strange == []

    pinned = {canonical(line.split("==")[0]) for line in lines}
    extras = PROJECT["optional-dependencies"]
    assert set(extras["postgres"]) <= set(extras["test"])
    needed = [*PROJECT["dependencies"], *extras["test"]]
    assert {words(requirement)[0] for requirement in needed} - pinned == set()


def test_no_file_names_a_package_registry():
    found = []
    for path in tracked():
        text = path.read_bytes().decode(errors="replace")
        found += [f"{path.relative_to(ROOT)}: {host}" for host in HOSTS if host in text]

    assert found == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_thin_and_has_no_outputs(name):
    cells = json.loads((ROOT / "notebooks" / name).read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]

    assert cells[0]["cell_type"] == "markdown"
    assert [cell for cell in code if cell["outputs"] or cell["execution_count"] is not None] == []
    assert "parameters" in code[0]["metadata"]["tags"]
    assert [
        line for cell in code for line in cell["source"] if line.lstrip().startswith(("def ", "class "))
    ] == []


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A fresh environment with the wheel, which borrows the dependencies of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    # From a copy of what git has: a build leaves folders in its source, and must not need other files.
    source = folder / "source"
    for path in tracked():
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    built = subprocess.run(
        [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source],
        capture_output=True,
        text=True,
        check=False,
    )
    if "No matching distribution found for setuptools" in built.stderr:
        pytest.skip("the network is missing: a wheel is built with a setuptools of its own")
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    run([*pip, "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel], folder)
    (here,) = (folder / "venv").glob("**/site-packages")
    (here / "borrowed.pth").write_text(str(Path(pytest.__file__).parents[1]))
    return python


def run(command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_installed_command_says_what_it_can(installed):
    assert "enqueue" in run([installed.with_name("pq"), "--help"], installed.parent)


def test_the_wheel_has_every_module_the_widgets_files_and_the_notebooks(installed):
    code = """
import json, pq, pq.sqlite
from pathlib import Path
from pq.system.programs import notebooks_folder
home = Path(pq.__file__).parent
modules = [str(path.relative_to(home.parent)) for path in home.rglob("*.py")]
static = [path.name for path in (home / "widgets" / "static").iterdir()]
notebooks = [path.name for path in notebooks_folder().glob("*.ipynb")]
print(json.dumps([str(home), sorted(modules), sorted(static), sorted(notebooks)]))
"""
    home, modules, static, notebooks = json.loads(run([installed, "-c", code], installed.parent))

    assert str(ROOT) not in home
    paths = [path for path in tracked() if ROOT / "pq" in path.parents]
    assert set(modules) == {str(path.relative_to(ROOT)) for path in paths if path.suffix == ".py"}
    assert set(static) == {path.name for path in paths if path.parent.name == "static"}
    assert notebooks == NOTEBOOKS
