"""E5 and E7: how jobs end, by themselves and when they are told to."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

import pytest

from nemorun_core import (
    Experiment,
    Handle,
    MemberObservation,
    ReasonKind,
    Script,
    State,
    base_path,
    read_outcome,
)
from nemorun_devkit.base import LawsBase
from nemorun_devkit.kit import Kit, offered

__all__ = ["LawE5", "LawE7"]


class LawE5(LawsBase):
    """Retries, dependants and people act on the exit code. One that the scheduler replaced, or that went with its
    records, makes a failed training look like a good one."""

    @pytest.mark.parametrize("code", [0, 1, 2, 3, 42, 100, 125, 128, 255])
    def test_e5_an_exit_code_is_the_programs_own(self, kit: Kit, code: int) -> None:
        """Every one, also those that shells and schedulers use themselves."""
        member = kit.run(f"exit {code}")
        assert member.exit_code == code
        assert member.state is (State.FAILED if code else State.SUCCEEDED)

    @pytest.mark.parametrize(("name", "number"), [("KILL", 9), ("SEGV", 11), ("TERM", 15), ("ABRT", 6)])
    def test_e5_a_signal_is_named(self, kit: Kit, name: str, number: int) -> None:
        """A crash is told from an exit."""
        member = kit.run(f"ulimit -c 0; kill -{name} $$")
        assert (member.state, member.exit_code) == (State.FAILED, 128 + number)
        assert member.reason is not None
        assert member.reason.kind is ReasonKind.SIGNAL
        assert member.reason.detail.split()[0] == str(number)

    @pytest.mark.parametrize("code", [1, 77])
    def test_e5_a_failure_has_its_exit_code_as_reason(self, kit: Kit, code: int) -> None:
        """It is what `status` shows."""
        assert str(kit.run(f"exit {code}").reason) == f"exit code {code}"

    def test_e5_a_success_has_no_reason(self, kit: Kit) -> None:
        """Nothing is to be explained."""
        assert kit.run("exit 0").reason is None

    def test_e5_a_program_that_is_not_there_is_a_bad_command(self, kit: Kit) -> None:
        """It ends as a shell would say it, and is not retried as if it had run."""
        member = kit.run(["no-such-program-anywhere"])
        assert (member.state, member.exit_code) == (State.FAILED, 127)
        assert member.reason is not None
        assert member.reason.kind is ReasonKind.BAD_COMMAND

    def test_e5_a_childs_exit_code_is_not_the_programs(self, kit: Kit) -> None:
        """The program decides how it ends."""
        assert kit.run("sh -c 'exit 9'; exit 4").exit_code == 4
        assert kit.run("sh -c 'exit 9'; exit 0").state is State.SUCCEEDED

    def test_e5_what_is_written_to_standard_error_is_no_failure(self, kit: Kit) -> None:
        """Some schedulers' clients think so."""
        assert kit.run("echo error >&2; exit 0").state is State.SUCCEEDED

    @pytest.mark.parametrize("code", [0, 7])
    def test_e5_an_end_that_was_seen_survives_the_connection(self, kit: Kit, code: int) -> None:
        """The next driver reads the same."""
        job = kit.make(f"exit {code}")
        kit.end(kit.take(job))
        assert kit.member(kit.adopt(job)).exit_code == code

    @pytest.mark.parametrize("code", [0, 7])
    def test_e5_an_end_that_nobody_saw_is_told_to_the_next_connection(self, kit: Kit, code: int) -> None:
        """The driver was away when it happened."""
        job = kit.make(f"echo up; {kit.gate()}; touch over; exit {code}", cwd=kit.shared)
        kit.shows(kit.take(job))
        kit.leave()
        kit.open_gate()
        kit.until((kit.shared / "over").exists, "the end")
        assert kit.member(kit.adopt(job)).exit_code == code

    def test_e5_the_outcome_stands_in_the_jobs_folder_after_a_release(self, kit: Kit) -> None:
        """Where files are shared, the record outlives whatever the scheduler knew."""
        if not kit.able.shares_files:
            pytest.skip("capability missing: shares_files")
        job = kit.make("exit 7")
        handle = kit.take(job)
        kit.end(handle)
        kit.backend.release([handle])
        outcome = read_outcome(base_path(job.folder, 0, 0, 0), "")
        assert outcome is not None
        assert outcome.code == 7

    @pytest.mark.parametrize("code", [0, 7])
    def test_e5_an_end_survives_that_its_scheduler_forgets_it(
        self, kit: Kit, expire: Callable[[Handle], None] | None, code: int
    ) -> None:
        """On this connection and the next; where no files are shared, it may be unknown, and never another end."""
        offered(expire, "expire")
        assert expire is not None
        job = kit.make(f"exit {code}")
        handle = kit.take(job)
        kit.end(handle)
        expire(handle)
        seen = kit.poll(handle)
        if kit.able.shares_files:
            assert kit.member(handle).exit_code == code
            assert kit.member(kit.adopt(job)).exit_code == code
        else:
            assert [member.exit_code for member in seen.members] in ([], [code])

    @pytest.mark.parametrize("ended", [False, True])
    def test_e5_an_end_survives_a_restart_of_the_scheduler(
        self, kit: Kit, restart_scheduler: Callable[[], None] | None, ended: bool
    ) -> None:
        """Before it or after."""
        offered(restart_scheduler, "restart_scheduler")
        assert restart_scheduler is not None
        job = kit.make(f"echo up; {kit.gate()}; exit 7")
        handle = kit.take(job)
        kit.shows(handle)
        if ended:
            kit.open_gate()
            kit.end(handle)
        restart_scheduler()
        kit.open_gate()
        assert kit.member(handle).exit_code == 7
        assert kit.member(kit.adopt(job)).exit_code == 7

    def test_e5_each_member_has_an_end_of_its_own(self, kit: Kit) -> None:
        """The job's is made of them by the engine."""
        if kit.able.group is None:
            pytest.skip("capability missing: group")
        members = kit.end(kit.start("exit 0", "exit 3", "kill -KILL $$")).members
        assert [member.exit_code for member in members] == [0, 3, 137]
        assert [member.state for member in members] == [State.SUCCEEDED, State.FAILED, State.FAILED]

    def test_e5_a_job_over_its_time_fails_with_that_reason(self, kit: Kit) -> None:
        """It can be retried, or given more time."""
        if not kit.able.timeout:
            pytest.skip("capability missing: timeout")
        member = kit.run("echo up; sleep 60", executor=kit.options(timeout_seconds=0.3))
        assert member.state is State.FAILED
        assert member.reason is not None
        assert member.reason.kind is ReasonKind.TIMEOUT

    def test_e5_a_job_within_its_time_is_left_alone(self, kit: Kit) -> None:
        """A limit is no reason by itself."""
        if not kit.able.timeout:
            pytest.skip("capability missing: timeout")
        assert kit.run("exit 3", executor=kit.options(timeout_seconds=60.0)).exit_code == 3


