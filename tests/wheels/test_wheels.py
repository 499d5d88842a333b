"""What is in the wheels; run by `nox -s wheels`, which builds them."""

from __future__ import annotations

import os
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

pytestmark = pytest.mark.wheels

WHEELS = sorted(Path(os.environ.get("BUILT_WHEELS", "not built")).glob("*.whl"))


def test_the_core_and_its_plugins_are_built():
    names = {wheel.name.split("-")[0] for wheel in WHEELS}
    assert {"nemorun_core", "nemorun_local", "nemorun_env"} <= names


@pytest.mark.parametrize("wheel", WHEELS, ids=lambda wheel: wheel.name)
def test_a_wheel_holds_only_its_package(wheel):
    package = wheel.name.split("-")[0]
    files = zipfile.ZipFile(wheel).namelist()
    version = wheel.name.split("-")[1]
    assert {file.split("/")[0] for file in files} == {package, f"{package}-{version}.dist-info"}
    assert f"{package}/py.typed" in files
    assert not [file for file in files if "/tests/" in file or "__pycache__" in file]


def test_the_shell_shim_travels_with_the_core():
    [core] = [wheel for wheel in WHEELS if wheel.name.startswith("nemorun_core-")]
    assert [file for file in zipfile.ZipFile(core).namelist() if file.endswith(".sh")]


@pytest.mark.parametrize("wheel", WHEELS, ids=lambda wheel: wheel.name)
def test_the_tests_run_against_the_installed_wheel(wheel):
    distribution = metadata.distribution(wheel.name.split("-")[0])
    assert not (distribution.read_text("direct_url.json") or "").count('"editable": true')
    assert "site-packages" in str(distribution.locate_file(""))
