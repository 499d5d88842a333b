"""Backends that are wrong, each in one way, over the correct one; `LIARS` says which law and claim each breaks.

The file is run by `test_liars.py`, which collects it by its path: for each liar, the test of the claim that it breaks.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import ClassVar

import attrs
import pytest

from nemorun_core import (
    UNKNOWN,
    Accepted,
    Deferred,
    Document,
    Observation,
    Reason,
    ReasonKind,
    Rejected,
    State,
    TransientError,
    UsageError,
)

from .memory import MemoryBackend, MemoryExecutor
from .memory_laws import one_law

LIARS: dict[str, tuple[str, tuple[str, ...]]] = {}
PATIENCE_SECONDS = 1.0


def breaks(law, *claims, **fields):
    """Note which law a liar breaks, which of its tests say so, and with which of the executor's fields it is run."""

    def note(liar):
        LIARS[liar.__name__] = (law, claims)
        members = {"fields": {"lie": liar.__name__, **fields}, "patience_seconds": PATIENCE_SECONDS}
        globals()[f"Test{liar.__name__}"] = type(f"Test{liar.__name__}", one_law(law), members)
        return liar

    return note


def with_members(seen, change):
    """Change each member of an observation."""
    return attrs.evolve(seen, members=tuple(map(change, seen.members)))


# E1: whole or not at all.


@breaks("E1", "a_group_with_a_wrong_member_starts_none")
class StartsHalfAGroup(MemoryBackend):
    """Starts the members before it looks at the last one."""

    def offer(self, job):
        answer = super().offer(job)
        if isinstance(answer, Rejected) and len(job.members) > 1:
            good = [index for index, member in enumerate(job.members) if "\0" not in "".join(member.argv)]
            members = tuple(job.members[index] for index in good)
            half = attrs.evolve(job, members=members, executors=job.executors[: len(members)])
            super().offer(half)
            self.jobs.pop(self.name(job.key), None)
            self.cluster.remove(self.name(job.key))
        return answer


@breaks("E1", "a_refusal_says_why")
class RefusesWithoutAReason(MemoryBackend):
    def offer(self, job):
        answer = super().offer(job)
        return Rejected(Reason(ReasonKind.REJECTED)) if isinstance(answer, Rejected) else answer


@breaks("E1", "a_refused_job_is_not_found")
class RefusedJobLeavesARecord(MemoryBackend):
    def offer(self, job):
        answer = super().offer(job)
        if isinstance(answer, Rejected):
            pids = [1] * len(job.members)
            self.cluster.write(self.name(job.key), {**self.spec(job), "pids": pids, "incarnation": 0, "stopped": None})
        return answer


@breaks("E1", "a_refused_job_does_not_hurt_its_neighbours")
class RefusesTheWholeBatch(MemoryBackend):
    def submit(self, jobs):
        for job in jobs:
            answer = self.offer(job)
            yield job.key, answer
            if isinstance(answer, Rejected):
                raise UsageError("one of them is wrong")


@breaks("E1", "a_full_scheduler_defers_and_takes_the_job_later")
class RefusesWhatADeferWouldDo(MemoryBackend):
    def offer(self, job):
        answer = super().offer(job)
        return Rejected(answer.reason) if isinstance(answer, Deferred) else answer


@breaks("E1", "each_job_of_a_call_is_answered_once_and_in_order")
class SkipsAnAnswer(MemoryBackend):
    def submit(self, jobs):
        yield from list(super().submit(jobs))[:1]


@breaks("E1", "a_submit_of_nothing_answers_nothing")
class BreaksForAnEmptyBatch(MemoryBackend):
    def submit(self, jobs):
        first = jobs[0]
        assert first is not None
        yield from super().submit(jobs)


@breaks("E1", "a_taken_job_shows_all_its_members")
class DoublesMembers(MemoryBackend):
    def observe(self, job, entry):
        seen = super().observe(job, entry)
        return attrs.evolve(seen, members=seen.members * 2)


# E2: once.


@breaks(
    "E2",
    "a_finished_job_that_is_submitted_again_does_not_start",
    "a_cancelled_job_that_is_submitted_again_does_not_start",
)
class StartsAgainWhenSubmittedAgain(MemoryBackend):
    def create(self, job, environments):
        name = self.name(job.key)
        if (entry := self.cluster.entries().get(name)) and entry["key"] == str(job.key):
            self.cluster.remove(name)
            for path in Path(job.folder).glob("*.start"):
                path.unlink()
        return super().create(job, environments)


class NamesEachSubmission(MemoryBackend):
    """Counts its submissions, and gives each a name and a folder of its own."""

    rounds = 0

    def name(self, key):
        return f"{super().name(key)}-{self.rounds}"

    def where(self, job):
        return f"{job.folder}/{self.rounds}"


@breaks("E2", "a_job_whose_answer_got_lost_is_found_and_started_once")
class StartsAgainWhenItsAnswerWasLost(NamesEachSubmission):
    def create(self, job, environments):
        try:
            return super().create(job, environments)
        except TransientError:
            self.rounds += 1
            self.cluster.start(self.name(job.key), self.spec(job), environments)
            raise


@breaks(
    "E2",
    "a_submission_that_is_accepted_late_starts_once",
    "a_job_that_is_submitted_twice_starts_once",
    "a_job_that_is_twice_in_a_call_starts_once",
    "a_job_whose_answer_got_lost_and_that_is_submitted_again_starts_once",
)
class RunsALateAcceptanceAgain(NamesEachSubmission):
    def offer(self, job):
        self.rounds += 1
        return super().offer(job)


@breaks("E2", "looking_for_a_job_starts_nothing")
class StartsWhatItLooksFor(MemoryBackend):
    def find(self, jobs):
        for job in jobs:
            self.offer(job)
        return super().find(jobs)


@breaks(
    "E2",
    "a_running_job_that_another_connection_submits_starts_once",
    "a_job_that_its_scheduler_forgot_and_that_is_submitted_again_starts_once",
    "a_finished_job_that_another_connection_submits_does_not_start",
)
class RunsWithoutAClaim(MemoryBackend):
    """Runs the program directly when its connection does not know the job."""

    def offer(self, job):
        known = self.name(job.key) in self.jobs
        if not known:
            self.cluster.remove(self.name(job.key))
            for path in Path(job.folder).glob("*.start"):
                path.unlink()
        return super().offer(job)


