"""The driver of a mixed graph, local, Docker and local again, is killed with SIGKILL at random instants."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from nemorun_devkit.kills import LOG, PROGRAM, KilledDrivers, kill_until
from nemorun_docker.client import Engine

from .conftest import HOST, IMAGE, clear, remains, wait_until

pytestmark = pytest.mark.docker

DRIVER = """
import sys
import nemorun_core as run

how, starts, program, image = sys.argv[1:]
if how in ("run", "detach"):
    folder = starts.rpartition("/")[0]
    docker = run.DockerExecutor(container_image=image, pull="never", volumes=[f"{folder}:{folder}"])
    local = run.LocalExecutor()
    secret = run.Secret.from_env("KILLS_SECRET")
    with run.Experiment("kills", id="kills", log_level="ERROR") as experiment:
        def add(name, executor, code=0, members=1, **more):
            env = {"STARTS": starts, "TOKEN": secret}
            tasks = [run.Script(inline=program % code, env=env) for _ in range(members)]
            return experiment.add(tasks if members > 1 else tasks[0], name=name, executor=executor, **more)

        first = add("first", local)
        single = add("single", docker, dependencies=[first])
        pair = add("pair", docker, members=2, dependencies=[first])
        bad = add("bad", docker, code=3, dependencies=[first])
        add("never", docker, dependencies=[bad])
        add("mend", local, dependencies=[run.after_failure(bad)])
        add("last", local, dependencies=[single, pair])
        experiment.run(detach=how == "detach")
else:
    run.Experiment.from_id("kills").resume(detach=how == "resume --detach")
"""
EXPECTED = {
    "first": "SUCCEEDED",
    "single": "SUCCEEDED",
    "pair": "SUCCEEDED",
    "bad": "FAILED",
    "never": "SKIPPED",
    "mend": "SUCCEEDED",
    "last": "SUCCEEDED",
}
STARTS = ["bad 0", "first 0", "last 0", "mend 0", "pair 0", "pair 1", "single 0"]


class Killed(KilledDrivers):
    """The mixed graph on an engine."""

    def __init__(self, home: Path, engine: Engine, dice: random.Random) -> None:
        self.engine = engine
        environment = {"DOCKER_HOST": HOST, "KILLS_SECRET": "s"}
        arguments = [str(home / "starts"), PROGRAM, IMAGE]
        super().__init__(home, dice, DRIVER, arguments, environment=environment, latest_seconds=1.5, seconds=90.0)

    def check(self) -> None:
        status = self.status()
        assert self.states() == EXPECTED
        assert status["bad"]["exit_code"] == 3
        assert sorted((self.home / "starts").read_text().splitlines()) == STARTS
        for name in ("first", "single", "pair", "bad", "mend", "last"):
            for log in Path(str(status[name]["local_dir"])).glob("0.0.*.out"):
                assert log.read_text() == LOG, log
        self.until_nobody_drives()
        if remains(self.engine, self.nonce()):  # the last driver was killed before it removed them: the next one does
            assert self.start("resume").wait(90.0) in (0, 1, 2)
        try:
            wait_until(lambda: not remains(self.engine, self.nonce()), "the removal of all containers and networks")
        finally:
            clear(self.engine, self.nonce())


def kill_on(engine: Engine, tmp_path: Path, total: int) -> None:
    kill_until(total, lambda number, dice: Killed(tmp_path / f"nemorun-home-{number}", engine, dice))


@pytest.mark.timeout(300)
def test_twenty_kills_lose_double_and_falsify_nothing(tmp_path, engine, docker_host):
    kill_on(engine, tmp_path, 20)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_hundred_kills_lose_double_and_falsify_nothing(tmp_path, engine, docker_host):
    kill_on(engine, tmp_path, 100)
