"""The engine itself, driven step by step on a clock that only the simulation moves: no thread, no sleep, no chance.

Code of `nemorun_core.engine.loop` and `worker` runs unchanged, in copies of the two modules in which `time`, `select`
and the like are the simulation's. The live modules are not touched, so real experiments may run meanwhile.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import random
import select
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

from nemorun_core import Executor, Member, State, Submission, base_path
from nemorun_core.engine.state import Job
from nemorun_core.model.definition import Definition, JobDefinition
from nemorun_core.model.garbage import uncollected
from nemorun_core.model.state import Reason, ReasonKind
from nemorun_core.registry import Registry
from nemorun_core.store.journal import JournalWriter
from nemorun_core.store.layout import Folder
from nemorun_core.store.lock import Lock
from nemorun_core.store.requests import Request, Requests
from nemorun_devkit.simulator_connection import Connection
from nemorun_devkit.simulator_scheduler import Clock, Scheduler, Start
from nemorun_devkit.simulator_script import Scenario

__all__ = ["Change", "Driver", "Stopped", "World"]

HEARTBEAT_SECONDS = 600.0
_TURNS_AT_ONE_INSTANT = 10_000
_PROGRAM = Member(argv=("simulated",), environment={}, cwd="/")


class Change(NamedTuple):
    """A job's new state or reason, as people are told of it, and the second in which that was."""

    second: float
    job: str
    state: State
    reason: Reason | None
    attempt: int
    incarnation: int


class Stopped(BaseException):
    """A driver is dead from here on, as after SIGKILL. Raised by a `step` of a `World`."""


def _copy(name: str, **replaced: object) -> Any:
    """Return a copy of a module in which some of its names stand for something else."""
    if name not in _codes:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        code = spec.loader.get_code(name)  # type: ignore[union-attr]
        _codes[name] = code
    module = types.ModuleType(name)
    exec(_codes[name], vars(module))
    vars(module).update(replaced)
    return module


_codes: dict[str, CodeType] = {}