@breaks("E2", "a_job_that_is_adopted_while_it_runs_starts_once")
class DoesNotFindWhatItsPredecessorTook(MemoryBackend):
    def find(self, jobs):
        return {key: handle for key, handle in super().find(jobs).items() if handle in self.ends}


@breaks(
    "E2",
    "drivers_that_race_start_a_job_once",
    "each_member_of_a_group_that_is_submitted_twice_starts_once",
    "a_job_whose_answer_got_lost_is_found_by_the_next_driver",
)
class NamesAfterItsConnection(NamesEachSubmission):
    def __init__(self, executor):
        super().__init__(executor)
        self.rounds = id(self) + time.time_ns()


@breaks("E2", "a_further_attempt_is_a_start_of_its_own")
class TakesAllAttemptsForOne(MemoryBackend):
    def name(self, key):
        return super().name(key._replace(attempt=0))


@breaks("E2", "a_requeued_job_starts_once_an_incarnation")
class HidesIncarnations(MemoryBackend):
    def observe(self, job, entry):
        return attrs.evolve(super().observe(job, entry), incarnation=0)


# E3: no answer is no state.


@breaks("E3", "a_failed_poll_is_said_to_have_failed")
class ReadsAFailedQueryAsFinished(MemoryBackend):
    def poll(self, handles):
        try:
            return super().poll(handles)
        except TransientError:
            return {handle: self.observe(self.jobs[handle], None) for handle in handles}


@breaks("E3", "a_failed_poll_is_said_to_have_failed", "a_failed_poll_of_what_is_not_known_is_no_unknown")
class ReadsAFailedQueryAsUnknown(MemoryBackend):
    def poll(self, handles):
        try:
            return super().poll(handles)
        except TransientError:
            return dict.fromkeys(handles, UNKNOWN)


@breaks("E3", "a_failed_poll_is_said_to_have_failed")
class AnswersFromMemoryWhenTheSchedulerIsDown(MemoryBackend):
    answered: ClassVar[dict[str, Observation]] = {}

    def poll(self, handles):
        with contextlib.suppress(TransientError):
            self.answered.update(super().poll(handles))
        return {handle: self.answered.get(handle, UNKNOWN) for handle in handles}


@breaks(
    "E3",
    "a_handle_that_is_not_there_is_answered_as_unknown",
    "a_hundred_unknown_handles_are_answered",
    "every_handle_is_answered_beside_unknown_ones",
)
class LeavesUnknownHandlesOut(MemoryBackend):
    def poll(self, handles):
        return {handle: seen for handle, seen in super().poll(handles).items() if seen != UNKNOWN}


@breaks("E3", "a_handle_that_is_not_there_is_answered_as_unknown")
class FailsForUnknownHandles(MemoryBackend):
    def poll(self, handles):
        found = super().poll(handles)
        return {handle: found[handle] for handle in handles if self.jobs[handle] is not None}


@breaks("E3", "a_failed_find_is_said_to_have_failed")
class FindsNothingWhenTheSchedulerIsDown(MemoryBackend):
    def find(self, jobs):
        try:
            return super().find(jobs)
        except TransientError:
            return {}


@breaks("E3", "a_failed_cancel_is_said_to_have_failed")
class LosesACancelWhenTheSchedulerIsDown(MemoryBackend):
    def cancel(self, handles):
        with contextlib.suppress(TransientError):
            super().cancel(handles)


@breaks("E3", "a_failed_submit_is_said_to_have_failed")
class RefusesWhenTheSchedulerIsDown(MemoryBackend):
    def create(self, job, environments):
        try:
            return super().create(job, environments)
        except TransientError as error:
            return Rejected(Reason(ReasonKind.REJECTED, str(error)))


@breaks("E3", "a_poll_of_nothing_answers_nothing")
class TellsOfJobsThatNobodyAskedFor(MemoryBackend):
    def poll(self, handles):
        found = super().poll(handles)
        return found if handles else {"stranger": UNKNOWN}


@breaks("E3", "a_job_that_was_never_submitted_is_not_found", "find_answers_for_those_that_are_there_alone")
class FindsEverything(MemoryBackend):
    def is_there(self, job, entries):
        return True


# E4: forward only.


@breaks("E4", "what_was_final_stays_as_it_is")
class RevokesAFinalState(MemoryBackend):
    def look(self, handle, entry):
        seen = super().look(handle, entry)
        if handle in self.ends and not hasattr(self, "told"):
            self.told = True
            return seen
        running = attrs.evolve
        return with_members(seen, lambda one: running(one, state=State.RUNNING)) if handle in self.ends else seen


@breaks("E4", "a_running_job_is_running")
class CallsAJobFinishedBeforeItIs(MemoryBackend):
    def member(self, job, entry, index):
        seen = super().member(job, entry, index)
        return attrs.evolve(seen, state=State.SUCCEEDED, exit_code=0) if seen.state is State.RUNNING else seen


@breaks("E4", "a_requeue_is_no_end")
class ReadsARequeueAsAnEnd(MemoryBackend):
    def observe(self, job, entry):
        seen = super().observe(job, entry)
        if seen.incarnation:
            return with_members(attrs.evolve(seen, incarnation=0), lambda one: attrs.evolve(one, state=State.FAILED))
        return seen


@breaks("E4", "states_only_move_forward")
class GoesBackToPending(MemoryBackend):
    polls = 0

    def look(self, handle, entry):
        seen = super().look(handle, entry)
        self.polls += 1
        if self.polls % 2 and handle not in self.ends:
            return with_members(seen, lambda one: attrs.evolve(one, state=State.PENDING))
        return seen


@breaks("E4", "times_are_in_order_and_sort_as_text")
class TurnsTimesAround(MemoryBackend):
    def ended(self, witness):
        seen = super().ended(witness)
        return attrs.evolve(seen, started="2031-01-01T00:00:00.000Z")


