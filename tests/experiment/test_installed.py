"""What is installed is found as importlib-metadata finds it, wherever it stands."""

from __future__ import annotations

import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

import importlib_metadata
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemorun_core import installed

NAMES = st.text("abc_. ", min_size=1, max_size=4).map(str.strip).filter(bool)
GROUPS = st.sampled_from(["nemorun.executors", "nemorun.hooks", "console_scripts", "nemorun", "xnemorun.tasks"])
SECTIONS = st.lists(
    st.tuples(GROUPS, st.dictionaries(NAMES, st.sampled_from(["m:C", "a.b:c.d", "module"]))), max_size=4
)


def library() -> list[tuple[str, str, str]]:
    found = importlib_metadata.entry_points()
    return sorted((one.group, one.name, one.value) for one in found if one.group.startswith("nemorun."))


def ours() -> list[tuple[str, str, str]]:
    return sorted((one.group, one.name, one.value) for one in installed.points())


def put(folder: Path, name: str, text: str, *, metadata: str = "Name: moon\nVersion: 1.5\n\nText\nName: no\n") -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "entry_points.txt").write_text(text)
    (folder / name / ("METADATA" if name.endswith("dist-info") else "PKG-INFO")).write_text(metadata)
    return folder


@pytest.fixture
def path(monkeypatch, tmp_path: Path) -> Path:
    """The first and only folder of the import path."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


@pytest.fixture
def no_library(monkeypatch) -> None:
    def refuse(**options):
        raise AssertionError("the library was asked")

    monkeypatch.setattr(importlib_metadata, "entry_points", refuse)


EXECUTOR = "[nemorun.executors]\nmoon = moon:Executor\n"


def test_here_both_find_the_same():
    assert ours() == library() != []


def test_a_usual_environment_is_read_without_the_library(path, no_library):
    put(path, "moon-1.5.dist-info", EXECUTOR)
    assert installed.points() == [installed.Point("nemorun.executors", "moon", "moon:Executor", "moon 1.5")]


@given(SECTIONS, st.sampled_from(["\n", "\r\n", "\n\n# a comment = none\n"]), st.sampled_from(["=", " = "]))
def test_any_file_of_entry_points_is_read_alike(sections, line, equals):
    text = line.join(
        part for group, points in sections for part in (f"[{group}]", *(f"{n}{equals}{v}" for n, v in points.items()))
    )
    before = sys.path
    with tempfile.TemporaryDirectory() as folder:
        sys.path = [str(put(Path(folder), "moon-1.dist-info", text))]
        try:
            assert ours() == library()
        finally:
            sys.path = before


@pytest.mark.parametrize(
    "names",
    [
        ["moon-1.dist-info", "sun-1.dist-info"],
        ["moon-1.dist-info", "Moon-2.dist-info"],
        ["the_moon-1.dist-info", "the.moon-1.egg-info"],
        ["moon.egg-info"],
        ["moon-1-py3.12.egg-info"],
        ["moon.dist-info.old", "moon"],
    ],
)
def test_what_stands_twice_counts_once_and_any_kind_of_metadata_counts(path, names):
    for number, name in enumerate(names):
        put(path, name, f"[nemorun.tasks]\nmoon = moon:Task{number}\n")
    assert ours() == library()


def test_the_first_folder_of_the_path_wins(path, monkeypatch, tmp_path):
    put(path / "one", "moon-1.dist-info", EXECUTOR.replace("Executor", "First"))
    put(path / "two", "moon-2.dist-info", EXECUTOR.replace("Executor", "Second"))
    put(path / "two", "sun-2.dist-info", EXECUTOR.replace("moon", "sun"))
    monkeypatch.setattr(sys, "path", [str(path / "none"), str(path / "one"), str(path / "two"), str(path / "one")])
    assert ours() == library()
    assert len(ours()) == 2


def test_what_is_no_text_on_the_path_is_passed_over_as_by_imports(path, monkeypatch):
    put(path, "moon-1.dist-info", EXECUTOR)
    monkeypatch.setattr(sys, "path", [path / "moon-1.dist-info", None, str(path)])
    assert [point.name for point in installed.points()] == ["moon"]


def test_the_working_directory_counts_where_it_is_on_the_path(path, monkeypatch):
    put(path, "moon-1.dist-info", EXECUTOR)
    monkeypatch.chdir(path)
    monkeypatch.setattr(sys, "path", [""])
    assert ours() == library() != []


@pytest.mark.parametrize("metadata", ["", "Name: moon\n", "Version: 1\n\nName: moon\n"])
def test_what_does_not_say_its_name_or_version_is_found_all_the_same(path, metadata):
    put(path, "moon-1.dist-info", EXECUTOR, metadata=metadata)
    [point] = installed.points()
    assert point.distribution == ("moon 0" if metadata == "Name: moon\n" else f"unknown {'1' if metadata else '0'}")


def test_a_file_that_cannot_be_read_hides_nobody_else(path):
    put(path, "moon-1.dist-info", EXECUTOR)
    put(path, "sun-1.dist-info", "")
    (path / "sun-1.dist-info" / "entry_points.txt").write_bytes(b"[nemorun.tasks]\n\xff = x:Y\n")
    assert [point.name for point in installed.points()] == ["moon"]


def test_what_stands_in_a_zip_file_is_found_by_the_library(path, monkeypatch):
    put(path / "folder", "moon-1.dist-info", EXECUTOR)
    with zipfile.ZipFile(path / "all.zip", "w") as archive:
        for file in (path / "folder").rglob("*"):
            archive.write(file, str(file.relative_to(path / "folder")))
    shutil.rmtree(path / "folder")
    monkeypatch.setattr(sys, "path", [str(path / "all.zip")])
    assert ours() == library() != []
    assert installed.points()[0].distribution == "moon 1.5"


def test_what_a_finder_of_somebody_else_finds_is_found_by_the_library(path, monkeypatch):
    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            return None

        @staticmethod
        def find_distributions(context=None):
            return [importlib_metadata.PathDistribution(path / "hidden" / "moon-1.dist-info")]

    put(path / "hidden", "moon-1.dist-info", EXECUTOR)
    assert ours() == []
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert ours() == library() != []
