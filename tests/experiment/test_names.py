"""Titles, ids and job names: what anybody may type stays inside the experiment's folder, or is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nemorun_core import Experiment, UsageError
from tests.experiment.helpers import log, sh, status

HOSTILE = [
    "a/b",
    "/etc/passwd",
    "../../up",
    "..",
    ".",
    ".hidden",
    "-rf",
    " leading",
    "trailing ",
    "quotes ' and \" and `",
    "$HOME ${HOME} $(touch here)",
    "back\\slash",
    "a*?[b]",
    "x" * 300,
    "训练" * 60,
    "тест",
    "مرحبا",
    "éé",  # composed
    "e\u0301e\u0301",  # decomposed: another name than the composed one
    "CON",
    "My Experiment",
    "100%",
    "a=b;c&d|e",
]
RESERVED = ["experiment.json", "journal.jsonl", "lock", "requests", "batches", "support", "objects"]
UNPRINTABLE = ["", " ", "two\nlines", "tab\there", "bell\a", "nul\0", "x" * 1001, "\ud800", 3, None, "rtl\u202e"]


def shown(value: object) -> str:
    return ascii(value)[:30]


def folders_below(path: Path) -> list[Path]:
    return [Path(root) / name for root, names, _ in os.walk(path) for name in names]


@pytest.mark.parametrize("title", [*HOSTILE, *RESERVED], ids=shown)
def test_an_experiment_of_any_title_runs_inside_the_home_and_is_found_again(title, nemorun_home, tmp_path):
    with Experiment(title, log_level="ERROR") as experiment:
        job = experiment.add(sh("echo hello"), name="job")
        experiment.run()
    folder = Path(str(status(experiment)[job]["local_dir"])).resolve()
    assert folder.parents[2] == (nemorun_home / "experiments").resolve()
    assert [entry for entry in tmp_path.iterdir() if entry != nemorun_home] == []
    assert log(experiment, job) == "hello\n"
    again = Experiment.from_title(title)
    assert (again.id, again.title) == (experiment.id, title)
    assert Experiment.from_id(experiment.id).title == title
    assert Experiment.catalog(title) == [experiment.id]


@pytest.mark.parametrize("name", [*HOSTILE, *RESERVED], ids=shown)
def test_a_job_of_any_name_keeps_its_files_in_a_folder_of_the_experiment(name, nemorun_home):
    with Experiment("jobs", log_level="ERROR") as experiment:
        job = experiment.add(sh('echo "$NEMORUN_JOB"'), name=name)
        experiment.run()
    assert job == name
    folder = Path(str(status(experiment)[job]["local_dir"]))
    assert folder.resolve().parent == folder.parent.resolve()
    assert folder.parent.name == experiment.id
    assert len(os.fsencode(folder.name)) <= 200
    assert folder.name not in RESERVED
    assert log(experiment, job) == f"{name}\n"


@pytest.mark.parametrize("title", UNPRINTABLE, ids=shown)
def test_a_title_that_is_no_line_of_text_is_refused(title, nemorun_home):
    with pytest.raises(UsageError, match="title"):
        Experiment(title)
    assert not nemorun_home.exists()


@pytest.mark.parametrize("name", [name for name in UNPRINTABLE if name not in ("", None)], ids=shown)
def test_a_job_name_that_is_no_line_of_text_is_refused(name):
    with Experiment("jobs") as experiment, pytest.raises(UsageError, match="name"):
        experiment.add(sh("true"), name=name)


def test_my_experiment_is_its_own_folders_name(nemorun_home):
    with Experiment("My Experiment", log_level="ERROR") as experiment:
        experiment.add(sh("true"))
        experiment.run()
    assert (nemorun_home / "experiments" / "My Experiment" / experiment.id / "experiment.json").is_file()
    assert experiment.id.startswith("My Experiment_")
    assert experiment.id.removeprefix("My Experiment_").isdecimal()


def test_names_that_differ_in_case_only_have_folders_that_differ_in_more():
    """On file systems that fold case, two jobs must not share a folder."""
    with Experiment("jobs", log_level="ERROR") as experiment:
        experiment.add(sh("true"), name="Job/1")
        experiment.add(sh("true"), name="job/1")
        experiment.run()
    folders = [Path(str(job["local_dir"])).name.lower() for job in status(experiment).values()]
    assert len(set(folders)) == 2


def test_names_that_become_one_slug_have_two_folders():
    with Experiment("jobs", log_level="ERROR") as experiment:
        experiment.add(sh("true"), name="a/b")
        experiment.add(sh("true"), name="a:b")
        experiment.run()
    assert len({job["local_dir"] for job in status(experiment).values()}) == 2


# Ids.


def test_the_id_is_made_of_title_and_seconds_and_stays_the_same():
    experiment = Experiment("title")
    first = experiment.id
    assert first.rpartition("_")[0] == "title"
    assert experiment.id == first


@pytest.mark.parametrize("custom", ["mine", "has space", "under_score_1", "no-seconds", "2024.1"])
def test_any_custom_id_is_found(custom):
    with Experiment("custom", id=custom, log_level="ERROR") as experiment:
        experiment.add(sh("true"))
        experiment.run()
    assert experiment.id == custom
    assert Experiment.from_id(custom).title == "custom"


def test_a_custom_id_that_is_another_experiments_is_refused():
    with Experiment("one", id="taken", log_level="ERROR") as experiment:
        experiment.add(sh("true"))
        experiment.run()
    with pytest.raises(UsageError, match="'taken' is taken by"):
        Experiment("two", id="taken").id  # noqa: B018 - claims the id


@pytest.mark.parametrize("custom", ["a/b", "..", ".hidden", "-x", "two\nlines", "", "x" * 300, "é"], ids=shown)
def test_a_custom_id_that_is_no_folder_name_is_refused(custom):
    with pytest.raises(UsageError, match="id"):
        Experiment("custom", id=custom).id  # noqa: B018 - claims the id


def test_an_unknown_id_is_refused_with_the_nearest():
    with Experiment("known", id="known", log_level="ERROR") as experiment:
        experiment.add(sh("true"))
        experiment.run()
    with pytest.raises(UsageError, match=r"no experiment 'knwon'(.|\n)*Did you mean 'known'"):
        Experiment.from_id("knwon")


@pytest.mark.parametrize("wanted", ["../../etc", "..", "", ".", "/", "a\nb", "\0"], ids=shown)
def test_an_id_never_leads_out_of_the_home(wanted):
    with pytest.raises(UsageError):
        Experiment.from_id(wanted)


def test_an_unknown_title_is_refused():
    with pytest.raises(UsageError, match="no experiment with the title 'nothing'"):
        Experiment.from_title("nothing")


RACE = """
import sys
import nemorun_core as run
experiments = [run.Experiment("race", log_level="ERROR") for _ in range(5)]
sys.stdin.readline()
for experiment in experiments:
    with experiment:
        experiment.add(run.Script(inline="echo $NEMORUN_EXPERIMENT_ID"), name="job")
        experiment.run()
