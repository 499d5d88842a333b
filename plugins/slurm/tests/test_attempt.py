"""What records and Slurm's word say together, without a cluster: records win, silence is no end."""

from __future__ import annotations

import os

import attrs
import pytest
from nemorun_slurm import SlurmExecutor
from nemorun_slurm.attempt import Attempt, Word, duplicates
from nemorun_slurm.calls import Call, Place
from nemorun_slurm.parse import QueueRow

from nemorun_core import UNKNOWN, Key, Member, ReasonKind, State, Submission, pad_outcome

START = "nemorun-start 1 pid=1 uptime=1.00 host=n1 boot=other end\n"
ROW = QueueRow(job_id="7", name="a", state="RUNNING")
NOTHING = Word([], since=True, told=True)


@pytest.fixture
def attempt(tmp_path):
    member = Member(argv=("true",), environment={}, cwd="/")
    job = Submission(
        key=Key("0" * 16, "a", 0),
        members=(member,),
        executors=(SlurmExecutor(),),
        folder=str(tmp_path),
        support="/",
    )
    pad_outcome(str(tmp_path / "0.0.0"), "")
    return Attempt(job, "a")


def start(attempt, incarnation=0):
    with open(os.path.join(attempt.job.folder, f"0.{incarnation}.0.start"), "w") as stream:
        stream.write(START)


def end(attempt, code, signals="none", incarnation=0):
    with open(os.path.join(attempt.job.folder, f"0.{incarnation}.0.outcome"), "w") as stream:
        stream.write(f"nemorun-outcome 1 code={code} signals={signals} uptime=2.00 end\n")


def seen(attempt, *states, since=True, told=True, **fields):
    rows = [attrs.evolve(ROW, state=state, **fields) for state in states]
    return attempt.observe(Word(rows, since=since, told=told))


def state(observation):
    return observation.members[0].state


def test_an_allocation_is_no_start(attempt):
    assert state(seen(attempt, "RUNNING")) is State.PENDING


def test_a_claim_is_a_start(attempt):
    start(attempt)
    assert state(seen(attempt, "RUNNING")) is State.RUNNING


def test_a_success_is_final_at_once(attempt):
    start(attempt)
    end(attempt, 0)
    assert state(seen(attempt, "RUNNING")) is State.SUCCEEDED


@pytest.mark.parametrize(("code", "signals"), [(3, "none"), (0, "TERM"), (143, "TERM")])
def test_another_end_is_final_when_slurm_has_let_go_of_the_job(attempt, code, signals):
    """It may start again."""
    start(attempt)
    end(attempt, code, signals)
    assert state(seen(attempt, "RUNNING")) is State.RUNNING
    assert state(seen(attempt, "COMPLETING")) is State.RUNNING
    assert state(seen(attempt, "FAILED")).is_final


def test_a_job_that_is_completing_for_its_exit_code_has_ended(attempt):
    start(attempt)
    end(attempt, 3)
    assert state(seen(attempt, "COMPLETING", reason="NonZeroExitCode")) is State.FAILED


def test_the_exit_code_is_the_programs_and_the_reason_slurms(attempt):
    start(attempt)
    end(attempt, 143, "TERM")
    [member] = seen(attempt, "TIMEOUT", exit_code=0).members
    assert (member.state, member.exit_code, member.reason.kind) == (State.FAILED, 143, ReasonKind.TIMEOUT)


def test_a_success_stays_one_whatever_slurm_says(attempt):
    start(attempt)
    end(attempt, 0)
    assert state(seen(attempt, "NODE_FAIL")) is State.SUCCEEDED


def test_a_job_that_was_ended_before_it_started_is_as_slurm_says(attempt):
    assert state(seen(attempt, "CANCELLED")) is State.CANCELLED


def test_a_shim_that_was_killed_leaves_a_failure_without_exit_code(attempt):
    start(attempt)
    [member] = seen(attempt, "FAILED", exit_code=1).members
    assert (member.state, member.exit_code, member.reason.kind) == (State.FAILED, None, ReasonKind.SIGNAL)


