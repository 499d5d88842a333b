"""Random graphs, outcomes and faults, with drivers that are stopped and replaced: what comes out is what must."""

from __future__ import annotations

import os
import random
from typing import NamedTuple, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from nemorun_devkit.simulator import (
    Amnesia,
    AnswerLost,
    Down,
    Fails,
    Fault,
    Forgets,
    Full,
    Hangs,
    Members,
    NodeLost,
    Outcome,
    Preempted,
    Refused,
    Scenario,
    SimulatedExecutor,
    Simulation,
    Slow,
    Stale,
    Succeeds,
    Vanishes,
)

from nemorun_core.model.definition import Edge
from nemorun_core.model.state import Condition
from tests.proofs.oracle import Part, Plan, Try, expected
from tests.proofs.worlds import Stops, define, finish, job, open_world

HISTORIES = int(os.environ.get("PROOF_HISTORIES") or 2000)
SEED = int(os.environ.get("PROOF_SEED") or random.randrange(1 << 32))
ROUND = 5000
RANKS = {"UNSUBMITTED": 0, "PENDING": 0, "RUNNING": 1}
T = TypeVar("T")
JOBS = 30
TIMEOUT = 500.0


class History(NamedTuple):
    """One experiment, as the oracle and as the simulator are told of it."""

    plans: tuple[Plan, ...]
    queued: tuple[float, ...]
    cancels: tuple[tuple[int, float], ...]
    faults: tuple[Fault, ...]
    poll_seconds: float | None
    stops: tuple[int, ...]
    turns: int | None


class Bytes:
    """Choices, one a byte: a job costs Hypothesis one draw and not fifty, and zeros are what it shrinks to."""

    def __init__(self, content: bytes) -> None:
        self._left = iter(content)

    def number(self, below: int) -> int:
        return next(self._left) % below

    def one(self, *choices: T) -> T:
        return choices[self.number(len(choices))]


def read_try(choose: Bytes, members: int) -> Try:
    how = choose.one(*["runs"] * 8, "refused", "vanishes", "preempted", "node failure")
    requeues = choose.one(0, 0, 0, 0, 1, 2)
    # Members end at different times, so that who is first is no matter of chance.
    parts = [
        Part(choose.one("succeeds", "succeeds", "fails", "hangs"), 10.0 * choose.number(40) + index)
        for index in range(3)
    ]
    return Try(how, tuple(parts[:members]), requeues)


def read_plan(choose: Bytes, index: int) -> tuple[Plan, float]:
    members = choose.one(1, 1, 1, 2, 3)
    tries = [read_try(choose, members) for _ in range(3)][: choose.one(1, 1, 2, 3)]
    edges = {choose.number(index or 1): choose.one("success", "failure", "any") for _ in range(3)}
    plan = Plan(
        edges=tuple(edges.items())[: min(index, choose.one(0, 1, 1, 2, 3))],
        tries=tuple(tries),
        retries=choose.one(0, 0, 1, 2),
        retry_on=choose.one((), (), (), ("lost",), ("exit code", "preempted"), ("rejected", "timeout")),
        timeout=TIMEOUT,
        until=choose.one("all", "first", "leader"),
        cancelled=False,
        at_once=False,
    )
    return plan, choose.one(0.0, 0.0, 30.0)


def read_history(head: bytes, jobs: list[bytes]) -> History:
    made = [read_plan(Bytes(content), index) for index, content in enumerate(jobs)]
    choose = Bytes(head)

    def moment() -> float:
        return 4.0 * choose.number(225)

    cancels = {choose.number(len(jobs)): moment() for _ in range(3)}
    cancels = dict(list(cancels.items())[: choose.one(0, 0, 1, 2, 3)])
    faults: list[Fault] = []
    for _ in range(choose.one(0, 0, 1, 3)):
        index, attempt, late = choose.number(len(jobs)), choose.number(2), choose.number(5)
        # One that arrives late and is cancelled meanwhile would be nobody's: no backend can promise more (E2).
        faults.append(AnswerLost(f"j{index}", attempt, 0.0 if index in cancels else float(late)))
    for _ in range(choose.one(0, 0, 1, 2)):
        start = moment()
        faults.append(choose.one(Down, Full)(start, start + 1 + choose.number(90)))
    # So short that no job is LOST, also where an old answer before and a slow one after come to it, and in between each
    # job is seen.
    if not faults or not any(isinstance(one, Down) for one in faults):
        faults += choose.one([], [Amnesia(20, 80)], [Amnesia(20, 90), Amnesia(150, 220)])
    faults += choose.one([], [], [Slow(0.5)], [Slow(3, 50, 400)])
    faults += choose.one([], [], [Stale(2)], [Stale(3)])
    faults += choose.one([], [], [Forgets(300)])
    poll_seconds = choose.one(None, None, 5.0)
    stops = tuple(
        (choose.number(256) * 256 + choose.number(256)) % (20 * len(jobs)) for _ in range(choose.one(0, 0, 1, 3))
    )
    at_once = bool(poll_seconds or stops or any(isinstance(one, (Amnesia, Down, Slow, Stale)) for one in faults))
    return History(
        plans=tuple(one._replace(cancelled=index in cancels, at_once=at_once) for index, (one, _) in enumerate(made)),
        queued=tuple(queued for _, queued in made),
        cancels=tuple(cancels.items()),
        faults=tuple(faults),
        poll_seconds=poll_seconds,
        stops=stops,
        turns=choose.one(None, *range(1, 200)),
    )


