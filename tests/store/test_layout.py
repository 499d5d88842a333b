"""The home: ids that nobody else gets, experiments that are found, and folders that are not ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import attrs
import pytest

from nemorun_core.errors import StoreError, UsageError
from nemorun_core.model.definition import SCHEMA, job_folder
from nemorun_core.store.layout import Folder, Home
from tests.engine.disk import small_disk
from tests.engine.graphs import define, job


@pytest.fixture
def home(nemorun_home):
    return Home.locate()


def make(home, title, experiment_id=None, created="2030-01-01T00:00:00.000Z"):
    claimed, folder = home.claim(title, experiment_id)
    folder.write_definition(attrs.evolve(define(job("a")), id=claimed, title=title, created=created))
    return claimed


# Where.


def test_the_home_is_base_dir_then_the_variable_then_the_users_own(nemorun_home, tmp_path, monkeypatch):
    assert Home.locate(tmp_path / "x").path == str(tmp_path / "x" / "experiments")
    assert Home.locate().path == str(nemorun_home / "experiments")
    monkeypatch.delenv("NEMORUN_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Home.locate().path == str(tmp_path / ".nemo_run" / "experiments")


def test_an_experiment_stands_under_its_title(home):
    claimed, folder = home.claim("My Experiment")
    assert folder.path == os.path.join(home.path, "My Experiment", claimed)
    assert claimed.rpartition("_")[0] == "My Experiment"


def test_an_experiment_and_its_titles_folder_are_their_owners_alone(home):
    _, folder = home.claim("x")
    for path in (folder.path, os.path.dirname(folder.path)):
        assert os.stat(path).st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "title", ["a/b", "..", ".", "a\nb", "x" * 300, "é漢字", "-rf", 'it\'s "quoted"', " ", ".hidden"]
)
def test_any_title_stays_inside_the_home(home, title):
    _, folder = home.claim(title)
    assert os.path.dirname(os.path.dirname(folder.path)) == home.path
    assert os.path.realpath(folder.path).startswith(os.path.realpath(home.path) + os.sep)


OURS = ["experiment.json", "journal.jsonl", "lock", "requests", "support", "objects", "supervisor.log"]


@pytest.mark.parametrize("name", OURS)
def test_a_job_named_as_a_file_of_the_experiment_has_a_folder_of_another_name(name):
    assert job_folder(name) != name


# Claims.


def test_experiments_of_one_title_in_one_second_get_different_ids(home):
    assert len({home.claim("x")[0] for _ in range(20)}) == 20


def test_racing_processes_get_different_ids(home):
    script = """
import sys
from nemorun_core.store.layout import Home
home = Home(sys.argv[1])
sys.stdin.read()
for _ in range(10):
    print(home.claim("x")[0], flush=True)
