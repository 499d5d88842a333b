"""A large experiment on the simulator, in a fresh process: how long the state machine and the loop take for it, how
much memory, how long its recovery and its status."""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tests.bench.children import own_cpu, tell


def simulated(count: str, edges: str) -> None:
    """Simulate so many jobs with so many random edges; tell the CPU seconds of all, of a recovery, of the status."""
    from nemorun_devkit.simulator import SimulatedExecutor
    from nemorun_devkit.simulator_driver import World
    from nemorun_devkit.simulator_script import Scenario

    from nemorun_core.engine.loop import read_view
    from nemorun_core.engine.summary import read_summary
    from nemorun_core.experiment.status import status_of
    from nemorun_core.model.definition import Definition, Edge, JobDefinition, Kinded
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
    with tempfile.TemporaryDirectory() as path:
        folder = Folder(path)
        folder.write_definition(definition)
        world = World(definition, Scenario(), folder, default_registry())
        before = own_cpu()
        driver = world.drive()
        world.run(driver)
        cpu = own_cpu() - before
        assert driver.error is None, driver.error
        before, begun = own_cpu(), time.perf_counter()
        view = read_view(folder.read_definition(), folder)
        recovery = time.perf_counter() - begun
        assert view.graph.open == 0
        begun = time.perf_counter()
        kept = read_summary(folder)
        if kept is not None:
            assert len(status_of(folder, kept.rows)) == jobs
        status = time.perf_counter() - begun
    tell(cpu=cpu, recovery=recovery, status=status)


if __name__ == "__main__":
    simulated(*sys.argv[1:])
