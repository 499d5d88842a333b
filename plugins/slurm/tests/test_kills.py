"""The driver of a graph on a real cluster is killed with SIGKILL at random instants: 0 lost, 0 doubled, 0 wrong."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from nemorun_devkit.kills import LOG, PROGRAM, KilledDrivers, kill_until

import nemorun_core as run

from .slurm_cluster import Cluster, wait_until

pytestmark = pytest.mark.slurm

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
        for number in range(10):  # without the secret, and so one array
            task = run.Script(inline=program % (number % 2), env={"STARTS": starts})
            experiment.add(task, name=f"equal{number}")
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
    **{f"equal{number}": "FAILED" if number % 2 else "SUCCEEDED" for number in range(10)},
}
STARTS = ["bad 0", *(f"equal{number} 0" for number in range(10)), "last 0", "mend 0", "pair 0", "pair 1", "single 0"]


class Killed(KilledDrivers):
    """The graph on a cluster, here or through ssh."""

    def __init__(self, home: Path, cluster: Cluster, dice: random.Random, *, ssh: bool) -> None:
        self.cluster = cluster
        self.ssh = ssh
        ssh_config = str(cluster.ssh_config) if ssh else ""
        super().__init__(home, dice, DRIVER, [str(home / "starts"), PROGRAM, ssh_config, str(home / "remote")])

    def check(self) -> None:
        status = self.status()
        assert self.states() == EXPECTED, status
        assert (status["bad"]["exit_code"], status["equal1"]["exit_code"]) == (3, 1)
        assert list(self.folder.glob("batches/*.json")), "the equal jobs went out one by one"
        wait_until(lambda: not self.cluster.run("squeue", "-h", "--me", "-n", ",".join(self.names())), "the last job")
        assert sorted((self.home / "starts").read_text().splitlines()) == STARTS
        for name, state in EXPECTED.items():
            logs = [log.read_text() for log in Path(str(status[name]["local_dir"])).glob("0.0.*.out")]
            assert logs == ([] if state == "SKIPPED" else [LOG] * STARTS_OF[name]), (name, logs)
        place = (self.home / "remote" if self.ssh else Path.home() / ".nemorun") / "secrets"
        assert list(place.iterdir()) == [], "a secret outlived its job"

    def names(self) -> list[str]:
        arrays = [path.stem for path in self.folder.glob("batches/*.json")]
        return [*arrays, *(run.Key(self.nonce(), name, 0).slug(128) for name in EXPECTED)]


STARTS_OF = {name: sum(start.split()[0] == name for start in STARTS) for name in EXPECTED}


def kill_on(cluster: Cluster, tmp_path: Path, total: int, *, ssh: bool = False) -> None:
    kill_until(total, lambda number, dice: Killed(tmp_path / f"nemorun-home-{number}", cluster, dice, ssh=ssh))


@pytest.fixture(autouse=True)
def surroundings(cluster, monkeypatch, tmp_path):
    """What drivers have, and this process, which settles states where it finds no driver."""
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("KILLS_SECRET", "s")


@pytest.mark.timeout(300)
def test_twenty_kills_lose_double_and_falsify_nothing(tmp_path, cluster):
    kill_on(cluster, tmp_path, 20)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("ssh", [False, True], ids=["here", "ssh"])
def test_a_hundred_kills_lose_double_and_falsify_nothing(tmp_path, cluster, ssh):
    kill_on(cluster, tmp_path, 100, ssh=ssh)
