"""What a program may do: its end is seen for what it is, here and in any other process."""

from __future__ import annotations

import json
import os

import pytest

from nemorun_core import Experiment, LocalExecutor, Partial, Script
from tests.experiment import targets
from tests.experiment.helpers import log, python, sh, states, status

ENDS = {
    "exit 3": (sh("exit 3"), "exit code 3", 3),
    "exit 255": (sh("exit 255"), "exit code 255", 255),
    "SIGTERM": (sh("kill -TERM $$"), "signal 15 (SIGTERM)", 143),
    "SIGKILL": (sh("kill -KILL $$"), "signal 9 (SIGKILL)", 137),
    "SIGSEGV": (sh("ulimit -c 0; kill -SEGV $$"), "signal 11 (SIGSEGV)", 139),
    "not found": (sh("no-such-command"), "bad command: not found (exit code 127)", 127),
    "no interpreter": (
        Script("x", entrypoint="no-such-interpreter"),
        "bad command: not found (exit code 127)",
        127,
    ),
    "not executable": (
        Script("/dev/null", entrypoint=""),
        "bad command: cannot be executed (exit code 126)",
        126,
    ),
    "no script": (Script("no-such-file.sh"), "bad command: not found (exit code 127)", 127),
    "exception": (Partial(targets.break_down, "x"), "exit code 1", 1),
    "os._exit": (Partial(os._exit, 7), "exit code 7", 7),
}


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """One experiment with all the ends, and what another process says of it."""
    home = tmp_path_factory.mktemp("failed")
    with Experiment("failed", base_dir=home, log_level="ERROR") as experiment:
        for name, (task, _, _) in ENDS.items():
            job = experiment.add(task, name=name)
            after = experiment.add(sh("true"), name=f"after {name}", dependencies=[job])
            experiment.add(sh("true"), name=f"after after {name}", dependencies=[after])
        experiment.run()
    done = python(
        f"""
        import json
        import nemorun_core as run
        experiment = run.Experiment.from_id({experiment.id!r}, base_dir={str(home)!r})
        print(json.dumps(experiment.status(return_dict=True)))
        """
    )
    assert done.stderr == ""
    return experiment, json.loads(done.stdout)


@pytest.mark.parametrize("name", ENDS)
def test_a_failure_has_its_reason_and_exit_code_in_this_and_any_other_process(failed, name):
    experiment, elsewhere = failed
    _, reason, code = ENDS[name]
    for found in (status(experiment)[name], elsewhere[name]):
        assert (found["state"], found["reason"], found["exit_code"]) == ("FAILED", reason, code)


@pytest.mark.parametrize("name", ENDS)
def test_dependants_are_skipped_with_the_cause_in_this_and_any_other_process(failed, name):
    experiment, elsewhere = failed
    _, reason, _ = ENDS[name]
    for dependant in (f"after {name}", f"after after {name}"):
        for found in (status(experiment)[dependant], elsewhere[dependant]):
            assert (found["state"], found["reason"]) == ("SKIPPED", f"dependency: {name!r} FAILED: {reason}")


def test_a_command_that_is_not_found_is_named_in_the_log(failed):
    experiment, _ = failed
    assert "no-such-command" in log(experiment, "not found")
    assert "no-such-interpreter" in log(experiment, "no interpreter")


def test_an_exception_of_a_function_is_in_its_log(failed):
    experiment, _ = failed
    assert log(experiment, "exception").endswith("LookupError: x\n")


def test_a_job_that_takes_too_long_is_failed_with_that_reason():
    with Experiment("slow", LocalExecutor(timeout_seconds=0.2, grace_seconds=1), log_level="ERROR") as experiment:
        job = experiment.add(sh("exec sleep 60"))
        experiment.run()
    found = status(experiment)[job]
    assert found["state"] == "FAILED"
    assert str(found["reason"]).startswith("timeout")


def test_what_a_program_leaves_running_is_ended_with_it():
    """The check of every test, that no process is left, sees a `sleep` that would outlive its job."""
    with Experiment("left", log_level="ERROR") as experiment:
        job = experiment.add(sh("sleep 300 & exit 0"))
        experiment.run()
    assert states(experiment)[job] == "SUCCEEDED"


def test_a_cancelled_job_ends_its_grandchildren_too():
    """As above: bash -> sh -> sleep, all ended."""
    with Experiment("tree", LocalExecutor(grace_seconds=1), log_level="ERROR") as experiment:
        job = experiment.add(sh("sh -c 'sleep 300; true' & echo $!; wait; true"))
        experiment.run()
        experiment.cancel(job)
    assert states(experiment)[job] == "CANCELLED"


def test_a_program_that_ignores_the_polite_signal_is_killed_after_its_grace():
    with Experiment("stubborn", LocalExecutor(grace_seconds=0.3), log_level="ERROR") as experiment:
        job = experiment.add(sh("trap '' TERM; sleep 300; sleep 300"))
        experiment.run()
        experiment.cancel(job)
    assert status(experiment)[job]["state"] == "CANCELLED"


def test_ranks_of_a_member_fail_with_the_highest_exit_code():
    with Experiment("ranks", LocalExecutor(ntasks_per_node=3), log_level="ERROR") as experiment:
        job = experiment.add(sh("exit $NEMORUN_RANK"))
        experiment.run()
    assert (states(experiment)[job], status(experiment)[job]["exit_code"]) == ("FAILED", 2)


def test_a_member_has_the_documented_environment():
    with Experiment("environment", LocalExecutor(nodes=2, ntasks_per_node=2), log_level="ERROR") as experiment:
        job = experiment.add([sh("env"), sh("env")], name="job")
        experiment.run()
    found = dict(line.partition("=")[::2] for line in log(experiment, job, 1, ".3").splitlines())
    expected = {
        "NEMORUN_EXPERIMENT_ID": experiment.id,
        "NEMORUN_JOB": "job",
        "NEMORUN_ATTEMPT": "0",
        "NEMORUN_MEMBER": "1",
        "NEMORUN_RANK": "3",
        "NEMORUN_LOCAL_RANK": "1",
        "NEMORUN_NODE_RANK": "1",
        "NEMORUN_NNODES": "2",
    }
    assert {name: found.get(name) for name in expected} == expected
    for name in ("NEMORUN_HEAD_HOST", "NEMORUN_HEAD_PORT", "NEMORUN_MEMBER_0_HOST", "NEMORUN_MEMBER_1_HOST"):
        assert found[name]


@pytest.mark.parametrize(
    "value", ["two words", "it's", 'say "so"', "$HOME", "new\nline", "", "训练", "*", "\\", "a=b"], ids=ascii
)
def test_arguments_and_environment_arrive_exactly(value):
    with Experiment("exact", LocalExecutor(env_vars={"VALUE": value}), log_level="ERROR") as experiment:
        job = experiment.add(sh('printf "<%s><%s>" "$1" "$VALUE"', args=[value]), name="job")
        experiment.run()
    assert log(experiment, job) == f"<{value}><{value}>"
