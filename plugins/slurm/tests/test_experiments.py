"""Experiments on a real cluster as users write them: bundles, outputs, logs, groups, several ranks, functions."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from nemorun_git import PatternPackager
from nemorun_slurm import SlurmExecutor
from nemorun_slurm.tunnel import SSHTunnel

import nemorun_core as run

from .slurm_cluster import Cluster, connections, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def surroundings(cluster, monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """The `job_dir` of `through_ssh`."""
    return tmp_path / "remote"


@pytest.fixture
def through_ssh(cluster: Cluster, remote: Path):
    """Return an executor of the cluster with nothing shared but a shell."""

    def make(pre_command: str = "", **fields: object) -> SlurmExecutor:
        options = ("-F", str(cluster.ssh_config))
        tunnel = SSHTunnel(host="mini", job_dir=str(remote), options=options, pre_command=pre_command)
        return SlurmExecutor(partition="main", tunnel=tunnel, **fields)

    return make


@pytest.fixture
def project(tmp_path: Path, monkeypatch) -> Path:
    """A folder to launch from, with a program that no node would find there."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.sh").write_text("pwd; mkdir result; echo weights >result/model.txt; echo no >result/other\n")
    (folder / "mathematics.py").write_text("def double(x):\n    print(2 * x)\n")
    monkeypatch.chdir(folder)
    return folder


def statuses(experiment: run.Experiment) -> dict[str, str]:
    return {name: str(job["state"]) for name, job in (experiment.status(return_dict=True) or {}).items()}


def log_of(experiment: run.Experiment, job: str, name: str = "0.0.0.out") -> str:
    status = experiment.status(return_dict=True) or {}
    return Path(str(status[job]["local_dir"]), name).read_text()


def test_a_bundle_travels_once_and_outputs_come_back(project, through_ssh, remote, tmp_path):
    executor = through_ssh(
        packager=PatternPackager(include_pattern="*", relative_path=str(project)), outputs=["result/*.txt"]
    )
    with run.Experiment("ssh", executor, log_level="ERROR") as experiment:
        experiment.add(run.Script("train.sh"), name="a")
        experiment.run(check=True)
    experiment.sync("a", to=tmp_path / "brought")
    assert [path.name for path in (tmp_path / "brought").rglob("*") if path.is_file()] == ["model.txt"]
    bundles = [path for path in (remote / "bundles").iterdir() if path.is_dir()]
    assert len(bundles) == 1
    assert log_of(experiment, "a") == f"{bundles[0]}\n"


def test_a_function_of_the_bundle_runs_there(project, through_ssh):
    executor = through_ssh(
        packager=PatternPackager(include_pattern="*", relative_path=str(project)), python=sys.executable
    )
    sys.path.insert(0, str(project))
    try:
        mathematics = importlib.import_module("mathematics")

        with run.Experiment("ssh", executor, log_level="ERROR") as experiment:
            experiment.add(run.Partial(mathematics.double, x=21), name="a")
            experiment.run(check=True)
    finally:
        sys.path.remove(str(project))
        del sys.modules["mathematics"]
    assert log_of(experiment, "a") == "42\n"


def test_logs_of_all_ranks_come_into_the_jobs_folder(through_ssh):
    with run.Experiment("ssh", through_ssh(nodes=2, ntasks_per_node=2), log_level="ERROR") as experiment:
        experiment.add(run.Script(inline='echo "$NEMORUN_RANK of node $NEMORUN_NODE_RANK"'), name="a")
        experiment.run(check=True)
    assert [log_of(experiment, "a", f"0.0.0.out{suffix}") for suffix in ("", ".1", ".2", ".3")] == [
        f"{rank} of node {rank // 2}\n" for rank in range(4)
    ]


def test_the_log_of_a_job_whose_name_has_blanks_comes(through_ssh):
    with run.Experiment("ssh", through_ssh(), log_level="ERROR") as experiment:
        experiment.add(run.Script(inline="echo hello"), name="two words.outcome")
        experiment.run(check=True)
    assert log_of(experiment, "two words.outcome") == "hello\n"