@breaks("E4", "times_are_in_order_and_sort_as_text")
class WritesTimesInAnotherFormat(MemoryBackend):
    def ended(self, witness):
        seen = super().ended(witness)
        return attrs.evolve(seen, ended=(seen.ended or "").replace("T", " "))


@breaks("E4", "the_start_does_not_move")
class TellsANewStartAtEachPoll(MemoryBackend):
    def member(self, job, entry, index):
        seen = super().member(job, entry, index)
        self.count = getattr(self, "count", 0) + 1
        return attrs.evolve(seen, started=f"2025-01-01T00:00:00.{self.count % 1000:03d}Z") if seen.started else seen


@breaks("E4", "a_job_is_not_final_while_a_member_runs")
class EndsAGroupWithItsFirstMember(MemoryBackend):
    def observe(self, job, entry):
        seen = super().observe(job, entry)
        ended = next((member for member in seen.members if member.state.is_final), None)
        return with_members(seen, lambda one: one if one.state.is_final else ended) if ended else seen


@breaks("E4", "what_was_final_stays_so_for_the_next_connection", "connections_agree")
class ForgetsAnEndWithItsConnection(MemoryBackend):
    def find(self, jobs):
        found = super().find(jobs)
        for handle in found.values():
            self.ends.setdefault(handle, Observation(members=(self.running(),) * len(self.jobs[handle].members)))
        return found

    def running(self):
        from nemorun_core import MemberObservation

        return MemberObservation(state=State.RUNNING)


@breaks("E4", "a_release_makes_nothing_run_again")
class ReleaseRevives(MemoryBackend):
    def release(self, handles):
        super().release(handles)
        for handle in handles:
            self.ends[handle] = with_members(self.ends[handle], lambda one: attrs.evolve(one, state=State.PENDING))


# E5: the program's own end.


@breaks("E5", "an_exit_code_is_the_programs_own")
class SwallowsTheExitCode(MemoryBackend):
    def ended(self, witness):
        seen = super().ended(witness)
        return attrs.evolve(seen, exit_code=1) if seen.exit_code else seen


@breaks("E5", "an_exit_code_is_the_programs_own")
class CallsEveryEndASuccess(MemoryBackend):
    def ended(self, witness):
        return attrs.evolve(super().ended(witness), state=State.SUCCEEDED, reason=None)


@breaks("E5", "an_exit_code_is_the_programs_own")
class KeepsTheLowestBitsOfTheExitCode(MemoryBackend):
    def ended(self, witness):
        seen = super().ended(witness)
        return attrs.evolve(seen, exit_code=seen.exit_code & 0x7F) if seen.exit_code else seen


@breaks(
    "E5", "a_failure_has_its_exit_code_as_reason", "a_signal_is_named", "a_program_that_is_not_there_is_a_bad_command"
)
class LosesTheReason(MemoryBackend):
    def ended(self, witness):
        return attrs.evolve(super().ended(witness), reason=None)


@breaks("E5", "each_member_has_an_end_of_its_own")
class SucceedsAsAGroupWhenAnyMemberDid(MemoryBackend):
    def observe(self, job, entry):
        seen = super().observe(job, entry)
        if not all(one.state.is_final for one in seen.members):
            return seen
        if any(one.state is State.SUCCEEDED for one in seen.members):
            return with_members(seen, lambda one: attrs.evolve(one, state=State.SUCCEEDED, exit_code=0, reason=None))
        return seen


@breaks("E5", "an_end_survives_that_its_scheduler_forgets_it")
class TakesAForgottenJobForASuccess(MemoryBackend):
    def look(self, handle, entry):
        seen = super().look(handle, entry)
        if entry is None and handle in self.jobs:
            return with_members(seen, lambda one: attrs.evolve(one, state=State.SUCCEEDED, exit_code=0, reason=None))
        return seen


@breaks("E5", "an_end_survives_that_its_scheduler_forgets_it")
class ForgetsTheEndWithItsScheduler(MemoryBackend):
    def look(self, handle, entry):
        return super().look(handle, entry) if entry else UNKNOWN


@breaks("E5", "the_outcome_stands_in_the_jobs_folder_after_a_release")
class ReleaseRemovesTheOutcome(MemoryBackend):
    def release(self, handles):
        for handle in handles:
            for path in Path(self.jobs[handle].folder).glob("*.outcome"):
                path.unlink()
        super().release(handles)


@breaks("E5", "a_success_has_no_reason")
class GivesASuccessAReason(MemoryBackend):
    def ended(self, witness):
        seen = super().ended(witness)
        return attrs.evolve(seen, reason=seen.reason or Reason(ReasonKind.EXIT_CODE, "0"))


@breaks(
    "E5",
    "an_end_that_was_seen_survives_the_connection",
    "an_end_that_nobody_saw_is_told_to_the_next_connection",
    "an_end_survives_a_restart_of_the_scheduler",
)
class KnowsTheEndsOfItsOwnOnly(MemoryBackend):
    def find(self, jobs):
        self.found = super().find(jobs)
        return self.found

    def observe(self, job, entry):
        seen = super().observe(job, entry)
        if job.key not in getattr(self, "found", ()):
            return seen
        return with_members(seen, lambda one: attrs.evolve(one, exit_code=None) if one.state.is_final else one)


@breaks("E5", "what_is_written_to_standard_error_is_no_failure")
class TakesAnErrorMessageForAFailure(MemoryBackend):
    def observe(self, job, entry):
        seen = super().observe(job, entry)
        wrong = any(b"error" in path.read_bytes() for path in Path(job.folder).glob("*.out"))
        return with_members(seen, lambda one: attrs.evolve(one, state=State.FAILED)) if wrong else seen


@breaks("E5", "a_childs_exit_code_is_not_the_programs")
class StopsAtTheFirstError(MemoryBackend):
    def program(self, job, index):
        first, *rest = super().program(job, index)
        return [first, "-e", *rest] if first == "sh" else [first, *rest]


# E6: LOST is for the engine.


