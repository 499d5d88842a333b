"""The driver is stopped before, within and after every write and every call, one after another: nothing differs."""

from __future__ import annotations

import os
import random
from typing import Any

import attrs
import pytest
from nemorun_devkit.simulator import (
    AnswerLost,
    Down,
    Fails,
    Full,
    Hangs,
    Members,
    NodeLost,
    Preempted,
    Refused,
    Scenario,
    SimulatedExecutor,
    Simulation,
    Slow,
    Stale,
    Succeeds,
    Vanishes,
    outcome_of,
)
from nemorun_devkit.simulator_driver import Driver

from nemorun_core.model.definition import Definition, after_any, after_failure
from nemorun_core.store.lock import Overtaken
from tests.proofs.worlds import LIMIT, Stops, define, finish, job, open_world

pytestmark = pytest.mark.proof

SEED = int(os.environ.get("PROOF_SEED") or random.randrange(1 << 32))
TWICE_STOPPED = int(os.environ.get("PROOF_STOPS") or 200)
FAR = SimulatedExecutor(name="far", shares_files=False)
NEAR = attrs.evolve(FAR, shares_files=True)
TWICE = attrs.evolve(FAR, retries=1)


def define_all(**fields: Any) -> Definition:
    near, far, twice = (attrs.evolve(one, **fields) for one in (NEAR, FAR, TWICE))
    return define(
        job("first", executor=near),
        job("pair", "first", members=2, executor=far),
        job("bad", "first", executor=twice),
        job("never", "bad", executor=near),
        job("mend", after_failure("bad"), executor=near),
        job("last", "pair", after_any("bad"), after_any("never"), executor=near),
        job("requeued", executor=far),
        job("answer", executor=near),
        job("late", executor=near),
        job("node", executor=near),
        job("gone", executor=attrs.evolve(near, lost_after_seconds=50)),
        job("after gone", after_failure("gone"), executor=near),
        job("refused", executor=near),
        job("cancelled", executor=far),
        job("queued", executor=near),
        job("broken", members=3, executor=far),
        job("raced", members=2, until="first", executor=near),
        job("led", members=2, until="leader", executor=near),
        job("slow", executor=attrs.evolve(near, timeout_seconds=100)),
        # Edges that a scheduler can keep by itself.
        job("lead", executor=near),
        job("follow", "lead", members=2, executor=near),
        job("end", "follow", "requeued too", executor=near),
        job("requeued too", "first", executor=near),
        job("lead badly", executor=near),
        job("unmet", "lead badly", "lead", executor=near),
        job("unmet too", "unmet", executor=near),
        job("repair", after_failure("lead badly"), after_any("lead"), executor=near),
        job("clean", after_any("unmet too"), executor=near),
        job("dropped", "lead", executor=near),
        job("not taken", "lead", executor=near),
        job("stopped", after_any("lead badly"), executor=near),
    )


SCENARIO = Scenario(
    {
        "first": Succeeds(after=10),
        "pair": Members([Succeeds(after=20), Succeeds(after=40)]),
        "bad": [Fails(3, after=5), Fails(4, after=5)],
        "requeued": Preempted(after=30, then=NodeLost(after=5, then=Succeeds(queued=10))),
        "node": NodeLost(after=15),
        "gone": Vanishes(after=12),
        "refused": Refused("no such queue"),
        "cancelled": Hangs(stops_after=3),
        "queued": Succeeds(queued=1000),
        "broken": Members([Hangs(), Fails(7, after=25), Hangs(stops_after=2)]),
        "raced": Members([Hangs(), Succeeds(after=35)]),
        "led": Members([Succeeds(after=45), Hangs()]),
        "slow": Hangs(),
        "lead": Succeeds(after=50),
        "follow": Members([Succeeds(after=5), Succeeds(after=15)]),
        "requeued too": Preempted(after=12, then=Succeeds(after=8)),
        "lead badly": Fails(9, after=25),
        "repair": Fails(2, after=3),
        "not taken": Refused("no such account"),
        "stopped": Hangs(stops_after=4),
    },
    faults=[AnswerLost("answer"), AnswerLost("late", late=2), Full(0, 1)],
    cancels={"cancelled": 20, "queued": 22, "dropped": 33, "stopped": 44},
)
# Each with what shall go wrong besides, and in which order the driver's parts take turns.
WORLDS = {
    "one after another": ((), None),
    "mixed": ((), 7),
    "mixed otherwise": ((), 11),
    "slow, down and stale": ((Slow(0.5), Down(28, 33), Stale(3)), 5),
    "edges kept": ((), None),
    "edges kept, mixed": ((), 7),
    "edges kept, slow, down and stale": ((Slow(0.5), Down(28, 33), Stale(3)), 5),
}


def definition_of(name: str) -> Definition:
    return define_all(native_edges=name.startswith("edges kept"))


def scenario_of(name: str) -> tuple[Scenario, int | None]:
    faults, seed = WORLDS[name]
    return attrs.evolve(SCENARIO, faults=(*SCENARIO.faults, *faults)), seed


