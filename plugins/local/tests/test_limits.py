"""How many at once, what waits and why, and what is left behind: no files, no threads, no processes."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import pytest
from nemorun_local import LocalExecutor
from nemorun_local import backend as backend_module
from nemorun_local.backend import LocalBackend
from nemorun_local.limits import room

from nemorun_core import Accepted, Deferred, ReasonKind, State

from .conftest import wait_until


def test_this_machine_has_room_for_a_job():
    free, limit = room()
    assert free > 0
    assert limit


def test_a_job_over_max_parallel_is_deferred_with_that_reason_and_taken_later(jobs):
    jobs.backend = LocalBackend(max_parallel=1)
    first = jobs.start("while ! [ -e stop ]; do sleep 0.01; done")
    waiting = jobs.make("exit 0")
    answer = jobs.answer(waiting)
    assert isinstance(answer, Deferred)
    assert str(answer.reason) == "limit: max_parallel=1 jobs are running"
    (jobs.folder / "stop").touch()
    jobs.end(first)
    assert isinstance(jobs.answer(waiting), Accepted)


def test_a_deferred_job_leaves_nothing(jobs):
    jobs.backend = LocalBackend(max_parallel=1)
    jobs.start("sleep 60")
    waiting = jobs.make("exit 0")
    jobs.answer(waiting)
    assert not os.path.exists(waiting.folder)


def test_where_the_machine_has_no_room_a_job_waits_with_that_reason(jobs, monkeypatch):
    jobs.start("sleep 60")
    monkeypatch.setattr(backend_module, "room", lambda: (2, "open files"))
    taken = jobs.make("sleep 60", executor=LocalExecutor(ntasks_per_node=2))
    answers = dict(jobs.backend.submit([taken, jobs.make("exit 0", name="late")]))
    jobs.handles += [answer.handle for answer in answers.values() if isinstance(answer, Accepted)]
    first, second = answers.values()
    assert isinstance(first, Accepted)
    assert isinstance(second, Deferred)
    assert (second.reason.kind, second.reason.detail) == (ReasonKind.LIMIT, "open files")


def test_a_job_larger_than_the_machine_is_tried_where_nothing_else_runs(jobs, monkeypatch):
    """It would wait for ever otherwise."""
    monkeypatch.setattr(backend_module, "room", lambda: (0, "available memory"))
    assert jobs.run("exit 0").state is State.SUCCEEDED


@pytest.mark.parametrize("number", [11, 12, 24], ids=["EAGAIN", "ENOMEM", "EMFILE"])
def test_a_start_that_the_kernel_cannot_make_now_is_deferred(jobs, monkeypatch, number):
    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(backend_module, "spawn", refuse)
    job = jobs.make("exit 3")
    assert isinstance(jobs.answer(job), Deferred)
    monkeypatch.undo()
    answer = jobs.answer(job)
    assert isinstance(answer, Accepted)
    assert jobs.end(answer.handle).members[0].exit_code == 3


def files():
    return len(os.listdir("/proc/self/fd"))


def children():
    """Return the children of this process, dead ones that nobody waited for included (proc_pid_stat(5))."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(path.parent.name)
    return found


def test_three_hundred_jobs_leave_no_open_file_no_thread_and_no_child(jobs):
    before, threads, others = files(), threading.active_count(), children()
    handles = [jobs.start("exit 0") for _ in range(300)]
    assert {jobs.end(handle).members[0].state for handle in handles} == {State.SUCCEEDED}
    jobs.backend.release(handles)
    assert files() <= before
    assert threading.active_count() <= threads
    assert children() <= others


def test_a_closed_backend_leaves_no_open_file(jobs):
    before = files()
    other = LocalBackend()
    assert files() > before
    other.close()
    assert files() == before


def test_a_wait_ends_when_a_job_does_and_names_it(jobs):
    handle, other = jobs.start("while ! [ -e stop ]; do sleep 0.01; done"), jobs.start("sleep 60")
    (jobs.folder / "stop").touch()
    assert list(jobs.backend.wait([handle, other], 20.0)) == [handle]


def test_a_wait_ends_when_it_is_woken_from_another_thread(jobs):
    handle = jobs.start("sleep 60")
    threading.Timer(0.05, jobs.backend.wake).start()
    assert list(jobs.backend.wait([handle], 20.0)) == []


def test_a_wake_before_the_wait_is_not_lost(jobs):
    handle = jobs.start("sleep 60")
    for _ in range(1000):
        jobs.backend.wake()
    assert list(jobs.backend.wait([handle], 20.0)) == []


# Kernels without pidfd_open(2).


@pytest.fixture
def without_pidfd(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")


def test_without_pidfd_ends_are_told_all_the_same(without_pidfd, jobs):
    handles = [jobs.start(f"exit {code}") for code in (0, 3, 9)]
    assert [jobs.end(handle).members[0].exit_code for handle in handles] == [0, 3, 9]


def test_without_pidfd_a_running_job_can_be_cancelled(without_pidfd, jobs):
    handle = jobs.start("echo up; sleep 60", name="a")
    jobs.shows("a", "up")
    jobs.backend.cancel([handle])
    assert jobs.end(handle).members[0].exit_code == 143


def test_without_pidfd_an_adopted_job_is_followed_to_its_end(without_pidfd, jobs):
    job = jobs.make("echo up; while ! [ -e stop ]; do sleep 0.01; done; exit 6", name="a")
    jobs.answer(job)
    jobs.shows("a", "up")
    jobs.reopen()
    handle = jobs.backend.find([job])[job.key]
    assert jobs.poll(handle).members[0].state is State.RUNNING
    (jobs.folder / "stop").touch()
    assert jobs.end(handle).members[0].exit_code == 6


def test_where_pidfds_run_out_ends_are_told_all_the_same(jobs, monkeypatch):
    def refuse(pid):
        raise OSError(24, os.strerror(24))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert jobs.run("exit 3").exit_code == 3
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("watch")])