"""
    reading, writing = os.pipe()
    racers = [
        subprocess.Popen([sys.executable, "-c", script, home.path], stdin=reading, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    os.close(reading)
    os.close(writing)
    claimed = [line for racer in racers for line in racer.communicate(timeout=30)[0].split()]
    assert len(claimed) == len(set(claimed)) == 60


def test_an_id_of_ones_own_is_taken_once(home):
    assert home.claim("x", "mine")[0] == "mine"
    with pytest.raises(UsageError, match="is taken"):
        home.claim("x", "mine")


def test_an_id_that_another_title_has_is_taken(home):
    home.claim("x", "mine")
    with pytest.raises(UsageError, match="is taken"):
        home.claim("y", "mine")


@pytest.mark.parametrize("bad", ["a/b", "..", "", "-x", "x" * 201, "a\nb"])
def test_an_id_that_can_be_no_folder_is_refused(home, bad):
    with pytest.raises(UsageError, match="cannot be a folder's name"):
        home.claim("x", bad)


def test_a_claim_given_back_leaves_nothing(home):
    _, folder = home.claim("x")
    home.unclaim(folder)
    assert os.listdir(home.path) == []


def test_a_claim_that_was_run_cannot_be_given_back(home):
    claimed = make(home, "x")
    home.unclaim(home.find(claimed))
    assert home.find(claimed)


def test_claims_that_were_never_run_are_in_no_list(home):
    home.claim("x")
    assert list(home.folders()) == []
    assert home.summaries() == []


# Finding.


@pytest.mark.parametrize("own", [None, "custom", "with_9", "a b.c"])
def test_an_experiment_is_found_by_its_id(home, own):
    claimed = make(home, "some title", own)
    assert home.find(claimed).read_definition().id == claimed


def test_an_unknown_id_names_the_nearest(home):
    claimed = make(home, "training")
    with pytest.raises(UsageError, match=f"Did you mean '{claimed}'"):
        home.find(claimed.replace("training", "trianing"))


@pytest.mark.parametrize("odd", ["", ".", "..", "../x", "/", "/etc"])
def test_an_id_that_leads_elsewhere_is_unknown(home, odd):
    make(home, "x")
    with pytest.raises(UsageError, match="there is no experiment"):
        home.find(odd)


def test_another_tools_folder_is_passed_over_and_named_when_asked_for(home):
    claimed = make(home, "x")
    other = os.path.join(home.path, "other", "other_1700000000")
    os.makedirs(other)
    with open(os.path.join(other, "_CONFIG"), "w") as stream:
        stream.write("{}")
    with open(os.path.join(home.path, "stray file"), "w") as stream:
        stream.write("")
    assert [name for name, _ in home.folders()] == [claimed]
    assert [summary.id for summary in home.summaries()] == [claimed]
    with pytest.raises(UsageError, match="no experiment of nemorun"):
        home.find("other_1700000000")


def test_summaries_come_oldest_first_by_creation_and_by_title(home):
    late = make(home, "x", "a", created="2031-01-01T00:00:00.000Z")
    early = make(home, "x", "b", created="2029-01-01T00:00:00.000Z")
    make(home, "y", "c")
    assert [summary.id for summary in home.summaries("x")] == [early, late]
    assert len(home.summaries()) == 3


def test_a_title_with_quotes_and_other_scripts_is_told_exactly(home):
    make(home, 'é "漢字" \\')
    assert home.summaries()[0].title == 'é "漢字" \\'


def test_an_empty_home_has_no_experiments(home):
    assert home.summaries() == []


# Definitions.


def test_a_definition_is_read_back_equal_and_is_its_owners_alone(home):
    _, folder = home.claim("x")
    definition = define(job("a"), job("b", "a", members=2, until="leader"))
    folder.write_definition(definition)
    assert folder.read_definition() == definition
    assert os.stat(folder.definition).st_mode & 0o777 == 0o600


def stored(folder):
    with open(folder.definition) as stream:
        return json.load(stream)


def test_a_newer_schema_is_a_store_error_that_says_to_upgrade(home):
    folder = home.find(make(home, "x"))
    data = {**stored(folder), "schema": SCHEMA + 1, "something": "new"}
    with open(folder.definition, "w") as stream:
        json.dump(data, stream)
    with pytest.raises(StoreError) as caught:
        folder.read_definition()
    assert f"schema {SCHEMA + 1}" in caught.value.message
    assert "pgrade" in caught.value.hint


BROKEN = {
    "empty": "",
    "torn": '{"schema":1,"id":"x',
    "not an object": "[]",
    "a number": "7",
    "no fields": '{"schema":1}',
    "bytes": "\0\0\0",
    "deep": "[" * 100_000,
    "schema is text": '{"schema":"one"}',
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_an_unreadable_definition_is_a_store_error_that_names_the_file(home, text):
    folder = home.find(make(home, "x"))
    with open(folder.definition, "w") as stream:
        stream.write(text)
    with pytest.raises(StoreError) as caught:
        folder.read_definition()
    assert folder.definition in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_an_unreadable_definition_does_not_hide_other_experiments(home, text):
    broken = home.find(make(home, "x", "broken"))
    with open(broken.definition, "w") as stream:
        stream.write(text)
    make(home, "x", "sound")
    assert [summary.id for summary in home.summaries()] == ["sound"]


@pytest.mark.parametrize("field", ["id", "title", "nonce", "jobs", "executors", "cwd"])
def test_a_definition_without_a_field_is_a_store_error_that_names_it(home, field):
    folder = home.find(make(home, "x"))
    data = stored(folder)
    del data[field]
    with open(folder.definition, "w") as stream:
        json.dump(data, stream)
    with pytest.raises(StoreError, match=field):
        folder.read_definition()


def test_a_folder_without_a_definition_is_a_store_error(tmp_path):
    with pytest.raises(StoreError, match=r"experiment\.json"):
        Folder(str(tmp_path)).read_definition()


# A home that cannot be written.


def test_a_home_that_is_a_file_is_a_store_error_that_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as caught:
        Home.locate(tmp_path / "file").claim("x")
    assert "NEMORUN_HOME" in caught.value.hint


def test_a_read_only_home_is_a_store_error_that_says_what_to_do(tmp_path):
    with small_disk(tmp_path / "disk", options=",ro") as disk:
        with pytest.raises(StoreError) as caught:
            Home.locate(disk.path).claim("x")
        assert "NEMORUN_HOME" in caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0 and not hasattr(os, "seteuid"), reason="root may write everywhere")
def test_a_home_of_somebody_else_is_a_store_error_that_says_what_to_do(tmp_path):
    user = os.geteuid()
    tmp_path.chmod(0o500)
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(StoreError) as caught:
            Home.locate(tmp_path / "home").claim("x")
    finally:
        if user == 0:
            os.seteuid(0)
        tmp_path.chmod(0o700)
    assert "Permission denied" in caught.value.message
    assert "Check who owns the folder" in caught.value.hint


def test_a_full_home_is_a_store_error_and_leaves_no_half_definition(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        home = Home.locate(disk.path)
        _, folder = home.claim("x")
        disk.fill()
        with pytest.raises(StoreError, match="No space left"):
            folder.write_definition(define(*(job(f"job number {number}") for number in range(500))))
        assert os.listdir(folder.path) == []