def shown(result: Simulation) -> dict[str, Any]:
    """All that must not differ."""
    return {
        "states": result.states,
        "reasons": result.reasons,
        "exit codes": result.exit_codes,
        "attempts": result.attempts,
        "logs": dict(sorted(result.logs.items())),
        "brought": dict(sorted(result.brought.items())),
        "left": result.left,
        "unreleased": result.unreleased,
    }


def undisturbed(name: str) -> tuple[dict[str, Any], int]:
    stops = Stops()
    scenario, seed = scenario_of(name)
    with open_world(definition_of(name), scenario, stops, seed) as world:
        result = finish(world)
    assert result.ended
    assert not result.doubled
    assert result.brought
    assert result.brought.items() <= result.logs.items()
    return shown(result), len(stops.labels)


EVERY = pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("one after another", "mixed", "edges kept, mixed")
        else pytest.param(name, marks=pytest.mark.nightly)
        for name in WORLDS
    ],
)


@EVERY
@pytest.mark.timeout(600)
def test_a_driver_stopped_at_any_step_is_followed_by_one_that_ends_it_the_same(name):
    wanted, steps = undisturbed(name)
    scenario, seed = scenario_of(name)
    wrong = {}
    for number in range(steps):
        stops = Stops([number])
        with open_world(definition_of(name), scenario, stops, seed) as world:
            result = finish(world)
        if differs := differences(result, wanted):
            wrong[number, stops.labels[number]] = differs
    print(f"{name}: stopped at each of {steps} steps")
    assert not wrong


@pytest.mark.timeout(600)
def test_the_driver_that_follows_may_be_stopped_too():
    name = "edges kept, mixed"
    wanted, steps = undisturbed(name)
    scenario, seed = scenario_of(name)
    wrong = {}
    chosen = random.Random(SEED)
    for _ in range(TWICE_STOPPED):
        numbers = [chosen.randrange(steps) for _ in range(chosen.randint(2, 6))]
        with open_world(definition_of(name), scenario, Stops(numbers), seed) as world:
            result = finish(world, sleep_seconds=chosen.choice([0, 0.5, 3]))
        if differs := differences(result, wanted):
            wrong[tuple(numbers)] = differs
    print(f"{TWICE_STOPPED} drivers stopped 2 to 6 times, PROOF_SEED={SEED}")
    assert not wrong


@EVERY
@pytest.mark.parametrize("turns", [1, 4, 1_000_000], ids=["one turn", "four turns", "to the end"])
@pytest.mark.timeout(600)
def test_a_driver_that_sleeps_at_any_step_and_wakes_after_another_took_over_spoils_nothing(name, turns):
    wanted, steps = undisturbed(name)
    scenario, seed = scenario_of(name)
    wrong = {}
    for number in range(0, steps, 1 if turns == 4 else 3):
        sleeps = Sleeps(number, turns)
        with open_world(definition_of(name), scenario, sleeps, seed) as world:
            first = world.drive()
            while not first.ended and sleeps.other is None and world.turn(first, until=LIMIT):
                pass
            world.run(first, sleeps.other or first, until=LIMIT)
            assert all(driver.ended for driver in world.drivers)
            assert world.drivers[-1].error is None
            assert first.error is None or isinstance(first.error, Overtaken)
            result = outcome_of(world)
        if seed is None and "submitting" not in sleeps.labels[number]:
            assert not sleeps.submitted, "one that was overtaken submits only what it had begun to"
        # Between the first one's last look at the lock and its submission the other may have submitted the same key;
        # then the scheduler says that it has it (E2).
        if differs := differences(result, wanted, doubled=True):
            wrong[number, sleeps.labels[number]] = differs
    print(f"{name}: asleep at {len(range(0, steps, 1 if turns == 4 else 3))} steps")
    assert not wrong


class Sleeps:
    """Lets the first driver sleep at one step, while another takes over and does so many turns.

    Attributes:
        submitted: what the first one submitted after that.
    """

    def __init__(self, number: int, turns: int) -> None:
        self.number = number
        self.turns = turns
        self.labels: list[str] = []
        self.other: Driver | None = None
        self.submitted: list[str] = []

    def __call__(self, driver: Driver, label: str) -> None:
        if self.other is not None:
            if driver is not self.other and label.startswith("before submitting"):
                self.submitted.append(label)
            return
        self.labels.append(label)
        if len(self.labels) - 1 == self.number:
            world = driver.world
            self.other = world.drive()
            for _ in range(self.turns):
                if self.other.ended or not world.turn(self.other, until=LIMIT):
                    break


def differences(result: Simulation, wanted: dict[str, Any], *, doubled: bool = False) -> list[object]:
    """Say in what a result differs from the undisturbed one."""
    found = shown(result)
    wrong: list[object] = []
    for what, wants in wanted.items():
        if isinstance(wants, dict):
            finds = found[what]
            wrong += [
                (what, one, finds.get(one), wants.get(one))
                for one in {**wants, **finds}
                if finds.get(one) != wants.get(one)
            ]
        elif found[what] != wants:
            wrong.append((what, found[what], wants))
    # What arrived between a look and the submission that followed from it is there already; the scheduler says so (E2).
    if not doubled and (twice := [one for one in result.doubled if one != "late 0"]):
        wrong.append(("submitted twice", twice))
    return wrong
