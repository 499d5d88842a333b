"""The driver of a mixed graph, local, Docker and local again, is killed with SIGKILL at random instants."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import nemorun_core as run

from .conftest import HOST, IMAGE, clear, remains, wait_until

pytestmark = pytest.mark.docker

SECONDS = 90.0
MOST_A_HISTORY = 5
# Each program notes its start where only starts are noted, and writes a log whose bytes are known.
PROGRAM = """
echo "$NEMORUN_JOB $NEMORUN_MEMBER" >> "$STARTS"
for i in 1 2 3; do echo "line $i"; sleep 0.2; done
exit %d
"""
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
LOG = "line 1\nline 2\nline 3\n"


class History:
    """One experiment, brought to its end under kills."""

    def __init__(self, home: Path, dice: random.Random) -> None:
        self.home = home
        self.dice = dice
        self.kills = 0
        self.folder = home / "experiments" / "kills" / "kills"
        home.mkdir()

    def go(self, most: int) -> None:
        deadline = time.monotonic() + SECONDS
        while not self.ended():
            assert time.monotonic() < deadline, f"the graph came to no end: {self.states()}"
            launched, detached = self.launch()
            if self.kills < most:
                time.sleep(self.dice.uniform(0.1, 1.5))  # the instant is the experiment, nothing is waited for
                self.kills += self.kill(launched, detached)
            launched.wait(SECONDS)
            if self.kills >= most:
                self.until_nobody_drives(deadline)

    def launch(self) -> tuple[subprocess.Popen[bytes], bool]:
        detached = self.dice.random() < 0.4
        if (self.folder / "experiment.json").exists():
            how = "resume --detach" if detached else "resume"
        else:  # killed before it was run: the claim is left, and is nobody's
            how = "detach" if detached else "run"
            shutil.rmtree(self.home / "experiments", ignore_errors=True)
        environment = {**os.environ, "NEMORUN_HOME": str(self.home), "DOCKER_HOST": HOST, "KILLS_SECRET": "s"}
        arguments = [how, str(self.home / "starts"), PROGRAM, IMAGE]
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(DRIVER), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return process, detached

    def driver(self) -> int | None:
        """Return the pid of whoever drives by the record of the lock."""
        try:
            found = json.loads((self.folder / "lock").read_text())
        except (OSError, ValueError):
            return None
        return None if found["ended"] else int(found["pid"])

    def kill(self, launched: subprocess.Popen[bytes], detached: bool) -> bool:
        if not detached:
            launched.kill()
            return launched.wait(SECONDS) == -signal.SIGKILL
        launched.wait(SECONDS)
        if (pid := self.driver()) is None:
            return False
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def until_nobody_drives(self, deadline: float) -> None:
        while (pid := self.driver()) is not None and Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)

    def states(self) -> dict[str, str]:
        if not (self.folder / "journal.jsonl").exists():
            return {}
        found = run.Experiment.from_id("kills", base_dir=self.home).status(return_dict=True)
        return {name: str(job["state"]) for name, job in (found or {}).items()}

    def ended(self) -> bool:
        states = self.states()
        return bool(states) and all(run.State(state).is_final for state in states.values())

    def check(self, engine) -> None:
        nonce = json.loads((self.folder / "experiment.json").read_text())["nonce"]
        assert self.states() == EXPECTED
        status = run.Experiment.from_id("kills", base_dir=self.home).status(return_dict=True)
        assert status["bad"]["exit_code"] == 3
        assert sorted((self.home / "starts").read_text().splitlines()) == STARTS
        for name in ("first", "single", "pair", "bad", "mend", "last"):
            for log in Path(str(status[name]["local_dir"])).glob("0.0.*.out"):
                assert log.read_text() == LOG, log
        self.until_nobody_drives(time.monotonic() + SECONDS)
        if remains(engine, nonce):  # the last driver was killed before it removed them: the next one does
            process = self.resume()
            assert process.wait(SECONDS) in (0, 1, 2)
        try:
            wait_until(lambda: not remains(engine, nonce), "the removal of all containers and networks")
        finally:
            clear(engine, nonce)

    def resume(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "NEMORUN_HOME": str(self.home), "DOCKER_HOST": HOST, "KILLS_SECRET": "s"}
        text = "import nemorun_core as run\nrun.Experiment.from_id('kills').resume()"
        return subprocess.Popen(
            [sys.executable, "-c", text], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


def kill_until(tmp_path: Path, engine, total: int) -> None:
    seed = random.randrange(1 << 32)
    dice = random.Random(seed)
    done = histories = 0
    print(f"seed {seed}")
    while done < total:
        history = History(tmp_path / f"nemorun-home-{histories}", dice)
        history.go(min(MOST_A_HISTORY, total - done))
        history.check(engine)
        done += history.kills
        histories += 1
    print(f"{done} kills in {histories} histories: 0 lost, 0 doubled, 0 wrong")


@pytest.mark.timeout(300)
def test_twenty_kills_lose_double_and_falsify_nothing(tmp_path, engine, docker_host):
    kill_until(tmp_path, engine, 20)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_hundred_kills_lose_double_and_falsify_nothing(tmp_path, engine, docker_host):
    kill_until(tmp_path, engine, 100)
