"""E3, E4, E6 and E12: what a poll says, and what it costs."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable

import pytest

from nemorun_core import UNKNOWN, Accepted, Handle, Observation, State, TransientError
from nemorun_devkit.base import Breaking, LawsBase
from nemorun_devkit.kit import Kit, offered

__all__ = ["LawE3", "LawE4", "LawE6", "LawE12"]

OBSERVABLE = {State.PENDING, State.RUNNING, State.SUCCEEDED, State.FAILED, State.CANCELLED}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
NOBODY = "nobody-aaaaaaaaaaaaa"


class LawE3(LawsBase):
    """A scheduler that does not answer has said nothing. Whoever reads silence as an end gives up jobs that run, or
    starts them again; whoever leaves a handle out is asked about it for ever."""

    def test_e3_a_handle_that_is_not_there_is_answered_as_unknown(self, kit: Kit) -> None:
        """That the scheduler has none of it is an answer, and the engine counts it."""
        assert kit.poll(NOBODY) == UNKNOWN

    def test_e3_every_handle_is_answered_beside_unknown_ones(self, kit: Kit) -> None:
        """One that is gone must not hide the others."""
        handles = [kit.start(f"exit {code}") for code in (3, 4)]
        for handle in handles:
            kit.end(handle)
        asked = [NOBODY, handles[0], f"{NOBODY}-2", handles[1]]
        found = kit.backend.poll(asked)
        assert set(asked) <= set(found)
        assert [found[handle].members[0].exit_code for handle in handles] == [3, 4]
        assert [found[asked[0]], found[asked[2]]] == [UNKNOWN, UNKNOWN]

    def test_e3_a_hundred_unknown_handles_are_answered(self, kit: Kit) -> None:
        """More than fit in one page of a scheduler's answer."""
        asked = [f"{NOBODY}-{number}" for number in range(100)]
        found = kit.backend.poll(asked)
        assert {handle: found[handle] for handle in asked} == dict.fromkeys(asked, UNKNOWN)

    def test_e3_a_poll_of_nothing_answers_nothing(self, kit: Kit) -> None:
        """It may ask the scheduler for all of its jobs, and must not tell of them."""
        assert dict(kit.backend.poll([])) == {}

    def test_e3_a_job_that_was_never_submitted_is_not_found(self, kit: Kit) -> None:
        """What is not in the answer was surely not taken, and is submitted."""
        assert dict(kit.find(kit.make("exit 0"))) == {}

    def test_e3_find_answers_for_those_that_are_there_alone(self, kit: Kit) -> None:
        """Some of a batch were taken before the driver died."""
        there, missing = kit.make("exit 0"), kit.make("exit 0")
        handle = kit.take(there)
        kit.end(handle)
        kit.reopen()
        assert dict(kit.find(missing, there)) == {there.key: handle}

    def test_e3_a_failed_poll_is_said_to_have_failed(self, kit: Kit, scheduler_down: Breaking | None) -> None:
        """And afterwards the job is where it was."""
        down = self._down(scheduler_down)
        handle = kit.start(f"echo up; {kit.gate()}; exit 3")
        kit.shows(handle)
        for _ in range(2):
            with down(), pytest.raises(TransientError):
                kit.backend.poll([handle])
            assert kit.poll(handle).members[0].state is State.RUNNING
        kit.open_gate()
        assert kit.member(handle).exit_code == 3

    def test_e3_a_failed_poll_of_what_is_not_known_is_no_unknown(
        self, kit: Kit, scheduler_down: Breaking | None
    ) -> None:
        """`UNKNOWN` for long enough makes a job LOST, so it must come from the scheduler."""
        down = self._down(scheduler_down)
        with down(), pytest.raises(TransientError):
            kit.backend.poll([NOBODY])

    def test_e3_a_failed_find_is_said_to_have_failed(self, kit: Kit, scheduler_down: Breaking | None) -> None:
        """An answer without the one that nobody knows would let the engine submit it, perhaps again."""
        down = self._down(scheduler_down)
        job, unknown = kit.make("exit 3"), kit.make("exit 3")
        handle = kit.take(job)
        kit.end(handle)
        kit.reopen()
        with down(), pytest.raises(TransientError):
            kit.backend.find([job, unknown])
        assert kit.find(job) == {job.key: handle}

    def test_e3_a_failed_cancel_is_said_to_have_failed(self, kit: Kit, scheduler_down: Breaking | None) -> None:
        """The engine asks again; a cancel that is silently lost would let the job run on."""
        down = self._down(scheduler_down)
        handle = kit.start("echo up; sleep 60")
        kit.shows(handle)
        with down(), pytest.raises(TransientError):
            kit.backend.cancel([handle])
        kit.backend.cancel([handle])
        assert kit.member(handle).state is not State.SUCCEEDED

    def test_e3_a_failed_submit_is_said_to_have_failed(self, kit: Kit, scheduler_down: Breaking | None) -> None:
        """It is no refusal: the job waits until the scheduler is there."""
        down = self._down(scheduler_down)
        job = kit.make("exit 3")
        with down(), pytest.raises(TransientError):
            kit.answer(job)
        handle = kit.find(job).get(job.key) or kit.take(job)
        assert kit.member(handle).exit_code == 3

    def _down(self, scheduler_down: Breaking | None) -> Breaking:
        offered(scheduler_down, "scheduler_down")
        assert scheduler_down is not None
        return scheduler_down