def _was_stopped(member: MemberObservation) -> bool:
    """Whether an end can be told from one that nobody asked for, so that the engine makes it CANCELLED."""
    if member.state is State.CANCELLED or "TERM" in member.signals:
        return True
    return member.state is State.FAILED and member.exit_code in (137, 143, None)


STUBBORN = "trap '' TERM; echo up; while :; do sleep 0.02; done"


class LawE7(LawsBase):
    """Who cancels wants the machine back: all of it, at once, and without asking whether it was asked before. And who
    cancels a job that has just ended has not undone its end."""

    def test_e7_a_cancelled_job_ends(self, kit: Kit) -> None:
        """And shows that it was stopped."""
        member = self._cancelled(kit, self._up(kit, "echo up; sleep 60"))
        assert _was_stopped(member)
        assert member.state is not State.SUCCEEDED

    def test_e7_a_program_may_clean_up(self, kit: Kit) -> None:
        """The polite signal comes first, and the exit code is the program's."""
        handle = self._up(kit, "trap 'echo cleaned; exit 5' TERM; echo up; while :; do sleep 0.02; done")
        member = self._cancelled(kit, handle)
        assert kit.log(handle).startswith(b"up\n")  # a shell may tell of its child
        assert kit.log(handle).endswith(b"cleaned\n")
        assert (member.exit_code, _was_stopped(member)) == (5, True)

    def test_e7_a_program_that_ends_with_0_when_told_to_was_stopped(self, kit: Kit) -> None:
        """It has not succeeded: nobody knows what it left undone."""
        handle = self._up(kit, "trap 'exit 0' TERM; echo up; while :; do sleep 0.02; done")
        member = self._cancelled(kit, handle)
        assert (member.exit_code, _was_stopped(member)) == (0, True)

    def test_e7_a_program_that_does_not_listen_is_killed_after_the_grace(self, kit: Kit) -> None:
        """Not before, since it may be writing a checkpoint; and not never."""
        handle = self._up(kit, STUBBORN, grace_seconds=0.5)
        began = time.monotonic()
        member = self._cancelled(kit, handle)
        assert time.monotonic() - began >= 0.45
        assert member.state in (State.FAILED, State.CANCELLED)

    def test_e7_a_kill_needs_no_grace(self, kit: Kit) -> None:
        """For a user who will not wait."""
        handle = self._up(kit, STUBBORN, grace_seconds=0.5 if type(kit.backend).kill is _INHERITED else 600.0)
        kit.backend.kill([handle])
        assert kit.member(handle).state in (State.FAILED, State.CANCELLED)

    def test_e7_a_cancel_may_be_repeated(self, kit: Kit) -> None:
        """The engine asks again when an answer was lost; the program is not told twenty times."""
        handle = self._up(kit, f"trap 'echo term' TERM; echo up; {kit.gate()}; exit 5")
        for _ in range(20):
            kit.backend.cancel([handle])
        kit.shows(handle, b"term\n")
        kit.open_gate()
        kit.end(handle)
        assert kit.log(handle).count(b"term") <= 2

    def test_e7_a_repeated_cancel_does_not_put_off_the_kill(self, kit: Kit) -> None:
        """The grace counts from the first."""
        handle = self._up(kit, STUBBORN, grace_seconds=0.4)
        deadline = time.monotonic() + kit.seconds
        while not kit.poll(handle).is_over:
            kit.backend.cancel([handle])
            assert time.monotonic() < deadline, "each cancel puts off the kill"
            time.sleep(0.02)

    @pytest.mark.parametrize("script", ["exit 0", "exit 3"])
    def test_e7_a_finished_job_is_left_alone(self, kit: Kit, script: str) -> None:
        """It has ended as it has ended."""
        handle = kit.start(script)
        seen = kit.end(handle)
        kit.backend.cancel([handle])
        kit.backend.kill([handle])
        assert [kit.poll(handle) for _ in range(3)] == [seen] * 3

    def test_e7_a_finished_job_is_left_alone_by_the_next_connection(self, kit: Kit) -> None:
        """The request may be older than the end."""
        job = kit.make("exit 0")
        kit.end(kit.take(job))
        handle = kit.adopt(job)
        kit.backend.cancel([handle])
        assert kit.member(handle).state is State.SUCCEEDED

    def test_e7_an_unknown_handle_is_no_error(self, kit: Kit) -> None:
        """The job may be gone from the scheduler meanwhile."""
        for call in (kit.backend.cancel, kit.backend.kill, kit.backend.release):
            call(["nobody-aaaaaaaaaaaaa"])
            call([])

    def test_e7_other_jobs_are_left_running(self, kit: Kit) -> None:
        """Only what was named is stopped."""
        first, second = self._up(kit, "echo up; sleep 60"), self._up(kit, kit.lasting())
        self._cancelled(kit, first)
        kit.unhurt(second)

    def test_e7_many_jobs_are_cancelled_in_one_call(self, kit: Kit) -> None:
        """As one does with a sweep."""
        handles = [self._up(kit, "echo up; sleep 60") for _ in range(3)]
        kit.backend.cancel([*handles, "nobody-aaaaaaaaaaaaa"])
        assert all(_was_stopped(kit.member(handle)) for handle in handles)

    @pytest.mark.parametrize(
        "script",
        [
            pytest.param("sleep 60 & echo up; wait", id="child"),
            pytest.param("(sleep 60 & wait) & echo up; wait", id="grandchild"),
            pytest.param("trap '' TERM; sh -c 'trap \"\" TERM; sleep 60' & echo up; wait", id="deaf child"),
            pytest.param("setsid sleep 60 & echo up; wait", id="own session"),
        ],
    )
    def test_e7_every_process_ends(self, kit: Kit, script: str) -> None:
        """What a program started holds memory and devices as it does itself."""
        if not kit.able.runs_on_this_machine:
            pytest.skip("capability missing: runs_on_this_machine")
        if "setsid" in script and not shutil.which("setsid"):
            pytest.skip("setsid(1) is not on this machine")
        handle = self._up(kit, script, grace_seconds=0.5)
        assert kit.processes()
        kit.backend.cancel([handle])
        kit.end(handle)
        kit.until(lambda: self._looked(kit, handle) and not kit.processes(), "the end of every process")

    def _looked(self, kit: Kit, handle: Handle) -> bool:
        return kit.poll(handle).is_over

    def test_e7_every_member_ends(self, kit: Kit) -> None:
        """A group is one job."""
        if kit.able.group is None:
            pytest.skip("capability missing: group")
        handle = kit.start("echo up; sleep 60", "echo up; sleep 60")
        for member in range(2):
            kit.shows(handle, member=member)
        kit.backend.cancel([handle])
        assert all(map(_was_stopped, kit.end(handle).members))

    def test_e7_a_job_is_cancelled_by_the_next_connection(self, kit: Kit) -> None:
        """Who submitted it may be gone."""
        job = kit.make("echo up; sleep 60")
        kit.shows(kit.take(job))
        assert _was_stopped(self._cancelled(kit, kit.adopt(job)))

    def test_e7_a_job_is_cancelled_as_soon_as_it_is_taken(self, kit: Kit) -> None:
        """It may not have started yet."""
        handle = kit.start("sleep 60")
        kit.backend.cancel([handle])
        member = kit.member(handle)
        assert member.state is not State.SUCCEEDED
        assert member.state in (State.FAILED, State.CANCELLED)

    def test_e7_a_cancelled_job_stays_as_it_ended(self, kit: Kit) -> None:
        """Also when it is cancelled once more."""
        handle = self._up(kit, "echo up; sleep 60")
        kit.backend.cancel([handle])
        seen = kit.end(handle)
        kit.backend.cancel([handle])
        assert [kit.poll(handle) for _ in range(3)] == [seen] * 3

    def test_e7_an_experiments_job_ends_cancelled(self, kit: Kit) -> None:
        """What a user sees."""
        with Experiment("laws", executor=kit.executor, base_dir=kit.folder / "home", log_level="ERROR") as experiment:
            experiment.add(Script(inline="sleep 60"), name="a")
            experiment.run()
            kit.until(lambda: _job(experiment)["state"] == "RUNNING", "RUNNING")
            experiment.cancel("a")
        assert (_job(experiment)["state"], str(_job(experiment)["reason"])) == ("CANCELLED", "by user")

    def _up(self, kit: Kit, script: str, *, grace_seconds: float | None = None) -> Handle:
        executor = None if grace_seconds is None else kit.options(grace_seconds=grace_seconds)
        handle = kit.start(script, executor=executor)
        kit.shows(handle)
        return handle

    def _cancelled(self, kit: Kit, handle: Handle) -> MemberObservation:
        kit.backend.cancel([handle])
        return kit.member(handle)


def _inherited() -> object:
    from nemorun_core import Backend

    return Backend.kill


_INHERITED = _inherited()


def _job(experiment: Experiment) -> dict[str, object]:
    status = experiment.status(return_dict=True)
    assert status is not None
    return dict(status["a"])
