"""A driver that ends, and the next one: jobs go on, nothing starts twice, and no other process is taken for a job."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import attrs
import pytest
from nemorun_local import LocalExecutor
from nemorun_local import backend as backend_module
from nemorun_local import member as member_module
from nemorun_local import processes as processes_module

from nemorun_core import State, hostname, process_started, read_rank

from .conftest import wait_until


def adopt(jobs, job):
    """Look for a job with a new connection; return its handle, None where it was never taken."""
    jobs.reopen()
    handle = jobs.backend.find([job]).get(job.key)
    if handle is not None:
        jobs.handles.append(handle)
    return handle


def begin(jobs, script, name="a", **options):
    job = jobs.make(script, name=name, **options)
    jobs.answer(job)
    jobs.shows(name, "up")
    return job


def shim_of(jobs, name="a"):
    start = read_rank(jobs.base(name), "").start
    assert start is not None
    return start.pid


def test_a_job_goes_on_when_its_connection_is_closed_and_is_adopted_by_the_next(jobs):
    job = begin(jobs, "echo up; while ! [ -e stop ]; do sleep 0.01; done; exit 6")
    handle = adopt(jobs, job)
    assert jobs.poll(handle).members[0].state is State.RUNNING
    (jobs.folder / "stop").touch()
    assert jobs.end(handle).members[0].exit_code == 6


def test_an_end_that_nobody_saw_is_read_from_the_records(jobs):
    job = begin(jobs, "echo up; exit 7")
    wait_until(lambda: read_rank(jobs.base("a"), "").outcome)
    [member] = jobs.poll(adopt(jobs, job)).members
    assert (member.state, member.exit_code, str(member.reason)) == (State.FAILED, 7, "exit code 7")
    assert member.started <= member.ended


def test_a_job_that_was_never_submitted_is_not_found(jobs):
    assert jobs.backend.find([jobs.make("exit 0")]) == {}


def test_another_attempts_records_are_not_this_ones(jobs):
    begin(jobs, "echo up; exit 0")
    assert adopt(jobs, jobs.make("exit 0", name="a", attempt=1)) is None


def test_an_adopted_job_is_cancelled_as_any_other(jobs):
    handle = adopt(jobs, begin(jobs, "echo up; sleep 60"))
    jobs.backend.cancel([handle])
    assert jobs.end(handle).members[0].exit_code == 143


def test_an_adopted_job_keeps_its_time_out(jobs):
    job = begin(jobs, "echo up; sleep 60", executor=LocalExecutor(timeout_seconds=0.3))
    member = jobs.end(adopt(jobs, job)).members[0]
    assert str(member.reason) == "timeout"


def test_a_job_that_is_submitted_twice_runs_once(jobs):
    job = jobs.make("echo ran >>runs; echo up; sleep 0.2; exit 4", name="a")
    first = jobs.answer(job)
    jobs.shows("a", "up")
    jobs.reopen()
    jobs.answer(job)
    assert jobs.end(jobs.handles[-1]).members[0].exit_code == 4
    assert (jobs.folder / "runs").read_text() == "ran\n"
    assert first is not None


def test_a_killed_shim_fails_the_job_and_ends_what_is_left(jobs):
    job = begin(jobs, "echo $$ >pid; echo up; sleep 60")
    program = int((jobs.folder / "pid").read_text())
    os.kill(shim_of(jobs), signal.SIGKILL)
    [member] = jobs.end(jobs.handles[-1]).members
    assert (member.state, member.exit_code) == (State.FAILED, None)
    assert str(member.reason) == "signal 9 (SIGKILL)"
    wait_until(lambda: process_started(program) is None, "the end of the program")
    assert job


def test_a_shim_killed_while_nobody_drove_fails_the_job_and_what_is_left_is_ended(jobs):
    job = begin(jobs, "echo $$ >pid; echo up; sleep 60")
    program = int((jobs.folder / "pid").read_text())
    shim = shim_of(jobs)
    os.kill(shim, signal.SIGKILL)
    os.waitpid(shim, 0)
    [member] = jobs.end(adopt(jobs, job)).members
    assert (member.state, member.exit_code, str(member.reason)) == (State.FAILED, None, "signal 9 (SIGKILL)")
    wait_until(lambda: process_started(program) is None, "the end of the program")


def test_a_whole_session_killed_fails_the_job(jobs):
    begin(jobs, "echo up; sleep 60")
    os.killpg(shim_of(jobs), signal.SIGKILL)
    [member] = jobs.end(jobs.handles[-1]).members
    assert (member.state, member.exit_code, str(member.reason)) == (State.FAILED, None, "signal 9 (SIGKILL)")


def test_after_a_reboot_a_job_without_an_outcome_failed_with_its_node(jobs, monkeypatch):
    job = begin(jobs, "echo up; sleep 60")
    first = jobs.backend
    monkeypatch.setattr(member_module, "boot_id", lambda: "the next boot")
    other = backend_module.LocalBackend()
    handle = other.find([job])[job.key]
    [member] = other.poll([handle])[handle].members
    other.close()
    assert (member.state, str(member.reason)) == (State.FAILED, f"node failure: {hostname()} was restarted")
    assert jobs.backend is first


def test_after_a_reboot_an_outcome_still_stands(jobs, monkeypatch):
    job = begin(jobs, "echo up; exit 7")
    wait_until(lambda: read_rank(jobs.base("a"), "").outcome)
    monkeypatch.setattr(member_module, "boot_id", lambda: "the next boot")
    [member] = jobs.poll(adopt(jobs, job)).members
    assert (member.state, member.exit_code) == (State.FAILED, 7)


def test_a_process_that_has_the_shims_pid_now_is_neither_believed_nor_touched(jobs):
    job = begin(jobs, "echo up; exit 0")
    wait_until(lambda: read_rank(jobs.base("a"), "").outcome)
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        start = Path(f"{jobs.base('a')}.start")
        start.write_text(re.sub(r"pid=\d+ uptime=\S+", f"pid={stranger.pid} uptime=1.00", start.read_text()))
        Path(f"{jobs.base('a')}.outcome").write_text(" " * 255 + "\n")
        handle = adopt(jobs, job)
        [member] = jobs.end(handle).members
        jobs.backend.cancel([handle])
        jobs.backend.kill([handle])
        assert (member.state, str(member.reason)) == (State.FAILED, "signal 9 (SIGKILL)")
        assert stranger.poll() is None
        stranger.kill()


def test_a_claim_without_its_text_is_a_start_all_the_same(jobs):
    """As a full disk leaves it. The job cannot be followed, but it is not started again."""
    job = begin(jobs, "echo up; exit 0")
    wait_until(lambda: read_rank(jobs.base("a"), "").outcome)
    os.truncate(f"{jobs.base('a')}.start", 0)
    [member] = jobs.poll(adopt(jobs, job)).members
    assert (member.state, member.exit_code) == (State.SUCCEEDED, 0)


def test_a_running_job_whose_claim_has_no_text_is_not_said_to_have_ended(jobs):
    job = begin(jobs, "echo up; while ! [ -e stop ]; do sleep 0.01; done; exit 6")
    os.truncate(f"{jobs.base('a')}.start", 0)
    handle = adopt(jobs, job)
    assert jobs.poll(handle).members[0].state is State.RUNNING
    (jobs.folder / "stop").touch()
    assert jobs.end(handle).members[0].exit_code == 6


def test_a_member_that_a_dead_driver_did_not_come_to_start_is_started_by_the_next(jobs):
    job = jobs.make("echo up; exit 3", "echo up; exit 4", name="g")
    half = attrs.evolve(job, members=job.members[:1], executors=job.executors[:1])
    jobs.answer(half)
    jobs.shows("g", "up")
    seen = jobs.end(adopt(jobs, job))
    assert [member.exit_code for member in seen.members] == [3, 4]


@pytest.mark.parametrize("missing", ["start", "outcome"])
def test_records_that_somebody_removed_do_not_start_a_program_again(jobs, missing):
    job = begin(jobs, "echo ran >>runs; echo up; while ! [ -e stop ]; do sleep 0.01; done")
    os.unlink(f"{jobs.base('a')}.{missing}")
    (jobs.folder / "stop").touch()
    jobs.end(jobs.handles[-1])
    assert (jobs.folder / "runs").read_text() == "ran\n"
    assert job


def test_a_job_that_claims_its_start_and_ends_between_two_looks_is_found(jobs, monkeypatch):
    """The first look finds a shim on its way; by the second it has claimed, run and ended."""
    job = begin(jobs, "echo up; until [ -e go ]; do sleep 0.01; done; exit 4")
    adopted, real = [], member_module.Rank.adopt

    def late(rank, pids):
        adopted.append(rank)
        if len(adopted) > 1:
            return real(rank, pids)
        (jobs.folder / "go").touch()
        wait_until(lambda: read_rank(rank.base, rank.suffix).outcome)
        return False  # as it was read before the claim

    monkeypatch.setattr(member_module.Rank, "adopt", late)
    handle = adopt(jobs, job)
    assert handle is not None
    assert jobs.end(handle).members[0].exit_code == 4


def test_a_process_that_is_being_started_is_looked_at_until_it_shows_its_environment(jobs, monkeypatch):
    """posix_spawn(3) returns while the program is not all there."""
    job = begin(jobs, "echo up; until [ -e go ]; do sleep 0.01; done")
    shim, looks, real = shim_of(jobs), [], processes_module._variables

    def late(pid):
        if pid == shim:
            looks.append(pid)
        return [b""] if pid == shim and len(looks) < 4 else real(pid)

    monkeypatch.setattr(processes_module, "_variables", late)
    monkeypatch.setattr(processes_module, "_YOUNG_SECONDS", 3600.0)
    assert shim in processes_module.belonging([((), f"NEMORUN_KEY={job.key}".encode())])[0]
    (jobs.folder / "go").touch()


def test_of_several_shims_the_one_that_has_the_claim_is_adopted(jobs, monkeypatch):
    """The claim is made and its text is not there yet: any of the others would be taken for it, and end."""
    job = begin(jobs, "echo up; until [ -e go ]; do sleep 0.01; done; exit 4")
    real, reads = member_module.read_rank, []

    def early(base, suffix):
        reads.append(base)
        witness = real(base, suffix)
        return witness._replace(start=None) if len(reads) < 5 else witness

    monkeypatch.setattr(member_module, "read_rank", early)
    monkeypatch.setattr(member_module, "shim_of", lambda pids, base, suffix: 1 << 22)  # one that has lost, and is gone
    handle = adopt(jobs, job)
    assert jobs.poll(handle).members[0].state is State.RUNNING
    (jobs.folder / "go").touch()
    assert jobs.end(handle).members[0].exit_code == 4
