"""Edges that a scheduler keeps by itself: what it lets start waits for the truth, and the shim checks it again."""

from __future__ import annotations

import os
import shutil
import subprocess

import attrs
import pytest
from nemorun_devkit.simulator import Fails, Scenario, SimulatedExecutor, Succeeds, simulate

import nemorun_core as run
from nemorun_core.contracts.backend import After
from nemorun_core.contracts.witness import base_path, edges_text, pad_outcome, read_rank, shim_argv
from nemorun_core.engine.events import Asked, Intended, Lost, Refused, Submitted, Withdrawn
from nemorun_core.engine.kept_edges import KeptEdges
from nemorun_core.engine.state import Act, Graph
from nemorun_core.engine.submission import Builder
from nemorun_core.model.definition import Edge
from nemorun_core.model.key import Key
from nemorun_core.model.state import Condition, Reason, ReasonKind, State
from nemorun_core.registry import default_registry
from nemorun_core.store.layout import Folder
from tests.engine.graphs import TIME, define, ended, job, observed, reach, running, told
from tests.engine.test_shim import SHELLS, SHIM

REFUSED = Reason(ReasonKind.REJECTED, "no such account")
KEPT = SimulatedExecutor(native_edges=True)


def handed_over(*edges: str) -> Graph:
    """Return a graph of `up` and `down`, both on their scheduler, `down` behind `up`."""
    graph = Graph(define(job("up"), job("down", "up"), job("last", "down")))
    reach(graph, "up", running())
    reach(graph, "down")
    return graph


# The fold.


def test_what_its_scheduler_let_start_is_told_when_its_upstream_has_ended():
    graph = handed_over()
    down, states = graph.jobs["down"], []
    assert told(graph.step(observed("down", running()), TIME), Act.TELL) == []
    states.append(down.state)
    assert told(graph.step(observed("up", ended()), TIME), Act.TELL) == ["up", "down"]
    states.append(down.state)
    assert states == [State.PENDING, State.RUNNING]


def test_an_end_that_is_seen_before_the_upstreams_decides_nothing_before():
    graph = handed_over()
    actions = graph.step(observed("down", ended(3)), TIME)
    assert (actions, graph.jobs["down"].state) == ([], State.PENDING)
    graph.step(observed("up", ended()), TIME)
    assert (graph.jobs["down"].state, graph.jobs["down"].exit_code) == (State.FAILED, 3)
    assert graph.jobs["last"].state is State.SKIPPED


@pytest.mark.parametrize(
    "event", [observed("down", ended(state=State.CANCELLED)), Lost("down", 0), Refused("down", 0, REFUSED)]
)
def test_whatever_its_scheduler_made_of_it_a_job_whose_edge_does_not_hold_is_skipped(event):
    graph = handed_over()
    graph.step(event, TIME)
    graph.step(observed("up", ended(1)), TIME)
    assert graph.jobs["down"].state is State.SKIPPED


def test_a_job_that_cannot_run_any_more_leaves_its_scheduler():
    graph = handed_over()
    actions = graph.step(observed("up", ended(1)), TIME)
    assert told(actions, Act.CANCEL) == ["down"]
    assert told(actions, Act.RELEASE) == ["up", "down"]


@pytest.mark.parametrize("remains", [True, False])
def test_one_that_is_on_its_way_to_its_scheduler_then_is_taken_back_when_it_arrives(remains):
    graph = Graph(define(job("up"), job("down", "up")))
    reach(graph, "up", running())
    graph.jobs["down"].intended = True
    actions = graph.step(observed("up", ended(1)), TIME)
    assert told(actions, Act.WITHDRAW) == ["down"]
    assert graph.leaving == {"down"}
    assert [one.id for one in graph.resume()] == ["down"], "a new driver has to look for it"
    actions = graph.step(Submitted("down", 0, "handle", remains), TIME)
    assert (told(actions, Act.CANCEL), graph.leaving) == (["down"], set())
    assert graph.jobs["down"].state is State.SKIPPED
    # The next driver releases it, if this one does not.
    assert graph.remains() == ([(graph.jobs["down"], 0, "handle")] if remains else [])


@pytest.mark.parametrize("event", [Withdrawn((("down", 0),)), Refused("down", 0, REFUSED)])
def test_one_that_never_arrives_is_forgotten(event):
    graph = Graph(define(job("up"), job("down", "up")))
    reach(graph, "up", running())
    graph.jobs["down"].intended = True
    graph.step(observed("up", ended(1)), TIME)
    assert (graph.step(event, TIME), graph.leaving) == ([], set())


