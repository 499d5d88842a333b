"""E1 and E2: a job is taken whole or not at all, and each program starts once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import pytest

from nemorun_core import (
    Accepted,
    Condition,
    Deferred,
    Executor,
    Handle,
    Rejected,
    State,
    Submission,
    TransientError,
)
from nemorun_devkit.base import Breaking, LawsBase
from nemorun_devkit.kit import Kit, offered

__all__ = ["LawE1", "LawE2"]

NUL = ("sh", "-c", "echo ran >>runs", "a\0b")
"""Arguments that no program can be given (execve(2)), so that every backend refuses them."""


def _keeps_edges(kit: Kit) -> None:
    if not kit.able.native_edges:
        pytest.skip("capability missing: native_edges")


class LawE1(LawsBase):
    """Whoever submits must know what is there. A job that is there in part can neither be waited for nor tried again:
    what it did may be done twice, and what it holds is held for ever."""

    def test_e1_each_job_of_a_call_is_answered_once_and_in_order(self, kit: Kit) -> None:
        """An answer that is missing would be a job in doubt; later ones are held back by a `Deferred` before them."""
        jobs = [kit.make(f"exit {number}") for number in range(3)]
        answered = list(kit.backend.submit(jobs))
        assert [key for key, _ in answered] == [job.key for job in jobs]
        for _, answer in answered:
            assert isinstance(answer, Accepted)
        for job, code in zip(jobs, range(3), strict=True):
            assert kit.member(kit.find(job)[job.key]).exit_code == code

    def test_e1_a_submit_of_nothing_answers_nothing(self, kit: Kit) -> None:
        """A batch may be emptied before it is sent."""
        assert list(kit.backend.submit([])) == []

    def test_e1_a_refusal_says_why(self, kit: Kit) -> None:
        """The reason is all that a user ever sees of it."""
        assert kit.refusal(kit.make(NUL)).strip()

    def test_e1_a_refused_job_is_not_found(self, kit: Kit) -> None:
        """What is found is adopted, and the engine would wait for it."""
        job = kit.make(NUL)
        kit.refusal(job)
        assert kit.find(job) == {}
        kit.reopen()
        assert kit.find(job) == {}

    def test_e1_a_refused_job_does_not_hurt_its_neighbours(self, kit: Kit) -> None:
        """Jobs of one call are strangers to each other."""
        before, wrong, after = kit.make("exit 3"), kit.make(NUL), kit.make("exit 4")
        found = kit.answers([before, wrong, after])
        assert isinstance(found[wrong.key], Rejected)
        for job, code in ((before, 3), (after, 4)):
            answer = found[job.key]
            assert isinstance(answer, Accepted)
            assert kit.member(answer.handle).exit_code == code

    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_e1_a_group_with_a_wrong_member_starts_none(self, kit: Kit, place: int) -> None:
        """Wherever it stands: those before it must not run either."""
        if kit.able.group is None:
            pytest.skip("capability missing: group")
        programs: list[str | tuple[str, ...]] = ["echo ran >>runs"] * 3
        programs[place] = NUL
        job = kit.make(*programs)
        kit.refusal(job)
        assert kit.find(job) == {}
        kit.end(kit.start("echo other >>runs"))
        kit.settle()
        assert kit.lines("runs") == ["other"]

    def test_e1_what_the_scheduler_refuses_is_rejected_with_its_words(
        self, kit: Kit, refused_executor: Executor | None
    ) -> None:
        """Trying the same again cannot help, so the job fails at once and says why."""
        offered(refused_executor, "refused_executor")
        job = kit.make("exit 0", executor=refused_executor)
        assert kit.refusal(job).strip()
        assert kit.find(job) == {}

    def test_e1_a_full_scheduler_defers_and_takes_the_job_later(
        self, kit: Kit, scheduler_full: Breaking | None
    ) -> None:
        """A quota is no refusal: it passes."""
        offered(scheduler_full, "scheduler_full")
        assert scheduler_full is not None
        job = kit.make("exit 5")
        with scheduler_full():
            answer = kit.answer(job)
            assert isinstance(answer, Deferred)
            assert str(answer.reason)
            assert kit.find(job) == {}
        assert kit.member(kit.take(job)).exit_code == 5

    def test_e1_a_taken_job_shows_all_its_members(self, kit: Kit) -> None:
        """An observation with a member too few cannot be folded."""
        assert len(kit.end(kit.start("exit 0")).members) == 1


COUNTED = "echo ran >>runs; exit 4"


class LawE2(LawsBase):
    """A program that starts twice writes its results twice, or destroys them. Nothing in between the engine and the
    scheduler is sure: answers get lost, drivers die, so the scheduler's own name for a key is what decides."""

    def _once(self, kit: Kit, handle: Handle) -> None:
        assert kit.member(handle).exit_code == 4
        self._ran(kit, 1)

    def _ran(self, kit: Kit, times: int) -> None:
        """Count the starts, when a second one would have ended."""
        kit.settle()
        assert kit.lines("runs") == ["ran"] * times

    def test_e2_a_job_that_is_submitted_twice_starts_once(self, kit: Kit) -> None:
        """On one connection: the engine tries again when it was not sure."""
        job = kit.make(COUNTED, cwd=kit.shared)
        assert kit.take(job) == kit.take(job)
        self._once(kit, kit.take(job))

    def test_e2_a_job_that_is_twice_in_a_call_starts_once(self, kit: Kit) -> None:
        """One call is one batch, and the scheduler may take it in any order."""
        job = kit.make(COUNTED, cwd=kit.shared)
        kit.answers([job, job])
        self._once(kit, kit.find(job)[job.key])

    def test_e2_a_running_job_that_another_connection_submits_starts_once(self, kit: Kit) -> None:
        """A driver that takes over may not know yet what the other one did."""
        job = kit.make(f"echo ran >>runs; echo up; {kit.gate()}; exit 4", cwd=kit.shared)
        kit.shows(kit.take(job))
        kit.reopen()
        handle = kit.take(job)
        kit.open_gate()
        self._once(kit, handle)

    def test_e2_a_finished_job_that_is_submitted_again_does_not_start(self, kit: Kit) -> None:
        """Its key was used; a further attempt has another."""
        job = kit.make(COUNTED, cwd=kit.shared)
        kit.end(kit.take(job))
        self._once(kit, kit.take(job))

    def test_e2_a_finished_job_that_another_connection_submits_does_not_start(self, kit: Kit) -> None:
        """The same, for a driver that knows nothing."""
        job = kit.make(COUNTED, cwd=kit.shared)
        kit.end(kit.take(job))
        kit.reopen()
        self._once(kit, kit.take(job))

    @pytest.mark.parametrize("drivers", [2, 6, pytest.param(20, marks=pytest.mark.nightly)])
    def test_e2_drivers_that_race_start_a_job_once(self, kit: Kit, drivers: int) -> None:
        """A lock on a network file system may be broken; the start must not depend on it."""
        job = kit.make(COUNTED, cwd=kit.shared)
        backends = [kit.another() for _ in range(drivers)]
        barrier = threading.Barrier(drivers)

        def submit(index: int) -> None:
            barrier.wait(kit.seconds)
            with contextlib.suppress(TransientError):  # in doubt, which is no second start
                list(backends[index].submit([job]))

        threads = [threading.Thread(target=submit, args=(index,)) for index in range(drivers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._once(kit, kit.adopt(job))

    def test_e2_looking_for_a_job_starts_nothing(self, kit: Kit) -> None:
        """`find` is asked again and again."""
        job = kit.make(COUNTED, cwd=kit.shared)
        assert kit.find(job) == {}
        handle = kit.take(job)
        for _ in range(3):
            assert kit.find(job) == {job.key: handle}
        self._once(kit, handle)

    def test_e2_a_job_that_is_adopted_while_it_runs_starts_once(self, kit: Kit) -> None:
        """The driver died, and the next one goes on."""
        job = kit.make(f"echo ran >>runs; echo up; {kit.gate()}; exit 4", cwd=kit.shared)
        kit.shows(kit.take(job))
        handle = kit.adopt(job)
        kit.open_gate()
        self._once(kit, handle)

    def test_e2_a_cancelled_job_that_is_submitted_again_does_not_start(self, kit: Kit) -> None:
        """The answer to the cancel may have been lost."""
        job = kit.make("echo ran >>runs; echo up; sleep 60", cwd=kit.shared)
        handle = kit.take(job)
        kit.shows(handle)
        kit.backend.cancel([handle])
        kit.end(handle)
        kit.end(kit.take(job))
        self._ran(kit, 1)

    def test_e2_a_further_attempt_is_a_start_of_its_own(self, kit: Kit) -> None:
        """What is the same job to a user is another one to the scheduler."""
        for attempt in (0, 1):
            kit.end(kit.take(kit.make(COUNTED, cwd=kit.shared, name="a", attempt=attempt)))
        self._ran(kit, 2)

    def test_e2_each_member_of_a_group_that_is_submitted_twice_starts_once(self, kit: Kit) -> None:
        """A group is one job."""
        if kit.able.group is None:
            pytest.skip("capability missing: group")
        job = kit.make("echo 0 >>runs", "echo 1 >>runs", cwd=kit.shared)
        kit.take(job)
        kit.reopen()
        kit.end(kit.take(job))
        kit.settle()
        assert sorted(kit.lines("runs")) == ["0", "1"]

    def test_e2_a_job_whose_answer_got_lost_is_found_and_started_once(
        self, kit: Kit, answer_lost: Breaking | None
    ) -> None:
        """The engine looks before it submits again."""
        job = self._lose(kit, answer_lost)
        found = kit.find(job)
        assert job.key in found
        self._once(kit, found[job.key])

    def test_e2_a_job_whose_answer_got_lost_is_found_by_the_next_driver(
        self, kit: Kit, answer_lost: Breaking | None
    ) -> None:
        """The driver may die before it looks."""
        self._once(kit, kit.adopt(self._lose(kit, answer_lost)))

    def test_e2_a_job_whose_answer_got_lost_and_that_is_submitted_again_starts_once(
        self, kit: Kit, answer_lost: Breaking | None
    ) -> None:
        """Looking and submitting are two calls; what lies between them is not the engine's."""
        job = self._lose(kit, answer_lost)
        self._once(kit, kit.take(job))

    def _lose(self, kit: Kit, answer_lost: Breaking | None) -> Submission:
        offered(answer_lost, "answer_lost")
        assert answer_lost is not None
        job = kit.make(COUNTED, cwd=kit.shared)
        with answer_lost(), pytest.raises(TransientError):
            kit.answer(job)
        return job

    def test_e2_a_submission_that_is_accepted_late_starts_once(self, kit: Kit, accepted_late: Breaking | None) -> None:
        """The scheduler may work through its queue after the client gave up, and the engine has submitted again."""
        offered(accepted_late, "accepted_late")
        assert accepted_late is not None
        job = kit.make(COUNTED, cwd=kit.shared)
        with accepted_late(), pytest.raises(TransientError):
            kit.answer(job)
        self._once(kit, kit.take(job))

    def test_e2_a_job_that_its_scheduler_forgot_and_that_is_submitted_again_starts_once(
        self, kit: Kit, expire: Callable[[Handle], None] | None
    ) -> None:
        """Its name is free again; the claim in the job's folder is not."""
        offered(expire, "expire")
        assert expire is not None
        if not kit.able.shares_files:
            pytest.skip("capability missing: shares_files")
        job = kit.make(COUNTED, cwd=kit.shared)
        handle = kit.take(job)
        kit.end(handle)
        expire(handle)
        kit.reopen()
        self._once(kit, kit.take(job))

    @pytest.mark.parametrize(("code", "condition"), [(0, "success"), (3, "failure"), (0, "any"), (3, "any")], ids=str)
    def test_e2_a_job_that_its_scheduler_holds_back_starts_after_its_upstream(
        self, kit: Kit, code: int, condition: str
    ) -> None:
        """Edges may be handed to a scheduler, and then no driver has to be there."""
        _keeps_edges(kit)
        upstream = kit.start(f"echo up; {kit.gate()}; touch ended; exit {code}", cwd=kit.shared)
        kit.shows(upstream)
        look = "if [ -e ended ]; then echo after; else echo before; fi >>runs"
        edge = kit.edge(upstream, Condition(condition))
        job = kit.make(look, cwd=kit.shared, after=[edge])
        handle = kit.take(job)
        assert kit.poll(handle).members[0].state is State.PENDING
        kit.leave()
        kit.open_gate()
        kit.until(lambda: kit.lines("runs"), "the start of what waited")
        kit.enter()
        handle = kit.find(job)[job.key]
        assert kit.member(handle).exit_code == 0
        assert kit.lines("runs") == ["after"]

    @pytest.mark.parametrize(("code", "condition"), [(3, "success"), (0, "failure")], ids=str)
    def test_e2_a_job_whose_edge_does_not_hold_never_starts_and_leaves_its_queue(
        self, kit: Kit, code: int, condition: str
    ) -> None:
        """Whatever its scheduler takes for a success, or has forgotten."""
        _keeps_edges(kit)
        upstream = kit.start(f"echo up; {kit.gate()}; exit {code}", cwd=kit.shared)
        kit.shows(upstream)
        job = kit.make(COUNTED, cwd=kit.shared, after=[kit.edge(upstream, Condition(condition))])
        behind = kit.make(COUNTED, cwd=kit.shared, after=[kit.edge(kit.take(job), Condition.SUCCESS)])
        handles = [*kit.find(job).values(), kit.take(behind)]
        kit.open_gate()
        for handle in handles:
            [member] = kit.end(handle).members
            assert member.state in (State.SKIPPED, State.CANCELLED)
        assert kit.lines("runs") == []

    def test_e2_an_upstream_that_a_signal_reached_is_no_success(self, kit: Kit) -> None:
        """A scheduler may know an exit code of 0 only."""
        _keeps_edges(kit)
        upstream = kit.start(f"trap 'exit 0' TERM; echo up; {kit.gate()}", cwd=kit.shared)
        kit.shows(upstream)
        job = kit.make(COUNTED, cwd=kit.shared, after=[kit.edge(upstream, Condition.SUCCESS)])
        handle = kit.take(job)
        kit.backend.cancel([upstream])
        kit.end(upstream)
        kit.end(handle)
        assert kit.lines("runs") == []

    def test_e2_a_requeued_job_starts_once_an_incarnation(
        self, kit: Kit, requeue: Callable[[Handle], None] | None
    ) -> None:
        """The scheduler may start a job again, and says so."""
        offered(requeue, "requeue")
        assert requeue is not None
        handle = kit.take(kit.make(f"echo ran >>runs; echo up; {kit.gate()}; exit 4", cwd=kit.shared))
        kit.shows(handle)
        requeue(handle)
        kit.until(lambda: kit.lines("runs") == ["ran", "ran"], "the second start")
        kit.open_gate()
        seen = kit.end(handle)
        assert seen.incarnation == 1
        assert seen.is_over
        self._ran(kit, 2)
