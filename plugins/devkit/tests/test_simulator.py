"""The simulator: retries, time-outs and dependencies tried out without a program, a scheduler or a second."""

from __future__ import annotations

import time

import pytest
from nemorun_devkit.simulator import (
    Amnesia,
    AnswerLost,
    Down,
    Fails,
    Forgets,
    Full,
    Hangs,
    Members,
    NodeLost,
    Preempted,
    Refused,
    Scenario,
    SimulatedExecutor,
    Slow,
    Stale,
    Start,
    Succeeds,
    Vanishes,
    simulate,
)

import nemorun_core as run
from nemorun_core import State, UsageError

SCRIPT = run.Script(inline="exit 42")


def one(scenario=None, members=1, until="all", **fields):
    """Simulate one job, 'train', whose executor has these fields."""
    with run.Experiment("simulated", SimulatedExecutor(**fields)) as experiment:
        experiment.add([SCRIPT] * members if members > 1 else SCRIPT, name="train", until=until)
        return simulate(experiment, scenario)


def train(*outcomes, faults=(), cancels=None, **fields):
    return one(Scenario({"train": outcomes}, faults=faults, cancels=cancels or {}), **fields)


def states_of(result, name="train"):
    return [(second, state.value) for second, job, state, *_ in result.timeline if job == name]


def test_nothing_is_run_and_no_time_passes():
    begun = time.monotonic()
    result = train(Succeeds(after=86400))
    assert result.states == {"train": State.SUCCEEDED}
    assert result.duration_seconds == 86400
    assert time.monotonic() - begun < 5


def test_retries_back_off_on_the_simulations_clock():
    result = train(Fails(3, after=60), Fails(4, after=60), Succeeds(after=600), retries=2)
    assert result.states["train"] is State.SUCCEEDED
    assert result.attempts["train"] == 3
    assert result.starts == {
        Start("train", 0, 0, 0): 0.0,
        Start("train", 1, 0, 0): 61.0,
        Start("train", 2, 0, 0): 123.0,
    }
    assert result.duration_seconds == 723


def test_the_last_outcome_counts_for_all_later_attempts():
    result = train(Fails(3), retries=2)
    assert (result.states["train"], str(result.reasons["train"])) == (State.FAILED, "exit code 3")
    assert (result.exit_codes["train"], result.attempts["train"]) == (3, 3)


def test_dependencies_are_followed_and_what_cannot_run_is_skipped():
    with run.Experiment("simulated", SimulatedExecutor()) as experiment:
        first = experiment.add(SCRIPT, name="first")
        experiment.add(SCRIPT, name="next", dependencies=[first])
        experiment.add(SCRIPT, name="mend", dependencies=[run.after_failure(first)])
        experiment.add(SCRIPT, name="always", dependencies=[run.after_any(first)])
        result = simulate(experiment, Scenario({"first": Fails(1, after=5)}))
    assert {name: state.value for name, state in result.states.items()} == {
        "first": "FAILED",
        "next": "SKIPPED",
        "mend": "SUCCEEDED",
        "always": "SUCCEEDED",
    }
    assert result.starts[Start("mend", 0, 0, 0)] == 5


def test_one_after_another_stops_at_the_first_failure():
    with run.Experiment("simulated", SimulatedExecutor()) as experiment:
        for name in "abc":
            experiment.add(SCRIPT, name=name)
        result = simulate(experiment, Scenario({"b": Fails(3)}), sequential=True)
    assert [state.value for state in result.states.values()] == ["SUCCEEDED", "FAILED", "SKIPPED"]


def test_any_executor_is_simulated_by_its_fields_alone():
    with run.Experiment("simulated", run.LocalExecutor(retries=1, timeout_seconds=30)) as experiment:
        experiment.add(SCRIPT, name="train")
        result = simulate(experiment, Scenario({"train": [Hangs(), Succeeds(after=10)]}))
    assert result.states["train"] is State.SUCCEEDED
    assert result.attempts["train"] == 2


def test_an_experiment_that_is_simulated_can_still_be_run(capsys):
    with run.Experiment("both", run.LocalExecutor()) as experiment:
        experiment.add(run.Script(inline="exit 0"), name="train")
        assert simulate(experiment).states["train"] is State.SUCCEEDED
        experiment.run()
    assert experiment.status(return_dict=True)["train"]["state"] == "SUCCEEDED"
    assert simulate(experiment, Scenario({"train": Fails(3)})).states["train"] is State.FAILED


@pytest.mark.parametrize("poll_seconds", [None, 5.0])
@pytest.mark.parametrize(
    ("outcome", "state", "reason"),
    [
        (Succeeds(queued=30), "SUCCEEDED", "None"),
        (Fails(3), "FAILED", "exit code 3"),
        (Fails(137, reason="out of memory"), "FAILED", "out of memory: the scheduler says so"),
        (Hangs(), "FAILED", "timeout: timeout_seconds is over"),
        (Preempted(), "FAILED", "preempted: its place was taken away"),
        (NodeLost(), "FAILED", "node failure: the node is gone"),
        (Vanishes(), "LOST", "lost: its scheduler does not know it any more"),
        (Refused("no such queue"), "FAILED", "rejected: no such queue"),
        (Preempted(then=NodeLost(then=Succeeds())), "SUCCEEDED", "None"),
    ],
)
def test_an_attempt_ends_as_it_is_told_to(outcome, state, reason, poll_seconds):
    result = train(outcome, timeout_seconds=500, poll_seconds=poll_seconds)
    assert (result.states["train"].value, str(result.reasons["train"])) == (state, reason)
    assert not result.left
    assert not result.unreleased


