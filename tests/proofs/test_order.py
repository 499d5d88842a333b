"""What an engine does at a backend follows what it has written: the next driver could not tell why it was done."""

from __future__ import annotations

from nemorun_devkit.simulator import Fails, Hangs, Members, NodeLost, Scenario, Simulation, Succeeds, outcome_of
from nemorun_devkit.simulator_driver import Driver, Stopped

from nemorun_core.model.state import ReasonKind, State
from tests.proofs.worlds import define, finish, job, open_world


class StopsAt:
    """Stops the first driver at the first step of this label. `eager`: its worker is quicker than its journal."""

    def __init__(self, label: str, *, eager: bool = False) -> None:
        self.label = label
        self.eager = eager

    def __call__(self, driver: Driver, label: str) -> None:
        if driver is not driver.world.drivers[0]:
            return
        if label == self.label:
            raise Stopped
        if self.eager and label == "before the journal":
            while driver.turn():
                pass


def stopped_at(stop: StopsAt, outcome: Members | NodeLost, members: int = 1, until: str = "all") -> Simulation:
    definition = define(job("job", members=members, until=until))
    with open_world(definition, Scenario({"job": outcome}), stop) as world:
        return finish(world)


def test_the_next_driver_stops_a_group_whose_end_was_decided_and_not_carried_out():
    result = stopped_at(StopsAt("before cancel"), Members([Hangs(), Fails(7, after=10)]), members=2)
    assert result.states["job"] is State.FAILED
    assert not result.left


def test_nothing_is_released_before_its_end_is_written():
    result = stopped_at(StopsAt("after release", eager=True), NodeLost(after=10))
    assert result.states["job"] is State.FAILED
    assert result.reasons["job"].kind is ReasonKind.NODE_FAILURE


def test_the_rest_of_a_group_is_not_stopped_before_the_end_that_decided_it_is_written():
    stop = StopsAt("after cancel", eager=True)
    result = stopped_at(stop, Members([Hangs(), Succeeds(after=10)]), members=2, until="first")
    assert result.states["job"] is State.SUCCEEDED


def test_a_driver_that_was_overtaken_carries_out_no_request_that_came_since():
    definition = define(job("job"))
    with open_world(definition, Scenario({"job": Hangs()}, cancels={"job": 20})) as world:
        first = world.drive()
        world.run(first, until=10)
        second = world.drive()
        world.run(second, until=15)
        check = first._lock.check

        def check_late() -> None:
            """Look at the lock when the worker has done all that it was told to."""
            while first.turn():
                pass
            check()

        first._lock.check = check_late
        world.run(first, second)  # the request wakes the first one, before it has noticed anything
        result = outcome_of(world)
    assert (result.states["job"], result.reasons["job"].kind) == (State.CANCELLED, ReasonKind.BY_USER)
