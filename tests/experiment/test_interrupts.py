"""Ctrl-C once and twice, an exception in the block, a terminal that closes."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nemorun_core import Experiment
from tests.experiment.helpers import start, states, status, wait_for

LAUNCHER = """
    import sys
    with run.Experiment("interrupted", run.LocalExecutor(grace_seconds=GRACE), id="it") as experiment:
        first = experiment.add(run.Script(inline=TEXT), name="first")
        experiment.add(run.Script(inline="true"), name="second", dependencies=[first])
        experiment.run()
        BODY
"""
POLITE = "touch ready; exec sleep 300"
STUBBORN = "trap '' TERM; touch ready; sleep 300; sleep 300"


def launcher(text: str = POLITE, *, grace: float = 5, body: str = "pass") -> str:
    return LAUNCHER.replace("GRACE", str(grace)).replace("TEXT", repr(text)).replace("BODY", body)


def pid_of(job: str) -> int:
    """Return the pid of the job's shim, which leads its session."""
    folder = Path(str(status(Experiment.from_id("it"))[job]["local_dir"]))
    words = (folder / "0.0.0.start").read_text().split()
    return int(next(word for word in words if word.startswith("pid=")).removeprefix("pid="))


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def ready(folder: Path) -> None:
    wait_for((folder / "ready").exists, "the job runs")
    wait_for(lambda: states(Experiment.from_id("it"))["first"] == "RUNNING", "the job is seen to run")


def test_an_interrupt_cancels_gracefully_and_says_how_to_go_on(tmp_path):
    with start(tmp_path, launcher()) as process:
        ready(tmp_path)
        pid = pid_of("first")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert err.endswith("KeyboardInterrupt\n")
    assert "cancelling 2 jobs on this machine" in out
    assert "Ctrl-C again" in out
    found = status(Experiment.from_id("it"))
    assert {name: (job["state"], job["reason"]) for name, job in found.items()} == {
        "first": ("CANCELLED", "interrupt"),
        "second": ("CANCELLED", "interrupt"),
    }
    assert not runs(pid)


def test_an_interrupt_waits_for_a_program_that_ends_by_itself(tmp_path):
    text = "trap 'echo cleaned up; exit 0' TERM; touch ready; while :; do sleep 0.01; done"
    with start(tmp_path, launcher(text)) as process:
        ready(tmp_path)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    job = status(Experiment.from_id("it"))["first"]
    assert (job["state"], job["exit_code"]) == ("CANCELLED", 0)
    assert (Path(str(job["local_dir"])) / "0.0.0.out").read_text().endswith("cleaned up\n")


def test_a_second_interrupt_leaves_at_once(tmp_path):
    with start(tmp_path, launcher(STUBBORN, grace=300)) as process:
        ready(tmp_path)
        pid = pid_of("first")
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        wait_for(lambda: process.stdout.readline().startswith("Interrupted"))  # type: ignore[union-attr]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    wait_for(lambda: not runs(pid), "the stubborn program is killed")
    assert states(Experiment.from_id("it")) == {"first": "CANCELLED", "second": "CANCELLED"}


def test_an_interrupt_inside_the_block_is_handled_like_one_at_its_end(tmp_path):
    with start(tmp_path, launcher(body="experiment.wait()")) as process:
        ready(tmp_path)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert states(Experiment.from_id("it")) == {"first": "CANCELLED", "second": "CANCELLED"}


def test_an_exception_in_the_block_cancels_and_is_raised(tmp_path):
    body = "\n        ".join(["import os", "while not os.path.exists('ready'): pass", "raise LookupError('mine')"])
    with start(tmp_path, launcher(body=body)) as process:
        out, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err.endswith("LookupError: mine\n")
    assert "cancelling" in out
    assert states(Experiment.from_id("it")) == {"first": "CANCELLED", "second": "CANCELLED"}


def test_an_exception_before_run_leaves_nothing(nemorun_home):
    with pytest.raises(LookupError), Experiment("broken") as experiment:  # noqa: PT012 - leaving the block is the act
        experiment.id  # noqa: B018 - claims the id
        raise LookupError
    assert Experiment.catalog() == []


def test_a_job_that_has_ended_before_the_exception_keeps_its_state(capsys):
    with pytest.raises(LookupError), Experiment("late") as experiment:  # noqa: PT012 - leaving the block is the act
        experiment.add(__import__("nemorun_core").Script(inline="true"), name="job")
        experiment.run()
        experiment.wait()
        raise LookupError
    assert states(experiment) == {"job": "SUCCEEDED"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_launcher_that_is_ended_leaves_its_jobs_running_and_the_truth_on_disk(tmp_path, number):
    text = "touch ready; until [ -e go ]; do sleep 0.01; done; exit 5"
    with start(tmp_path, launcher(text)) as process:
        ready(tmp_path)
        process.send_signal(number)
        process.communicate(timeout=20)
    assert states(Experiment.from_id("it")) == {"first": "RUNNING", "second": "UNSUBMITTED"}
    (tmp_path / "go").touch()
    wait_for(lambda: states(Experiment.from_id("it")) == {"first": "FAILED", "second": "SKIPPED"})
    assert status(Experiment.from_id("it"))["first"]["reason"] == "exit code 5"


def test_work_without_a_driver_is_said_with_how_to_go_on(tmp_path, capsys):
    with start(tmp_path, launcher("touch ready; until [ -e go ]; do sleep 0.01; done")) as process:
        ready(tmp_path)
        process.kill()
        process.communicate(timeout=20)
    (tmp_path / "go").touch()
    wait_for(lambda: states(Experiment.from_id("it"))["first"] == "SUCCEEDED")
    Experiment.from_id("it").status()
    assert "nemorun experiment resume it" in capsys.readouterr().out


def test_a_terminal_that_closes_leaves_the_jobs_and_the_truth(tmp_path):
    """The launcher is the leader of a session on a terminal of its own; closing the terminal hangs it up."""
    script = tmp_path / "launch.py"
    text = "touch ready; until [ -e go ]; do sleep 0.01; done; echo finished"
    script.write_text("import nemorun_core as run\n" + __import__("textwrap").dedent(launcher(text)))
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", TERMINAL, str(script)],
        cwd=tmp_path,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        ready(tmp_path)
    finally:
        os.close(terminal)
    process.wait(20)
    assert states(Experiment.from_id("it"))["first"] == "RUNNING"
    (tmp_path / "go").touch()
    wait_for(lambda: states(Experiment.from_id("it"))["first"] == "SUCCEEDED")
    job = status(Experiment.from_id("it"))["first"]
    assert (Path(str(job["local_dir"])) / "0.0.0.out").read_text() == "finished\n"


TERMINAL = """
import fcntl, runpy, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
runpy.run_path(sys.argv[1], run_name="__main__")
"""