def test_a_requeued_job_starts_once_an_incarnation():
    result = train(Preempted(after=30, then=NodeLost(after=10, then=Succeeds(queued=5))))
    assert result.starts == {Start("train", 0, number, 0): second for number, second in enumerate([0, 30, 45])}
    assert result.attempts["train"] == 1


@pytest.mark.parametrize(
    ("until", "outcomes", "state", "seconds"),
    [
        ("all", [Succeeds(after=10), Succeeds(after=20)], "SUCCEEDED", 20),
        ("all", [Fails(3, after=10), Hangs(stops_after=2)], "FAILED", 12),
        ("first", [Hangs(), Succeeds(after=10)], "SUCCEEDED", 10),
        ("leader", [Succeeds(after=20), Hangs()], "SUCCEEDED", 20),
        ("leader", [Hangs(), Fails(3, after=5)], "FAILED", 5),
    ],
)
def test_members_of_a_group_have_an_outcome_each(until, outcomes, state, seconds):
    result = one(Scenario({"train": Members(outcomes)}), members=2, until=until)
    assert (result.states["train"].value, result.duration_seconds) == (state, seconds)


def test_a_program_that_does_not_stop_is_killed_after_its_grace():
    result = train(Hangs(stops_after=100), cancels={"train": 20}, grace_seconds=7)
    assert (result.states["train"], result.exit_codes["train"]) == (State.CANCELLED, 137)
    assert result.duration_seconds == 27


def test_what_is_cancelled_in_the_queue_never_starts():
    result = train(Succeeds(queued=100), cancels={"train": 20})
    assert (result.states["train"], result.starts) == (State.CANCELLED, {})


@pytest.mark.parametrize("late", [0, 3])
def test_a_job_whose_answer_got_lost_is_started_once(late):
    result = train(Succeeds(), faults=[AnswerLost("train", late=late)])
    assert result.states["train"] is State.SUCCEEDED
    assert list(result.starts) == [Start("train", 0, 0, 0)]


def test_while_the_scheduler_is_down_the_engine_asks_less_and_less_often():
    result = train(Succeeds(), faults=[Down(10, 1000)], poll_seconds=5)
    assert result.states["train"] is State.SUCCEEDED
    assert 1000 <= result.duration_seconds <= 1060
    assert result.calls["poll"] < 30


def test_a_full_scheduler_defers_and_nothing_fails():
    result = train(Succeeds(after=60), faults=[Full(0, 100)])
    assert result.states["train"] is State.SUCCEEDED
    assert (0.0, "PENDING") in states_of(result)
    assert result.starts[Start("train", 0, 0, 0)] >= 100


def test_a_slow_scheduler_takes_its_time():
    assert train(Succeeds(after=60), faults=[Slow(20)]).duration_seconds >= 80


def test_old_answers_change_nothing():
    result = train(Preempted(after=10, then=Fails(3, after=10)), faults=[Stale(2)], poll_seconds=5)
    assert (result.states["train"], result.exit_codes["train"]) == (State.FAILED, 3)


def test_what_is_unknown_for_a_while_is_not_lost():
    result = train(Succeeds(after=600), faults=[Amnesia(50, 140), Amnesia(200, 290)], lost_after_seconds=100)
    assert result.states["train"] is State.SUCCEEDED
    result = train(Succeeds(after=600), faults=[Amnesia(50, 155)], lost_after_seconds=100)
    assert result.states["train"] is State.LOST


def test_an_end_that_the_scheduler_forgot_is_read_from_the_jobs_records():
    result = train(Fails(3, after=60), faults=[Down(30, 500), Forgets(100)])
    assert (result.states["train"], result.exit_codes["train"]) == (State.FAILED, 3)


def test_what_it_forgot_and_no_record_tells_is_lost():
    result = train(NodeLost(after=60), faults=[Down(30, 500), Forgets(100)], lost_after_seconds=50)
    assert result.states["train"] is State.LOST


def test_the_same_scenario_gives_the_same_result_whatever_the_seed():
    with run.Experiment("simulated", SimulatedExecutor(retries=2)) as experiment:
        for name in "abc":
            experiment.add(SCRIPT, name=name, dependencies=["a"] if name == "c" else [])
        scenario = Scenario({"a": [Fails(3), Succeeds()], "b": Preempted(then=Succeeds())})
        assert simulate(experiment, scenario, seed=5) == simulate(experiment, scenario, seed=5)
        results = [simulate(experiment, scenario, seed=seed) for seed in [None, *range(10)]]
    assert len({(str(result.states), str(sorted(result.starts.items()))) for result in results}) == 1


def test_what_never_ends_is_given_up():
    result = one(Scenario({"train": Hangs()}))
    assert not result.ended
    assert result.states["train"] is State.RUNNING
    assert result.left == ("train 0",)


def test_a_job_that_is_not_there_is_named():
    with pytest.raises(UsageError, match="no job 'tarin'"):
        one(Scenario({"tarin": Succeeds()}))


def test_a_simulated_executor_is_not_run(capsys):
    with run.Experiment("simulated", SimulatedExecutor()) as experiment:
        experiment.add(SCRIPT, name="train")
        experiment.run()
    job = experiment.status(return_dict=True)["train"]
    assert job["state"] == "FAILED"
    assert "simulate" in str(job["reason"])


def test_what_is_simulated_leaves_nothing_on_disk(nemorun_home):
    one()
    assert [path for path in nemorun_home.rglob("*") if path.is_file()] == []