@breaks("E6", "a_poll_says_what_it_may_say_alone")
class InventsLost(MemoryBackend):
    def look(self, handle, entry):
        seen = super().look(handle, entry)
        lost = attrs.evolve
        return with_members(seen, lambda one: lost(one, state=State.LOST)) if handle in self.ends else seen


@breaks("E6", "an_unknown_handle_is_neither_lost_nor_failed", "a_handle_of_another_connection_is_not_guessed")
class CallsAnUnknownJobFailed(MemoryBackend):
    def look(self, handle, entry):
        from nemorun_core import MemberObservation

        seen = super().look(handle, entry)
        return Observation(members=(MemberObservation(state=State.FAILED),)) if seen == UNKNOWN else seen


@breaks("E6", "a_running_job_that_its_scheduler_forgot_has_not_ended")
class CallsAForgottenJobFinished(MemoryBackend):
    def look(self, handle, entry):
        from nemorun_core import MemberObservation

        seen = super().look(handle, entry)
        if seen == UNKNOWN and handle in self.jobs:
            return Observation(members=(MemberObservation(state=State.SUCCEEDED, exit_code=0),))
        return seen


@breaks("E6", "a_job_that_its_scheduler_forgot_is_not_lost_where_its_records_are")
class DoesNotReadTheRecords(MemoryBackend):
    def look(self, handle, entry):
        return super().look(handle, entry) if entry else UNKNOWN


# E7: cancel.


@breaks("E7", "a_cancelled_job_ends")
class CancelEndsFailed(MemoryBackend):
    def ended(self, witness):
        seen = super().ended(witness)
        return attrs.evolve(seen, signals=(), exit_code=1) if seen.signals else seen


@breaks("E7", "a_cancelled_job_ends", "an_experiments_job_ends_cancelled")
class CancelEndsSucceeded(MemoryBackend):
    def ended(self, witness):
        seen = super().ended(witness)
        return attrs.evolve(seen, signals=(), state=State.SUCCEEDED, exit_code=0) if seen.signals else seen


@breaks("E7", "a_program_that_ends_with_0_when_told_to_was_stopped", "a_program_may_clean_up")
class ForgetsTheNotedSignals(MemoryBackend):
    def ended(self, witness):
        return attrs.evolve(super().ended(witness), signals=())


@breaks("E7", "a_program_that_does_not_listen_is_killed_after_the_grace")
class CancelKillsAtOnce(MemoryBackend):
    def cancel(self, handles):
        self.stop(handles, grace=0.0)


@breaks("E7", "a_program_that_does_not_listen_is_killed_after_the_grace")
class CancelNeverKills(MemoryBackend):
    def press(self, job, entry):
        pass


@breaks("E7", "a_cancel_may_be_repeated")
class CancelSignalsEachTime(MemoryBackend):
    def stop_one(self, handle, entry, grace):
        again = bool(entry["stopped"])
        super().stop_one(handle, entry, grace)
        if again:
            time.sleep(0.02)
            self.send(entry, signal.SIGTERM)


@breaks("E7", "a_repeated_cancel_does_not_put_off_the_kill")
class CancelPutsOffTheKill(MemoryBackend):
    def stop_one(self, handle, entry, grace):
        if not entry["stopped"]:
            super().stop_one(handle, entry, grace)
        entry["stopped"]["kill_at"] = time.time() + entry["grace"]
        self.cluster.write(handle, entry)


@breaks("E7", "every_process_ends")
class CancelKillsOnlyTheFirstProcess(MemoryBackend):
    def send(self, entry, number):
        for pid in entry["pids"]:
            for path in Path(f"/proc/{pid}/task/{pid}").glob("children"):
                for child in path.read_text().split():
                    with contextlib.suppress(OSError):
                        os.kill(int(child), number)
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGTERM)


@breaks("E7", "every_process_ends")
class CancelReachesTheProcessGroupOnly(MemoryBackend):
    def send(self, entry, number):
        for pid in entry["pids"]:
            if number != signal.SIGKILL:
                with contextlib.suppress(OSError):
                    os.killpg(pid, number)
            else:
                super().send(entry, number)


@breaks("E7", "every_member_ends")
class CancelReachesTheFirstMemberOnly(MemoryBackend):
    def send(self, entry, number):
        for pid in entry["pids"][:1]:
            with contextlib.suppress(OSError):
                os.killpg(pid, number)


@breaks("E7", "a_finished_job_is_left_alone")
class CancelOfAnEndedJobIsAnError(MemoryBackend):
    def may_stop(self, handle, entry):
        if handle in self.ends:
            raise UsageError("the job has ended")
        return super().may_stop(handle, entry)


@breaks("E7", "an_unknown_handle_is_no_error")
class CancelOfAnUnknownJobIsAnError(MemoryBackend):
    def may_stop(self, handle, entry):
        return bool(self.jobs[handle]) and super().may_stop(handle, entry)


@breaks("E7", "a_finished_job_is_left_alone", "a_cancelled_job_stays_as_it_ended")
class CancelTurnsAnEndIntoCancelled(MemoryBackend):
    def cancel(self, handles):
        super().cancel(handles)
        for handle in handles:
            if handle in self.ends:
                self.ends[handle] = with_members(
                    self.ends[handle], lambda one: attrs.evolve(one, state=State.CANCELLED)
                )


@breaks("E7", "other_jobs_are_left_running")
class CancelsAllJobs(MemoryBackend):
    def cancel(self, handles):
        super().cancel(list(self.jobs) if handles else [])


@breaks("E7", "many_jobs_are_cancelled_in_one_call")
class CancelsTheFirstOfManyOnly(MemoryBackend):
    def cancel(self, handles):
        super().cancel(list(handles)[:1])


@breaks("E7", "a_job_is_cancelled_by_the_next_connection")
class CancelsOnlyWhatItSubmitted(MemoryBackend):
    def find(self, jobs):
        found = super().find(jobs)
        self.foreign = set(found.values())
        return found

    def may_stop(self, handle, entry):
        return handle not in getattr(self, "foreign", ()) and super().may_stop(handle, entry)


