"""Experiments without programs: how retries, time-outs and dependencies work out, in milliseconds and every time alike.

scenario = Scenario({"train": [Fails(3, after=60), Succeeds(after=600)]})
result = simulate(experiment, scenario)
assert result.states["train"] is State.SUCCEEDED
"""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Hashable, Mapping
from typing import ClassVar

import attrs

from nemorun_core import Backend, Capabilities, Executor, Experiment, State, UsageError
from nemorun_core.engine.state import Job
from nemorun_core.model.definition import Definition
from nemorun_core.model.state import Reason
from nemorun_core.registry import default_registry
from nemorun_core.store.layout import Folder
from nemorun_devkit.simulator_driver import Change, World
from nemorun_devkit.simulator_scheduler import Start
from nemorun_devkit.simulator_script import (
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
    Slow,
    Stale,
    Succeeds,
    Vanishes,
)

__all__ = [
    "Amnesia",
    "AnswerLost",
    "Change",
    "Down",
    "Fails",
    "Fault",
    "Forgets",
    "Full",
    "Hangs",
    "Members",
    "NodeLost",
    "Outcome",
    "Preempted",
    "Refused",
    "Scenario",
    "SimulatedExecutor",
    "Simulation",
    "Slow",
    "Stale",
    "Start",
    "Succeeds",
    "Vanishes",
    "definition_of",
    "outcome_of",
    "simulate",
]


@attrs.define(kw_only=True)
class SimulatedExecutor(Executor):
    """Runs nothing: `simulate` says how its jobs end. For experiments whose real executor is not at hand.

    Attributes:
        name: which scheduler; jobs of one name share it.
        poll_seconds: how often it is asked; None: it tells by itself when something changed.
        native_edges: whether it keeps edges itself.
        shares_files: False: the logs of its jobs are brought into their folders, as from a scheduler elsewhere.
    """

    contract: ClassVar[int] = 1

    name: str = "simulated"
    poll_seconds: float | None = None
    shares_files: bool = True
    native_edges: bool = False

    def capabilities(self) -> Capabilities:
        return Capabilities(
            shares_files=self.shares_files,
            group="atomic",
            wait=self.poll_seconds is None,
            timeout=True,
            separate_stderr=True,
            fetch=True,
            release=True,
            native_edges=self.native_edges,
            poll_interval_seconds=5.0 if self.poll_seconds is None else self.poll_seconds,
        )

    def connection(self) -> Hashable:
        return self.name, self.poll_seconds, self.shares_files

    def check(self) -> None:
        """Refuse an interval that is none. Raises UsageError."""
        super().check()
        seconds = self.poll_seconds
        if seconds is not None and not (isinstance(seconds, (int, float)) and 0 < seconds < math.inf):
            raise UsageError(f"SimulatedExecutor(poll_seconds={seconds!r}): expected a number of seconds above 0.")

    def backend(self) -> Backend:
        raise UsageError(
            "SimulatedExecutor runs nothing.", hint="Call nemorun_devkit.simulate(experiment, scenario) instead of run."
        )


@attrs.frozen(kw_only=True)
class Simulation:
    """What came out.

    Attributes:
        states, reasons, exit_codes, attempts: of each job by its id; attempts counts those that were made.
        starts: each start of a program, and the second in which it was.
        logs: what each of them wrote: a line when it began, and one when it ended by itself.
        brought: the logs that came into the jobs' folders, of jobs whose executors do not share their files.
        timeline: every change of a job's state or reason, in order.
        duration_seconds: how long it took, on the simulation's own clock.
        ended: False where `limit_seconds` passed before all jobs were final.
        calls: how often each call of the backend was made.
        warnings: what people would have been told.
        left: what still waited or ran at the scheduler in the end, "job attempt".
        unreleased: what was never released there, "job attempt".
        doubled: submissions of what the scheduler had already.
    """

    states: Mapping[str, State]
    reasons: Mapping[str, Reason | None]
    exit_codes: Mapping[str, int | None]
    attempts: Mapping[str, int]
    starts: Mapping[Start, float]
    logs: Mapping[Start, bytes]
    brought: Mapping[Start, bytes]
    timeline: tuple[Change, ...]
    duration_seconds: float
    ended: bool
    calls: Mapping[str, int]
    warnings: tuple[str, ...]
    left: tuple[str, ...]
    unreleased: tuple[str, ...]
    doubled: tuple[str, ...]


