"""Experiments for the proofs: graphs of simulated jobs, worlds to run them in, and drivers that are stopped in them."""

from __future__ import annotations

import contextlib
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence

from nemorun_devkit.simulator import Scenario, SimulatedExecutor, Simulation, outcome_of
from nemorun_devkit.simulator_driver import Driver, Stopped, World

from nemorun_core.model.definition import Definition, Edge, JobDefinition, Kinded
from nemorun_core.model.state import Until
from nemorun_core.registry import default_registry
from nemorun_core.store.layout import Folder

__all__ = ["LIMIT", "Stops", "define", "finish", "job", "open_world"]

LIMIT = 20_000.0
_TASK = Kinded(kind="script", fields={"inline": "true"})
_records: dict[str, Kinded] = {}


def job(
    name: str, *edges: Edge | str, members: int = 1, until: str = "all", executor: SimulatedExecutor | None = None
) -> tuple[JobDefinition, SimulatedExecutor]:
    made = JobDefinition(
        id=name,
        folder=name,
        group=members > 1,
        tasks=(_TASK,) * members,
        executors=(0,) * members,
        edges=tuple(Edge(edge) if isinstance(edge, str) else edge for edge in edges),
        until=Until(until),
    )
    return made, executor or SimulatedExecutor()


def define(*jobs: tuple[JobDefinition, SimulatedExecutor]) -> Definition:
    import attrs

    table: list[Kinded] = []
    made = []
    for one, executor in jobs:
        record = _records.setdefault(repr(executor), default_registry().record("nemorun.executors", executor))
        if record not in table:
            table.append(record)
        made.append(attrs.evolve(one, executors=(table.index(record),) * len(one.tasks)))
    return Definition(
        id="x_1",
        title="x",
        nonce="0123456789abcdef",
        created="2030-01-01T00:00:00.000Z",
        cwd="/",
        jobs=tuple(made),
        executors=tuple(table),
    )


@contextlib.contextmanager
def open_world(
    definition: Definition,
    scenario: Scenario,
    step: Callable[[Driver, str], None] | None = None,
    seed: int | None = None,
) -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="nemorun-proof-") as path:
        dice = None if seed is None else random.Random(seed)
        world = World(definition, scenario, Folder(path), default_registry(), step=step, interleave=dice)
        try:
            yield world
        finally:
            for driver in world.drivers:
                driver.stop()


class Stops:
    """Stops the driver at the steps of these numbers, counted over all drivers; notes the label of each step."""

    def __init__(self, numbers: Sequence[int] = ()) -> None:
        self.numbers = set(numbers)
        self.labels: list[str] = []

    def __call__(self, driver: Driver, label: str) -> None:
        self.labels.append(label)
        if len(self.labels) - 1 in self.numbers:
            raise Stopped


def finish(world: World, *, sleep_seconds: float = 0.0) -> Simulation:
    """Drive to the end, with a new driver for each that was stopped; return what came out."""
    while True:
        driver = world.drive()
        world.run(driver, until=LIMIT)
        if not driver.stopped:
            break
        world.clock.seconds += sleep_seconds
    if driver.error is not None:
        raise driver.error
    return outcome_of(world)
