"""The repository has the shape that CONTRIBUTING.md describes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PLUGINS = sorted(path.name for path in ROOT.glob("plugins/*") if path.is_dir())
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_editable_list_equals_the_folders():
    listed = re.findall(r"^-e (\S+)$", (ROOT / "requirements-dev.txt").read_text(), flags=re.MULTILINE)
    assert listed == [".", *(f"plugins/{name}" for name in PLUGINS)]


def test_every_list_in_pyproject_names_every_plugin():
    tool, names = PYPROJECT["tool"], [f"nemorun-{name}" for name in PLUGINS]
    packages = [f"nemorun_{name}" for name in PLUGINS]
    assert list(tool["uv"]["sources"]) == names
    assert [entry for entry in PYPROJECT["dependency-groups"]["dev"] if isinstance(entry, str)] == names
    sources = [*(f"plugins/{name}/src" for name in PLUGINS), "docs/examples/spool/src"]
    assert tool["mypy"]["mypy_path"] == [f"$MYPY_CONFIG_FILE_DIR/{source}" for source in sources]
    assert tool["coverage"]["run"]["source_pkgs"] == packages
    importlinter = tool["importlinter"]
    assert importlinter["root_packages"] == ["nemorun_core", *packages]
    assert importlinter["contracts"][0]["layers"][0] == " | ".join(packages)
    assert importlinter["contracts"][2]["source_modules"] == packages


@pytest.mark.parametrize("name", PLUGINS)
def test_the_names_of_a_plugin_are_twins(name):
    folder = ROOT / "plugins" / name
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["name"] == f"nemorun-{name}"
    assert [path.name for path in (folder / "src").iterdir() if path.name[0] not in "._"] == [f"nemorun_{name}"]
    assert (folder / "src" / f"nemorun_{name}" / "py.typed").is_file()
    assert (folder / "README.md").read_text().startswith(f"# nemorun-{name}\n")
    assert list((folder / "tests").glob("test_*.py"))


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_is_packaged_as_the_core_is(name):
    project = tomllib.loads((ROOT / "plugins" / name / "pyproject.toml").read_text())
    assert project["build-system"] == PYPROJECT["build-system"]
    for key in ["requires-python", "license", "version"]:
        assert project["project"][key] == PYPROJECT["project"][key], key
    groups = project["project"]["entry-points"]
    assert all(group.startswith("nemorun.") or group == "pytest11" for group in groups)
    assert all(value.startswith(f"nemorun_{name}") for entries in groups.values() for value in entries.values())


@pytest.mark.parametrize(
    "file",
    ["README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "noxfile.py", "nemorun_core/py.typed", ".ci/run"],
)
def test_a_repository_has(file):
    assert (ROOT / file).is_file()


def test_the_readme_has_two_commands_of_one_line():
    commands = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    assert [command.count("\n") for command in commands[:2]] == [1, 1]
    assert "docs/examples/hello_scripts.py" in commands[0]
    assert "nox" in commands[1]
