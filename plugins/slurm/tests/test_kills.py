"""The driver of a graph on a real cluster is killed with SIGKILL at random instants: 0 lost, 0 doubled, 0 wrong."""

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

from .slurm_cluster import Cluster, wait_until

pytestmark = pytest.mark.slurm

SECONDS = 120.0
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

how, starts, program, ssh_config, job_dir = sys.argv[1:]
if how in ("run", "detach"):
    tunnel = run.SlurmExecutor().tunnel
    if ssh_config:
        from nemorun_slurm.tunnel import SSHTunnel
        tunnel = SSHTunnel(host="mini", job_dir=job_dir, options=("-F", ssh_config))
    slurm = run.SlurmExecutor(partition="main", tunnel=tunnel)
    secret = run.Secret.from_env("KILLS_SECRET")
    with run.Experiment("kills", slurm, id="kills", log_level="ERROR") as experiment:
        def add(name, code=0, members=1, **more):
            env = {"STARTS": starts, "TOKEN": secret}
            tasks = [run.Script(inline=program % code, env=env) for _ in range(members)]
            return experiment.add(tasks if members > 1 else tasks[0], name=name, **more)

        single = add("single")
        pair = add("pair", members=2)
        bad = add("bad", code=3)
        add("never", dependencies=[bad])
        add("mend", dependencies=[run.after_failure(bad)])
        add("last", dependencies=[single, pair])
        experiment.run(detach=how == "detach")
else:
    run.Experiment.from_id("kills").resume(detach=how == "resume --detach")
"""
EXPECTED = {
    "single": "SUCCEEDED",
    "pair": "SUCCEEDED",
    "bad": "FAILED",
    "never": "SKIPPED",
    "mend": "SUCCEEDED",
    "last": "SUCCEEDED",
}
STARTS = ["bad 0", "last 0", "mend 0", "pair 0", "pair 1", "single 0"]
LOG = "line 1\nline 2\nline 3\n"


class History:
    """One experiment, brought to its end under kills."""

    def __init__(self, home: Path, cluster: Cluster, dice: random.Random, *, ssh: bool) -> None:
        self.home = home
        self.cluster = cluster
        self.dice = dice
        self.ssh = ssh
        self.kills = 0
        self.folder = home / "experiments" / "kills" / "kills"
        home.mkdir()

    def go(self, most: int) -> None:
        deadline = time.monotonic() + SECONDS
        while not self.ended():
            assert time.monotonic() < deadline, f"the graph came to no end: {self.states()}"
            launched, detached = self.launch()
            if self.kills < most:
                time.sleep(self.dice.uniform(0.1, 2.0))  # the instant is the experiment, nothing is waited for
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
        environment = {**os.environ, "NEMORUN_HOME": str(self.home)}
        ssh_config = str(self.cluster.ssh_config) if self.ssh else ""
        arguments = [how, str(self.home / "starts"), PROGRAM, ssh_config, str(self.home / "remote")]
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
        return {name: str(job["state"]) for name, job in self.status().items()}

    def status(self) -> dict[str, dict[str, object]]:
        if not (self.folder / "journal.jsonl").exists():
            return {}
        return dict(run.Experiment.from_id("kills", base_dir=self.home).status(return_dict=True) or {})

    def ended(self) -> bool:
        states = self.states()
        return bool(states) and all(run.State(state).is_final for state in states.values())

    def check(self) -> None:
        status = self.status()
        assert self.states() == EXPECTED, status
        assert status["bad"]["exit_code"] == 3
        wait_until(lambda: not self.cluster.run("squeue", "-h", "--me", "-n", ",".join(self.names())), "the last job")
        assert sorted((self.home / "starts").read_text().splitlines()) == STARTS
        for name, state in EXPECTED.items():
            logs = [log.read_text() for log in Path(str(status[name]["local_dir"])).glob("0.0.*.out")]
            assert logs == ([] if state == "SKIPPED" else [LOG] * STARTS_OF[name]), (name, logs)
        place = (self.home / "remote" if self.ssh else Path.home() / ".nemorun") / "secrets"
        assert list(place.iterdir()) == [], "a secret outlived its job"

    def names(self) -> list[str]:
        nonce = json.loads((self.folder / "experiment.json").read_text())["nonce"]
        return [run.Key(nonce, name, 0).slug(128) for name in EXPECTED]


STARTS_OF = {name: sum(start.split()[0] == name for start in STARTS) for name in EXPECTED}


def kill_until(tmp_path: Path, cluster: Cluster, total: int, *, ssh: bool = False) -> None:
    seed = random.randrange(1 << 32)
    dice = random.Random(seed)
    done = histories = 0
    print(f"seed {seed}")
    while done < total:
        history = History(tmp_path / f"nemorun-home-{histories}", cluster, dice, ssh=ssh)
        history.go(min(MOST_A_HISTORY, total - done))
        history.check()
        done += history.kills
        histories += 1
    print(f"{done} kills in {histories} histories: 0 lost, 0 doubled, 0 wrong")


@pytest.fixture(autouse=True)
def surroundings(cluster, monkeypatch, tmp_path):
    """What drivers have, and this process, which settles states where it finds no driver."""
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("KILLS_SECRET", "s")


@pytest.mark.timeout(300)
def test_twenty_kills_lose_double_and_falsify_nothing(tmp_path, cluster):
    kill_until(tmp_path, cluster, 20)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("ssh", [False, True], ids=["here", "ssh"])
def test_a_hundred_kills_lose_double_and_falsify_nothing(tmp_path, cluster, ssh):
    kill_until(tmp_path, cluster, 100, ssh=ssh)
