"""A launcher wraps commands, once a node; it and a packager are kept in the records as values of their own."""

from __future__ import annotations

import json

import attrs
import pytest

import nemorun_core as run
from nemorun_core.registry import Registry
from tests.experiment.helpers import log, sh, states


@attrs.define(kw_only=True)
class Told(run.Launcher):
    """Says where it is before it runs the command."""

    word: str = "node"

    def check(self, executor):
        if executor.grace_seconds == 0:
            raise run.UsageError("Told needs a grace.")

    def wrap(self, command, executor, member, peers):
        text = f'echo "{self.word} $NEMORUN_NODE_RANK of $NEMORUN_NNODES, {member} in {list(peers)}"; exec "$@"'
        return command._replace(argv=("sh", "-c", text, "told", *command.argv))


@attrs.define(kw_only=True)
class Nested(run.Packager):
    """Holds other packagers."""

    inner: dict[str, run.Packager] = attrs.field(factory=dict)


def one(tasks, executor):
    with run.Experiment("launched", log_level="WARNING") as experiment:
        experiment.add(tasks, executor, name="job")
        experiment.run()
    return experiment


def test_it_wraps_the_command_once_a_node_whatever_ntasks_per_node_says():
    experiment = one(sh("echo ran"), run.LocalExecutor(nodes=2, ntasks_per_node=3, launcher=Told()))
    assert states(experiment) == {"job": "SUCCEEDED"}
    assert log(experiment, "job") == "node 0 of 2, 0 in [0]\nran\n"
    assert log(experiment, "job", rank=".1") == "node 1 of 2, 0 in [0]\nran\n"


def test_it_learns_which_members_have_an_equal_one():
    first, other = run.LocalExecutor(launcher=Told()), run.LocalExecutor(launcher=Told(word="other"))
    experiment = one([sh("true")] * 3, [first, other, first])
    assert log(experiment, "job", 0) == "node 0 of 1, 0 in [0, 2]\n"
    assert log(experiment, "job", 1) == "other 0 of 1, 1 in [1]\n"
    assert log(experiment, "job", 2) == "node 0 of 1, 2 in [0, 2]\n"


def test_it_refuses_what_it_cannot_work_on_when_the_job_is_added():
    with run.Experiment("refused") as experiment, pytest.raises(run.UsageError, match="Told needs a grace"):
        experiment.add(sh("true"), run.LocalExecutor(launcher=Told(), grace_seconds=0))


def test_direct_refuses_it():
    with run.Experiment("direct") as experiment:
        experiment.add(sh("true"), run.LocalExecutor(launcher=Told()))
        with pytest.raises(run.UsageError, match="without the launcher"):
            experiment.run(direct=True)


@pytest.mark.parametrize("field", ["launcher", "packager"])
def test_a_name_that_is_not_installed_and_a_value_of_another_type_are_refused(field):
    with run.Experiment("named") as experiment:
        with pytest.raises(run.UsageError, match=f"no {field} 'absent' is installed"):
            experiment.add(sh("true"), run.LocalExecutor(**{field: "absent"}))
        with pytest.raises(run.UsageError, match=f"{field}=3"):
            experiment.add(sh("true"), run.LocalExecutor(**{field: 3}))
        assert experiment.jobs == []


def test_values_of_plugins_within_values_are_written_with_their_kind_and_read_back_equal():
    registry = Registry()
    packager = Nested(inner={"a": run.Packager(), "b": Nested(inner={"c": Nested()})})
    executor = run.LocalExecutor(launcher=Told(word="x"), packager=packager, retries=2)
    kinded = registry.record("nemorun.executors", executor)
    assert kinded.fields["launcher"] == {"kind": f"{__name__}:Told", "distribution": "", "fields": {"word": "x"}}
    assert registry.read_executor(attrs.evolve(kinded, fields=json.loads(json.dumps(kinded.fields)))) == executor


@pytest.mark.parametrize(
    "value", [3, {"kind": "a"}, {"kind": "run:Script", "distribution": "", "fields": {}}, {"kind": f"{__name__}:Told"}]
)
def test_a_torn_record_of_one_is_an_error_of_the_record(value):
    registry = Registry()
    kinded = registry.record("nemorun.executors", run.LocalExecutor(launcher=Told()))
    with pytest.raises(run.UsageError):
        registry.read_executor(attrs.evolve(kinded, fields={**kinded.fields, "launcher": value}))


def test_a_reset_starts_from_what_was_given(tmp_path):
    experiment = one(sh("true"), run.LocalExecutor(launcher=Told(), packager=run.Packager()))
    again = run.Experiment.from_id(experiment.id).reset()
    with again:
        again.run()
    assert states(again) == {"job": "SUCCEEDED"}
    assert log(again, "job") == "node 0 of 1, 0 in [0]\n"