class World:
    """One simulated experiment: its clock, its scheduler, its folder, and all who ever drove it.

    Args:
        step: called with a few words before and after each write of the journal, request and backend call; what it
            raises stops the driver there.
        interleave: lets the parts of one driver, which are threads in reality, take turns also inside such a step.
    """

    def __init__(
        self,
        definition: Definition,
        scenario: Scenario,
        folder: Folder,
        registry: Registry,
        *,
        step: Callable[[Driver, str], None] | None = None,
        interleave: random.Random | None = None,
    ) -> None:
        self.definition = definition
        self.scenario = scenario
        self.folder = folder
        self.clock = Clock()
        self.scheduler = Scheduler(self.clock, scenario)
        self.step = step or (lambda driver, label: None)
        self.interleave = interleave
        self.timeline: list[Change] = []
        self.drivers: list[Driver] = []
        self._executors = [registry.read_executor(kinded) for kinded in definition.executors]
        self._cancels = sorted((second, job) for job, second in scenario.cancels.items())
        self._current: Driver | None = None
        collector = _copy("nemorun_core.engine.collecting", time=self.clock).Collector
        self.worker_module = _copy("nemorun_core.engine.worker", time=self.clock, Collector=collector)
        self.loop_module = _copy(
            "nemorun_core.engine.loop",
            time=self.clock,
            now=self.clock.iso,
            select=types.SimpleNamespace(select=_look),
            Builder=lambda definition, folder, registry: self,
            Worker=lambda *args, **options: _stepped(self, self.driver, args, options),
            JournalWriter=lambda path: _SteppedJournal(path, self.driver),
            Requests=lambda path: _SteppedRequests(path, self.driver),
            HEARTBEAT_SECONDS=HEARTBEAT_SECONDS,
        )

    # What the engine takes for its `Builder` and `Registry`.

    def executor(self, job: JobDefinition, member: int = 0) -> Executor:
        return self._executors[job.executors[member]]

    def build(self, job: JobDefinition, attempt: int) -> Submission:
        return Submission(
            key=self.definition.key(job.id, attempt),
            members=(_PROGRAM,) * len(job.tasks),
            executors=tuple(self._executors[index] for index in job.executors),
            folder=self.folder.job(job),
            support=self.folder.support,
        )

    def unpack(self, job: JobDefinition) -> None:
        """Nothing travels in a simulation."""

    def hooks(self, name: str) -> list[Any]:
        """No installed plugin hears of a simulation."""
        return []

    def brought(self) -> dict[Start, bytes]:
        """Return the logs as they stand in the folders of the jobs that do not share their files."""
        far = {job.id: job for job in self.definition.jobs if not self.executor(job).capabilities().shares_files}
        found = {}
        for start in self.scheduler.starts() if far else ():
            if start.job in far:
                base = base_path(self.folder.job(far[start.job]), start.attempt, start.incarnation, start.member)
                found[start] = Path(f"{base}.out").read_bytes() if os.path.exists(f"{base}.out") else b""
        return found

    # Driving.

    @property
    def driver(self) -> Driver:
        assert self._current is not None
        return self._current

    @contextlib.contextmanager
    def driven_by(self, driver: Driver) -> Iterator[None]:
        before, self._current = self._current, driver
        try:
            yield
        finally:
            self._current = before

    def drive(self) -> Driver:
        """Return a new driver, which takes over from any before."""
        driver = Driver(self)
        self.drivers.append(driver)
        return driver

    def run(self, *drivers: Driver, until: float = math.inf) -> None:
        """Drive until these drivers have ended, or the clock would pass `until`; move the clock whenever nobody has
        anything to do."""
        turns, instant = 0, self.clock.seconds
        with uncollected():
            while self.turn(*drivers, until=until):
                turns = turns + 1 if self.clock.seconds == instant else 0
                instant = self.clock.seconds
                if turns > _TURNS_AT_ONE_INSTANT:
                    raise AssertionError(f"the driver makes no progress at second {instant}")

    def turn(self, *drivers: Driver, until: float = math.inf) -> bool:
        """Do one thing that is due, moving the clock first where nothing is; False: nothing is due before `until`."""
        dues = [(driver.due(), driver) for driver in drivers if not driver.ended]
        if not dues:
            return False
        due, driver = min(dues, key=lambda one: one[0])
        due = min(due, self._cancels[0][0] if self._cancels else math.inf)
        if due > self.clock.seconds:
            if due > until or due == math.inf:
                return False
            self.clock.seconds = due
        self.scheduler.arrive()
        if self._cancels and self._cancels[0][0] <= self.clock.seconds:
            _, job = self._cancels.pop(0)
            Requests(self.folder.requests).leave(Request((job,), ReasonKind.BY_USER.value))
        elif not driver.turn():
            raise AssertionError("something was due, and nobody did it")
        return True