print("\\n".join(experiment.id for experiment in experiments))
"""


def test_twenty_experiments_of_one_title_started_at_once_by_several_processes_have_different_ids():
    command = [sys.executable, "-c", RACE]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
    ids = "".join(racer.communicate(timeout=60)[0] for racer in racers).split()
    assert [racer.returncode for racer in racers] == [0] * 4
    assert len(set(ids)) == 20
    assert sorted(Experiment.catalog("race")) == sorted(ids)
    for name in ids:
        assert log(Experiment.from_id(name), "job") == f"{name}\n"


def test_the_newest_of_a_title_is_the_one_created_last_whatever_its_id():
    for name in ("zebra", "ape"):
        with Experiment("animals", id=name, log_level="ERROR") as experiment:
            experiment.add(sh("true"))
            experiment.run()
    assert Experiment.from_title("animals").id == "ape"
    assert Experiment.catalog("animals") == ["zebra", "ape"]


def test_the_catalog_holds_what_was_run_of_every_title():
    ids = []
    for title in ("one", "two"):
        with Experiment(title, log_level="ERROR") as experiment:
            experiment.add(sh("true"))
            experiment.run()
        ids.append(experiment.id)
    Experiment("three").id  # noqa: B018 - claims an id that is never run
    assert Experiment.catalog() == ids


def test_titles_that_share_a_slug_are_told_apart():
    for title in ("a/b", "a:b"):
        with Experiment(title, log_level="ERROR") as experiment:
            experiment.add(sh("true"))
            experiment.run()
    assert [len(Experiment.catalog(title)) for title in ("a/b", "a:b")] == [1, 1]


def test_a_title_that_is_the_folder_name_of_another_title_is_another_title(nemorun_home):
    def run(title: str) -> str:
        with Experiment(title, log_level="ERROR") as experiment:
            experiment.add(sh("true"))
            experiment.run()
        return experiment.id

    first = run("a/b")
    (folder,) = (nemorun_home / "experiments").iterdir()
    second = run(folder.name)
    assert (Experiment.catalog("a/b"), Experiment.catalog(folder.name)) == ([first], [second])


def test_base_dir_holds_the_records_and_finds_them(tmp_path, nemorun_home):
    base = tmp_path / "elsewhere"
    with Experiment("based", base_dir=base, log_level="ERROR") as experiment:
        experiment.add(sh("true"))
        experiment.run()
    assert not nemorun_home.exists()
    assert Experiment.catalog("based", base_dir=base) == [experiment.id]
    assert Experiment.from_id(experiment.id, base_dir=base).id == experiment.id
    assert Experiment.from_title("based", base_dir=str(base)).id == experiment.id


def test_records_are_for_their_owner_only(nemorun_home):
    with Experiment("private", log_level="ERROR") as experiment:
        experiment.add(sh("true"))
        experiment.run()
    folder = nemorun_home / "experiments" / "private" / experiment.id
    assert folder.stat().st_mode & 0o077 == 0
    assert json.loads((folder / "experiment.json").read_text())["title"] == "private"
