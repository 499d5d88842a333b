"""Local jobs through `Experiment`: what people see, and what is left when the driver is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from nemorun_local import LocalExecutor

from nemorun_core import Experiment, Script, Secret

from .conftest import wait_until


def sh(text, **fields):
    return Script(inline=text, **fields)


def status(experiment):
    return experiment.status(return_dict=True)


def states(experiment):
    return {name: job["state"] for name, job in status(experiment).items()}


@pytest.fixture
def launch(tmp_path):
    """Start a launcher in a process of its own; give it and, from another process, the experiment's status."""
    launched = []

    def start(text):
        script = tmp_path / "launch.py"
        script.write_text("import nemorun_core as run\n" + textwrap.dedent(text))
        process = subprocess.Popen(
            [sys.executable, str(script)], cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True
        )
        launched.append(process)
        return process

    yield start
    for process in launched:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def fresh_status(experiment_id):
    """Return the status as a fresh process sees it."""
    script = "import json, sys, nemorun_core as run\n"
    script += "print(json.dumps(run.Experiment.from_id(sys.argv[1]).status(return_dict=True)))"
    done = subprocess.run([sys.executable, "-c", script, experiment_id], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


JOB = "echo up; echo $$ >pid; while ! [ -e stop ]; do sleep 0.01; done; exit 6"


@pytest.fixture
def orphan(launch, tmp_path):
    """An experiment whose driver was killed while its job ran; another job was not started yet."""
    driver = launch(f"""
        with run.Experiment("x", executor=run.LocalExecutor(), id="x_1") as exp:
            exp.add(run.Script(inline={JOB!r}), name="a")
            exp.add(run.Script(inline="exit 0"), name="b", dependencies=["a"])
            exp.run()
    """)
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"))
    driver.kill()
    driver.wait()
    yield Experiment.from_id("x_1")
    (tmp_path / "stop").touch()
    Experiment.from_id("x_1").wait(20)


# Seen by people.


def test_a_job_over_max_parallel_is_pending_with_that_reason_and_runs_later(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Experiment("x", executor=LocalExecutor(max_parallel=1), log_level="WARNING") as experiment:
        experiment.add(sh("while ! [ -e stop ]; do sleep 0.01; done"), name="a")
        experiment.add(sh("exit 0"), name="b")
        experiment.run()
        wait_until(lambda: states(experiment) == {"a": "RUNNING", "b": "PENDING"})
        assert status(experiment)["b"]["reason"] == "limit: max_parallel=1 jobs are running"
        (tmp_path / "stop").touch()
    assert set(states(experiment).values()) == {"SUCCEEDED"}


def test_many_jobs_all_end_and_leave_no_thread_and_no_open_file():
    before = len(os.listdir("/proc/self/fd"))
    with Experiment("x", executor=LocalExecutor(), log_level="WARNING") as experiment:
        for number in range(200):
            experiment.add(sh(f"exit {number % 2}"))
        experiment.run()
    assert sorted(states(experiment).values()) == ["FAILED"] * 100 + ["SUCCEEDED"] * 100
    assert len(os.listdir("/proc/self/fd")) <= before


def test_each_member_of_a_group_has_an_environment_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    executors = [LocalExecutor(env_vars={"MINE": str(number)}) for number in range(3)]
    with Experiment("x", log_level="WARNING") as experiment:
        tasks = [sh("echo $MINE $TASK >out.$NEMORUN_MEMBER", env={"TASK": str(number)}) for number in range(3)]
        experiment.add(tasks, executor=executors, name="g")
        experiment.run(check=True)
    assert [(tmp_path / f"out.{number}").read_text() for number in range(3)] == ["0 0\n", "1 1\n", "2 2\n"]


def test_a_program_knows_its_experiment_job_member_and_attempt():
    with Experiment("x", executor=LocalExecutor(), log_level="WARNING") as experiment:
        line = "echo $NEMORUN_EXPERIMENT_ID $NEMORUN_JOB $NEMORUN_MEMBER $NEMORUN_ATTEMPT"
        experiment.add(sh(line), name="a job")
        experiment.run(check=True)
    log = Path(status(experiment)["a job"]["local_dir"], "0.0.0.out").read_text()
    assert log == f"{experiment.id} a job 0 0\n"


def test_a_job_that_is_cancelled_says_so_and_its_dependants_are_skipped():
    with Experiment("x", executor=LocalExecutor(), log_level="WARNING") as experiment:
        experiment.add(sh("sleep 60"), name="a")
        experiment.add(sh("exit 0"), name="b", dependencies=["a"])
        experiment.run()
        wait_until(lambda: states(experiment)["a"] == "RUNNING")
        experiment.cancel("a")
    assert states(experiment) == {"a": "CANCELLED", "b": "SKIPPED"}
    assert status(experiment)["a"]["reason"] == "by user"


def test_an_unreadable_request_does_not_stop_the_driver(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Experiment("x", executor=LocalExecutor(), log_level="WARNING") as experiment:
        experiment.add(sh("while ! [ -e stop ]; do sleep 0.01; done"), name="a")
        experiment.run()
        wait_until(lambda: states(experiment)["a"] == "RUNNING")
        requests = Path(status(experiment)["a"]["local_dir"]).parent / "requests"
        (requests / "0.json").write_text("{")
        pipe = os.open(requests / "wake", os.O_WRONLY | os.O_NONBLOCK)
        os.write(pipe, b"!")
        os.close(pipe)
        (tmp_path / "stop").touch()
    assert states(experiment) == {"a": "SUCCEEDED"}


# A driver that dies.


def test_a_job_outlives_its_killed_driver_and_another_process_reads_the_truth(orphan, tmp_path):
    assert {name: job["state"] for name, job in fresh_status("x_1").items()} == {"a": "RUNNING", "b": "UNSUBMITTED"}
    pid = int((tmp_path / "pid").read_text())
    (tmp_path / "stop").touch()
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"))
    wait_until(lambda: fresh_status("x_1")["a"]["state"] == "FAILED")
    seen = fresh_status("x_1")
    assert (seen["a"]["exit_code"], seen["a"]["reason"]) == (6, "exit code 6")
    assert seen["b"]["state"] == "SKIPPED"


def test_the_log_of_a_job_whose_driver_was_killed_is_whole(orphan, tmp_path):
    (tmp_path / "stop").touch()
    wait_until(lambda: status(orphan)["a"]["state"] == "FAILED")
    assert Path(status(orphan)["a"]["local_dir"], "0.0.0.out").read_text() == "up\n"


def test_a_job_whose_driver_was_killed_can_be_cancelled_from_another_process(orphan):
    orphan.cancel("a")
    seen = fresh_status("x_1")["a"]
    assert (seen["state"], seen["exit_code"], seen["reason"]) == ("CANCELLED", 143, "by user")


def test_a_shim_killed_while_nobody_drives_fails_its_job(orphan, tmp_path):
    start = Path(status(orphan)["a"]["local_dir"], "0.0.0.start").read_text()
    os.kill(int(start.split("pid=")[1].split()[0]), signal.SIGKILL)
    wait_until(lambda: fresh_status("x_1")["a"]["state"] == "FAILED")
    seen = fresh_status("x_1")["a"]
    assert (seen["exit_code"], seen["reason"]) == (None, "signal 9 (SIGKILL)")


def test_looking_while_the_driver_is_dead_starts_nothing(orphan, tmp_path):
    fresh_status("x_1")
    assert not Path(status(orphan)["b"]["local_dir"]).exists()


# Secrets.

CANARY = "canary-5f3a9c"


def test_a_secret_is_in_the_programs_environment_and_nowhere_else(nemorun_home, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOURCE", CANARY)
    (tmp_path / "token").write_text(CANARY + "\n")
    executor = LocalExecutor(env_vars={"TOKEN": Secret.from_env("SOURCE")})
    text = '[ "$TOKEN" = "$(cat token)" ] && [ "$FILE" = "$TOKEN" ] && touch right; '
    text += "while ! [ -e stop ]; do sleep 0.01; done"
    task = sh(text, env={"FILE": Secret.from_file(str(tmp_path / "token"))})
    with Experiment("x", executor=executor) as experiment:
        experiment.add(task, name="a")
        experiment.dryrun()
        experiment.run()
        wait_until((tmp_path / "right").exists)
        lines = command_lines()
        (tmp_path / "stop").touch()
    assert states(experiment) == {"a": "SUCCEEDED"}
    assert lines
    assert not [line for line in lines if CANARY.encode() in line]
    left = [path for path in nemorun_home.rglob("*") if path.is_file()]
    assert len(left) > 5
    assert not [path for path in left if CANARY.encode() in path.read_bytes()]
    assert CANARY not in repr(executor) + repr(task) + "".join(capfd.readouterr())


def command_lines():
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            found.append(path.read_bytes())
    return found


def test_a_secret_whose_source_is_missing_fails_the_job_and_names_it(monkeypatch):
    monkeypatch.delenv("ABSENT", raising=False)
    with Experiment("x", executor=LocalExecutor(), log_level="WARNING") as experiment:
        experiment.add(sh("exit 0", env={"TOKEN": Secret.from_env("ABSENT")}), name="a")
        experiment.run()
    assert states(experiment) == {"a": "FAILED"}
    assert "ABSENT" in status(experiment)["a"]["reason"]


def test_what_an_experiment_leaves_is_its_owners_alone(nemorun_home):
    with Experiment("x", executor=LocalExecutor(), log_level="WARNING") as experiment:
        experiment.add(sh("exit 0"), name="a")
        experiment.run()
    folder = Path(status(experiment)["a"]["local_dir"]).parent
    assert {path.stat().st_mode & 0o777 for path in [folder, *folder.rglob("*")] if path.is_dir()} == {0o700}
    ours = [folder / name for name in ("experiment.json", "journal.jsonl", "lock")]
    assert {path.stat().st_mode & 0o777 for path in ours} == {0o600}