def test_what_slurm_does_not_know_is_unknown_unless_its_outcome_is_there(attempt):
    start(attempt)
    assert attempt.observe(NOTHING) == UNKNOWN
    end(attempt, 3)
    assert attempt.observe(NOTHING).members[0].exit_code == 3


def test_what_was_submitted_after_the_question_is_not_missed(attempt):
    assert state(seen(attempt, since=False)) is State.PENDING


def test_accounts_that_do_not_answer_are_no_end(attempt):
    assert state(seen(attempt, told=False)) is State.PENDING
    start(attempt)
    assert state(seen(attempt, told=False)) is State.RUNNING


def test_a_restart_begins_anew(attempt):
    start(attempt)
    end(attempt, 143, "TERM")
    again = seen(attempt, "PENDING", restarts=1, reason="BeginTime")
    assert (state(again), again.incarnation) == (State.PENDING, 1)
    start(attempt, 1)
    again = seen(attempt, "RUNNING", restarts=1)
    assert (state(again), again.incarnation) == (State.RUNNING, 1)
    end(attempt, 4, incarnation=1)
    again = seen(attempt, "FAILED", restarts=1, exit_code=1)
    assert (again.members[0].exit_code, again.incarnation) == (4, 1)


def test_a_duplicate_that_ran_nothing_says_nothing_of_the_end(attempt):
    duplicate = attrs.evolve(ROW, job_id="8", state="FAILED", exit_code=125)
    cancelled = attrs.evolve(ROW, state="CANCELLED")
    observed = attempt.observe(Word([duplicate, cancelled], since=True, told=True))
    assert state(observed) is State.CANCELLED


def test_memory_that_ran_out_is_told_by_the_script_s_output(attempt):
    start(attempt)
    end(attempt, 137)
    attempt.seen = seen(attempt, "FAILED", exit_code=1)
    attempt.explain(
        "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of the step tasks have been OOM Killed."
    )
    assert attempt.seen.members[0].reason.kind is ReasonKind.OUT_OF_MEMORY


def test_what_srun_itself_refused_is_told_as_srun_said_it(attempt):
    """It ends with an exit code of its own; no rank has started."""
    attempt.seen = seen(attempt, "FAILED", exit_code=255)
    assert attempt.is_unexplained
    attempt.explain("srun: error: Unable to create step for job 7: Requested node configuration is not available")
    reason = attempt.seen.members[0].reason
    assert (reason.kind, reason.detail.partition(":")[0]) == (ReasonKind.REJECTED, "srun")


@pytest.mark.parametrize(
    ("states", "taken_back"),
    [
        (["RUNNING"], []),
        (["PENDING"], []),
        (["PENDING", "PENDING"], ["8"]),
        (["PENDING", "RUNNING"], ["7"]),
        (["RUNNING", "PENDING"], ["8"]),
        (["RUNNING", "RUNNING"], []),
    ],
)
def test_of_several_jobs_of_a_key_one_is_kept(states, taken_back):
    rows = [attrs.evolve(ROW, job_id=str(7 + number), state=word) for number, word in enumerate(states)]
    assert [row.job_id for row in duplicates(rows)] == taken_back


def test_components_of_a_heterogeneous_job_are_no_duplicates():
    rows = [attrs.evolve(ROW, job_id=number, state="PENDING", het_job="7") for number in ("7", "8")]
    assert duplicates(rows) == []


def test_ids_are_remembered_for_their_key_alone(attempt):
    call = Call.single(attempt.job)
    call.remember("7")
    with open(call.record, "a") as stream:
        stream.write(f"8 # nemorun-key another/key/0\n9 {call.mark}")  # the last line is torn
    again = Call.single(attempt.job)
    again.recall()
    assert again.ids == {"7"}
    assert Attempt(attempt.job, "a", [Place(again)]).ids == {"7"}
