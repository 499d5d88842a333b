"""`Experiment.add`: what it takes, what it names, what it refuses."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nemorun_core import (
    Config,
    Executor,
    Experiment,
    LocalExecutor,
    Partial,
    Script,
    UsageError,
    after_any,
    after_failure,
)
from tests.experiment import targets
from tests.experiment.helpers import launch, log, python, sh, states, status


@pytest.fixture
def experiment():
    with Experiment("adding", log_level="ERROR") as entered:
        yield entered


def executor_of(experiment: Experiment, job: str) -> str:
    return str(status(experiment)[job]["executor"])


# Executors.


def test_a_job_without_executor_takes_the_experiments():
    with Experiment("default", LocalExecutor(env_vars={"FROM": "experiment"}), log_level="ERROR") as experiment:
        job = experiment.add(sh("echo $FROM"))
        own = experiment.add(sh("echo $FROM"), LocalExecutor(env_vars={"FROM": "job"}))
        experiment.run()
    assert (log(experiment, job), log(experiment, own)) == ("experiment\n", "job\n")


def test_without_any_executor_the_entry_point_named_local_is_used(experiment):
    job = experiment.add(sh("true"))
    experiment.run()
    experiment.wait()
    assert executor_of(experiment, job) == "LocalExecutor"


def test_a_string_names_an_executor(experiment):
    job = experiment.add(sh("true"), "local")
    experiment.run()
    experiment.wait()
    assert executor_of(experiment, job) == "LocalExecutor"


def test_a_string_names_the_experiments_executor():
    with Experiment("by name", "local", log_level="ERROR") as experiment:
        job = experiment.add(sh("true"))
        experiment.run()
    assert executor_of(experiment, job) == "LocalExecutor"


def test_an_unknown_executor_is_named_with_what_to_install(experiment):
    with pytest.raises(UsageError, match=r"no executor 'dokcer' is installed \(installed: .*local") as caught:
        experiment.add(sh("true"), "dokcer")
    assert caught.value.hint == "pip install nemorun-dokcer"


def test_with_no_executor_installed_add_says_what_to_install():
    """Without nemorun-local: its metadata is hidden from the process."""
    done = python(
        """
        import nemorun_core.registry as registry
        every = registry.points()
        registry.points = lambda: [point for point in every if not point.distribution.startswith("nemorun-local ")]
        import nemorun_core as run
        with run.Experiment("none") as experiment:
            try:
                experiment.add(run.Script(inline="true"))
            except run.UsageError as error:
                print(error)
        """
    )
    assert done.stderr == ""
    assert "pip install nemorun-local (or nemorun-core[local])" in done.stdout


def test_an_executor_that_cannot_be_honoured_is_refused_with_the_jobs_name(experiment):
    with pytest.raises(UsageError, match=r"job 'mine': .*ntasks_per_node=0"):
        experiment.add(sh("true"), LocalExecutor(ntasks_per_node=0), name="mine")
    assert experiment.jobs == []


@pytest.mark.parametrize("executor", [3, LocalExecutor, [3]], ids=repr)
def test_what_is_no_executor_is_refused(experiment, executor):
    with pytest.raises(UsageError, match="expected an executor"):
        experiment.add(sh("true"), executor)


# Copies.


def test_task_and_executor_are_copied(experiment):
    task, executor = sh("echo $FROM $1", args=["before"]), LocalExecutor(env_vars={"FROM": "before"})
    job = experiment.add(task, executor)
    task.args[0] = "after"
    executor.env_vars["FROM"] = "after"
    experiment.run()
    experiment.wait()
    assert log(experiment, job) == "before before\n"


def test_the_executor_given_stays_the_jobs_own_when_its_task_is_edited_later(experiment):
    executor = LocalExecutor(env_vars={"FROM": "before"})
    job = experiment.add(sh("echo $FROM"), executor)
    executor.env_vars["FROM"] = "after"
    experiment.tasks[0].args = ["x"]
    experiment.run()
    experiment.wait()
    assert log(experiment, job) == "before\n"


def test_a_nested_config_is_copied(experiment):
    task = Partial(targets.add, Config(complex, 1.0))
    experiment.add(task)
    task.first.real = 2.0
    assert experiment.tasks[0] == Partial(targets.add, Config(complex, 1.0))


# Names.


@pytest.mark.parametrize(
    ("task", "name"),
    [
        (Script("scripts/echo.sh"), "echo.sh"),
        (Script("./train.py", entrypoint="python"), "train.py"),
        (sh("echo hello there"), "echo_hello"),
        (sh("ls"), "ls"),
        (Partial(targets.add, 1), "tests.experiment.targets.add"),
        ([sh("echo hello"), sh("other")], "echo_hello_group"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_default_name_is_made_of_the_first_task(experiment, task, name):
    assert experiment.add(task) == name


def test_the_guides_inline_script_has_the_name_that_the_guide_shows(experiment):
    assert experiment.add(sh('\nenv\necho "Hello 1"\necho "Hello 2"\n')) == "env_echo_"


def test_a_function_of_the_launching_script_is_named_after_its_file(tmp_path):
    done = launch(
        tmp_path,
        """
        def train():
            pass

        with run.Experiment("names") as experiment:
            print(experiment.add(run.Partial(train)))
        """,
    )
    assert (done.stdout, done.stderr) == ("launch.train\n", "")


def test_equal_names_get_a_number(experiment):
    names = [experiment.add(sh("true"), name="same") for _ in range(3)]
    assert names == ["same", "same_1", "same_2"]


def test_a_number_never_meets_a_name_that_was_given(experiment):
    experiment.add(sh("true"), name="same_1")
    experiment.add(sh("true"), name="same")
    assert experiment.add(sh("true"), name="same") == "same_2"


def test_equal_default_names_get_a_number(experiment):
    assert [experiment.add(sh("true")) for _ in range(2)] == ["true", "true_1"]


# Groups.


def test_a_group_runs_all_its_members(experiment):
    job = experiment.add([sh("echo one"), sh("echo two")])
    experiment.run()
    experiment.wait()
    assert [log(experiment, job, member) for member in (0, 1)] == ["one\n", "two\n"]


def test_a_group_may_have_one_executor_a_member(experiment):
    executors: list[Executor | str] = [LocalExecutor(env_vars={"FROM": name}) for name in ("one", "two")]
    job = experiment.add([sh("echo $FROM")] * 2, executors)
    experiment.run()
    experiment.wait()
    assert [log(experiment, job, member) for member in (0, 1)] == ["one\n", "two\n"]


def test_a_group_of_one_is_a_group(experiment):
    assert experiment.add([sh("true")]) == "true_group"


def test_executors_that_are_neither_one_nor_one_a_member_are_refused(experiment):
    with pytest.raises(UsageError, match="2 executors were given for 3 tasks"):
        experiment.add([sh("true")] * 3, [LocalExecutor(), LocalExecutor()])


def test_a_group_on_two_connections_is_refused(experiment):
    with pytest.raises(UsageError, match="must name one scheduler"):
        experiment.add([sh("true")] * 2, [LocalExecutor(), LocalExecutor(max_parallel=1)])


def test_what_an_executor_says_against_a_group_names_the_job(experiment):
    class Alone(LocalExecutor):
        def check_group(self, executors):
            raise UsageError(f"{len(executors)} are one too many.", hint="Take fewer.")

    with pytest.raises(UsageError, match="job 'true_group': 2 are one too many") as caught:
        experiment.add([sh("true")] * 2, Alone())
    assert caught.value.hint == "Take fewer."


def test_an_empty_group_is_refused(experiment):
    with pytest.raises(UsageError, match="the group is empty"):
        experiment.add([])


@pytest.mark.parametrize("task", [print, "echo", None, 3, [sh("true"), "echo"], Script], ids=repr)
def test_what_is_no_task_is_refused(experiment, task):
    with pytest.raises(UsageError, match="expected"):
        experiment.add(task)
    assert experiment.jobs == []


def test_a_bare_function_is_refused_with_how_to_wrap_it(experiment):
    with pytest.raises(UsageError, match=r"run\.Partial\(function"):
        experiment.add(print)


def test_an_unknown_until_is_refused(experiment):
    with pytest.raises(UsageError, match="'all', 'first' or 'leader'"):
        experiment.add([sh("true")], until="last")


# Dependencies.


def test_the_three_kinds_of_dependency_decide_by_how_the_upstream_ended(experiment):
    good = experiment.add(sh("true"), name="good")
    bad = experiment.add(sh("exit 3"), name="bad")
    for name, upstream in (("good", good), ("bad", bad)):
        experiment.add(sh("true"), name=f"success of {name}", dependencies=[upstream])
        experiment.add(sh("true"), name=f"failure of {name}", dependencies=[after_failure(upstream)])
        experiment.add(sh("true"), name=f"any end of {name}", dependencies=[after_any(upstream)])
    experiment.run()
    experiment.wait()
    assert states(experiment) == {
        "good": "SUCCEEDED",
        "bad": "FAILED",
        "success of good": "SUCCEEDED",
        "failure of good": "SKIPPED",
        "any end of good": "SUCCEEDED",
        "success of bad": "SKIPPED",
        "failure of bad": "SUCCEEDED",
        "any end of bad": "SUCCEEDED",
    }


def test_a_skipped_upstream_is_an_end_but_no_failure(experiment):
    bad = experiment.add(sh("false"), name="bad")
    skipped = experiment.add(sh("true"), name="skipped", dependencies=[bad])
    experiment.add(sh("true"), name="after any", dependencies=[after_any(skipped)])
    experiment.add(sh("true"), name="after failure", dependencies=[after_failure(skipped)])
    experiment.run()
    experiment.wait()
    found = states(experiment)
    assert (found["skipped"], found["after any"], found["after failure"]) == ("SKIPPED", "SUCCEEDED", "SKIPPED")


def test_a_job_waits_for_all_its_dependencies(experiment, tmp_path):
    first, second = (experiment.add(sh(f"touch '{tmp_path}/{name}'"), name=name) for name in ("one", "two"))
    third = experiment.add(sh(f"ls '{tmp_path}'/one '{tmp_path}'/two"), dependencies=[first, second])
    experiment.run()
    assert experiment.wait()
    upstream_end = max(str(status(experiment)[job]["ended"]) for job in (first, second))
    assert str(status(experiment)[third]["started"]) >= upstream_end


def test_a_dependency_given_twice_counts_once(experiment):
    first = experiment.add(sh("true"), name="first")
    experiment.add(sh("true"), dependencies=[first, first])
    experiment.run()
    assert experiment.wait()


def test_one_dependency_needs_no_list(experiment):
    first = experiment.add(sh("false"), name="first")
    second = experiment.add(sh("true"), name="second", dependencies=first)
    experiment.run()
    experiment.wait()
    assert states(experiment)[second] == "SKIPPED"


def test_an_unknown_dependency_is_refused_with_the_nearest_id(experiment):
    experiment.add(sh("true"), name="prepare")
    with pytest.raises(UsageError, match=r"no job 'prepaer'(.|\n)*Did you mean 'prepare'"):
        experiment.add(sh("true"), dependencies=["prepaer"])


@pytest.mark.parametrize("dependencies", [[3], [None], 3, [["a"]]], ids=repr)
def test_a_dependency_that_is_no_id_is_refused(experiment, dependencies):
    with pytest.raises(UsageError, match="dependencies: "):
        experiment.add(sh("true"), dependencies=dependencies)


# Arguments.


@pytest.mark.parametrize(
    ("task", "path"),
    [
        (lambda: Partial(targets.add, open), None),
        (lambda: Partial(targets.add, object()), r"\$\.first"),
        (lambda: Partial(targets.add, {"a": [1, iter("")]}), r"\$\.first\['?a'?\]\[1\]|\$\.first\.a\[1\]"),
        (lambda: Partial(targets.add, 1, Config(complex, object())), r"\$\.second\.real"),
        (lambda: Partial(targets.add, sys.stdout), r"\$\.first"),
        (lambda: Partial(targets.add, subprocess.Popen), None),
    ],
    ids=["function", "object", "iterator", "config", "stream", "class"],
)
def test_an_argument_that_json_cannot_hold_is_refused_with_its_path(experiment, task, path):
    if path is None:
        experiment.add(task())
        return
    with pytest.raises(UsageError, match=path) as caught:
        experiment.add(task())
    assert caught.value.hint
    assert experiment.jobs == []


def test_add_outside_the_block_is_one_clear_error():
    with pytest.raises(UsageError, match=r"add: the experiment 'outside' is not entered.\n  with exp:"):
        Experiment("outside").add(sh("true"))


def test_jobs_and_tasks_are_those_added(experiment):
    one, two = sh("echo one"), sh("echo two")
    jobs = [experiment.add(one), experiment.add([two, one])]
    assert (experiment.jobs, experiment.tasks) == (jobs, [one, two, one])
    assert experiment.title == "adding"


def test_a_task_may_be_edited_until_the_experiment_is_run(experiment):
    job = experiment.add(sh("echo $1", args=["before"]))
    experiment.tasks[0].args = ["after"]
    experiment.run()
    experiment.wait()
    assert log(experiment, job) == "after\n"


def test_an_edited_task_that_does_not_fit_is_refused_by_run(experiment):
    experiment.add(Partial(targets.add, 1))
    experiment.tasks[0].first = object()
    with pytest.raises(UsageError, match=r"\$\.first"):
        experiment.run()
