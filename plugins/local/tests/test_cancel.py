"""Cancel, time-outs and leftovers: every process of a job ends, and the truth is told."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest
from nemorun_local import LocalExecutor

from nemorun_core import State

from .conftest import wait_until

SETSID = f"{sys.executable} -c 'import os,sys; os.setsid(); os.execvp(sys.argv[1], sys.argv[1:])'"


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            return stream.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def pids(jobs, name, count):
    """Wait until a job wrote so many pids, and return them."""
    wait_until(lambda: len(jobs.log(name).split()) >= count and jobs.log(name).endswith("\n"), "the pids")
    return [int(word) for word in jobs.log(name).split()]


def cancelled(jobs, handle):
    jobs.backend.cancel([handle])
    return jobs.end(handle).members[0]


def test_cancel_ends_a_program_politely_and_notes_the_signal(jobs):
    handle = jobs.start("echo up; sleep 60", name="a")
    jobs.shows("a", "up")
    member = cancelled(jobs, handle)
    assert (member.exit_code, member.signals) == (143, ("TERM",))


def test_a_program_may_clean_up_after_the_polite_signal(jobs):
    script = "trap 'touch cleaned; exit 5' TERM; echo up; while :; do sleep 0.01; done"
    handle = jobs.start(script, name="a")
    jobs.shows("a", "up")
    assert cancelled(jobs, handle).exit_code == 5
    assert (jobs.folder / "cleaned").exists()


@pytest.mark.parametrize(
    "child", ["sleep 60", f"{SETSID} sleep 60", f"sh -c '{SETSID.replace(chr(39), chr(34))} sleep 60 & wait'"]
)
def test_cancel_reaches_grandchildren_also_in_sessions_of_their_own(jobs, child):
    handle = jobs.start(f"{child} & echo $!; echo $$; wait", name="a")
    family = pids(jobs, "a", 2)
    assert all(map(alive, family))
    cancelled(jobs, handle)
    wait_until(lambda: not any(map(alive, family)), "the end of all processes")


def test_a_program_that_ignores_term_is_killed_after_the_grace(jobs):
    script = "trap '' TERM; echo up; while :; do sleep 0.01; done"
    handle = jobs.start(script, name="a", executor=LocalExecutor(grace_seconds=0.3))
    jobs.shows("a", "up")
    begun = time.monotonic()
    member = cancelled(jobs, handle)
    assert (member.exit_code, member.signals) == (137, ("TERM",))
    assert time.monotonic() - begun >= 0.3


def test_a_grandchild_in_its_own_session_that_ignores_term_is_killed_too(jobs):
    script = f"{SETSID} sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.01; done' & wait"
    handle = jobs.start(script, name="a", executor=LocalExecutor(grace_seconds=0.3))
    [stubborn] = pids(jobs, "a", 1)
    cancelled(jobs, handle)
    wait_until(lambda: not alive(stubborn), "the end of the stubborn grandchild")


def test_a_stopped_program_can_be_cancelled(jobs):
    handle = jobs.start("echo $$; exec sleep 60", name="a")
    [program] = pids(jobs, "a", 1)
    os.kill(program, signal.SIGSTOP)
    assert cancelled(jobs, handle).exit_code == 143


def test_a_program_that_ends_with_0_without_having_seen_a_signal_has_succeeded(jobs):
    handle = jobs.start("exit 0")
    seen = jobs.end(handle)
    jobs.backend.cancel([handle])
    assert jobs.poll(handle) == seen
    assert (seen.members[0].state, seen.members[0].signals) == (State.SUCCEEDED, ())


def test_cancel_leaves_a_finished_job_alone(jobs):
    handle = jobs.start("exit 3")
    seen = jobs.end(handle)
    jobs.backend.cancel([handle])
    jobs.backend.kill([handle])
    assert jobs.poll(handle) == seen


def test_cancel_may_be_repeated(jobs):
    script = "trap 'echo term' TERM; echo up; while ! [ -e stop ]; do sleep 0.01; done"
    handle = jobs.start(script, name="a")
    jobs.shows("a", "up")
    for _ in range(20):
        jobs.backend.cancel([handle])
    jobs.shows("a", "term")
    (jobs.folder / "stop").touch()
    jobs.end(handle)
    assert jobs.log("a").count("term") <= 2


def test_cancel_of_an_unknown_handle_is_no_error(jobs):
    jobs.backend.cancel(["nobody"])
    jobs.backend.kill(["nobody"])
    jobs.backend.release(["nobody"])


def test_cancel_of_one_job_leaves_the_others_running(jobs):
    first, second = (jobs.start("echo up; sleep 60", name=name) for name in "ab")
    jobs.shows("a", "up")
    jobs.shows("b", "up")
    cancelled(jobs, first)
    assert jobs.poll(second).members[0].state is State.RUNNING


def test_cancel_reaches_every_member_and_rank(jobs):
    executor = LocalExecutor(ntasks_per_node=2)
    handle = jobs.start("echo up; sleep 60", "echo up; sleep 60", name="g", executor=executor)
    streams = [(member, stream) for member in range(2) for stream in ("out", "out.1")]
    wait_until(lambda: all(jobs.log("g", member, stream) for member, stream in streams), "the ranks")
    jobs.backend.cancel([handle])
    seen = jobs.end(handle)
    assert [member.exit_code for member in seen.members] == [143, 143]


def test_a_kill_needs_no_grace(jobs):
    handle = jobs.start("trap '' TERM; echo up; while :; do sleep 0.01; done", name="a")
    jobs.shows("a", "up")
    jobs.backend.kill([handle])
    assert jobs.end(handle).members[0].exit_code == 137


# Time-outs.


def test_a_job_over_its_time_fails_with_that_reason(jobs):
    member = jobs.run("echo up; sleep 60", executor=LocalExecutor(timeout_seconds=0.2))
    assert (member.state, str(member.reason)) == (State.FAILED, "timeout")


def test_a_job_over_its_time_that_ignores_term_is_killed_after_the_grace(jobs):
    executor = LocalExecutor(timeout_seconds=0.2, grace_seconds=0.2)
    member = jobs.run("trap '' TERM; while :; do sleep 0.01; done", executor=executor)
    assert (member.state, str(member.reason)) == (State.FAILED, "timeout")


def test_a_job_within_its_time_is_left_alone(jobs):
    member = jobs.run("exit 0", executor=LocalExecutor(timeout_seconds=60))
    assert (member.state, member.reason) == (State.SUCCEEDED, None)


# Leftovers.


def test_what_a_program_left_running_is_ended_with_it(jobs):
    jobs.run("sleep 60 & echo $!", name="a")
    [left] = pids(jobs, "a", 1)
    wait_until(lambda: not alive(left), "the end of what was left")


def test_a_daemon_that_a_program_made_in_another_session_is_ended_at_the_latest_by_cancel(jobs):
    handle = jobs.start(f"{SETSID} sleep 60 & echo $!; echo $$; wait", name="a")
    daemon, _ = pids(jobs, "a", 2)
    cancelled(jobs, handle)
    wait_until(lambda: not alive(daemon), "the end of the daemon")


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_a_script_that_is_killed_does_not_begin_its_next_command(jobs, shell):
    """As in `train; upload`: the shell must not see its command die before it dies itself."""
    for number in range(15):
        name = f"job{number}"
        handle = jobs.start((shell, "-c", "echo up; sleep 60; echo next >next; sleep 60"), name=name)
        jobs.shows(name, "up")
        jobs.backend.kill([handle])
        jobs.end(handle)
    assert not (jobs.folder / "next").exists()
