"""What the guide promises beyond that its blocks run; the blocks themselves are run by the tests of the pages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nemorun_core as run
from nemorun_core import Experiment
from tests.experiment.helpers import launch, log, sh, states, status

HELLO = """
from simple.add import SomeObject, add_object, commonly_used_object

if __name__ == "__main__":
    script = run.Script("./scripts/echo.sh")
    inline_script = run.Script(inline='\\nenv\\necho "Hello 1"\\necho "Hello 2"\\n')
    fn = run.Partial(
        add_object, obj_1=commonly_used_object(), obj_2=run.Config(SomeObject, value_1=10, value_2=20, value_3=30)
    )
    executor = run.LocalExecutor()
    with run.Experiment("experiment_with_scripts", executor=executor, log_level="WARN") as exp:
        exp.add(script, tail_logs=True)
        exp.add(inline_script, tail_logs=True)
        exp.add(fn, tail_logs=True)
        exp.run(detach=False)
"""
ADD = """
from dataclasses import dataclass

@dataclass
class SomeObject:
    value_1: int
    value_2: int
    value_3: int

def add_object(obj_1: SomeObject, obj_2: SomeObject) -> SomeObject:
    print(obj_1.value_1 + obj_2.value_1, obj_1.value_2 + obj_2.value_2, obj_1.value_3 + obj_2.value_3)
    return obj_1

def commonly_used_object() -> SomeObject:
    return SomeObject(value_1=5, value_2=10, value_3=15)
"""


@pytest.fixture
def hello(tmp_path) -> Experiment:
    """The experiment of three kinds of task, after a script written for NeMo-Run ran with only its import changed."""
    for name, text in (("simple/add.py", ADD), ("scripts/echo.sh", "echo Hello\n")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    done = launch(tmp_path, HELLO)
    assert (done.returncode, done.stderr) == (0, "")
    for line in ("echo.sh | Hello", "env_echo_ | Hello 1", "env_echo_ | Hello 2", "simple.add.add_object | 15 30 45"):
        assert f"{line}\n" in done.stdout
    return Experiment.from_title("experiment_with_scripts")


def test_hello_scripts_has_the_jobs_that_the_guide_shows(hello):
    assert states(hello) == dict.fromkeys(["echo.sh", "env_echo_", "simple.add.add_object"], "SUCCEEDED")


def test_the_status_has_the_lines_that_the_guide_shows(hello, capsys, nemorun_home):
    hello.status()
    home = re.escape(str(nemorun_home))
    pattern = r"Experiment Status for (?P<id>experiment_with_scripts_\d+)\n"
    for number, name in enumerate(["echo.sh", "env_echo_", "simple.add.add_object"]):
        pattern += (
            rf"\nTask {number}: {re.escape(name)}\n- Status: SUCCEEDED\n- Executor: LocalExecutor\n"
            rf"- Job id: {re.escape(name.rstrip('_'))}-[0-9a-z]{{13}}\n"
            rf"- Local Directory: {home}/experiments/experiment_with_scripts/(?P=id)/{re.escape(name)}\n"
        )
    assert re.fullmatch(pattern, capsys.readouterr().out)


def test_the_third_group_of_the_dag_runs_only_after_the_first_two_have_completed():
    inline_script, inline_script_sleep = sh("true"), sh("sleep 0.05")
    with run.Experiment("dag-experiment", log_level="INFO") as exp:
        id1 = exp.add([inline_script, inline_script_sleep], tail_logs=False, name="task-1")
        id2 = exp.add([inline_script, inline_script_sleep], tail_logs=False, name="task-2")
        exp.add(
            [inline_script, inline_script_sleep],
            tail_logs=False,
            name="task-3",
            dependencies=[id1, id2],
        )
        exp.run()
    found = status(exp)
    assert set(states(exp).values()) == {"SUCCEEDED"}
    ended = max(str(found[name]["ended"]) for name in ("task-1", "task-2"))
    assert min(str(member["started"]) for member in found["task-3"]["members"]) >= ended  # type: ignore[attr-defined]


def test_every_line_of_the_farewell_works_when_pasted(tmp_path):
    done = launch(
        tmp_path,
        """
        with run.Experiment("My Experiment") as exp:
            exp.add(run.Script(inline="echo from the log"), name="it's")
            exp.run()
        """,
    )
    assert done.returncode == 0, done.stderr
    python, shell = done.stdout.split("\n\n")[-2:]
    pasted = subprocess.run([sys.executable, "-c", python], capture_output=True, text=True)
    assert pasted.stderr == ""
    assert "- Status: SUCCEEDED" in pasted.stdout
    assert pasted.stdout.endswith("from the log\n")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for line in shell.strip().splitlines():
        pasted = subprocess.run(["bash", "-euc", line], capture_output=True, text=True, env=os.environ | {"PATH": path})
        assert pasted.returncode == 0, line + pasted.stderr
        assert ("logs" in line) == (pasted.stdout == "from the log\n")


def test_an_old_experiment_can_be_run_again():
    with Experiment("old", log_level="ERROR") as exp:
        exp.add(sh("echo again"), name="job")
        exp.run()
    with Experiment.from_id(exp.id).reset() as again:
        again.run(check=True)
    assert again.id != exp.id
    assert log(again, "job") == "again\n"


def test_a_detached_experiment_goes_on_when_its_launcher_has_ended(tmp_path):
    done = launch(
        tmp_path,
        """
        exp = run.Experiment("My Experiment", id="detached")
        with exp:
            exp.add(run.Script(inline="until [ -e go ]; do sleep 0.01; done; echo done"), name="task_id")
            exp.run(detach=True, sequential=False, tail_logs=True, direct=False)
        """,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "nemorun experiment status detached" in done.stdout
    exp = Experiment.from_id("detached")
    assert not exp.wait(timeout_seconds=0)
    (tmp_path / "go").touch()
    assert exp.wait(timeout_seconds=20)
    assert log(exp, "task_id") == "done\n"
