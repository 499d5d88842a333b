"""Nobody answers for a while, or somebody else does: nothing is concluded, nothing is lost, and people hear of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from nemorun_slurm import SlurmExecutor
from nemorun_slurm.tunnel import SSHTunnel

import nemorun_core as run
from nemorun_core import TransientError
from nemorun_core.engine.loop import read_view

from .slurm_cluster import Cluster, connections, fails, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]


@pytest.fixture(autouse=True)
def surroundings(cluster, monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))


def gated(folder: Path, text: str) -> run.Script:
    """Return a task that says "up" in its log, waits until there is `<folder>/go`, and goes on so."""
    return run.Script(
        inline=f"echo up; n=0; until [ -e '{folder}/go' ] || [ $n -gt 6000 ]; do n=$((n+1)); sleep 0.05; done; {text}"
    )


def statuses(experiment: run.Experiment) -> dict[str, str]:
    return {name: str(job["state"]) for name, job in (experiment.status(return_dict=True) or {}).items()}


def reason(experiment: run.Experiment, job: str) -> str:
    return str((experiment.status(return_dict=True) or {})[job]["reason"])


def log(experiment: run.Experiment, job: str) -> Path:
    return Path(str((experiment.status(return_dict=True) or {})[job]["local_dir"]), "0.0.0.out")


def warnings(experiment: run.Experiment) -> list[str]:
    """Return what people were told, in order."""
    return read_view(experiment._session.definition, experiment._session.folder).warnings


def count(experiment: run.Experiment, event: str) -> int:
    """Return how many events of a kind the journal has."""
    journal = Path(experiment._session.folder.journal)
    return journal.read_text().count(f'"event":"{event}"') if journal.exists() else 0


def end_driver(experiment: run.Experiment) -> None:
    os.kill(experiment._session.driver()["pid"], signal.SIGKILL)
    wait_until(lambda: experiment._session.driver() is None, "the end of the driver")


class TestMunge:
    def test_who_cannot_say_who_he_is_concludes_nothing(self, cluster, kit_on, tmp_path, monkeypatch):
        """munged is gone on the login node alone."""
        kit = kit_on(cluster, partition="main")
        handle = kit.start(f"echo up; {kit.gate()}; exit 7")
        kit.shows(handle)
        other = kit.make("exit 0")
        with cluster.with_setting(tmp_path, "AuthInfo", f"socket={tmp_path}/none") as conf:
            monkeypatch.setenv("SLURM_CONF", str(conf))
            for ask in (
                lambda: kit.poll(handle),
                lambda: kit.backend.cancel([handle]),
                lambda: kit.find(other),
                lambda: kit.answer(other),
            ):
                with pytest.raises(TransientError, match="authentication"):
                    ask()
        monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
        assert kit.find(other) == {}
        kit.open_gate()
        assert kit.member(handle).exit_code == 7

    def test_a_job_that_ends_while_munged_is_down_is_told_afterwards(self, own_cluster, kit_on):
        cluster = own_cluster("--nodes", "1", "--acct", "none")
        kit = kit_on(cluster)
        handle = kit.start(f"echo up; {kit.gate()}; exit 7")
        kit.shows(handle)
        cluster.stop("munged")
        kit.open_gate()
        kit.until(lambda: fails(lambda: kit.poll(handle), "authentication"), "a failed question")
        cluster.start_munged()
        assert kit.member(handle).exit_code == 7


@pytest.fixture
def two_clusters(own_cluster) -> tuple[Cluster, Cluster]:
    """Two clusters that count their jobs from 1, both of which this user may use."""
    return own_cluster("--nodes", "1", "--acct", "none"), own_cluster("--nodes", "1", "--acct", "none")


def submit_stranger(cluster: Cluster) -> str:
    return cluster.run("sbatch", "--parsable", "-o", "/dev/null", stdin="#!/bin/sh\nexec sleep 120\n").strip()


class TestTwoClusters:
    def test_a_job_of_the_same_number_on_another_cluster_is_not_taken_for_ours(self, two_clusters, kit_on, monkeypatch):
        ours, theirs = two_clusters
        kit = kit_on(ours)
        job, other = kit.make(f"echo up; {kit.gate()}; exit 4"), kit.make("exit 0")
        handle = kit.take(job)
        kit.shows(handle)
        stranger = submit_stranger(theirs)
        wait_until(lambda: theirs.state(stranger) == "RUNNING", "the other job")
        assert [stranger] == ours.ids(handle)
        monkeypatch.setenv("SLURM_CONF", str(theirs.conf))
        for ask in (
            lambda: kit.poll(handle),
            lambda: kit.backend.cancel([handle]),
            lambda: kit.backend.kill([handle]),
            lambda: kit.find(other),
            lambda: kit.answer(other),
        ):
            with pytest.raises(TransientError, match=ours.setting("ClusterName")):
                ask()
        assert theirs.state(stranger) == "RUNNING"
        monkeypatch.setenv("SLURM_CONF", str(ours.conf))
        assert kit.adopt(job) == handle
        kit.open_gate()
        assert kit.member(handle).exit_code == 4

    def test_a_user_who_switches_clusters_loses_nothing_and_is_told(self, two_clusters, tmp_path, monkeypatch):
        """Nor is anything tried again there, though whoever does not know our job asks for it to be."""
        ours, theirs = two_clusters
        monkeypatch.setenv("SLURM_CONF", str(ours.conf))
        executor = SlurmExecutor(lost_after_seconds=0.1, retries=1, retry_on={"lost"})
        with run.Experiment("switched", executor, log_level="ERROR") as experiment:
            experiment.add(gated(tmp_path, "exit 3"), name="a")
            experiment.run(detach=True)
        wait_until(lambda: statuses(experiment) == {"a": "RUNNING"}, "the start")
        stranger = submit_stranger(theirs)
        wait_until(lambda: theirs.state(stranger) == "RUNNING", "the other job")
        end_driver(experiment)
        monkeypatch.setenv("SLURM_CONF", str(theirs.conf))
        experiment.resume(detach=True)
        wait_until(lambda: warnings(experiment), "the warning")
        experiment.cancel("a")
        name = ours.setting("ClusterName")
        assert name in warnings(experiment)[0]
        assert statuses(experiment) == {"a": "RUNNING"}
        end_driver(experiment)
        assert theirs.run("squeue", "--me", "-h", "-o", "%A").split() == [stranger]
        monkeypatch.setenv("SLURM_CONF", str(ours.conf))
        wait_until(lambda: statuses(experiment) == {"a": "CANCELLED"}, "the cancel, which was asked for")
        assert theirs.state(stranger) == "RUNNING"


class TestSlurmctldThatCannotBeReached:
    @pytest.fixture
    def link(self, cluster, tmp_path, monkeypatch):
        """Return what says whether slurmctld is to be reached from here. It is not at first."""
        conf = tmp_path / "slurm.conf"
        monkeypatch.setenv("SLURM_CONF", str(conf))

        def put(*, up: bool) -> None:
            with cluster.unreachable(tmp_path) as broken:
                new = tmp_path / "new.conf"
                new.write_text((cluster.conf if up else broken).read_text())
                new.replace(conf)

        put(up=False)
        return put

    def test_what_is_submitted_meanwhile_waits_says_why_and_can_be_cancelled(self, link):
        with run.Experiment("unreached", SlurmExecutor(partition="main"), log_level="ERROR") as experiment:
            experiment.add(run.Script(inline="exit 3"), name="a")
            experiment.add(run.Script(inline="exit 3"), name="b")
            experiment.run()
            wait_until(lambda: warnings(experiment), "the warning")
            wait_until(lambda: statuses(experiment)["a"] == "PENDING", "the reason")
            assert reason(experiment, "a").startswith("waiting: SlurmExecutor does not answer, and is asked again: ")
            experiment.cancel("b")
            wait_until(lambda: statuses(experiment)["b"] == "CANCELLED", "the cancel of what nobody has taken")
            link(up=True)
        assert statuses(experiment) == {"a": "FAILED", "b": "CANCELLED"}
        assert ["slurm controller" in text for text in warnings(experiment)] == [True]

    def test_what_may_have_been_taken_is_cancelled_when_somebody_can_say(self, link, cluster, wrapped, tmp_path):
        """sbatch got no answer, and neither does who looks for the job."""
        link(up=True)
        lost = 'real "$@" >/dev/null; echo "sbatch: error: Socket timed out on send/recv operation" >&2; exit 1'
        wrapped.put("sbatch", f"touch '{tmp_path}/tried'; {lost}")
        wrapped.put("squeue", f"[ ! -e '{tmp_path}/tried' ] || {{ echo down >&2; exit 1; }}; real \"$@\"")
        with run.Experiment("doubted", SlurmExecutor(partition="main"), log_level="ERROR") as experiment:
            experiment.add(gated(tmp_path, "exit 3"), name="a")
            experiment.run()
            wait_until(lambda: warnings(experiment), "the warning")
            experiment.cancel("a")
            wait_until(lambda: count(experiment, "asked"), "the request")
            assert statuses(experiment) == {"a": "PENDING"}
            wrapped.drop(["squeue", "sbatch"])
        assert statuses(experiment) == {"a": "CANCELLED"}
        assert count(experiment, "submitted") == 1

    def test_jobs_that_end_while_slurmctld_is_down_are_told_afterwards(self, own_cluster, tmp_path, monkeypatch):
        outage(own_cluster, tmp_path, monkeypatch, {"a": 0}, seconds=0.0)

    @pytest.mark.nightly
    def test_jobs_that_end_in_minutes_without_slurmctld_are_told_afterwards(self, own_cluster, tmp_path, monkeypatch):
        outage(own_cluster, tmp_path, monkeypatch, {"a": 0, "b": 3}, seconds=150.0)


def outage(own_cluster, tmp_path: Path, monkeypatch, codes: Mapping[str, int], seconds: float) -> None:
    """Stop slurmctld for longer than it takes to be warned of, and for so many seconds, while jobs run and end."""
    (tmp_path / "extra.conf").write_text("MessageTimeout=2\n")
    cluster = own_cluster("--nodes", "1", "--acct", "none", "--extra", str(tmp_path / "extra.conf"))
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    with run.Experiment("outage", SlurmExecutor(), log_level="ERROR") as experiment:
        for name, code in codes.items():
            experiment.add(gated(tmp_path, f"echo down; exit {code}"), name=name)
        experiment.run()
        wait_until(lambda: set(statuses(experiment).values()) == {"RUNNING"}, "the start")
        cluster.stop("slurmctld")
        (tmp_path / "go").touch()
        for name in codes:
            wait_until(lambda name=name: log(experiment, name).read_text() == "up\ndown\n", f"the end of {name}")
        wait_until(lambda: warnings(experiment), "the warning")
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began >= seconds, "the end of the outage", seconds + 10)
        assert set(statuses(experiment).values()) == {"RUNNING"}
        cluster.start_slurmctld()
    assert statuses(experiment) == {name: "FAILED" if code else "SUCCEEDED" for name, code in codes.items()}
    assert len(warnings(experiment)) == 1
    assert count(experiment, "submitted") == len(codes)


def test_a_job_that_slurmctld_forgot_is_lost_and_tried_again_where_that_is_wanted(own_cluster, tmp_path, monkeypatch):
    """It is killed before it has written down what it took, and gives the number to somebody else."""
    cluster = own_cluster("--nodes", "1", "--acct", "none")
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    forget = cluster.loses_memory()
    later = {"begin": "now+1hour"}
    wanted = SlurmExecutor(lost_after_seconds=1.0, retries=1, retry_on={"lost"}, additional_parameters=later)
    with run.Experiment("forgotten", wanted, log_level="ERROR") as experiment:
        experiment.add(run.Script(inline="exit 3"), name="again")
        experiment.add(
            run.Script(inline="exit 3"),
            name="lost",
            executor=SlurmExecutor(lost_after_seconds=1.0, additional_parameters=later),
        )
        experiment.run()
        wait_until(lambda: count(experiment, "submitted") == 2, "the submissions")
        ours = sorted(cluster.run("squeue", "--me", "-h", "-o", "%A").split())
        forget()
        theirs = sorted(submit_stranger(cluster) for _ in ours)
        wait_until(lambda: {cluster.state(number) for number in theirs} == {"RUNNING"}, "the other jobs")
        assert theirs == ours
        wait_until(lambda: statuses(experiment)["lost"] == "LOST", "the loss")
        wait_until(lambda: count(experiment, "submitted") == 3, "the second attempt")
        [again] = set(cluster.run("squeue", "--me", "-h", "-o", "%A").split()) - set(theirs)
        cluster.run("scontrol", "update", f"JobId={again}", "StartTime=now")
    assert statuses(experiment) == {"again": "FAILED", "lost": "LOST"}
    assert [cluster.state(number) for number in theirs] == ["RUNNING"] * 2


class TestNetworkThatDrops:
    """Connections to the login node break while a job prints, and for a while no new one comes about."""

    def test_nothing_is_lost_of_what_a_job_printed_meanwhile(self, cluster, tmp_path):
        self.drop(cluster, tmp_path, failures=3, seconds=0.0)

    @pytest.mark.nightly
    def test_nothing_is_lost_in_minutes(self, cluster, tmp_path):
        self.drop(cluster, tmp_path, failures=3, seconds=180.0)

    def drop(self, cluster: Cluster, tmp_path: Path, failures: int, seconds: float) -> None:
        down, config = tmp_path / "down", tmp_path / "config"
        tried = f"test -e '{down}' && echo >>'{tmp_path}/tried'"
        config.write_text(f'Match originalhost mini exec "{tried}"\n  Port 9\n{cluster.ssh_config.read_text()}')
        tunnel = SSHTunnel(host="mini", job_dir=str(tmp_path / "remote"), options=("-F", str(config)))
        text = (
            "n=0; until [ -e go ] || [ $n -gt 12000 ]; do n=$((n+1)); echo $n; echo $n >last; sleep 0.02; done; exit 3"
        )
        with run.Experiment("dropped", SlurmExecutor(partition="main", tunnel=tunnel), log_level="ERROR") as experiment:
            experiment.add(run.Script(inline=f"cd {tmp_path}; {text}"), name="a")
            experiment.run()
            wait_until(
                lambda: log(experiment, "a").exists() and log(experiment, "a").read_text(), "the start of the log"
            )
            down.touch()
            for pid in connections(config):
                os.kill(pid, signal.SIGKILL)
            began = time.monotonic()
            wait_until(lambda: len(lines(tmp_path / "tried")) >= failures, "the failures", 60)
            wait_until(lambda: time.monotonic() - began >= seconds, "the end of the outage", seconds + 10)
            (tmp_path / "go").touch()
            down.unlink()
        last = int((tmp_path / "last").read_text())
        assert statuses(experiment) == {"a": "FAILED"}
        assert log(experiment, "a").read_text() == "".join(f"{number}\n" for number in range(1, last + 1))
        assert len(warnings(experiment)) == 1


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