def _rank(state: State) -> int:
    return 0 if state is State.PENDING else 1 if state is State.RUNNING else 2


class LawE4(LawsBase):
    """Dependants start when a job is final. A state that is taken back afterwards cannot be taken back in them."""

    @pytest.mark.parametrize("script", ["exit 0", "exit 3", "sleep 0.1", "kill -KILL $$"])
    def test_e4_states_only_move_forward(self, kit: Kit, script: str) -> None:
        """Seen as often as it can be asked, from the submission to the end."""
        ranks = [_rank(seen.members[0].state) for seen in kit.watch(kit.start(script)) if seen.members]
        assert ranks == sorted(ranks)

    @pytest.mark.parametrize("script", ["exit 0", "exit 3", "kill -KILL $$"])
    def test_e4_what_was_final_stays_as_it_is(self, kit: Kit, script: str) -> None:
        """Every word of it: state, exit code, reason and times."""
        handle = kit.start(script)
        seen = kit.end(handle)
        assert [kit.poll(handle) for _ in range(5)] == [seen] * 5

    @pytest.mark.parametrize("script", ["exit 0", "exit 3", "kill -KILL $$"])
    def test_e4_what_was_final_stays_so_for_the_next_connection(self, kit: Kit, script: str) -> None:
        """The end is the job's, not what one connection remembers."""
        job = kit.make(script)
        before = kit.member(kit.take(job))
        after = kit.member(kit.adopt(job))
        assert (after.state, after.exit_code, after.reason) == (before.state, before.exit_code, before.reason)

    def test_e4_a_running_job_is_running(self, kit: Kit) -> None:
        """And nothing of its end is told before."""
        handle = kit.start("echo up; sleep 60")
        kit.shows(handle)
        kit.until(lambda: kit.poll(handle).members[0].state is State.RUNNING, "RUNNING")
        [member] = kit.poll(handle).members
        assert (member.state, member.exit_code, member.ended) == (State.RUNNING, None, None)

    def test_e4_times_are_in_order_and_sort_as_text(self, kit: Kit) -> None:
        """Reports compare them as text."""
        member = kit.run("exit 0")
        for moment in (member.started, member.ended):
            assert moment is not None
            assert TIME.fullmatch(moment)
        assert (member.started or "") <= (member.ended or "")

    def test_e4_the_start_does_not_move(self, kit: Kit) -> None:
        """One start has one time."""
        handle = kit.start("sleep 0.1")
        starts = {seen.members[0].started for seen in kit.watch(handle) if seen.members} - {None}
        assert len(starts) == 1

    def test_e4_a_job_is_not_final_while_a_member_runs(self, kit: Kit) -> None:
        """Ended members are, each for itself."""
        if kit.able.group is None:
            pytest.skip("capability missing: group")
        handle = kit.start("exit 3", f"{kit.gate()}; exit 4")
        kit.until(lambda: (seen := kit.poll(handle)).members and seen.members[0].state.is_final, "the first end")
        assert not kit.poll(handle).members[1].state.is_final
        kit.open_gate()
        assert [member.exit_code for member in kit.end(handle).members] == [3, 4]

    def test_e4_a_release_may_be_repeated_by_the_next_driver(self, kit: Kit) -> None:
        """One that was killed may or may not have released before."""
        job = kit.make("exit 3")
        handle = kit.take(job)
        kit.end(handle)
        kit.backend.release([handle])
        kit.reopen()
        kit.find(job)
        for _ in range(2):
            kit.backend.release([handle])
        seen = kit.poll(handle)
        assert not seen.members or seen.members[0].exit_code == 3, f"a released job became {seen}"

    def test_e4_a_release_makes_nothing_run_again(self, kit: Kit) -> None:
        """What is released may be unknown, or as it was."""
        handle = kit.start("exit 3")
        seen = kit.end(handle)
        kit.backend.release([handle])
        assert kit.poll(handle) in (seen, UNKNOWN)

    def test_e4_connections_agree(self, kit: Kit) -> None:
        """Whoever watches beside sees the same end."""
        job = kit.make("exit 7")
        handle = kit.take(job)
        other = kit.another()
        assert other.find([job]) == {job.key: handle}
        kit.end(handle)
        kit.until(lambda: kit.poll(handle, other).is_over, "the end on the other connection")
        [member] = kit.poll(handle, other).members
        assert (member.state, member.exit_code) == (State.FAILED, 7)

    def test_e4_a_requeue_is_no_end(self, kit: Kit, requeue: Callable[[Handle], None] | None) -> None:
        """The first incarnation's end is not the job's: another follows."""
        offered(requeue, "requeue")
        assert requeue is not None
        handle = kit.start(f"echo up; {kit.gate()}; exit 4")
        kit.shows(handle)
        requeue(handle)
        kit.until(lambda: not self._open(kit, handle).is_over and kit.poll(handle).incarnation == 1, "incarnation 1")
        kit.open_gate()
        assert kit.member(handle).exit_code == 4

    def _open(self, kit: Kit, handle: Handle) -> Observation:
        seen = kit.poll(handle)
        assert not seen.is_over, f"a job that starts again was said to be over: {seen}"
        return seen