def definition_of(experiment: Experiment | Definition, *, sequential: bool = False) -> Definition:
    """Return what `run` would freeze, or has frozen. Nothing is written."""
    if isinstance(experiment, Definition):
        return experiment
    if experiment._session is not None:
        return experiment._session.definition
    if not experiment.jobs:
        raise UsageError("simulate: no job was added.")
    return experiment._draft.freeze(
        experiment_id="simulated",
        nonce="0" * 16,
        created="2030-01-01T00:00:00.000Z",
        cwd="/",
        python_path=(),
        sequential=sequential,
        direct=False,
        provenance={},
    )


def simulate(
    experiment: Experiment | Definition,
    scenario: Scenario | None = None,
    *,
    sequential: bool = False,
    limit_seconds: float = 30 * 86400.0,
    seed: int | None = None,
) -> Simulation:
    """Drive an experiment that was not run, with the engine itself, against a scheduler that exists only in memory.

    Any executor will do: only its fields count, no program is started and no scheduler is called. The same scenario
    gives the same result.

    Args:
        sequential: as `run` takes it; of an experiment that was run, its definition says so.
        limit_seconds: when to give up, on the simulation's clock.
        seed: with one, the engine's threads take turns in another order for each seed.

    Raises:
        UsageError: the scenario names a job that is not there, or no job was added.
    """
    definition, scenario = definition_of(experiment, sequential=sequential), scenario or Scenario()
    known = {job.id for job in definition.jobs}
    if strangers := [name for name in [*scenario.jobs, *scenario.cancels] if name not in known]:
        raise UsageError(
            f"Scenario: there is no job {strangers[0]!r}.", hint=f"The jobs are {', '.join(sorted(known))}."
        )
    with tempfile.TemporaryDirectory(prefix="nemorun-simulated-") as path:
        dice = None if seed is None else random.Random(seed)
        world = World(definition, scenario, Folder(path), default_registry(), interleave=dice)
        driver = world.drive()
        try:
            world.run(driver, until=limit_seconds)
        finally:
            driver.stop()
        if driver.error is not None:
            raise driver.error
        return outcome_of(world)


def _made(job: Job) -> int:
    """Count attempts; one that its scheduler had, and that never could start, is none."""
    return job.attempt + 1 if job.intended and job.state is not State.SKIPPED else job.attempt


def outcome_of(world: World) -> Simulation:
    """Return what came out of a world whose driver has ended, as its journal says."""
    view = world.loop_module.read_view(world.definition, world.folder)
    jobs = view.graph.jobs
    return Simulation(
        states={name: job.state for name, job in jobs.items()},
        reasons={name: job.reason for name, job in jobs.items()},
        exit_codes={name: job.exit_code for name, job in jobs.items()},
        attempts={name: _made(job) for name, job in jobs.items()},
        starts=world.scheduler.starts(),
        logs={start: world.scheduler.log(start) for start in world.scheduler.starts()},
        brought=world.brought(),
        timeline=tuple(world.timeline),
        duration_seconds=world.clock.seconds,
        ended=view.graph.open == 0,
        calls=dict(world.scheduler.calls),
        warnings=tuple(view.warnings),
        left=tuple(f"{key.job} {key.attempt}" for key in world.scheduler.running()),
        unreleased=tuple(f"{key.job} {key.attempt}" for key, it in world.scheduler.entries.items() if not it.released),
        doubled=tuple(f"{key.job} {key.attempt}" for key in world.scheduler.doubled),
    )