def test_a_request_is_carried_out_though_the_upstreams_go_on():
    graph = handed_over()
    assert told(graph.step(Asked(("down",), Reason(ReasonKind.BY_USER)), TIME), Act.CANCEL) == ["down"]
    graph.step(observed("down", ended(state=State.CANCELLED)), TIME)
    assert graph.jobs["down"].state is State.CANCELLED
    graph.step(observed("up", ended()), TIME)
    assert graph.jobs["down"].state is State.CANCELLED


def test_what_has_ended_already_is_not_cancelled_by_a_request():
    graph = handed_over()
    graph.step(observed("down", ended()), TIME)
    graph.step(Asked(("down",), Reason(ReasonKind.BY_USER)), TIME)
    assert graph.jobs["down"].state is State.SUCCEEDED


def test_the_same_sight_of_a_job_that_waits_for_its_upstream_is_no_news():
    graph = handed_over()
    assert graph.is_news(observed("down", running()))
    graph.step(observed("down", running()), TIME)
    assert not graph.is_news(observed("down", running()))
    assert graph.is_news(observed("down", ended()))


def test_a_shim_that_found_an_edge_unmet_makes_the_job_skipped():
    graph = Graph(define(job("one"), job("group", members=2)))
    skipped = attrs.evolve(ended(state=State.SKIPPED), reason=Reason(ReasonKind.DEPENDENCY, "unmet"))
    reach(graph, "one", skipped)
    reach(graph, "group", skipped, skipped)
    assert {one.state for one in graph.jobs.values()} == {State.SKIPPED}


# When edges are handed over.


@pytest.mark.parametrize(
    ("condition", "shown", "edges"),
    [
        ("success", None, None),  # it is not on its scheduler yet
        ("success", [running()], [("up", Condition.SUCCESS, "up 0")]),
        ("success", [ended()], []),
        ("success", [ended(1)], None),
        ("failure", [ended()], None),
        ("any", [ended(1)], []),
    ],
)
def test_what_a_scheduler_is_given_of_an_edge_is_as_things_stand_then(tmp_path, condition, shown, edges):
    definition = define(job("up"), job("down", Edge("up", Condition(condition))))
    graph, folder = Graph(definition), Folder(str(tmp_path))
    builder = Builder(definition, folder, default_registry())
    if shown is not None:
        graph.step(Intended((("up", 0),)), TIME)
        graph.step(Submitted("up", 0, "up 0"), TIME)
        graph.step(observed("up", *shown), TIME)
    found = KeptEdges(definition, folder, graph, builder).of("down")
    assert (None if found is None else [(one.key.job, one.condition, one.handle) for one in found]) == edges


def submitted(experiment: run.Experiment, scenario: Scenario | None = None) -> dict[str, float]:
    """Return in which second each job was on its scheduler."""
    seconds: dict[str, float] = {}
    for change in simulate(experiment, scenario or Scenario()).timeline:
        seconds.setdefault(change.job, change.second)
    return seconds


def chained(executor=KEPT, condition=str, **upstream):
    experiment = run.Experiment("kept", executor)
    with experiment:
        experiment.add(run.Script(inline="a"), name="up", executor=attrs.evolve(executor, **upstream))
        experiment.add(run.Script(inline="b"), name="down", dependencies=[condition("up")])
        return submitted(experiment, Scenario({"up": Succeeds(after=100)}))["down"]


def test_a_chain_is_on_its_scheduler_at_once():
    assert chained() == 0.0


def test_a_chain_waits_here_where_the_scheduler_keeps_no_edges():
    assert chained(SimulatedExecutor()) == 100.0


@pytest.mark.parametrize("upstream", [{"retries": 1}, {"name": "another"}], ids=["retried", "elsewhere"])
def test_an_edge_is_kept_here_where_the_upstream_may_run_again_or_is_elsewhere(upstream):
    assert chained(**upstream) == 100.0


def test_a_job_behind_another_that_may_be_skipped_is_not_handed_over_for_its_failure():
    """A scheduler takes for a failure what was never started."""
    with run.Experiment("kept", KEPT) as experiment:
        experiment.add(run.Script(inline="a"), name="first")
        experiment.add(run.Script(inline="b"), name="second", dependencies=["first"])
        experiment.add(run.Script(inline="c"), name="mend", dependencies=[run.after_failure("second")])
        seconds = submitted(experiment, Scenario({"first": Succeeds(after=10), "second": Fails(1, after=10)}))
    assert seconds == {"first": 0.0, "second": 0.0, "mend": 20.0}


