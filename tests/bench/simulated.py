"""A large experiment on the simulator: how long the state machine and the loop take for it, and how much memory; then,
each in a fresh process, how long its recovery and its status take."""

from __future__ import annotations

import os
import random
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tests.bench.children import own_cpu, tell


def simulated(count: str, edges: str, path: str) -> None:
    """Simulate so many jobs with so many random edges, in a folder; tell the CPU seconds."""
    from nemorun_devkit.simulator import SimulatedExecutor
    from nemorun_devkit.simulator_driver import World
    from nemorun_devkit.simulator_script import Scenario

    from nemorun_core.model.definition import Definition, Edge, JobDefinition, Kinded
    from nemorun_core.model.garbage import uncollected
    from nemorun_core.registry import default_registry
    from nemorun_core.store.layout import Folder

    jobs, dice, task = int(count), random.Random(1), Kinded(kind="script", fields={"inline": "true"})
    upstreams: list[set[int]] = [set() for _ in range(jobs)]
    for _ in range(int(edges)):
        one, two = sorted(dice.sample(range(jobs), 2))
        upstreams[two].add(one)
    made = tuple(
        JobDefinition(
            id=f"job_{number}",
            folder=f"job_{number}",
            group=False,
            tasks=(task,),
            executors=(0,),
            edges=tuple(Edge(f"job_{upstream}") for upstream in sorted(upstreams[number])),
        )
        for number in range(jobs)
    )
    head = {"id": "simulated", "title": "x", "nonce": "0" * 16, "created": "2030-01-01T00:00:00.000Z", "cwd": "/"}
    executor = default_registry().record("nemorun.executors", SimulatedExecutor())
    definition = Definition(**head, jobs=made, executors=(executor,))  # type: ignore[arg-type]
    folder = Folder(path)
    folder.write_definition(definition)
    world = World(definition, Scenario(), folder, default_registry())
    with uncollected():
        before = own_cpu()
        driver = world.drive()
        world.run(driver)
        cpu = own_cpu() - before
    assert driver.error is None, driver.error
    tell(cpu=cpu)


def recover(count: str, path: str) -> None:
    """Read such an experiment as a new driver does; tell the CPU seconds."""
    from nemorun_core.engine.loop import read_view
    from nemorun_core.store.layout import Folder

    before = own_cpu()
    view = read_view(Folder(path).read_definition(), Folder(path))
    recovery = own_cpu() - before
    assert len(view.graph.jobs) == int(count)
    assert view.graph.open == 0
    tell(recovery=recovery)


def status(count: str, path: str) -> None:
    """Ask for the status of such an experiment; tell the CPU seconds."""
    from nemorun_core.engine.summary import read_summary
    from nemorun_core.experiment.status import status_of
    from nemorun_core.store.layout import Folder

    before = own_cpu()
    kept = read_summary(Folder(path))
    if kept is not None:  # it is kept of large ones alone
        assert len(status_of(Folder(path), kept.rows)) == int(count)
    tell(status=own_cpu() - before)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
