"""`dryrun(verify=True)` and `status` say what Slurm says: whether it would take a job, and when it would start."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from nemorun_slurm import SlurmExecutor
from nemorun_slurm.tunnel import LocalTunnel, SSHTunnel

import nemorun_core as run

from .slurm_cluster import Cluster, Wrapped, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(120)]


@pytest.fixture(autouse=True)
def surroundings(cluster: Cluster, monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("TZ", "America/New_York")


@pytest.fixture(params=["here", "ssh"])
def tunnel(request, cluster: Cluster, tmp_path: Path) -> LocalTunnel | SSHTunnel:
    if request.param == "here":
        return LocalTunnel()
    return SSHTunnel(host="mini", job_dir=str(tmp_path / "remote"), options=("-F", str(cluster.ssh_config)))


def verified(capsys: pytest.CaptureFixture[str], *executors: SlurmExecutor, edges: bool = False) -> list[str]:
    """Return what the dry run says of a job of each executor, and of all; each waits for the one before, if asked."""
    with run.Experiment("verified", log_level="ERROR") as experiment:
        for number, executor in enumerate(executors):
            upstream = [str(number - 1)] if edges and number else []
            experiment.add(run.Script(inline="true"), executor, name=str(number), dependencies=upstream)
        experiment.dryrun()
        shown = capsys.readouterr().out
        try:
            experiment.dryrun(verify=True)
            said = []
        except run.UsageError as error:
            said = [error.message]
    return capsys.readouterr().out.removeprefix(shown).splitlines() + said


STARTS = r"would start at 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ on [a-z]+\d"


def test_what_slurm_refuses_is_told_and_what_it_would_take_with_its_start(capsys, tunnel, cluster, nemorun_home):
    fine, *refused, last = verified(
        capsys,
        SlurmExecutor(tunnel=tunnel),
        SlurmExecutor(tunnel=tunnel, partition="nowhere"),
        SlurmExecutor(tunnel=tunnel, mem="999G"),
        SlurmExecutor(tunnel=tunnel, additional_parameters={"begin": "never"}),
    )
    assert re.fullmatch(f"Task 0: 0: {STARTS}", fine)
    assert refused == [
        "Task 1: 1: refused: invalid partition specified: nowhere; Invalid partition name specified",
        "Task 2: 2: refused: Requested node configuration is not available",
        "Task 3: 3: refused: Invalid --begin specification",
    ]
    assert last == "3 of 4 jobs would be refused: 1, 2, 3."
    assert not [path for path in nemorun_home.rglob("*") if path.is_file()]
    assert not isinstance(tunnel, SSHTunnel) or not Path(tunnel.job_dir).exists()
    assert not re.search(r"^[0-3]-", cluster.run("squeue", "--me", "-h", "-t", "all", "-o", "%j"), re.MULTILINE)


def test_an_hour_of_the_user_s_is_the_same_hour_when_verified(capsys, cluster):
    """`--begin` is read in this process's time zone, and the start is told in UTC."""
    [said] = verified(capsys, SlurmExecutor(additional_parameters={"begin": "2031-07-01T12:00"}))
    assert "2031-07-01T16:00:00Z" in said


def test_dependencies_are_taken_as_ended(capsys, cluster):
    first, second = verified(capsys, SlurmExecutor(), SlurmExecutor(), edges=True)
    assert re.fullmatch(f"Task 0: 0: {STARTS}", first)
    assert re.fullmatch(rf"Task 1: 1: {STARTS} \(when its dependencies have ended\)", second)


def test_a_group_that_asks_for_different_things_is_verified_as_one(capsys, cluster):
    with run.Experiment("verified", log_level="ERROR") as experiment:
        members = [SlurmExecutor(mem="100M"), SlurmExecutor(mem="999G")]
        experiment.add([run.Script(inline="true")] * 2, members, name="pair")
        with pytest.raises(run.UsageError, match="1 of 1"):
            experiment.dryrun(verify=True)
    assert "pair: refused: Requested node configuration is not available" in capsys.readouterr().out


def test_no_answer_is_no_refusal(cluster, tmp_path, monkeypatch):
    with cluster.unreachable(tmp_path) as conf, run.Experiment("verified", SlurmExecutor()) as experiment:
        monkeypatch.setenv("SLURM_CONF", str(conf))
        experiment.add(run.Script(inline="true"))
        with pytest.raises(run.TransientError, match="Unable to contact slurm"):
            experiment.dryrun(verify=True)


def test_a_limit_on_submissions_is_no_refusal(capsys, cluster, wrapped: Wrapped):
    wrapped.put("sbatch", "cat >/dev/null; echo 'allocation failure: Job violates accounting/QOS policy "
                "(job submit limit, user'\"'\"'s size and/or time limits)' >&2; exit 1")  # fmt: skip
    [said] = verified(capsys, SlurmExecutor())
    assert said.startswith("Task 0: 0: would wait: limit: Job violates accounting/QOS policy")


def test_an_account_and_a_qos_that_are_none_are_refused_where_the_site_enforces_them(
    capsys, own_cluster, tmp_path, monkeypatch
):
    extra = tmp_path / "extra.conf"
    extra.write_text("AccountingStorageEnforce=associations,limits,qos\n")
    strict = own_cluster("--nodes", "1", "--acct", "dbd", "--extra", str(extra))
    monkeypatch.setenv("SLURM_CONF", str(strict.conf))
    fine, account, qos, last = verified(
        capsys, SlurmExecutor(), SlurmExecutor(account="nobody"), SlurmExecutor(qos="nothing")
    )
    assert re.fullmatch(f"Task 0: 0: {STARTS}", fine)
    assert account == "Task 1: 1: refused: Invalid account or account/partition combination specified"
    assert qos == "Task 2: 2: refused: Invalid qos specification"
    assert last == "2 of 3 jobs would be refused: 1, 2."


def test_status_says_why_a_job_waits_and_when_slurm_expects_to_start_it(own_cluster, monkeypatch, capsys):
    """The whole of the only node is taken for a known time."""
    small = own_cluster("--nodes", "1", "--acct", "none")
    monkeypatch.setenv("SLURM_CONF", str(small.conf))
    whole = ("--exclusive", "--time=30", "--output=/dev/null")
    taker = small.run("sbatch", "--parsable", *whole, stdin="#!/bin/sh\nsleep 99\n").strip()
    wait_until(lambda: small.state(taker) == "RUNNING", "the other job")
    said = r"waiting: Resources \(what it asks for is not free\); expected to start at 20\d\d-\S+Z"
    with run.Experiment("waits", SlurmExecutor(time="5"), log_level="ERROR") as experiment:
        job = experiment.add(run.Script(inline="true"))
        experiment.run()

        def reason() -> str:
            return str((experiment.status(return_dict=True) or {})[job]["reason"])

        wait_until(lambda: re.fullmatch(said, reason()), f"the expected start (last seen: {reason()})")
        experiment.status()
        small.run("scancel", taker)
    assert re.search(rf"^- Reason: {said}$", capsys.readouterr().out, re.MULTILINE)