@pytest.mark.parametrize("until", ["first", "leader"])
def test_a_group_that_is_decided_here_is_no_upstream_for_a_scheduler(until):
    with run.Experiment("kept", KEPT) as experiment:
        experiment.add([run.Script(inline="a"), run.Script(inline="b")], name="up", until=until)
        experiment.add(run.Script(inline="c"), name="down", dependencies=["up"])
        assert submitted(experiment, Scenario({"up": Succeeds(after=10)}))["down"] == 10.0


# The shim.

CASES = {
    "success": ("code=0 signals=none", True, False),
    "failure": ("code=3 signals=none", False, True),
    "signalled": ("code=0 signals=TERM", False, True),
    "killed": (None, False, True),
}


@pytest.fixture(params=SHELLS)
def shim(request, tmp_path):
    command = SHELLS[request.param]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sleep").write_text(f"#!/bin/sh\necho slept >>'{tmp_path}/sleeps'\n")
    (tmp_path / "bin" / "sleep").chmod(0o755)
    folder = tmp_path / "a job's $folder"
    folder.mkdir()

    def start(after):
        (folder / "0.after").write_text(edges_text(after))
        base = base_path(str(folder), 0, 0, 0)
        pad_outcome(base, "")
        argv = [*command, *shim_argv(SHIM, base, "", str(folder), ["sh", "-c", "echo ran"])]
        environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
        done = subprocess.run(argv, env=environment, timeout=20, check=False)
        return done.returncode, read_rank(base, "")

    return start


def upstream(tmp_path, condition, *, ranks=(1,)):
    return After(Key("0" * 16, "up", 2), condition, "handle", str(tmp_path / "up stream's"), ranks)


def record(tmp_path, text, *, incarnation=0, member=0, suffix=""):
    folder = tmp_path / "up stream's"
    folder.mkdir(exist_ok=True)
    base = f"{folder}/2.{incarnation}.{member}"
    with open(f"{base}.start{suffix}", "w") as stream:
        stream.write("nemorun-start 1 pid=1 uptime=1.0 host=h boot=b end\n")
    with open(f"{base}.outcome{suffix}", "w") as stream:
        stream.write(f"nemorun-outcome 1 {text} uptime=1.0 end\n" if text else " " * 255 + "\n")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("condition", Condition)
def test_a_program_starts_only_where_its_upstreams_record_lets_it(shim, tmp_path, case, condition):
    text, success, failure = CASES[case]
    record(tmp_path, text)
    holds = {Condition.SUCCESS: success, Condition.FAILURE: failure, Condition.ANY: True}[condition]
    code, witness = shim([upstream(tmp_path, condition)])
    assert (code, witness.claimed) == ((0, True) if holds else (125, False))
    assert witness.outcome is not None
    assert witness.outcome.skipped is not holds
    slept = tmp_path / "sleeps"
    waits = text is None and condition is not Condition.ANY
    assert (len(slept.read_text().splitlines()) if slept.exists() else 0) == (60 if waits else 0)


def test_the_newest_incarnation_of_every_rank_of_every_member_counts(shim, tmp_path):
    record(tmp_path, "code=1 signals=none")
    record(tmp_path, "code=0 signals=none", incarnation=1)
    for member, suffix in ((0, ".1"), (1, ""), (1, ".1")):
        record(tmp_path, "code=0 signals=none", member=member, suffix=suffix)
    assert shim([upstream(tmp_path, Condition.SUCCESS, ranks=(2, 2))])[0] == 0


def test_one_rank_that_failed_is_enough(shim, tmp_path):
    record(tmp_path, "code=0 signals=none")
    record(tmp_path, "code=1 signals=none", suffix=".1")
    assert shim([upstream(tmp_path, Condition.SUCCESS, ranks=(2,))])[0] == 125


def test_all_edges_must_hold(shim, tmp_path):
    record(tmp_path, "code=0 signals=none")
    edges = [upstream(tmp_path, Condition.SUCCESS), upstream(tmp_path, Condition.FAILURE)]
    code, witness = shim(edges)
    assert (code, witness.outcome.skipped) == (125, True)


def test_a_shim_that_comes_late_does_not_write_over_the_outcome_of_the_one_that_ran(shim, tmp_path):
    record(tmp_path, "code=0 signals=none")
    assert shim([upstream(tmp_path, Condition.SUCCESS)])[0] == 0
    record(tmp_path, "code=1 signals=none")
    code, witness = shim([upstream(tmp_path, Condition.SUCCESS)])
    assert (code, witness.outcome.code, witness.outcome.skipped) == (125, 0, False)