@breaks("E7", "a_finished_job_is_left_alone_by_the_next_connection")
class CallsWhateverItCancelsCancelled(MemoryBackend):
    def cancel(self, handles):
        super().cancel(handles)
        self.cancelled = set(handles)

    def observe(self, job, entry):
        seen = super().observe(job, entry)
        if self.name(job.key) not in getattr(self, "cancelled", ()):
            return seen
        final = State.CANCELLED
        return with_members(seen, lambda one: attrs.evolve(one, state=final) if one.state.is_final else one)


@breaks("E7", "a_kill_needs_no_grace")
class KillIsNoMoreThanACancel(MemoryBackend):
    def kill(self, handles):
        self.cancel(handles)


@breaks("E7", "a_job_is_cancelled_as_soon_as_it_is_taken")
class CancelsWhatItHasSeenOnly(MemoryBackend):
    def may_stop(self, handle, entry):
        return handle in self.last and super().may_stop(handle, entry)


# E8: logs. The shared file is changed when the end is seen; `read_log` where no files are shared.


class SpoilsLogs(MemoryBackend):
    def spoil(self, content):
        raise NotImplementedError

    def observe(self, job, entry):
        seen = super().observe(job, entry)
        if seen.members and all(one.state.is_final for one in seen.members) and self.name(job.key) not in self.ends:
            for path in Path(job.folder).glob("*.out"):
                path.write_bytes(self.spoil(path.read_bytes()))
        return seen


@breaks(
    "E8",
    "a_log_is_what_was_written",
    "the_last_words_of_a_killed_program_are_kept",
    "the_last_words_of_a_cancelled_program_are_kept",
)
class LosesTheLastLine(SpoilsLogs):
    def spoil(self, content):
        return b"".join(content.splitlines(keepends=True)[:-1])


@breaks("E8", "a_long_line_is_whole", "many_lines_are_whole_and_in_order")
class CutsLogsAt64KiB(SpoilsLogs):
    def spoil(self, content):
        return content[: 1 << 16]


@breaks("E8", "a_log_is_what_was_written")
class AddsANewline(SpoilsLogs):
    def spoil(self, content):
        return content if content.endswith(b"\n") or not content else content + b"\n"


@breaks("E8", "a_log_is_what_was_written")
class ChangesCarriageReturns(SpoilsLogs):
    def spoil(self, content):
        return content.replace(b"\r\n", b"\n")


@breaks("E8", "a_log_is_what_was_written")
class StopsAtNUL(SpoilsLogs):
    def spoil(self, content):
        return content.partition(b"\0")[0]


@breaks("E8", "a_log_is_what_was_written")
class DecodesLogs(SpoilsLogs):
    def spoil(self, content):
        return content.decode("utf-8", "replace").encode()


@breaks("E8", "a_log_is_what_was_written")
class ReadsLatin1(SpoilsLogs):
    def spoil(self, content):
        return content.decode("latin-1").encode()


@breaks("E8", "a_log_is_what_was_written")
class StripsColours(SpoilsLogs):
    def spoil(self, content):
        return content.replace(b"\x1b[31m", b"").replace(b"\x1b[0m", b"")


@breaks("E8", "a_log_is_what_was_written")
class StripsWhatLooksLikeATime(SpoilsLogs):
    def spoil(self, content):
        return content.replace(b"2026-01-01T00:00:00.000Z ", b"")


@breaks("E8", "a_log_stays_when_the_job_is_released")
class ReleaseRemovesTheLog(MemoryBackend):
    def release(self, handles):
        for handle in handles:
            for path in Path(self.jobs[handle].folder).glob("*.out"):
                path.unlink()
        super().release(handles)


@breaks("E8", "lines_can_be_read_while_the_program_runs")
class ShowsTheLogAtTheEndOnly(MemoryBackend):
    """Buffers it, as a client that copies files afterwards."""

    def program(self, job, index):
        keep = 'out=$(mktemp); "$@" >"$out" 2>&1; code=$?; cat "$out"; rm -f "$out"; exit $code'
        return ("sh", "-c", keep, "sh", *super().program(job, index))


@breaks("E8", "each_member_has_a_log_of_its_own")
class MixesMembersLogs(SpoilsLogs):
    def observe(self, job, entry):
        seen = super().observe(job, entry)
        paths = sorted(Path(job.folder).glob("*.out"))
        if len(paths) > 1 and all(one.state.is_final for one in seen.members):
            for path in paths:
                path.write_bytes(paths[0].read_bytes())
        return seen

    def spoil(self, content):
        return content


@breaks("E8", "a_log_can_be_read_in_pieces", shares=False)
class RepeatsAChunk(MemoryBackend):
    def read_log(self, handle, member, stream, offset, limit, incarnation):
        return super().read_log(handle, member, stream, max(0, offset - 1), limit, incarnation)


@breaks("E8", "a_log_can_be_read_in_pieces", shares=False)
class IgnoresTheLimit(MemoryBackend):
    def read_log(self, handle, member, stream, offset, limit, incarnation):
        return super().read_log(handle, member, stream, offset, 1 << 30, incarnation)


@breaks("E8", "a_piece_can_be_read_again", shares=False)
class ReadsOnWhereItWas(MemoryBackend):
    """Keeps its own place, and takes no heed of the offset."""

    def read_log(self, handle, member, stream, offset, limit, incarnation):
        places = self.__dict__.setdefault("places", {})
        data = super().read_log(handle, member, stream, places.get((handle, member, stream), 0), limit, incarnation)
        places[handle, member, stream] = places.get((handle, member, stream), 0) + len(data)
        return data


@breaks("E8", "standard_error_is_apart_where_that_was_asked")
class JoinsStandardError(MemoryBackend):
    def argv(self, job, index):
        return ["join" if word == "apart" else word for word in super().argv(job, index)]


@breaks("E8", "standard_error_joins_the_log_in_order")
class KeepsStandardErrorApart(MemoryBackend):
    def argv(self, job, index):
        return ["apart" if word == "join" else word for word in super().argv(job, index)]