# `Bytes` reads at most 37 for a job, and 40 for what stands around.
contents = st.binary(min_size=37, max_size=37)
histories = st.builds(read_history, st.binary(min_size=40, max_size=40), st.lists(contents, min_size=1, max_size=JOBS))


def outcome(one: Try, queued: float) -> Outcome:
    kinds: dict[str, type[Outcome]] = {
        "refused": Refused,
        "vanishes": Vanishes,
        "preempted": Preempted,
        "node failure": NodeLost,
    }
    made: Outcome
    if one.how != "runs":
        made = kinds[one.how](after=one.parts[0].after, queued=queued)
    else:
        members = [
            Hangs()
            if part.how == "hangs"
            else Succeeds(after=part.after)
            if part.how == "succeeds"
            else Fails(3, after=part.after)
            for part in one.parts
        ]
        made = Members(members, queued=queued)
    if one.how != "refused":
        for number in range(one.requeues):
            made = (NodeLost if number else Preempted)(after=20, queued=queued, then=made)
    return made


def keeps_edges(jobs: int) -> bool:
    return jobs % 3 == 0


def run(history: History) -> Simulation:
    names = [f"j{index}" for index in range(len(history.plans))]
    definition = define(
        *(
            job(
                name,
                *(Edge(names[upstream], Condition(condition)) for upstream, condition in plan.edges),
                members=len(plan.tries[0].parts),
                until=plan.until,
                executor=SimulatedExecutor(
                    retries=plan.retries,
                    retry_on=frozenset(plan.retry_on),
                    timeout_seconds=plan.timeout,
                    lost_after_seconds=100,
                    poll_seconds=history.poll_seconds,
                    # Not on a slow scheduler: that each job is seen between two times of amnesia takes quick polls.
                    native_edges=keeps_edges(len(names)),
                    shares_files=len(names) % 2 == 0 or any(isinstance(one, Slow) for one in history.faults),
                ),
            )
            for name, plan in zip(names, history.plans, strict=True)
        )
    )
    scenario = Scenario(
        {
            name: [outcome(one, queued) for one in plan.tries]
            for name, plan, queued in zip(names, history.plans, history.queued, strict=True)
        },
        faults=history.faults,
        cancels={names[index]: moment for index, moment in history.cancels},
    )
    with open_world(definition, scenario, Stops(history.stops), history.turns) as world:
        return finish(world)


def check(history: History) -> None:
    result = run(history)
    assert result.ended
    assert set(result.warnings) <= {
        "SimulatedExecutor: the scheduler does not answer",  # at the last release, which is tried a few times
        "SimulatedExecutor does not answer, and is asked again: the scheduler does not answer",
        "SimulatedExecutor does not answer, and is asked again: the answer got lost",
    }
    for start, log in result.brought.items():
        tries = history.plans[int(start.job[1:])].tries
        # Of what vanished nobody may ever have seen its last start.
        unseen = tries[min(start.attempt, len(tries) - 1)].how == "vanishes" and not log
        assert log == result.logs[start] or unseen
    assert not result.left, "the scheduler still has it, and nobody watches"
    late = {f"{one.job} {one.attempt}" for one in history.faults if isinstance(one, AnswerLost) and one.late}
    assert set(result.doubled) <= late
    states = [result.states[f"j{index}"].value for index in range(len(history.plans))]
    for index, plan in enumerate(history.plans):
        name = f"j{index}"
        reason = result.reasons[name]
        begun = [
            tuple(
                len(
                    {
                        start.incarnation
                        for start in result.starts
                        if start[:2] == (name, attempt) and start.member == member
                    }
                )
                for member in range(len(plan.tries[0].parts))
            )
            for attempt in range(result.attempts[name])
        ]
        assert all(len(set(members)) == 1 for members in begun), "a group starts as one"
        found = (
            states[index],
            reason.kind.value if reason else None,
            result.attempts[name],
            tuple(one[0] for one in begun),
        )
        right = set(expected(plan, [states[upstream] for upstream, _ in plan.edges]))
        assert found in right, (name, found, sorted(right, key=str))
    told: dict[str, tuple[int, int, int]] = {}
    for change in result.timeline:
        place = change.attempt, change.incarnation, RANKS.get(change.state.value, 2)
        assert place >= told.get(change.job, place), "what people are told goes forward"
        told[change.job] = place
    ends = {name: second for second, name, state, *_ in result.timeline if state.is_final}
    for start, second in result.starts.items():
        for upstream, _ in history.plans[int(start.job[1:])].edges:
            # A driver that was stopped may have told nobody of the end that it wrote; a scheduler that keeps edges
            # itself knows of it sooner.
            early = history.stops or keeps_edges(len(history.plans))
            assert second >= ends.get(f"j{upstream}", 0.0) or early, "started before its upstream ended"


@pytest.mark.proof
@pytest.mark.timeout(0)
def test_whatever_happens_comes_out_as_the_oracle_says():
    print(f"PROOF_HISTORIES={HISTORIES} PROOF_SEED={SEED}")
    for number, done in enumerate(range(0, HISTORIES, ROUND)):  # Hypothesis keeps all that it tried in a round
        proof = settings(
            max_examples=min(ROUND, HISTORIES - done),
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )(given(histories)(check))
        seed(SEED + number)(proof)()


@pytest.mark.proof
def test_a_job_that_was_skipped_between_its_intent_and_its_submission_is_never_submitted():
    head = bytes([*[0] * 7, 3, 0x8C, 0, 2, *[0] * 13, 7, *[0] * 15])
    jobs = [[*[0] * 36, 0xD4], [0] * 37, [0, 0xE1, 0, 0, 3, *[0] * 21, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0]]
    check(read_history(head, [bytes(job) for job in jobs]))
