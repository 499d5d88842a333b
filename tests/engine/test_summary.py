"""The rows of a large experiment that has ended say what a fold of its journal says, and only then."""

from __future__ import annotations

import json
import os

import pytest

from nemorun_core.contracts.observation import MemberObservation
from nemorun_core.engine import summary as module
from nemorun_core.engine.events import Asked, Observed, Submitted, dump
from nemorun_core.engine.loop import read_view
from nemorun_core.engine.state import Graph
from nemorun_core.engine.summary import overall_state, read_summary, rows_of, write_summary
from nemorun_core.experiment.status import status_of, status_text
from nemorun_core.model.definition import Definition, Edge, JobDefinition, Kinded
from nemorun_core.model.state import Reason, ReasonKind, State
from nemorun_core.store.layout import Folder

NOW = "2026-01-01T00:00:00.000Z"
LATER = "2026-01-01T00:01:00.000Z"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(module, "_LEAST_JOBS", 4)


@pytest.fixture
def folder(tmp_path):
    """An experiment of four jobs that have ended each in another way, on disk as a driver leaves it."""
    task = Kinded(kind="script", fields={"inline": "echo"})
    jobs = [
        JobDefinition(id="a", folder="a", group=False, tasks=(task,), executors=(0,)),
        JobDefinition(id="g", folder="g-x", group=True, tasks=(task, task), executors=(0, 1)),
        JobDefinition(id="s", folder="s", group=False, tasks=(task,), executors=(0,), edges=(Edge("g"),)),
        JobDefinition(id="c", folder="c", group=False, tasks=(task,), executors=(0,)),
    ]
    executors = tuple(Kinded(kind=kind, fields={}) for kind in ("local", "here:Own"))
    head = {"id": "x_1", "title": "x", "nonce": "0" * 16, "created": NOW, "cwd": "/"}
    definition = Definition(**head, jobs=tuple(jobs), executors=executors)
    made = Folder(str(tmp_path))
    made.write_definition(definition)
    good = MemberObservation(state=State.SUCCEEDED, exit_code=0, started=NOW, ended=LATER, host="h")
    reason = Reason(ReasonKind.EXIT_CODE, "3")
    bad = MemberObservation(state=State.FAILED, exit_code=3, reason=reason, started=NOW, ended=LATER, host="h")
    events = [
        Submitted("a", 0, "handle"),
        Observed("a", 0, 0, (good,)),
        Observed("g", 0, 0, (bad, good)),
        Asked(("c",), Reason(ReasonKind.BY_USER)),
    ]
    (tmp_path / "journal.jsonl").write_text("".join(f"{dump(event, LATER, 1)}\n" for event in events))
    return made


def view(folder):
    definition = folder.read_definition()
    return definition, read_view(definition, folder).graph


def test_it_says_what_the_fold_says(folder):
    definition, graph = view(folder)
    write_summary(definition, folder, graph)
    kept = read_summary(folder)
    assert (
        (kept.id, kept.title, kept.created, kept.state)
        == ("x_1", "x", NOW, "FAILED")
        == (
            *("x_1", "x", NOW),
            overall_state(graph),
        )
    )
    folded = status_of(folder, rows_of(definition, graph))
    assert status_of(folder, kept.rows) == folded
    assert status_text("x_1", folded).count("Task ") == 4
    assert [member["executor"] for member in folded["g"]["members"]] == ["LocalExecutor", "Own"]
    assert [job["state"] for job in folded.values()] == ["SUCCEEDED", "FAILED", "SKIPPED", "CANCELLED"]
    assert folded["g"]["local_dir"] == os.path.join(folder.path, "g-x")


def test_it_is_not_written_while_a_job_is_open_nor_for_few(folder, monkeypatch):
    definition, graph = view(folder)
    write_summary(definition, folder, Graph(definition))
    monkeypatch.setattr(module, "_LEAST_JOBS", 5)
    write_summary(definition, folder, graph)
    assert not os.path.exists(folder.summary)
    assert read_summary(folder) is None


def test_another_journal_than_the_one_it_was_made_of_is_folded(folder):
    definition, graph = view(folder)
    write_summary(definition, folder, graph)
    os.utime(folder.journal, (1, 1))
    assert read_summary(folder) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}', "not json", '{"schema":1,"journal":'])
def test_a_torn_one_is_folded(folder, text):
    with open(folder.summary, "w") as stream:
        stream.write(text)
    assert read_summary(folder) is None


def test_a_row_of_another_shape_is_folded(folder):
    definition, graph = view(folder)
    write_summary(definition, folder, graph)
    with open(folder.summary) as stream:
        content = json.load(stream)
    content["jobs"][0].append(1)
    with open(folder.summary, "w") as stream:
        json.dump(content, stream)
    assert read_summary(folder) is None


def test_status_prints_the_same_by_either_way(folder, capsys, monkeypatch, nemorun_home, tmp_path):
    from nemorun_core._cli.main import main

    definition, graph = view(folder)
    place = nemorun_home / "experiments" / "x"
    place.mkdir(parents=True)
    os.symlink(folder.path, place / "x_1")
    linked = Folder(str(place / "x_1"))
    said = []
    for words in ([], ["--json"], ["--follow"]):
        assert main(["experiment", "status", "x_1", *words]) == 0
        said.append(capsys.readouterr().out)
    write_summary(definition, linked, graph)
    assert read_summary(linked) is not None
    monkeypatch.setattr(Folder, "read_definition", None)  # it is not needed any more
    for words, before in zip(([], ["--json"], ["--follow"]), said, strict=True):
        assert main(["experiment", "status", "x_1", *words]) == 0
        assert capsys.readouterr().out == before


def test_one_word_for_the_whole(folder):
    definition, graph = view(folder)
    assert overall_state(Graph(definition)) == "UNSUBMITTED"
    graph.open = 1
    assert overall_state(graph) == "RUNNING"