@breaks("E8", "a_log_can_be_read_by_the_next_connection", "a_log_is_written_while_nobody_looks", shares=False)
class ReadsTheLogsOfItsOwnOnly(MemoryBackend):
    def find(self, jobs):
        self.found = set(found.values()) if (found := super().find(jobs)) else set()
        return found

    def read_log(self, handle, member, stream, offset, limit, incarnation):
        if handle in getattr(self, "found", ()):
            return b""
        return super().read_log(handle, member, stream, offset, limit, incarnation)


@breaks("E8", "nothing_new_is_empty", shares=False)
class BeginsAgainAtTheEnd(MemoryBackend):
    def read_log(self, handle, member, stream, offset, limit, incarnation):
        data = super().read_log(handle, member, stream, offset, limit, incarnation)
        return data or super().read_log(handle, member, stream, 0, limit, incarnation)


# E9: on their own.


@breaks("E9", "a_job_goes_on_when_its_connection_is_closed")
class EndsJobsWithItsConnection(MemoryBackend):
    def close(self):
        self.kill(list(self.jobs))


@breaks("E9", "a_connection_may_be_closed_again")
class ClosesOnce(MemoryBackend):
    closed = False

    def close(self):
        if self.closed:
            raise OSError("closed")
        self.closed = True


@breaks("E9", "a_job_goes_on_when_its_submitter_is_killed", "the_log_of_a_job_whose_submitter_was_killed_is_whole")
class DiesWithItsSubmitter(MemoryBackend):
    """Starts programs in the submitter's own session."""

    def create(self, job, environments):
        from . import memory

        before = memory.spawn
        memory.spawn = lambda argv, environment: before(argv, environment, new_session=False)
        try:
            return super().create(job, environments)
        finally:
            memory.spawn = before


# E10: what arrives.


class ChangesArguments(MemoryBackend):
    def change(self, argument):
        raise NotImplementedError

    def program(self, job, index):
        first, *rest = super().program(job, index)
        return [first, *(word for argument in rest if (word := self.change(argument)) is not None)]


@breaks("E10", "an_argument_arrives_exactly")
class EatsQuotes(ChangesArguments):
    def change(self, argument):
        return argument if "printf" in argument else argument.replace("'", "").replace('"', "")


@breaks("E10", "empty_arguments_arrive")
class DropsEmptyArguments(ChangesArguments):
    def change(self, argument):
        return argument or None


@breaks("E10", "an_argument_arrives_exactly")
class StripsArguments(ChangesArguments):
    def change(self, argument):
        return argument.strip()


@breaks("E10", "an_argument_arrives_exactly")
class ManglesNewlines(ChangesArguments):
    def change(self, argument):
        return argument.replace("\n", " ")


@breaks("E10", "an_argument_arrives_exactly", "all_arguments_arrive_in_order")
class ManglesUnicode(ChangesArguments):
    def change(self, argument):
        return argument.encode("ascii", "replace").decode()


@breaks("E10", "an_argument_arrives_exactly", "a_script_of_many_lines_arrives")
class ExpandsDollars(ChangesArguments):
    def change(self, argument):
        return argument if "printf" in argument else argument.replace("$HOME", os.environ.get("HOME", ""))


@breaks("E10", "an_argument_arrives_exactly")
class CutsLongArguments(ChangesArguments):
    def change(self, argument):
        return argument[:4096]


@breaks("E10", "an_argument_arrives_exactly")
class FillsTemplates(ChangesArguments):
    def change(self, argument):
        return argument.replace("{{ a }}", "")


@breaks("E10", "an_argument_arrives_exactly", "a_program_is_started_without_a_shell_of_its_own")
class JoinsArguments(MemoryBackend):
    """Hands one line to a shell."""

    def program(self, job, index):
        return ("sh", "-c", " ".join(super().program(job, index)))


@breaks("E10", "the_working_directory_arrives")
class IgnoresTheWorkingDirectory(MemoryBackend):
    def argv(self, job, index):
        member = attrs.evolve(job.members[index], cwd="/")
        members = (*job.members[:index], member, *job.members[index + 1 :])
        return super().argv(attrs.evolve(job, members=members), index)


@breaks("E10", "an_empty_variable_is_set")
class DropsEmptyVariables(MemoryBackend):
    def environment(self, job, index):
        return {name: value for name, value in super().environment(job, index).items() if value}


@breaks("E10", "names_of_variables_are_kept_as_given")
class WritesVariablesNamesInCapitals(MemoryBackend):
    def environment(self, job, index):
        return {name.upper(): value for name, value in super().environment(job, index).items()}


@breaks("E10", "a_variable_arrives_exactly")
class ManglesVariables(MemoryBackend):
    def environment(self, job, index):
        return {name: value.replace("\n", "\\n") for name, value in super().environment(job, index).items()}


@breaks("E10", "files_are_there_before_the_program_starts")
class ForgetsFiles(MemoryBackend):
    def write_files(self, job):
        os.makedirs(job.folder, exist_ok=True)


@breaks("E10", "the_cores_variables_arrive")
class DropsTheCoresVariables(MemoryBackend):
    def environment(self, job, index):
        return {name: value for name, value in super().environment(job, index).items() if name != "NEMORUN_JOB"}


@breaks("E10", "there_is_no_input")
class GivesAnInput(MemoryBackend):
    def program(self, job, index):
        return ("sh", "-c", 'echo typed | "$@"', "sh", *super().program(job, index))


# E11: what is kept.


@breaks("E11", "a_rendering_holds_no_secret")
class RendersASecret(MemoryBackend):
    def render(self, job):
        environments = [self.environment(job, index) for index in range(len(job.members))]
        return [*super().render(job), Document("environment", json.dumps(environments))]


@breaks("E11", "no_file_holds_a_secret", "an_experiment_keeps_no_secret")
class WritesASecretToDisk(MemoryBackend):
    def create(self, job, environments):
        Path(job.folder, "environment").write_text(json.dumps(environments))
        return super().create(job, environments)


@breaks("E11", "no_file_holds_a_secret")
class GivesTheSchedulerASecret(MemoryBackend):
    def create(self, job, environments):
        (self.cluster.directory / "environment").write_text(json.dumps(environments))
        return super().create(job, environments)