def test_what_a_job_prints_while_it_is_looked_at_is_not_lost(through_ssh, wrapped, tmp_path):
    """It ends right after the sizes of its streams were asked for."""
    looked = tmp_path / "looked"
    wrapped.put("stat", f'real "$@"; code=$?; [ -e {tmp_path}/armed ] && touch {looked} && sleep 1; exit $code')
    executor = through_ssh(pre_command=f"PATH={tmp_path}/wrapped:$PATH")
    text = f"touch {tmp_path}/armed; while ! [ -e {looked} ]; do sleep 0.02; done; echo late"
    with run.Experiment("ssh", executor, log_level="ERROR") as experiment:
        experiment.add(run.Script(inline=text), name="a")
        experiment.run(check=True)
    assert log_of(experiment, "a") == "late\n"


def test_a_launcher_whose_network_drops_loses_nothing(cluster, through_ssh, remote, tmp_path):
    """Every connection breaks while the job runs; the next one reads on where the last one was."""
    gate = tmp_path / "gate"
    text = f"echo up; while ! [ -e {gate} ]; do sleep 0.05; done; seq 1000; exit 3"
    with run.Experiment("ssh", through_ssh(), log_level="ERROR") as experiment:
        experiment.add(run.Script(inline=text), name="a")
        experiment.run()
        wait_until(lambda: _folder(remote) and "up" in _read(_folder(remote) / "0.0.0.out"), "the start")
        for pid in connections(cluster.ssh_config):
            os.kill(pid, signal.SIGKILL)
        gate.touch()
    assert statuses(experiment) == {"a": "FAILED"}
    assert log_of(experiment, "a") == "up\n" + "".join(f"{number}\n" for number in range(1, 1001))


def _folder(remote: Path) -> Path | None:
    return next((path.parent for path in remote.glob("*/a/0.0.0.out")), None)


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_a_dry_run_shows_what_is_submitted_and_creates_nothing(through_ssh, remote, cluster, capsys):
    with run.Experiment("dry", through_ssh(), log_level="ERROR") as experiment:
        experiment.add(run.Script(inline="true"), name="only-shown")
        experiment.dryrun()
    assert "#SBATCH --job-name=only-shown-" in capsys.readouterr().out
    assert not remote.exists()
    assert "only-shown" not in cluster.run("squeue", "--me", "-h", "-t", "all", "-o", "%j")


def test_what_sbatch_cannot_read_is_refused_through_ssh_as_well(through_ssh):
    """It exits with 255, as ssh does where there is no connection."""
    with run.Experiment("unreadable", through_ssh(), log_level="ERROR") as experiment:
        job = experiment.add(run.Script(inline="true"), through_ssh(additional_parameters={"begin": "never"}))
        experiment.run()
        assert not experiment.wait(60)
    assert (experiment.status(return_dict=True) or {})[job]["reason"] == "rejected: Invalid --begin specification"


def test_many_watchers_of_one_cluster_ask_it_once(cluster, tmp_path):
    """Twenty processes that look at the same moment share one answer of squeue, by sdiag(1)."""
    job = cluster.run("sbatch", "--parsable", "-o", "/dev/null", stdin="#!/bin/sh\nexec sleep 60\n").strip()
    text = """
import time
from nemorun_slurm.commands import LocalCommands
from nemorun_slurm.queue import Queue
queue = Queue(LocalCommands(), lambda: "watchers")
print(len(queue.jobs(time.time() - 60).rows("sbatch")))
"""
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    before = cluster.queries()
    watchers = [
        subprocess.Popen([sys.executable, "-c", text], env=environment, stdout=subprocess.PIPE) for _ in range(20)
    ]
    seen = [int(watcher.communicate(timeout=60)[0]) for watcher in watchers]
    cluster.run("scancel", job)
    assert min(seen) >= 1
    assert len(set(seen)) == 1
    assert cluster.queries() - before < 20, "each asked for itself; other tests may have asked meanwhile"
