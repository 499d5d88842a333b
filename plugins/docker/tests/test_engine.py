"""Engines that are killed, restarted and cut off while jobs run. Each restarted one is this file's own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from nemorun_devkit.kit import Kit
from nemorun_docker import DockerExecutor

import nemorun_core as run
from nemorun_core import Experiment, Script, State, TransientError

from .conftest import SMALL, Between, clear, remains, wait_until

pytestmark = pytest.mark.docker

CLUSTER = Path(__file__).parents[3] / "tests" / "clusters" / "docker"


class OwnEngine:
    """An engine without networks, in a folder of its own."""

    def __init__(self, folder: str, *, live: bool) -> None:
        self._folder = folder
        names = {
            "DOCKER_TEST_DIR": folder,
            "DOCKER_TEST_NET": "none",
            "DOCKER_TEST_IMAGES": "bb",
            "DOCKER_TEST_FAKE_GPU": "1",
        }
        self._environment = {**os.environ, **names, "DOCKER_TEST_LIVE": "1" if live else "0"}
        self.host = f"unix://{folder}/docker.sock"

    def up(self) -> None:
        done = subprocess.run([str(CLUSTER / "up")], env=self._environment, capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, done.stderr

    def end(self, number: int) -> None:
        """Send the daemon a signal, and wait until it is gone."""
        pid = int(Path(self._folder, "run", "dockerd.pid").read_text())
        os.kill(pid, number)
        wait_until(lambda: not _runs(pid), "the end of the engine")

    def down(self) -> None:
        subprocess.run([str(CLUSTER / "down"), "--purge"], env=self._environment, capture_output=True, timeout=90)


def _runs(pid: int) -> bool:
    """Whether any thread of a process runs: its sockets are closed by the last one."""
    try:
        states = [stat.read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:
        return False
    return any(state not in ("Z", "X") for state in states)


@pytest.fixture
def own(request: pytest.FixtureRequest, engine: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnEngine]:
    if not (CLUSTER / "up").exists() or os.geteuid() != 0:
        pytest.skip("needs the checkout's tests/clusters/docker, and root, to start an engine of its own")
    folder = tempfile.mkdtemp(prefix="nemorun-own-")  # short: a socket's path has 107 characters
    made = OwnEngine(folder, live=request.param)
    try:
        made.up()
        monkeypatch.setenv("DOCKER_HOST", made.host)
        yield made
    finally:
        made.down()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    """Drive the engine that DOCKER_HOST names."""
    shared = tmp_path / "shared"
    shared.mkdir()
    executor = DockerExecutor(
        container_image=SMALL, network="none", volumes=[f"{shared}:{shared}"], pull="never", grace_seconds=2.0
    )
    kit = Kit(executor, tmp_path, shared, 30.0)
    yield kit
    kit.close()


def is_silent(kit: Kit, handle: str) -> bool:
    try:
        kit.poll(handle)
    except TransientError:
        return True
    return False


@pytest.mark.parametrize("own", [True], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_job_goes_on_where_containers_outlive_their_engine(own, kit, number):
    job = kit.make(f"echo up; {kit.gate()}; echo down; exit 7")
    handle = kit.take(job)
    kit.shows(handle)
    own.end(number)
    wait_until(lambda: is_silent(kit, handle), "the engine's silence")  # its sockets close a moment after its end
    own.up()
    assert kit.poll(handle).members[0].state is State.RUNNING
    kit.open_gate()
    assert kit.member(handle).exit_code == 7
    assert kit.log(handle) == b"up\ndown\n"
    assert kit.member(kit.adopt(job)).exit_code == 7


@pytest.mark.parametrize("own", [True], indirect=True)
def test_a_job_that_ends_while_its_engine_is_gone_has_ended_as_it_did(own, kit):
    job = kit.make(f"echo up; {kit.gate()}; touch over; exit 7", cwd=kit.shared)
    handle = kit.take(job)
    kit.shows(handle)
    own.end(signal.SIGKILL)
    kit.open_gate()
    kit.until((kit.shared / "over").exists, "the end")
    own.up()
    assert kit.member(handle).exit_code == 7


@pytest.mark.parametrize("own", [False], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_engine_that_takes_its_containers_along_is_told_as_it_was(own, kit, number):
    """One that was killed stops them when it is back; one that is stopped does before."""
    job = kit.make("echo up; sleep 60")
    handle = kit.take(job)
    kit.shows(handle)
    ended = kit.take(kit.make("echo words; exit 3"))
    kit.end(ended)
    own.end(number)
    own.up()
    member = kit.member(handle)
    assert (member.state, member.exit_code, member.signals) == (State.FAILED, 143, ("TERM",))
    assert kit.log(handle) == b"up\n"
    assert kit.member(kit.adopt(job)).exit_code == 143
    assert kit.log(handle) == b"up\n"


@pytest.mark.parametrize("own", [False], indirect=True)
def test_gpus_are_given_as_they_were_asked_for(own, kit):
    """By an engine whose hook for GPUs takes its orders and gives no device."""
    for fields, wanted in (
        ({"gpus": "all"}, b"all"),
        ({"num_gpus": 2}, b"0,1"),
        ({"gpus": [0, 3]}, b"0,3"),
        ({"gpus": None}, b"none"),
    ):
        handle = kit.start("echo ${NVIDIA_VISIBLE_DEVICES:-none}", executor=kit.options(**fields))
        kit.end(handle)
        assert kit.log(handle) == wanted + b"\n"


def test_an_engine_whose_socket_is_cut_every_second_loses_nothing(between: Between, engine, tmp_path):
    """Two waves of jobs, the ends of the first and all of the second between cuts."""
    executor = DockerExecutor(container_image=SMALL, pull="never", volumes=[f"{tmp_path}:{tmp_path}"])
    over = threading.Event()
    cuts = 0

    def cut() -> None:
        nonlocal cuts
        while not over.wait(1.0):
            between.cut()
            cuts += 1

    cutting = threading.Thread(target=cut)
    with Experiment("cut", executor=executor, log_level="ERROR") as experiment:
        for number in range(8):
            text = f"echo {number} >>{tmp_path}/runs; sleep 2; echo line; exit {number % 2}"
            after = [run.after_any(f"j{number - 4}")] if number > 3 else []
            experiment.add(Script(inline=text, entrypoint="sh"), name=f"j{number}", dependencies=after)
        cutting.start()
        try:
            experiment.run()
            experiment.wait(90)
        finally:
            over.set()
            cutting.join()
    status = experiment.status(return_dict=True)
    assert {name: (job["state"], job["exit_code"]) for name, job in status.items()} == {
        f"j{number}": ("FAILED", 1) if number % 2 else ("SUCCEEDED", 0) for number in range(8)
    }
    assert sorted((tmp_path / "runs").read_text().split()) == [str(number) for number in range(8)]
    for job in status.values():
        assert (Path(str(job["local_dir"])) / "0.0.0.out").read_text() == "line\n"
    assert cuts >= 5
    assert sum("/events?" in request for request in between.requests) >= 5  # the cuts were felt
    nonce = _nonce(experiment)
    try:
        assert remains(engine, nonce) == []
    finally:
        clear(engine, nonce)


def _nonce(experiment: Experiment) -> str:
    import json

    folder = Path(str(next(iter(experiment.status(return_dict=True).values()))["local_dir"])).parent
    return str(json.loads((folder / "experiment.json").read_text())["nonce"])