@breaks("E11", "the_callers_environment_is_not_recorded")
class RecordsTheCallersEnvironment(MemoryBackend):
    def declared(self, job, index):
        return {**os.environ, **super().declared(job, index)}


@breaks("E11", "no_command_line_holds_a_secret")
class PutsASecretOnACommandLine(MemoryBackend):
    def offer(self, job):
        members = []
        for member in job.members:
            secrets = [value.reveal() for value in member.environment.values() if not isinstance(value, str)]
            members.append(attrs.evolve(member, argv=(*member.argv, *secrets)))
        return super().offer(attrs.evolve(job, members=tuple(members)))


@breaks("E11", "a_secret_arrives", "a_secret_from_a_file_arrives")
class GivesTheReferenceForTheSecret(MemoryBackend):
    def environment(self, job, index):
        return {**super().environment(job, index), **self.declared(job, index)}


@breaks("E11", "a_secret_that_is_missing_is_named_and_nothing_starts")
class StartsWithoutAMissingSecret(MemoryBackend):
    def environment(self, job, index):
        kept = {}
        for name, value in job.members[index].environment.items():
            with contextlib.suppress(UsageError):
                kept[name] = value if isinstance(value, str) else value.reveal()
        members = (attrs.evolve(job.members[index], environment=kept),) * len(job.members)
        return super().environment(attrs.evolve(job, members=members), index)


# E12: few queries.


@breaks("E12", "a_poll_of_twenty_jobs_costs_as_much_as_one_of_one")
class AsksForEachJob(MemoryBackend):
    def poll(self, handles):
        return {handle: super(AsksForEachJob, self).poll([handle])[handle] for handle in handles}


@breaks("E12", "a_search_for_twenty_jobs_costs_as_much_as_one_for_one")
class LooksForEachJob(MemoryBackend):
    def find(self, jobs):
        found = {}
        for job in jobs:
            found.update(super().find([job]))
        return found


@breaks("E12", "a_wait_tells_which_handles_are_worth_a_poll", "a_wait_with_nothing_to_tell_ends_with_its_time")
class NeverWaits(MemoryBackend):
    def wait(self, handles, timeout_seconds):
        return []


@breaks("E12", "wake_ends_a_wait")
class SleepsThroughAWake(MemoryBackend):
    def wake(self):
        pass


@breaks("E12", "a_wait_tells_which_handles_are_worth_a_poll")
class WaitsButNamesNobody(MemoryBackend):
    def wait(self, handles, timeout_seconds):
        super().wait(handles, timeout_seconds)
        return []


@breaks("E12", "a_wait_ends_when_a_job_ends")
class SleepsThroughAnEnd(MemoryBackend):
    def wait(self, handles, timeout_seconds):
        time.sleep(timeout_seconds)
        return handles


# E13: rendered is submitted.


@breaks("E12", "a_wait_tells_of_a_start")
class WaitTellsOfEndsOnly(MemoryBackend):
    """And shows a start late, as where there is a queue."""

    def member(self, job, entry, index):
        seen = super().member(job, entry, index)
        late = job.key not in self.__dict__.setdefault("shown", set())
        self.shown.add(job.key)
        return attrs.evolve(seen, state=State.PENDING) if late else seen

    def changed(self, handle):
        return handle in self.last and all(one.ended for one in self.last[handle].members)


@breaks("E13", "the_scheduler_is_given_what_was_rendered")
class RendersSomethingElse(MemoryBackend):
    def render(self, job):
        [document] = super().render(job)
        return [Document(document.name, document.text.replace('"grace": 10.0', '"grace": 30'))]


@breaks("E13", "a_rendering_can_be_repeated")
class RendersTheTime(MemoryBackend):
    def render(self, job):
        return [*super().render(job), Document("time", str(time.time_ns()))]


@breaks("E13", "a_rendering_creates_nothing")
class RenderingMakesTheFolder(MemoryBackend):
    def render(self, job):
        os.makedirs(job.folder, exist_ok=True)
        return super().render(job)


@breaks("E13", "a_rendering_works_offline")
class RenderingAsksTheScheduler(MemoryBackend):
    def render(self, job):
        self.cluster.ask()
        return super().render(job)


@breaks("E13", "a_rendering_shows_every_member")
class RendersTheFirstMember(MemoryBackend):
    def render(self, job):
        return super().render(attrs.evolve(job, members=job.members[:1], executors=job.executors[:1]))


@breaks(
    "E13",
    "a_rendering_has_named_documents",
    "a_rendering_shows_program_and_variables",
    "renderings_of_two_jobs_differ",
)
class RendersNothing(MemoryBackend):
    def render(self, job):
        return []


# E14: names.


@breaks("E14", "a_namesake_is_not_found")
class AdoptsByNameOnly(MemoryBackend):
    def is_there(self, job, entries):
        return self.name(job.key) in entries or super().is_there(job, entries)


@breaks("E14", "a_job_of_another_experiment_is_not_found", "another_attempt_is_not_found")
class AdoptsByJobName(MemoryBackend):
    """Takes the readable part for the whole."""

    def find(self, jobs):
        found = dict(super().find(jobs))
        names = {entry["key"].split("/")[1]: name for name, entry in self.cluster.entries().items()}
        found.update({job.key: names[job.key.job] for job in jobs if job.key.job in names})
        return found


@breaks("E14", "a_name_that_is_taken_is_rejected")
class AdoptsWhatHasItsName(MemoryBackend):
    """A name clash is taken for an acceptance."""

    def create(self, job, environments):
        answer = super().create(job, environments)
        return Accepted(self.know(job)) if isinstance(answer, Rejected) else answer


@breaks("E14", "long_names_with_one_beginning_are_two_jobs")
class CutsNames(MemoryBackend):
    def name(self, key):
        return "".join(letter for letter in key.job if letter.isalnum())[:20] or "x"


@breaks("E14", "a_job_of_a_name_that_looks_alike_is_not_found")
class DoesNotTellCase(MemoryBackend):
    def is_there(self, job, entries):
        keys = {entry["key"].lower() for entry in entries.values()}
        return str(job.key).lower() in keys or super().is_there(job, entries)


