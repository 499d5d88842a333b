"""The detached driver from outside: followed, asked, killed, suspended and passed by."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from nemorun_core import Experiment, LocalExecutor, Script, StoreError, UsageError
from nemorun_core.engine import settle

SECONDS = 30.0


def wait_for(condition):
    deadline = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def driver_of(experiment: Experiment) -> int:
    job = next(iter(experiment.status(return_dict=True).values()))
    return int(json.loads((Path(str(job["local_dir"])).parent / "lock").read_text())["pid"])


def states(experiment: Experiment) -> dict[str, object]:
    return {name: job["state"] for name, job in experiment.status(return_dict=True).items()}


def nemorun(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nemorun_core._cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


def until(gate: Path) -> Script:
    return Script(inline=f"echo waiting; until [ -e '{gate}' ]; do sleep 0.02; done; echo done")


def test_ten_detached_jobs_outlive_their_terminal_and_their_supervisor(tmp_path):
    gate = tmp_path / "gate"
    launcher = tmp_path / "launch.py"
    launcher.write_text(
        textwrap.dedent(
            f"""
            import nemorun_core as run
            wait = "echo waiting; until [ -e '{gate}' ]; do sleep 0.02; done; echo done"
            with run.Experiment("ten", id="ten") as experiment:
                first = experiment.add(run.Script(inline="echo first"), name="first")
                for branch in "ab":
                    last = first
                    for number in range(4):
                        text = wait if number == 1 else "echo here"
                        name = f"{{branch}}{{number}}"
                        last = experiment.add(run.Script(inline=text), name=name, dependencies=[last])
                experiment.add(run.Script(inline="echo end"), name="end", dependencies=[run.after_any(last)])
                experiment.run(detach=True, tail_logs=True)
            """
        )
    )
    terminal, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, launcher], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as it:
        os.close(theirs)
        it.wait(SECONDS)
    os.close(terminal)
    experiment = Experiment.from_id("ten")
    wait_for(lambda: states(experiment)["a1"] == states(experiment)["b1"] == "RUNNING")
    assert "waiting" in nemorun("experiment", "logs", "ten", "b1").stdout
    assert nemorun("experiment", "cancel", "ten", "a1").returncode == 0
    wait_for(lambda: states(experiment)["a3"] == "SKIPPED")
    os.kill(driver_of(experiment), signal.SIGKILL)
    assert nemorun("experiment", "status", "ten").returncode == 0
    assert states(experiment)["b1"] == "RUNNING"
    gate.touch()
    assert nemorun("experiment", "resume", "ten").returncode == 1  # one branch was cancelled
    assert states(experiment) == {
        "first": "SUCCEEDED",
        **{"a0": "SUCCEEDED", "a1": "CANCELLED", "a2": "SKIPPED", "a3": "SKIPPED"},
        **{f"b{number}": "SUCCEEDED" for number in range(4)},
        "end": "SUCCEEDED",
    }


@pytest.fixture
def suspended(tmp_path):
    """Yield a detached experiment whose supervisor is stopped, and its pid; `next` waits for `job`."""
    with Experiment("suspended", LocalExecutor(grace_seconds=1), log_level="ERROR") as experiment:
        job = experiment.add(until(tmp_path / "gate"), name="job")
        experiment.add(Script(inline=f"echo >> '{tmp_path}/started'"), name="next", dependencies=[job])
        experiment.run(detach=True)
    wait_for(lambda: states(experiment)["job"] == "RUNNING")
    pid = driver_of(experiment)
    os.kill(pid, signal.SIGSTOP)
    yield experiment, pid
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: not Path(f"/proc/{pid}").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z")


def test_a_driver_that_does_not_answer_is_passed_by_at_the_backend(suspended):
    experiment, _ = suspended
    experiment.cancel("job")
    folder = Path(str(experiment.status(return_dict=True)["job"]["local_dir"]))
    assert "code=143" in (folder / "0.0.0.outcome").read_text()


def test_a_suspended_driver_is_refused_company_and_stops_when_it_was_overtaken(suspended, tmp_path):
    experiment, pid = suspended
    with pytest.raises(UsageError, match=f"driven by process {pid}"):
        experiment.resume()
    (tmp_path / "gate").touch()
    experiment.resume(take_over=True)
    assert states(experiment) == {"job": "SUCCEEDED", "next": "SUCCEEDED"}
    journal = Path(str(experiment.status(return_dict=True)["job"]["local_dir"])).parent / "journal.jsonl"
    before = journal.read_bytes()
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: not Path(f"/proc/{pid}").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z")
    assert journal.read_bytes() == before
    assert (tmp_path / "started").read_text() == "\n"


def test_of_two_racing_resumes_one_drives(tmp_path):
    gate = tmp_path / "gate"
    with Experiment("raced", id="raced", log_level="ERROR") as experiment:
        job = experiment.add(until(gate), name="job")
        experiment.add(Script(inline=f"echo >> '{tmp_path}/started'"), name="next", dependencies=[job])
        experiment.run(detach=True)
    wait_for(lambda: states(experiment)["job"] == "RUNNING")
    os.kill(driver_of(experiment), signal.SIGKILL)
    command = [sys.executable, "-m", "nemorun_core._cli", "experiment", "resume", "raced"]
    racing = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in "ab"]
    wait_for(lambda: any(process.poll() is not None for process in racing))
    gate.touch()
    said = {process.communicate(timeout=SECONDS)[1] for process in racing}
    assert sorted(process.returncode for process in racing) == [0, 2]
    assert any("is driven by process" in text for text in said)
    assert (tmp_path / "started").read_text() == "\n"


def test_in_a_folder_that_may_only_be_read_status_looks_at_the_jobs_and_writes_nothing(tmp_path, monkeypatch):
    gate = tmp_path / "gate"
    with Experiment("read") as experiment:
        experiment.add(until(gate), name="waits")
        experiment.add(Script(inline="echo next"), name="next", dependencies=["waits"])
        experiment.run(detach=True)
    wait_for(lambda: states(experiment)["waits"] == "RUNNING")
    os.kill(driver_of(experiment), signal.SIGKILL)
    folder = Path(str(experiment.status(return_dict=True)["waits"]["local_dir"])).parent

    def refused(self, take_over=False):
        raise StoreError("read-only")

    monkeypatch.setattr(settle.Lock, "acquire", refused)
    before = (folder / "journal.jsonl").read_bytes()
    assert states(Experiment.from_id(experiment.id)) == {"waits": "RUNNING", "next": "UNSUBMITTED"}
    gate.touch()
    wait_for(lambda: states(Experiment.from_id(experiment.id))["waits"] == "SUCCEEDED")
    assert (folder / "journal.jsonl").read_bytes() == before


def test_a_look_without_a_driver_starts_nothing_that_could_start(tmp_path):
    gate, other, started = tmp_path / "gate", tmp_path / "other", tmp_path / "started"
    with Experiment("looked", log_level="ERROR") as experiment:
        experiment.add(until(other), name="other")
        experiment.add(until(gate), name="waits")
        experiment.add(Script(inline=f"touch '{started}'"), name="next", dependencies=["waits"])
        experiment.run(detach=True)
    wait_for(lambda: set(states(experiment).values()) == {"RUNNING", "UNSUBMITTED"})
    os.kill(driver_of(experiment), signal.SIGKILL)
    gate.touch()
    wait_for(lambda: states(Experiment.from_id(experiment.id))["waits"] == "SUCCEEDED")
    seen = states(Experiment.from_id(experiment.id))
    assert seen == {"other": "RUNNING", "waits": "SUCCEEDED", "next": "UNSUBMITTED"}
    assert not started.exists()
    other.touch()
    experiment.resume()
    assert states(experiment) == {"other": "SUCCEEDED", "waits": "SUCCEEDED", "next": "SUCCEEDED"}
