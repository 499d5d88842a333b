"""What is said of jobs stays true while Slurm breaks: daemons that are gone, memory that is lost, nodes that die."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from nemorun_core import UNKNOWN, ReasonKind, State, Submission, TransientError, base_path, read_rank

from .slurm_cluster import Cluster, fails, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]


@pytest.fixture
def short_memory(own_cluster, tmp_path: Path) -> Callable[..., Cluster]:
    """Start a cluster that forgets a job two seconds after its end."""
    extra = tmp_path / "extra.conf"
    extra.write_text("MinJobAge=2\n")

    return lambda *options: own_cluster("--nodes", "2", "--extra", str(extra), *options)


def forgotten(cluster: Cluster, handle: str) -> None:
    """Wait until slurmctld knows a job no more."""
    wait_until(lambda: not cluster.ids(handle), f"the end of slurmctld's memory of {handle}")


def kill_shim(job: Submission) -> None:
    """Kill the shim of a job of one rank with its program, so that it leaves no outcome."""
    witness = read_rank(base_path(job.folder, 0, 0, 0), "")
    assert witness.start is not None
    os.killpg(os.getpgid(witness.start.pid), signal.SIGKILL)


class TestWithoutAccounting:
    def test_ends_are_told_though_slurmctld_forgot_them(self, short_memory, kit_on):
        cluster = short_memory("--acct", "none")
        kit = kit_on(cluster)
        jobs = {code: kit.make(f"exit {code}") for code in (0, 7)}
        handles = {code: kit.take(job) for code, job in jobs.items()}
        for handle in handles.values():
            forgotten(cluster, handle)
        assert [kit.member(handle).exit_code for handle in handles.values()] == [0, 7]
        kit.reopen()
        assert [kit.member(kit.find(job)[job.key]).exit_code for job in jobs.values()] == [0, 7]

    def test_a_job_that_was_killed_and_forgotten_is_unknown_and_no_guess(self, short_memory, kit_on):
        """Nobody is left who saw its end; the engine says LOST when that has lasted."""
        cluster = short_memory("--acct", "none")
        kit = kit_on(cluster)
        job = kit.make("echo up; sleep 60")
        handle = kit.take(job)
        kit.shows(handle)
        kill_shim(job)
        forgotten(cluster, handle)
        kit.until(lambda: kit.poll(handle) == UNKNOWN, "UNKNOWN")

    def test_a_job_that_slurm_cancelled_is_cancelled(self, own_cluster, kit_on):
        cluster = own_cluster("--nodes", "2", "--acct", "none")
        kit = kit_on(cluster)
        handle = kit.start("sleep 60")
        cluster.run("scancel", *cluster.ids(handle))
        assert kit.member(handle).state is State.CANCELLED


class TestAccountingThatStops:
    def test_nothing_is_concluded_while_slurmdbd_is_down_and_the_truth_is_told_when_it_is_back(
        self, short_memory, kit_on
    ):
        cluster = short_memory("--acct", "dbd")
        kit = kit_on(cluster)
        job = kit.make("echo up; sleep 60")
        gone, good = kit.take(job), kit.start(f"echo up; {kit.gate()}; exit 7")
        for handle in (gone, good):
            kit.shows(handle)
        kit.until(lambda: kit.poll(gone).members[0].state is State.RUNNING, "RUNNING")
        cluster.stop("slurmdbd")
        kill_shim(job)
        kit.open_gate()
        for handle in (gone, good):
            forgotten(cluster, handle)
        assert kit.member(good).exit_code == 7
        for _ in range(5):
            assert not kit.poll(gone).is_over
            assert kit.poll(gone) != UNKNOWN
        cluster.start_slurmdbd()
        assert (kit.member(gone).state, kit.member(gone).exit_code) == (State.FAILED, None)


class TestSlurmctldThatLosesItsMemory:
    def test_an_id_that_was_given_out_again_is_not_taken_for_ours(self, own_cluster, kit_on):
        """slurmctld is killed before it has written down what it took: the next job gets the same number."""
        cluster = own_cluster("--nodes", "1", "--acct", "none")
        kit = kit_on(cluster)
        forget = cluster.loses_memory()
        job = kit.make("sleep 60", executor=kit.options(nodelist="n1", additional_parameters={"begin": "now+1hour"}))
        handle = kit.take(job)
        [ours] = cluster.ids(handle)
        forget()
        theirs = cluster.run("sbatch", "--parsable", "-o", "/dev/null", stdin="#!/bin/sh\nexec sleep 120\n").strip()
        assert theirs == ours
        wait_until(lambda: cluster.state(theirs) == "RUNNING", "the other job")
        assert kit.poll(handle) == UNKNOWN
        kit.backend.cancel([handle])
        kit.backend.kill([handle])
        assert cluster.state(theirs) == "RUNNING"
        assert kit.adopt(job) == handle
        assert kit.poll(handle) == UNKNOWN
        cluster.run("scancel", theirs)

    def test_a_program_that_runs_on_is_not_ended_nor_started_again(self, own_cluster, kit_on):
        """slurmctld forgot a job that has started already. It may hold it afterwards, or not know it."""
        cluster = own_cluster("--nodes", "1", "--acct", "none")
        kit = kit_on(cluster)
        forget = cluster.loses_memory()
        job = kit.make(f"echo ran >>runs; echo up; {kit.gate()}; exit 4", cwd=kit.shared)
        handle = kit.take(job)
        kit.shows(handle)
        forget()
        for _ in range(3):
            assert not kit.poll(handle).is_over
        kit.take(job)
        kit.open_gate()
        kit.until(lambda: b"code=4" in Path(job.folder, "0.0.0.outcome").read_bytes(), "the end of the program")
        assert kit.lines("runs") == ["ran"]
        for waiting in cluster.ids(handle):
            cluster.run("scancel", waiting)
        assert kit.member(handle).exit_code == 4


@pytest.mark.nightly
class TestSlurmctldThatIsDown:
    def test_a_job_that_ended_meanwhile_is_told_afterwards(self, own_cluster, kit_on):
        cluster = own_cluster("--nodes", "1", "--acct", "none")
        kit = kit_on(cluster)
        handle = kit.start(f"echo up; {kit.gate()}; exit 7")
        kit.shows(handle)
        cluster.stop("slurmctld")
        kit.open_gate()
        kit.until(
            lambda: fails(lambda: kit.poll(handle), "slurm controller"),
            "a failed question: answers of a moment ago are shared",
        )
        cluster.start_slurmctld()
        assert kit.member(handle).exit_code == 7


@pytest.mark.nightly
class TestNodesThatDie:
    def test_a_job_whose_node_died_fails_for_it(self, own_cluster, kit_on):
        cluster = own_cluster("--nodes", "1", "--acct", "none", "--uts")
        kit = kit_on(cluster, requeue=False)
        handle = kit.start("echo up; sleep 100")
        kit.shows(handle)
        cluster.node("n1", "crash")
        member = kit.member(handle)
        assert (member.state, member.exit_code) == (State.FAILED, None)
        assert member.reason.kind is ReasonKind.NODE_FAILURE

    def test_a_job_that_may_start_again_does_so_on_another_node(self, own_cluster, kit_on):
        cluster = own_cluster("--nodes", "2", "--acct", "none", "--uts")
        kit = kit_on(cluster, requeue=True)
        handle = kit.start(f"echo ran >>{kit.shared}/runs; echo up; {kit.gate()}; exit 4")
        kit.shows(handle)
        host = kit.poll(handle).members[0].host
        cluster.node(host, "crash")
        kit.until(lambda: kit.lines("runs") == ["ran", "ran"], "the second start")
        kit.open_gate()
        seen = kit.end(handle)
        assert (seen.incarnation, seen.members[0].exit_code) == (1, 4)
        assert seen.members[0].host != host
        assert [kit.backend.read_log(handle, 0, "out", 0, 100, number) for number in (0, 1)] == [b"up\n"] * 2

    def test_a_program_that_outlives_its_node_for_slurm_decides_nothing(self, own_cluster, kit_on):
        """slurmd alone is gone: Slurm takes the node for dead, and starts the job again while the first one runs on."""
        cluster = own_cluster("--nodes", "2", "--acct", "none", "--uts")
        kit = kit_on(cluster, requeue=True)
        gates = f'[ "$NEMORUN_ATTEMPT" = 1 ] || {{ {kit.gate("first")}; exit 0; }}; {kit.gate("second")}; exit 4'
        job = kit.make(f"echo up $NEMORUN_ATTEMPT; {gates}")
        handle = kit.take(job)
        kit.shows(handle, b"up 0\n")
        host = kit.poll(handle).members[0].host
        cluster.stop(f"slurmd-{host}", signal.SIGKILL)
        kit.until(lambda: kit.poll(handle).incarnation == 1, "the second start")
        kit.shows(handle, b"up 1\n")
        kit.open_gate("first")
        kit.until(lambda: b"code=0" in Path(job.folder, "0.0.0.outcome").read_bytes(), "the end of the first")
        assert not kit.poll(handle).is_over
        kit.open_gate("second")
        seen = kit.end(handle)
        assert (seen.incarnation, seen.members[0].exit_code) == (1, 4)


@pytest.mark.nightly
def test_a_job_over_slurms_own_limit_fails_with_that_reason(cluster, kit_on):
    kit = kit_on(cluster, time="1")
    kit.seconds = 150.0
    member = kit.run("echo up; sleep 200")
    assert member.state is State.FAILED
    assert member.reason.kind is ReasonKind.TIMEOUT


def test_a_job_without_memory_left_fails_with_that_reason(cluster, kit_on):
    if cluster.setting("TaskPlugin") != "task/cgroup":
        pytest.skip("the cluster watches no memory: tests/clusters/slurm/up --cgroup")
    kit = kit_on(cluster, partition="main", mem="30M")
    member = kit.run(("python3", "-c", "x = bytearray(300 * 1024 * 1024)"))
    assert member.state is State.FAILED
    assert member.reason.kind is ReasonKind.OUT_OF_MEMORY


def test_a_submission_that_slurm_takes_late_is_taken_back(cluster, kit_on):
    """Its claim is taken, so that it would run nothing; but it would wait for nodes."""
    kit = kit_on(cluster, partition="main")
    job = kit.make(f"echo up; {kit.gate()}; exit 4")
    handle = kit.take(job)
    kit.shows(handle)
    script = kit.backend.render(job)[0].text
    [late] = cluster.run("sbatch", "--parsable", "--begin=now+1hour", stdin=script).split()
    kit.until(lambda: not kit.poll(handle).is_over and cluster.state(late) == "CANCELLED", "the end of the duplicate")
    kit.open_gate()
    assert kit.member(handle).exit_code == 4


def test_a_script_that_slurm_does_not_hand_out_makes_no_stranger_of_our_job(cluster, kit_on, wrapped):
    """Our answer got lost, and so does the next one: the job is in doubt, and neither foreign nor missing."""
    kit = kit_on(cluster, partition="main")
    job = kit.make("exit 4")
    wrapped.put("sbatch", 'real "$@" >/dev/null; echo "sbatch: error: Socket timed out on send/recv" >&2; exit 1')
    with pytest.raises(TransientError):
        kit.answer(job)
    wrapped.drop(["sbatch"])
    kit.until(lambda: Path(job.folder, "0.0.0.start").exists(), "the start")
    Path(job.folder, "0.0.0.start").unlink()  # as on a file system that does not show it yet
    wrapped.put("scontrol", 'echo "job script retrieval failed: Socket timed out on send/recv operation" >&2')
    for _ in range(2):
        with pytest.raises(TransientError, match="Socket timed out"):
            kit.find(job)
    wrapped.drop(["scontrol"])
    assert job.key in kit.find(job)


def test_every_process_of_a_cancelled_job_ends(cluster, kit_on):
    kit = kit_on(cluster, partition="main", grace_seconds=0.5)
    deaf = "trap '' TERM; sh -c 'trap \"\" TERM; sleep 60' & setsid sleep 60 & echo up; wait"
    handle = kit.start(deaf)
    kit.shows(handle)
    assert kit.processes()
    kit.backend.cancel([handle])
    kit.end(handle)
    kit.until(lambda: not kit.processes(), "the end of every process")


def test_a_heterogeneous_group_is_ended_as_one(cluster, kit_on):
    kit = kit_on(cluster, partition="main", heterogeneous=True)
    handle = kit.start("echo up; sleep 60", "echo up; sleep 60")
    for member in range(2):
        kit.shows(handle, member=member)
    kit.backend.cancel([handle])
    # Without cgroups a program and its shim get the signal each, and the shim's may come after the end.
    assert [member.exit_code for member in kit.end(handle).members] == [143] * 2


def test_a_heterogeneous_group_is_killed_as_one(cluster, kit_on):
    kit = kit_on(cluster, partition="main", heterogeneous=True)
    handle = kit.start(*["trap '' TERM; echo up; while :; do sleep 0.02; done"] * 2)
    for member in range(2):
        kit.shows(handle, member=member)
    kit.backend.kill([handle])
    kit.end(handle)
    kit.until(lambda: not kit.processes(), "the end of every process")


def test_a_secret_is_in_none_of_slurms_files(cluster, kit_on, monkeypatch, tmp_path):
    """Nor in its accounts, which keep scripts and environments."""
    from nemorun_core import Secret

    canary = "-".join(("canary", "77aa01", "slurm"))
    monkeypatch.setenv("SOURCE_OF_TOKEN", canary)
    kit = kit_on(cluster, partition="main")
    handle = kit.start(
        f'test -n "$TOKEN" && echo up; {kit.gate()}', environment={"TOKEN": Secret.from_env("SOURCE_OF_TOKEN")}
    )
    kit.shows(handle)
    kept = tmp_path / "home" / ".nemorun" / "secrets"
    assert kept.stat().st_mode & 0o777 == 0o700
    assert [file.stat().st_mode & 0o777 for file in kept.iterdir()] == [0o600]
    found = [
        path
        for folder in ("state", "spool", "log")
        for path in (cluster.folder / folder).rglob("*")
        if path.is_file() and canary.encode() in path.read_bytes()
    ]
    said = cluster.run("scontrol", "show", "job", "-dd") + cluster.run(
        "sacct", "-j", ",".join(cluster.ids(handle)), "-B", check=False
    )
    accounts = cluster.run("sacct", "-j", ",".join(cluster.ids(handle)), "--env-vars", check=False)
    kit.open_gate()
    kit.end(handle)
    assert found == []
    assert canary not in said + accounts
    assert list(kept.iterdir()) == []