@breaks("E14", "a_namesake_is_not_cancelled")
class CancelsByNameOnly(MemoryBackend):
    def may_stop(self, handle, entry):
        if entry is None:
            return False
        self.send(entry, signal.SIGTERM)
        return False


@breaks("E14", "a_namesake_is_not_cancelled")
class RemovesByNameOnly(MemoryBackend):
    def release(self, handles):
        for handle in handles:
            self.cluster.remove(handle)


@breaks("E14", "a_release_leaves_the_others_alone")
class ReleaseEndsWhatIsLeft(MemoryBackend):
    def release(self, handles):
        self.kill(list(self.jobs))
        super().release(handles)


@breaks("E14", "a_name_that_is_taken_is_rejected")
class ReplacesWhatHasItsName(MemoryBackend):
    def create(self, job, environments):
        entry = self.cluster.entries().get(self.name(job.key))
        if entry and entry["key"] != str(job.key):
            self.cluster.remove(self.name(job.key))
        return super().create(job, environments)


@breaks("E14", "a_cancel_leaves_the_job_of_another_experiment_alone")
class CancelsAllOfAName(MemoryBackend):
    def cancel(self, handles):
        names = {self.jobs[handle].key.job for handle in handles if handle in self.jobs}
        super().cancel([handle for handle, job in self.jobs.items() if job.key.job in names])


@breaks("E14", "any_name_of_a_job_can_be_found_again")
class FindsPlainNamesOnly(MemoryBackend):
    def is_there(self, job, entries):
        return job.key.job.isalnum() and super().is_there(job, entries)


# E15: groups.


@breaks("E15", "the_failed_member_is_the_one_that_failed")
class SwapsMembers(MemoryBackend):
    def observe(self, job, entry):
        seen = super().observe(job, entry)
        return attrs.evolve(seen, members=seen.members[::-1])


@breaks("E15", "members_are_told_in_order")
class TellsTheFirstToEndFirst(MemoryBackend):
    def observe(self, job, entry):
        seen = super().observe(job, entry)
        return attrs.evolve(seen, members=tuple(sorted(seen.members, key=lambda one: one.ended or "9")))


@breaks("E15", "members_run_at_the_same_time", "eight_members_run_at_the_same_time")
class RunsMembersOneByOne(MemoryBackend):
    """Each member waits for the one before."""

    def program(self, job, index):
        argv = super().program(job, index)
        if not index:
            return argv
        base = f"{self.where(job)}/{job.key.attempt}.0.{index - 1}.outcome"
        wait = f"until grep -q end '{base}' 2>/dev/null; do sleep 0.02; done; exec \"$@\""
        return ("sh", "-c", wait, "sh", *argv)


@breaks("E15", "all_members_are_given_one_meeting_point")
class GivesEachMemberAPortOfItsOwn(MemoryBackend):
    def environment(self, job, index):
        return {**super().environment(job, index), "NEMORUN_HEAD_PORT": str(21000 + index)}


@breaks("E15", "every_member_knows_the_names_of_all")
class GivesNoNames(MemoryBackend):
    def environment(self, job, index):
        return {name: value for name, value in super().environment(job, index).items() if "_HOST" not in name}


@breaks("E15", "members_reach_each_other_by_name")
class GivesNamesThatLeadNowhere(MemoryBackend):
    def environment(self, job, index):
        return {
            name: "nowhere.invalid" if name.endswith("_HOST") else value
            for name, value in super().environment(job, index).items()
        }


@breaks("E15", "every_member_runs")
class RunsTheFirstMemberForAll(MemoryBackend):
    def program(self, job, index):
        return super().program(job, 0)


@breaks("E15", "each_member_has_an_environment_of_its_own")
class GivesAllMembersOneEnvironment(MemoryBackend):
    def environment(self, job, index):
        return super().environment(job, 0)


@breaks("E15", "a_failed_member_does_not_change_the_others")
class StopsAGroupAtTheFirstFailure(MemoryBackend):
    def observe(self, job, entry):
        seen = super().observe(job, entry)
        if entry and any(one.state is State.FAILED for one in seen.members):
            self.send(entry, signal.SIGKILL)
        return seen


@breaks("E15", "a_group_has_one_handle_and_is_found_whole")
class AdoptsPartOfAGroup(MemoryBackend):
    def find(self, jobs):
        return super().find([attrs.evolve(job, members=job.members[:1], executors=job.executors[:1]) for job in jobs])


@breaks("E15", "a_group_that_cannot_start_as_one_starts_none")
class StartsWhatItCanOfAGroup(StartsHalfAGroup):
    pass


# E16: promises. Here it is the executor that lies.


class DropsOptions(MemoryExecutor):
    def check(self):
        pass


class ChangesItsMind(MemoryExecutor):
    def capabilities(self):
        return attrs.evolve(super().capabilities(), poll_interval_seconds=time.time())


class HasAConnectionOfItsOwn(MemoryExecutor):
    def connection(self):
        return object()


class RefusesItself(MemoryExecutor):
    def check(self):
        raise UsageError("never")


def lying_executor(kind, *claims):
    LIARS[kind.__name__] = ("E16", claims)

    def executor(self, tmp_path):
        return kind(directory=str(tmp_path / "scheduler"))

    members = {"executor": pytest.fixture(executor), "patience_seconds": PATIENCE_SECONDS}
    globals()[f"Test{kind.__name__}"] = type(f"Test{kind.__name__}", one_law("E16"), members)


for _kind, *_claims in (
    (
        DropsOptions,
        "a_value_that_makes_no_sense_is_refused",
        "an_option_is_taken_where_its_capability_is_declared_and_refused_where_not",
        "what_this_executor_cannot_honour_is_refused",
    ),
    (ChangesItsMind, "capabilities_are_told_without_a_connection"),
    (HasAConnectionOfItsOwn, "equal_executors_share_a_connection"),
    (RefusesItself, "the_executor_itself_is_fit"),
):
    lying_executor(_kind, *_claims)