class LawE6(LawsBase):
    """A job that one poll does not show may be between two tables of the scheduler. Only the engine, which knows how
    long it asked, may call it lost."""

    @pytest.mark.parametrize("script", ["exit 0", "exit 3", "kill -KILL $$", "sleep 0.05"])
    def test_e6_a_poll_says_what_it_may_say_alone(self, kit: Kit, script: str) -> None:
        """PENDING, RUNNING, SUCCEEDED, FAILED or CANCELLED."""
        for seen in kit.watch(kit.start(script)):
            assert {member.state for member in seen.members} <= OBSERVABLE

    def test_e6_an_unknown_handle_is_neither_lost_nor_failed(self, kit: Kit) -> None:
        """Not at the first poll, and not at the tenth."""
        assert [kit.poll(NOBODY) for _ in range(10)] == [UNKNOWN] * 10

    def test_e6_a_running_job_that_its_scheduler_forgot_has_not_ended(
        self, kit: Kit, expire: Callable[[Handle], None] | None
    ) -> None:
        """It is unknown, or still seen to run."""
        offered(expire, "expire")
        assert expire is not None
        handle = kit.start("echo up; sleep 60")
        kit.shows(handle)
        expire(handle)
        for _ in range(5):
            assert not kit.poll(handle).is_over

    def test_e6_a_job_that_its_scheduler_forgot_is_not_lost_where_its_records_are(
        self, kit: Kit, expire: Callable[[Handle], None] | None
    ) -> None:
        """The outcome in the job's folder is a better witness than the scheduler."""
        offered(expire, "expire")
        assert expire is not None
        if not kit.able.shares_files:
            pytest.skip("capability missing: shares_files")
        handle = kit.start("exit 7")
        kit.end(handle)
        expire(handle)
        assert kit.member(handle).exit_code == 7

    def test_e6_a_handle_of_another_connection_is_not_guessed(self, kit: Kit) -> None:
        """A connection that was not asked to find it knows it or not, and says nothing else."""
        handle = kit.start("echo up; sleep 60")
        kit.shows(handle)
        seen = kit.another().poll([handle])[handle]
        assert seen == UNKNOWN or seen.members[0].state is State.RUNNING


