"""An experiment's jobs are on one cluster, and another that answers is told from it by its name."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from nemorun_slurm.commands import LocalCommands
from nemorun_slurm.site import Site

from nemorun_core import TransientError, UsageError


@pytest.fixture
def answers(tmp_path: Path, monkeypatch) -> Path:
    """What scontrol prints; `<it>.asked` has a line for each time."""
    path = tmp_path / "answers"
    path.write_text("AccountingStorageType   = none\nClusterName             = alps\nConstrainRAMSpace       = yes\n")
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$*" >>{path}.asked\ncat {path}\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    return path


@pytest.fixture
def jobs(tmp_path: Path) -> list[SimpleNamespace]:
    """Two jobs of one experiment."""
    (tmp_path / "support").mkdir()
    return [SimpleNamespace(support=str(tmp_path / "support"))] * 2


def site(connection: str = "here", identity: str = "conf") -> Site:
    return Site(config, connection, lambda: identity)


def config(newer_than: float) -> str:
    return LocalCommands().run(["scontrol", "show", "config"]).out.decode()


def asked(answers: Path) -> list[str]:
    path = Path(f"{answers}.asked")
    return path.read_text().splitlines() if path.exists() else []


def test_jobs_that_went_nowhere_yet_are_nobodys_and_nobody_is_asked(answers, jobs):
    site().check(jobs)
    assert asked(answers) == []


def test_a_cluster_is_asked_for_its_name_once(answers, jobs):
    one = site()
    one.settle(jobs)
    for _ in range(3):
        one.check(jobs)
        one.settle(jobs)
    assert asked(answers) == ["show config"]


@pytest.mark.parametrize(
    ("storage", "accounts"),
    [
        ("none", "without"),
        ("(null)", "without"),
        ("accounting_storage/none", "without"),
        ("x/slurmdbd", "with"),
    ],
)
def test_the_doctor_is_told_which_cluster_answers(answers, storage, accounts):
    answers.write_text(f"AccountingStorageType = {storage}\nClusterName = alps\nSLURM_VERSION   = 22.05.8\n")
    assert site().described() == f"Slurm 22.05.8, cluster 'alps', {accounts} accounting"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("scontrol: fatal: Could not establish a configuration source", UsageError),
        ("slurm_load_ctl_conf error: Unable to contact slurm controller (connect failure)", TransientError),
    ],
)
def test_the_doctor_is_told_whether_no_cluster_is_set_up_or_it_does_not_answer(said, kind):
    def fails(newer_than):
        raise TransientError(f"scontrol failed with exit code 1: {said}")

    with pytest.raises(kind, match="scontrol failed"):
        Site(fails, "here", lambda: "conf").described()


def test_another_cluster_is_refused_and_both_are_named(answers, jobs):
    site().settle(jobs)
    site().check(jobs)
    answers.write_text("ClusterName = eiger\n")
    for act in (site().check, site().settle):
        with pytest.raises(TransientError, match="'alps', and 'eiger' answers here"):
            act(jobs)


def test_a_connection_that_leads_elsewhere_meanwhile_is_asked_again(answers, jobs):
    conf = ["conf"]
    one = Site(config, "here", lambda: conf[0])
    one.settle(jobs)
    answers.write_text("ClusterName = eiger\n")
    conf[0] = "other"
    with pytest.raises(TransientError, match="eiger"):
        one.check(jobs)
    conf[0] = "conf"
    one.check(jobs)


def test_each_connection_of_an_experiment_has_a_cluster_of_its_own(answers, jobs):
    site("here").settle(jobs)
    answers.write_text("ClusterName = eiger\n")
    site("there").settle(jobs)
    site("there").check(jobs)


def test_a_cluster_that_does_not_say_its_name_is_asked_again(answers, jobs):
    name = answers.read_text()
    answers.write_text("")
    one = site()
    with pytest.raises(TransientError, match="ClusterName"):
        one.settle(jobs)
    answers.write_text(name)
    one.settle(jobs)


def test_who_looks_takes_an_answer_of_before_and_who_submits_does_not(jobs):
    moments = []

    def noted(newer_than: float) -> str:
        moments.append(time.time() - newer_than)
        return "ClusterName = alps\n"

    for act in ("settle", "check", "settle"):
        getattr(Site(noted, "here", lambda: "conf"), act)(jobs)
    assert [round(age) for age in moments] == [0, 15, 0]


def test_a_record_that_cannot_be_read_is_no_leave_to_go_on(answers, jobs, tmp_path):
    site().settle(jobs)
    [record] = (tmp_path / "support").iterdir()
    record.unlink()
    record.mkdir()
    with pytest.raises(TransientError, match="cannot be read"):
        site().check(jobs)
