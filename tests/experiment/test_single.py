"""`run.run`: one task without the ceremony."""

from __future__ import annotations

import os

import pytest

import nemorun_core as run
from tests.experiment import targets
from tests.experiment.helpers import launch, log, sh, states


def test_without_an_executor_the_task_runs_in_this_process(capsys):
    experiment = run.run(run.Partial(targets.show_place))
    assert capsys.readouterr().out.startswith(f"{os.getpid()} ")
    assert isinstance(experiment, run.Experiment)
    assert set(states(experiment).values()) == {"SUCCEEDED"}


def test_with_an_executor_the_task_runs_there_and_its_output_is_shown(capsysbinary):
    experiment = run.run(run.Partial(targets.show_place), run.LocalExecutor())
    name = experiment.jobs[0]
    assert log(experiment, name).split()[0] != str(os.getpid())
    assert f"{name} | {log(experiment, name)}".encode() in capsysbinary.readouterr().out


def test_tail_logs_can_be_left_out(capsysbinary):
    run.run(sh("echo hello"), "local", tail_logs=False)
    assert b"| hello" not in capsysbinary.readouterr().out


def test_a_name_is_the_jobs_and_the_experiments():
    experiment = run.run(sh("true"), "local", name="mine", tail_logs=False)
    assert (experiment.title, experiment.jobs) == ("mine", ["mine"])


def test_the_default_name_is_made_of_the_task():
    experiment = run.run(sh("true"), "local")
    assert (experiment.title, experiment.jobs) == ("true", ["true"])


def test_plugins_are_applied():
    experiment = run.run(sh("echo $1"), "local", plugins=[targets.Tag("tagged")])
    assert log(experiment, experiment.jobs[0]) == "tagged\n"


def test_a_dry_run_starts_nothing(tmp_path, nemorun_home):
    done = launch(tmp_path, 'run.run(run.Script(inline="touch started"), "local", dryrun=True)')
    assert "touch started" in done.stdout
    assert done.stderr == ""
    assert not (tmp_path / "started").exists()
    assert run.Experiment.catalog() == []


def test_direct_runs_in_this_process_whatever_the_executor(capsys):
    run.run(run.Partial(targets.show_place, "FROM"), run.LocalExecutor(env_vars={"FROM": "executor"}), direct=True)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.endswith(" executor"))
    assert line.startswith(f"{os.getpid()} ")


def test_check_raises_for_a_failure():
    with pytest.raises(run.ExperimentFailed, match="exit code 3"):
        run.run(sh("exit 3"), "local", check=True)


def test_without_check_a_failure_is_in_the_experiment_returned():
    assert set(states(run.run(sh("exit 3"), "local")).values()) == {"FAILED"}


def test_the_exception_of_a_task_in_this_process_is_raised():
    with pytest.raises(LookupError, match="mine"):
        run.run(run.Partial(targets.break_down, "mine"))


def test_what_is_no_task_is_refused():
    with pytest.raises(run.UsageError, match="expected"):
        run.run(print)  # type: ignore[arg-type]


def test_a_script_with_an_unusual_path_gives_no_unusual_title():
    """A default name that could be no title must not make the call fail."""
    experiment = run.run(sh("\n\n true"), "local")
    assert set(states(experiment).values()) == {"SUCCEEDED"}
