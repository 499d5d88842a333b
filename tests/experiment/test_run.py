"""`Experiment.run`: order, the ways to run, and what happens on leaving the block."""

from __future__ import annotations

import itertools
import os
import re
import sys
import threading

import pytest

from nemorun_core import Experiment, ExperimentFailed, LocalExecutor, Partial, Script, UsageError, after_any
from nemorun_core.experiment import foreground
from tests.experiment import targets
from tests.experiment.helpers import launch, log, sh, states, status, wait_for


def quiet(title: str = "running") -> Experiment:
    return Experiment(title, log_level="ERROR")


# Start and end.


def test_run_returns_and_leaving_the_block_waits(tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with quiet() as experiment:
        job = experiment.add(sh(f"read -r line <'{gate}'; echo \"$line\""), name="job")
        experiment.run()
        assert states(experiment)[job] in ("UNSUBMITTED", "PENDING", "RUNNING")
        threading.Thread(target=gate.write_text, args=["opened\n"]).start()
    assert states(experiment)[job] == "SUCCEEDED"
    assert log(experiment, job) == "opened\n"


def test_a_job_starts_as_soon_as_its_own_dependencies_allow(tmp_path):
    """`slow` ends only when what does not depend on it has run."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with quiet() as experiment:
        slow = experiment.add(sh(f"read -r line <'{gate}'"), name="slow")
        fast = experiment.add(sh("true"), name="fast")
        experiment.add(sh(f"echo opened >'{gate}'"), name="opens", dependencies=[fast])
        experiment.add(sh("true"), name="last", dependencies=[slow])
        experiment.run()
    assert set(states(experiment).values()) == {"SUCCEEDED"}


def test_the_block_may_be_left_and_entered_again():
    experiment = quiet()
    with experiment:
        one = experiment.add(sh("true"), name="one")
    with experiment:
        experiment.add(sh("true"), name="two", dependencies=[one])
    with experiment:
        experiment.run()
    assert states(experiment) == {"one": "SUCCEEDED", "two": "SUCCEEDED"}


def test_after_run_the_block_may_be_entered_to_look():
    with quiet() as experiment:
        experiment.add(sh("true"), name="one")
        experiment.run()
    with experiment:
        assert states(experiment) == {"one": "SUCCEEDED"}


def test_a_second_run_is_refused_and_names_reset():
    with quiet() as experiment:
        experiment.add(sh("true"))
        experiment.run()
        with pytest.raises(UsageError, match=r"run: running_\d+ was run already(.|\n)*reset\(\)"):
            experiment.run()


def test_add_after_run_is_refused_and_names_reset():
    with quiet() as experiment:
        experiment.add(sh("true"))
        experiment.run()
        with pytest.raises(UsageError, match=r"add: running_\d+ was run already(.|\n)*reset\(\)"):
            experiment.add(sh("true"))
    assert len(experiment.jobs) == 1


def test_run_outside_the_block_is_one_clear_error():
    experiment = quiet()
    with experiment:
        experiment.add(sh("true"))
    with pytest.raises(UsageError, match=r"run: the experiment 'running' is not entered.\n  with exp:"):
        experiment.run()


def test_run_without_jobs_is_refused():
    with quiet() as experiment, pytest.raises(UsageError, match="no job was added"):
        experiment.run()


def test_leaving_without_run_prints_nothing_and_leaves_nothing(tmp_path, nemorun_home):
    done = launch(
        tmp_path,
        """
        with run.Experiment("unused") as experiment:
            experiment.add(run.Script(inline="echo hello"))
        """,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(nemorun_home.glob("experiments/*"))


def test_an_experiment_inside_itself_is_refused():
    with quiet() as experiment, pytest.raises(UsageError, match="'running' is entered already"), experiment:
        pass


def test_different_experiments_nest():
    with quiet("outer") as outer:
        outer.add(sh("true"))
        with quiet("inner") as inner:
            inner.add(sh("true"))
            inner.run()
        outer.run()
    assert (inner.wait(), outer.wait()) == (True, True)


def test_a_loaded_experiment_can_be_entered_but_not_run_again():
    with quiet() as experiment:
        experiment.add(sh("true"))
        experiment.run()
    with Experiment.from_id(experiment.id) as again, pytest.raises(UsageError, match=r"reset\(\)"):
        again.run()


# Sequential.


def test_sequential_runs_in_the_order_of_add(tmp_path):
    with quiet() as experiment:
        for name in "abc":
            experiment.add(sh(f"echo {name} >>'{tmp_path}/order'; cat '{tmp_path}/order'"), name=name)
        experiment.run(sequential=True)
    found = list(status(experiment).values())
    for before, after in itertools.pairwise(found):
        assert str(before["ended"]) <= str(after["started"])
    assert log(experiment, "c") == "a\nb\nc\n"


def test_sequential_stops_at_the_first_failure():
    with quiet() as experiment:
        for name, text in (("a", "true"), ("b", "exit 4"), ("c", "true"), ("d", "true")):
            experiment.add(sh(text), name=name)
        experiment.run(sequential=True)
    assert list(states(experiment).values()) == ["SUCCEEDED", "FAILED", "SKIPPED", "SKIPPED"]
    assert status(experiment)["d"]["reason"] == "dependency: 'b' FAILED: exit code 4"


def test_sequential_is_refused_together_with_dependencies(nemorun_home):
    with quiet() as experiment:
        one = experiment.add(sh("true"))
        experiment.add(sh("true"), dependencies=[one])
        with pytest.raises(UsageError, match="some have dependencies"):
            experiment.run(sequential=True)


def test_a_refused_run_may_be_called_again_rightly():
    with quiet() as experiment:
        one = experiment.add(sh("true"))
        experiment.add(sh("true"), dependencies=[one])
        with pytest.raises(UsageError):
            experiment.run(sequential=True)
        experiment.run()
    assert experiment.wait()


# Direct.


def test_direct_runs_a_function_in_this_process(capsys):
    with quiet() as experiment:
        job = experiment.add(Partial(targets.show_place))
        experiment.run(direct=True)
    assert capsys.readouterr().out == f"{os.getpid()} {job} None\n"
    assert states(experiment)[job] == "SUCCEEDED"


def test_direct_output_is_also_in_the_log(capsys):
    with quiet() as experiment:
        job = experiment.add(Partial(targets.add, 1, 2))
        script = experiment.add(sh("echo to out; echo to err >&2"), name="script")
        experiment.run(direct=True)
    assert log(experiment, job) == "1 + 2 = 3\n"
    assert log(experiment, script) == "to out\nto err\n"
    assert "1 + 2 = 3\nto out\nto err\n" in capsys.readouterr().out


def test_direct_runs_a_closure_of_this_process():
    seen = []
    with quiet() as experiment:
        experiment.add(Partial(seen_later, "x"))
        experiment.run(direct=True)
    seen.extend(SEEN)
    assert seen == ["x"]


SEEN: list[str] = []


def seen_later(word: str) -> None:
    SEEN.append(word)


def test_direct_sets_the_declared_environment_and_takes_it_back(capsys):
    with quiet() as experiment:
        experiment.add(Partial(targets.show_place, "FROM"), LocalExecutor(env_vars={"FROM": "executor"}))
        experiment.run(direct=True)
    assert capsys.readouterr().out.endswith(" executor\n")
    assert "FROM" not in os.environ
    assert "NEMORUN_JOB" not in os.environ


def test_direct_follows_the_dependencies(tmp_path):
    with quiet() as experiment:
        first = experiment.add(sh("false"), name="first")
        experiment.add(sh("true"), name="on success", dependencies=[first])
        experiment.add(sh("true"), name="on any end", dependencies=[after_any(first)])
        experiment.run(direct=True)
    assert list(states(experiment).values()) == ["FAILED", "SKIPPED", "SUCCEEDED"]


def test_direct_refuses_groups():
    with quiet() as experiment:
        experiment.add([sh("true"), sh("true")])
        with pytest.raises(UsageError, match="direct runs no groups"):
            experiment.run(direct=True)


def test_the_tasks_own_exception_is_raised_again_after_it_was_recorded(capsys):
    with quiet() as experiment:
        job = experiment.add(Partial(targets.break_down, "no luck"), name="breaks")
        later = experiment.add(sh("true"), name="later")
        with pytest.raises(LookupError, match="no luck"):
            experiment.run(direct=True)
    again = status(Experiment.from_id(experiment.id))
    assert (again[job]["state"], again[later]["state"]) == ("FAILED", "CANCELLED")
    assert "LookupError: no luck" in str(again[job]["reason"])


def test_the_traceback_of_a_direct_task_is_in_its_log(capsys):
    with quiet() as experiment:
        job = experiment.add(Partial(targets.break_down, "no luck"))
        with pytest.raises(LookupError):
            experiment.run(direct=True)
    text = log(experiment, job)
    assert text.startswith("before\napart\nTraceback")
    assert "break_down" in text
    assert text.endswith("LookupError: no luck\n")


def test_a_direct_task_that_exits_has_that_exit_code():
    with quiet() as experiment:
        job = experiment.add(Partial(sys.exit, 3))
        experiment.run(direct=True)
    assert (status(experiment)[job]["state"], status(experiment)[job]["exit_code"]) == ("FAILED", 3)


def test_a_command_that_is_not_there_fails_directly_as_elsewhere():
    with quiet() as experiment:
        job = experiment.add(Script("nothing", entrypoint="no-such-interpreter"))
        experiment.run(direct=True)
    assert str(status(experiment)[job]["reason"]).startswith("bad command: not found")


# Check.


def test_check_raises_with_every_failed_job_its_reason_and_its_last_lines():
    with pytest.raises(ExperimentFailed) as caught, quiet() as experiment:  # noqa: PT012 - leaving the block raises
        bad = experiment.add(sh("seq 100; echo last words; exit 3"), name="bad")
        experiment.add(sh("true"), name="good")
        experiment.add(sh("true"), name="after", dependencies=[bad])
        experiment.add(sh("kill -9 $$"), name="killed")
        experiment.run(check=True)
    error = caught.value
    assert error.experiment_id == experiment.id
    assert list(error.failures) == ["bad", "after", "killed"]
    text = str(error)
    assert f"3 of 4 jobs of {experiment.id} did not succeed." in text
    assert "  bad: FAILED: exit code 3\n" in text
    assert "    | 100\n    | last words\n" in text
    assert "    | 1\n" not in text
    assert "  after: SKIPPED: dependency: 'bad' FAILED: exit code 3" in text
    assert "  killed: FAILED: signal 9 (SIGKILL)" in text
    assert f"nemorun experiment logs {experiment.id}" in text


def test_check_says_nothing_when_all_succeeded():
    with quiet() as experiment:
        experiment.add(sh("true"))
        experiment.run(check=True)


def test_without_check_a_failure_raises_nothing():
    with quiet() as experiment:
        experiment.add(sh("false"))
        experiment.run()


def test_check_shows_the_lines_of_the_member_that_failed():
    with pytest.raises(ExperimentFailed) as caught, quiet() as experiment:  # noqa: PT012 - leaving the block raises
        experiment.add([sh("echo fine; exec sleep 60"), sh("echo broken; exit 1")], name="group")
        experiment.run(check=True)
    assert "    | broken" in str(caught.value)
    assert "fine" not in str(caught.value)


def test_check_after_a_direct_run_raises_too():
    with pytest.raises(ExperimentFailed, match="exit code 3"), quiet() as experiment:  # noqa: PT012 - as above
        experiment.add(sh("exit 3"))
        experiment.run(direct=True, check=True)


def test_an_exception_of_the_block_is_not_hidden_by_check():
    with pytest.raises(ZeroDivisionError), quiet() as experiment:  # noqa: PT012 - as above
        experiment.add(sh("false"))
        experiment.run(check=True)
        experiment.wait()
        raise ZeroDivisionError


# Groups.


def test_a_group_with_until_first_ends_with_its_first_member():
    with quiet() as experiment:
        job = experiment.add([sh("exec sleep 60"), sh("true")], until="first")
        experiment.run()
    members = status(experiment)[job]["members"]
    assert states(experiment)[job] == "SUCCEEDED"
    assert [(member["state"], member["reason"]) for member in members] == [  # type: ignore[attr-defined]
        ("CANCELLED", "group: stopped with its group"),
        ("SUCCEEDED", None),
    ]


def test_a_group_with_until_leader_ends_with_member_0():
    with quiet() as experiment:
        job = experiment.add([sh("true"), sh("exec sleep 60")], until="leader")
        experiment.run()
    assert states(experiment)[job] == "SUCCEEDED"


def test_a_group_with_until_leader_outlives_other_members(tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with quiet() as experiment:
        job = experiment.add([sh(f"read -r line <'{gate}'; echo led"), sh("true")], until="leader")
        experiment.run()
        wait_for(lambda: status(experiment)[job]["members"][1]["state"] == "SUCCEEDED")  # type: ignore[index]
        assert states(experiment)[job] == "RUNNING"
        gate.write_text("go on\n")
    assert (states(experiment)[job], log(experiment, job)) == ("SUCCEEDED", "led\n")


@pytest.mark.parametrize("until", ["all", "first", "leader"])
def test_a_failed_member_fails_the_group_and_stops_the_rest(until):
    with quiet() as experiment:
        job = experiment.add([sh("exec sleep 60"), sh("exit 5")], until=until)
        experiment.run()
    found = status(experiment)[job]
    assert (found["state"], found["exit_code"]) == ("FAILED", 5)
    assert found["reason"] == "exit code 5 in member 1"
    assert found["members"][0]["state"] == "CANCELLED"  # type: ignore[index]


def test_a_groups_dependants_wait_for_the_whole_group(tmp_path):
    with quiet() as experiment:
        group = experiment.add([sh(f"touch '{tmp_path}/a'"), sh(f"touch '{tmp_path}/b'")])
        after = experiment.add(sh(f"ls '{tmp_path}/a' '{tmp_path}/b'"), dependencies=[group])
        experiment.run()
    assert states(experiment)[after] == "SUCCEEDED"


# Partial.


def test_a_function_of_the_launching_script_runs_without_a_main_guard_and_starts_the_script_once(tmp_path):
    done = launch(
        tmp_path,
        """
        with open("starts", "a") as stream:
            stream.write("x")

        def double(value):
            print("doubled", 2 * value)

        with run.Experiment("script", log_level="ERROR") as experiment:
            experiment.add(run.Partial(double, 21), tail_logs=True)
            experiment.run(check=True)
        """,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "launch.double | doubled 42\n", "")
    assert (tmp_path / "starts").read_text() == "x"


def test_a_task_runs_in_the_callers_folder_and_finds_its_modules(tmp_path):
    (tmp_path / "beside.py").write_text("import os\ndef where():\n    print(os.getcwd())\n")
    done = launch(
        tmp_path,
        """
        from beside import where

        with run.Experiment("script", log_level="ERROR") as experiment:
            experiment.add(run.Partial(where), tail_logs=True)
            experiment.run(check=True)
        """,
    )
    assert (done.stdout, done.stderr) == (f"beside.where | {tmp_path}\n", "")


# Concurrency.


def test_experiments_run_in_several_threads_at_once():
    experiments: list[Experiment] = []
    errors: list[BaseException] = []

    def one(number: int) -> None:
        try:
            with quiet(f"thread {number % 2}") as experiment:
                first = experiment.add(sh(f"echo {number}"), name="first")
                experiment.add(Partial(targets.add, number), name="second", dependencies=[first])
                experiment.run(check=True)
            experiments.append(experiment)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len({experiment.id for experiment in experiments}) == 8
    assert sorted(int(log(experiment, "first")) for experiment in experiments) == list(range(8))


def test_one_experiment_can_be_asked_from_several_threads():
    with quiet() as experiment:
        for _ in range(20):
            experiment.add(sh("true"))
        experiment.run()
        results: list[bool] = []
        threads = [threading.Thread(target=lambda: results.append(experiment.wait())) for _ in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            assert len(status(experiment)) == 20
    assert results == [True] * 4


def test_the_ids_of_a_message_can_be_pasted():
    """A title with a space: the command in the hint of a failure is quoted."""
    with pytest.raises(ExperimentFailed) as caught, quiet("My Experiment") as experiment:  # noqa: PT012 - as above
        experiment.add(sh("false"))
        experiment.run(check=True)
    assert re.search(r"nemorun experiment logs 'My Experiment_\d+'", str(caught.value))


def test_an_experiment_that_another_process_took_just_before_is_refused(monkeypatch):
    monkeypatch.setattr(foreground.Lock, "acquire", lambda self, take_over: False)
    with Experiment("raced") as experiment:
        experiment.add(sh("true"))
        with pytest.raises(UsageError, match="is driven by") as caught:
            experiment.run()
    assert "resume with take-over" in str(caught.value.hint)