class Driver:
    """One engine with its workers, as parts that take turns. In reality each is a thread.

    Attributes:
        ended: it has ended by itself, or was stopped.
        stopped: it was stopped where it stood.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.ended = self.stopped = False
        self.workers: list[Any] = []
        self._busy: set[int] = set()
        self._begun = self._ending = False
        self._turned = 0.0
        self._lock = Lock(world.folder.lock)
        self._lock.acquire(take_over=True)
        with world.driven_by(self):
            self.engine = world.loop_module.Engine(world.definition, world.folder, world, self._lock)
        self.engine.tell = self._tell
        self.engine._reading, self.engine._writing = self.engine._requests.open_pipe()

    @property
    def error(self) -> BaseException | None:
        error: BaseException | None = self.engine.error
        return error

    def _tell(self, jobs: list[Job]) -> None:
        second = self.world.clock.seconds
        self.world.timeline += [
            Change(second, job.id, job.state, job.reason, job.attempt, job.incarnation) for job in jobs
        ]

    def due(self) -> float:
        """Return when one of its parts has something to do."""
        return min([self._engine_due(), *(float(worker.due) for worker in self.workers)])

    def _engine_due(self) -> float:
        if self.ended:
            return math.inf
        if not self._begun or self._ending or _look([self.engine._reading], [], [], 0)[0]:
            return self.world.clock.seconds
        dues: list[float] = [due for due, _ in self.engine._retries]
        return min([self._turned + HEARTBEAT_SECONDS, self.engine._stuck_until or math.inf, *dues])

    def turn(self) -> bool:
        """Let one part that is due, and is not in the middle of something, do its turn; return whether one did."""
        moment = self.world.clock.seconds
        parts: list[tuple[int, Callable[[], None]]] = []
        if self._engine_due() <= moment and not (self._ending and self._busy):
            parts.append((0, self._drive))
        parts += [(number, worker.take_turn) for number, worker in enumerate(self.workers, 1) if worker.due <= moment]
        parts = [part for part in parts if part[0] not in self._busy]
        if not parts or self.ended:
            return False
        number, act = parts[0] if self.world.interleave is None else self.world.interleave.choice(parts)
        self._busy.add(number)
        try:
            with self.world.driven_by(self):
                act()
        except Stopped:
            self._die()
            if len(self._busy) > 1:  # the part in whose midst this happened stops with it
                raise
        finally:
            self._busy.discard(number)
        return True

    def _drive(self) -> None:
        """One turn of `Engine._run`."""
        engine = self.engine
        try:
            if self._begun and not self._ending:
                engine._turn()
            self._turned = self.world.clock.seconds
            if not self._begun:
                self._begun = True
                engine._begin()
            if not self._ending and not engine._leaving and engine._unfinished():
                return
        except Stopped:
            raise
        except BaseException as error:
            engine.error = error
        self._ending = True
        if self._busy == {0}:
            engine._end()
            self.ended = True
            return
        for worker in self.workers:  # one is in the middle of a call, for whose end `_end` would wait
            worker.stop()

    def step(self, label: str) -> None:
        """A point at which a driver may be stopped, and its other parts may go on."""
        if self.stopped:
            raise Stopped
        self.world.step(self, label)
        dice = self.world.interleave
        while dice is not None and not self.ended and dice.random() < 0.3 and self.turn():
            pass
        if self.stopped:
            raise Stopped

    def stop(self) -> None:
        """Stop it between two turns, as SIGKILL would."""
        if not self.ended:
            self._die()

    def _die(self) -> None:
        if self.stopped:
            return
        self.ended = self.stopped = True
        self._lock.abandon()
        if self.engine._journal is not None:
            self.engine._journal.close()
        for handle in (self.engine._reading, self.engine._writing):
            os.close(handle)


def _look(reading: list[int], writing: list[int], errors: list[int], patience: float) -> Any:
    """select(2) that never waits: the simulation moves the clock instead."""
    return select.select(reading, writing, errors, 0)


class _SteppedJournal(JournalWriter):
    def __init__(self, path: str, driver: Driver) -> None:
        super().__init__(path)
        self._driver = driver

    def flush(self, *, sync: bool = False) -> None:
        if not self._pending:
            return
        self._driver.step("before the journal")
        try:
            self._driver.step("within the journal")
        except Stopped:
            data = "\n".join(self._pending).encode("ascii")
            if self._handle >= 0:  # else it is another part that stopped, and the whole driver with it
                os.write(self._handle, data[: len(data) // 2])
            raise
        super().flush()
        self._driver.step("after the journal")


class _SteppedRequests(Requests):
    def __init__(self, path: str, driver: Driver) -> None:
        super().__init__(path)
        self._driver = driver

    def settle(self, path: str) -> None:
        self._driver.step("before a request is settled")
        super().settle(path)
        self._driver.step("after a request is settled")


class _Woken:
    """A worker's `threading.Event`: to wait is to say when the next turn is due."""

    def __init__(self, rest: Callable[[float], None]) -> None:
        self._rest = rest

    def set(self) -> None: ...

    def clear(self) -> None: ...

    def wait(self, seconds: float) -> None:
        self._rest(seconds)


def _stepped(world: World, driver: Driver, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Make a worker without a thread."""

    class Stepped(world.worker_module.Worker):  # type: ignore[misc,name-defined]  # of this simulation's own module
        def __init__(self) -> None:
            super().__init__(*args, **options)
            self._rested_until = 0.0
            self._gone = False
            self._woken = _Woken(self.rest)
            self._backend = Connection(world.scheduler, driver.step, self.rest)

        def rest(self, seconds: float) -> None:
            self._rested_until = world.clock.seconds + seconds

        @property
        def due(self) -> float:
            if self._gone:
                return math.inf
            return world.clock.seconds if self._commands else float(self._rested_until)

        def start(self) -> None:
            driver.workers.append(self)

        def take_turn(self) -> None:
            self._rested_until = world.clock.seconds
            self._turn(self._backend)
            if self._stopping:
                self._gone = True
                self._release(self._backend)

        def join(self, timeout: float | None = None) -> None:
            while not self._gone:
                self.take_turn()

    return Stepped()
