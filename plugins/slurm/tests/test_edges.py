"""Graphs whose edges Slurm keeps: they go on when no process of ours is left, and end as the driver would have it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from nemorun_slurm import SlurmExecutor

import nemorun_core as run

from .slurm_cluster import Cluster, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def surroundings(cluster, monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))


def states(experiment: run.Experiment) -> dict[str, str]:
    return {name: str(job["state"]) for name, job in (experiment.status(return_dict=True) or {}).items()}


def graph(tmp_path: Path) -> run.Experiment:
    """Return a graph of which one branch runs to its end and the other fails, behind a job that waits for `go`."""
    gate = f"n=0; while ! [ -e '{tmp_path}/go' ] && [ $n -lt 600 ]; do n=$((n+1)); sleep 0.1; done"
    experiment = run.Experiment("graph", SlurmExecutor(partition="main"), log_level="ERROR")
    with experiment:
        for name, text, edges in [
            ("first", gate, []),
            ("train", "exit 0", ["first"]),
            ("test", f"touch '{tmp_path}/tested'", ["train"]),
            ("bad", "exit 3", ["first"]),
            ("never", f"touch '{tmp_path}/never'", ["bad"]),
            ("behind", f"touch '{tmp_path}/never'", ["never"]),
            ("clean", f"touch '{tmp_path}/cleaned'", [run.after_any("bad"), "test"]),
        ]:
            experiment.add(run.Script(inline=text), name=name, dependencies=edges)
        experiment.run(detach=True)
    return experiment


def queued(cluster: Cluster, experiment: run.Experiment) -> list[str]:
    """Return the numbers of the experiment's own jobs that Slurm holds; other tests have theirs there."""
    definition = experiment._session.definition
    names = ",".join(definition.key(job.id, 0).slug(128) for job in definition.jobs)
    return cluster.run("squeue", "--me", "-h", "-o", "%A", f"--name={names}").split()


ENDED = {
    "first": "SUCCEEDED",
    "train": "SUCCEEDED",
    "test": "SUCCEEDED",
    "bad": "FAILED",
    "never": "SKIPPED",
    "behind": "SKIPPED",
    "clean": "SUCCEEDED",
}


def test_a_graph_goes_on_when_its_driver_is_killed(cluster, tmp_path):
    experiment = graph(tmp_path)
    wait_until(lambda: list(states(experiment).values()) == ["RUNNING"] + ["PENDING"] * 6, "all jobs on the cluster")
    wait_until(lambda: len(queued(cluster, experiment)) == 7, "all jobs in the queue")
    driver = experiment._session.driver()
    os.kill(driver["pid"], signal.SIGKILL)
    (tmp_path / "go").touch()
    wait_until((tmp_path / "cleaned").exists, "the last job, which nobody of ours has started")
    wait_until(lambda: not queued(cluster, experiment), "an empty queue")
    wait_until(lambda: states(experiment) == ENDED, f"the truth of all ends ({states(experiment)})")
    assert not (tmp_path / "never").exists()


def test_a_graph_ends_the_same_with_its_driver_and_leaves_nothing_in_the_queue(cluster, tmp_path):
    (tmp_path / "go").touch()
    experiment = graph(tmp_path)
    experiment.wait()
    assert states(experiment) == ENDED
    assert not (tmp_path / "never").exists()
    wait_until(lambda: not queued(cluster, experiment), "an empty queue")


def test_a_job_that_waits_for_another_is_cancelled_where_it_is(cluster, tmp_path):
    experiment = graph(tmp_path)
    wait_until(lambda: states(experiment)["first"] == "RUNNING", "the start")
    experiment.cancel("train")
    wait_until(lambda: states(experiment)["train"] == "CANCELLED", "the end of what waited")
    assert states(experiment)["first"] == "RUNNING"
    (tmp_path / "go").touch()
    experiment.wait()
    assert states(experiment) == {**ENDED, "train": "CANCELLED", "test": "SKIPPED", "clean": "SKIPPED"}