class LawE12(LawsBase):
    """A scheduler is shared by all its users. One that is asked about each job by itself breaks down under a thousand
    of them, and its administrators lock out whoever did it."""

    def test_e12_a_poll_of_twenty_jobs_costs_as_much_as_one_of_one(
        self, kit: Kit, count_queries: Callable[[], int] | None
    ) -> None:
        """However many are asked for."""
        offered(count_queries, "count_queries")
        assert count_queries is not None
        found = kit.answers([kit.make("sleep 60") for _ in range(20)])
        handles = [answer.handle for answer in found.values() if isinstance(answer, Accepted)]
        assert len(handles) == 20
        costs = []
        for asked in (handles[:1], handles):
            kit.backend.poll(asked)
            before = count_queries()
            kit.backend.poll(asked)
            costs.append(count_queries() - before)
        assert costs[1] <= max(costs[0], 1)

    def test_e12_a_search_for_twenty_jobs_costs_as_much_as_one_for_one(
        self, kit: Kit, count_queries: Callable[[], int] | None
    ) -> None:
        """After a crash all are looked for at once."""
        offered(count_queries, "count_queries")
        assert count_queries is not None
        jobs = [kit.make("exit 0") for _ in range(20)]
        costs = []
        for asked in (jobs[:1], jobs):
            before = count_queries()
            kit.backend.find(asked)
            costs.append(count_queries() - before)
        assert costs[1] <= max(costs[0], 1)

    @pytest.mark.nightly
    def test_e12_a_poll_of_a_thousand_jobs_costs_as_much_as_one_of_one(
        self, kit: Kit, count_queries: Callable[[], int] | None
    ) -> None:
        """As a sweep has them; a few pages more are allowed."""
        offered(count_queries, "count_queries")
        assert count_queries is not None
        jobs = [kit.make("exit 0") for _ in range(1000)]
        handles: list[Handle] = []
        for first in range(0, 1000, 50):
            found = kit.answers(jobs[first : first + 50])
            handles.extend(answer.handle for answer in found.values() if isinstance(answer, Accepted))
            for handle in handles[first:]:
                kit.end(handle)
        before = count_queries()
        kit.backend.poll(handles)
        assert count_queries() - before <= 10

    def test_e12_without_wait_there_is_an_interval(self, kit: Kit) -> None:
        """Polls follow one another with a pause, where nothing tells that something changed."""
        if not kit.able.wait:
            assert kit.able.poll_interval_seconds > 0

    def test_e12_a_wait_ends_when_a_job_ends(self, kit: Kit) -> None:
        """So that nothing has to be asked meanwhile."""
        self._waits(kit)
        handle = kit.start(f"echo up; {kit.gate()}")
        kit.shows(handle)
        kit.poll(handle)
        kit.open_gate()
        began = time.monotonic()
        while not kit.poll(handle).is_over:
            kit.backend.wait([handle], kit.seconds)
        assert time.monotonic() - began < kit.seconds

    def test_e12_a_wait_tells_of_a_start(self, kit: Kit) -> None:
        """A job that came out of the queue is not shown as PENDING until it ends."""
        self._waits(kit)
        handle = kit.start("echo up; sleep 60")
        deadline = time.monotonic() + kit.seconds
        while not (seen := kit.backend.poll([handle])[handle]).members or seen.members[0].state is State.PENDING:
            kit.backend.wait([handle], kit.seconds)
            assert time.monotonic() < deadline, "no wait told of the start"

    def test_e12_a_wait_tells_which_handles_are_worth_a_poll(self, kit: Kit) -> None:
        """The one that ended is among them."""
        self._waits(kit)
        ending, other = kit.start(f"echo up; {kit.gate()}"), kit.start("echo up; sleep 60")
        for handle in (ending, other):
            kit.shows(handle)
            kit.poll(handle)
        kit.open_gate()
        deadline = time.monotonic() + kit.seconds
        while ending not in kit.backend.wait([ending, other], 1.0):
            assert time.monotonic() < deadline, "no wait told of the job that ended"

    def test_e12_a_wait_with_nothing_to_tell_ends_with_its_time(self, kit: Kit) -> None:
        """Neither at once, which would be a busy loop, nor later."""
        self._waits(kit)
        handle = kit.start("echo up; sleep 60")
        kit.shows(handle)
        deadline = time.monotonic() + kit.seconds
        while True:  # what the start has to tell may come first
            kit.poll(handle)
            began = time.monotonic()
            changed = kit.backend.wait([handle], 0.2)
            if not changed and time.monotonic() - began >= 0.15:
                return
            assert time.monotonic() < deadline, "each wait ends at once, though nothing changed"

    def test_e12_wake_ends_a_wait(self, kit: Kit) -> None:
        """A user who cancels does not wait for the scheduler."""
        self._waits(kit)
        handle = kit.start("echo up; sleep 60")
        kit.shows(handle)
        kit.poll(handle)
        done = threading.Event()

        def wait() -> None:
            kit.backend.wait([handle], kit.seconds)
            done.set()

        thread = threading.Thread(target=wait)
        thread.start()
        try:
            assert self._woken(kit, done), "wake did not end the wait"
        finally:
            kit.backend.wake()
            thread.join(kit.seconds)

    def _woken(self, kit: Kit, done: threading.Event) -> bool:
        deadline = time.monotonic() + kit.seconds / 2
        while time.monotonic() < deadline:
            kit.backend.wake()
            if done.wait(0.05):
                return True
        return False

    def _waits(self, kit: Kit) -> None:
        if not kit.able.wait:
            pytest.skip("capability missing: wait")
