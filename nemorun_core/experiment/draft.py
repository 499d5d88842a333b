"""What `add` makes: jobs as given, prepared by hooks and plugins, checked, and at last frozen into a definition."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import attrs

from nemorun_core.contracts.executor import Executor, connection_of
from nemorun_core.contracts.plugin import Plugin, PreparedJob
from nemorun_core.errors import Defect, NemorunError, UsageError
from nemorun_core.experiment.shipping import Shipping
from nemorun_core.model.definition import (
    Change,
    Definition,
    Edge,
    Given,
    JobDefinition,
    Kinded,
    check_name,
    job_folder,
)
from nemorun_core.model.state import Condition, Until
from nemorun_core.model.task import Task
from nemorun_core.registry import Registry

__all__ = ["Draft", "DraftJob"]

EXECUTORS = "nemorun.executors"


@attrs.define(kw_only=True)
class DraftJob:
    """One `add`. `tasks`, `executors` and `plugins` are as given, the job's own copies."""

    id: str
    group: bool
    tasks: list[Task]
    executors: list[Executor]
    plugins: list[Plugin]
    edges: tuple[Edge, ...]
    until: Until
    tail_logs: bool
    prepared_tasks: list[Kinded] = attrs.field(factory=list)
    prepared_executors: list[Executor] = attrs.field(factory=list)
    given: Given | None = None
    changes: tuple[Change, ...] = ()


class Draft:
    """The jobs added so far.

    Args:
        registry: what is installed.
        experiment_id: gives the experiment's id, claiming it at the first call.
    """

    def __init__(self, registry: Registry, title: str, experiment_id: Callable[[], str]) -> None:
        self._registry = registry
        self._title = title
        self._experiment_id = experiment_id
        self.jobs: dict[str, DraftJob] = {}
        self.objects: dict[str, bytes] = {}
        self.stale = False
        self.shipping = Shipping()
        self._checked: list[tuple[Executor, Kinded]] = []

    def add(
        self,
        task: Task | Sequence[Task],
        executor: Executor | str | Sequence[Executor | str] | None,
        *,
        default_executor: Executor | str | None,
        name: str,
        plugins: Sequence[Plugin] | None,
        tail_logs: bool,
        dependencies: Iterable[str | Edge] | None,
        until: str,
    ) -> str:
        """Check everything, then record one job, and return its id. Raises UsageError; nothing is recorded then."""
        group = not isinstance(task, Task)
        tasks = _tasks(task)
        job = DraftJob(
            id=self._free_id(check_name(name, "name") if name else _default_name(tasks, group)),
            group=group,
            tasks=[one.clone() for one in tasks],
            executors=[one.clone() for one in self._executors(executor, default_executor, len(tasks))],
            plugins=_plugins(plugins),
            edges=self._edges(dependencies),
            until=_until(until),
            tail_logs=bool(tail_logs),
        )
        self._prepare(job)
        self.jobs[job.id] = job
        return job.id

    def restore(self, jobs: Iterable[DraftJob]) -> None:
        """Take jobs as they were given before; they are prepared anew when the experiment is run."""
        self.jobs = {job.id: job for job in jobs}
        self.stale = True

    def freeze(
        self,
        *,
        experiment_id: str,
        nonce: str,
        created: str,
        cwd: str,
        python_path: tuple[str, ...],
        sequential: bool,
        direct: bool,
        provenance: dict[str, object],
    ) -> Definition:
        """Return the definition of what was added. Raises UsageError if tasks that were edited since do not fit."""
        self.shipping.reset()
        if self.stale:
            self.objects.clear()
            for job in self.jobs.values():
                self._prepare(job)
        table: list[Kinded] = []
        places: dict[int, int] = {}
        jobs: list[JobDefinition] = []
        for job in self.jobs.values():
            indices = []
            for executor in job.prepared_executors:
                kinded = self._executor_record(executor)
                place = places.get(id(kinded))
                if place is None:
                    place = places[id(kinded)] = len(table)
                    table.append(kinded)
                indices.append(place)
            digests = [self.shipping.freeze(executor, python_path) for executor in job.prepared_executors]
            edges = job.edges
            if sequential and jobs:
                edges = (Edge(jobs[-1].id),)
            jobs.append(
                JobDefinition(
                    id=job.id,
                    folder=job_folder(job.id),
                    group=job.group,
                    tasks=tuple(job.prepared_tasks),
                    executors=tuple(indices),
                    edges=edges,
                    until=job.until,
                    tail_logs=job.tail_logs,
                    given=job.given,
                    plugins=tuple(self._registry.record("nemorun.plugins", plugin) for plugin in job.plugins),
                    changes=job.changes,
                    bundles=tuple(digests) if any(digests) else (),
                )
            )
        return Definition(
            id=experiment_id,
            title=self._title,
            nonce=nonce,
            created=created,
            cwd=cwd,
            python_path=python_path,
            jobs=tuple(jobs),
            executors=tuple(table),
            bundles=self.shipping.bundles(),
            sequential=sequential,
            direct=direct,
            provenance=provenance,
        )

    def _free_id(self, name: str) -> str:
        free, number = name, 0
        while free in self.jobs:
            number += 1
            free = f"{name}_{number}"
        return free

    def _executors(
        self,
        executor: Executor | str | Sequence[Executor | str] | None,
        default: Executor | str | None,
        members: int,
    ) -> list[Executor]:
        if executor is None:
            executor = default if default is not None else "local"
        if isinstance(executor, (Executor, str)):
            return [self._executor(executor)] * members
        if not isinstance(executor, (list, tuple)):
            raise UsageError(
                f"executor: expected an executor, its name, or a list of them, found {_called(executor)}.",
                hint="Use run.LocalExecutor() or 'local'.",
            )
        if len(executor) != members:
            raise UsageError(
                f"{len(executor)} executors were given for {members} tasks.", hint="Give one for all, or one a task."
            )
        return [self._executor(one) for one in executor]

    def _executor(self, executor: Executor | str) -> Executor:
        if isinstance(executor, Executor):
            return executor
        if not isinstance(executor, str):
            raise UsageError(
                f"executor: expected an executor or its name, found {_called(executor)}.",
                hint="Use run.LocalExecutor() or 'local'.",
            )
        if executor == "local" and self._registry.named(EXECUTORS, "local") is None:
            raise UsageError(
                "no executor was named, and none called 'local' is installed.",
                hint="pip install nemorun-local (or nemorun-core[local])",
            )
        made = self._registry.load(EXECUTORS, executor)()
        if not isinstance(made, Executor):
            raise Defect(f"{executor!r} is no executor: {type(made).__qualname__} does not derive from run.Executor.")
        return made

    def _edges(self, dependencies: Iterable[str | Edge] | None) -> tuple[Edge, ...]:
        if dependencies is None:
            return ()
        dependencies = [dependencies] if isinstance(dependencies, (str, Edge)) else dependencies
        if not isinstance(dependencies, Iterable):
            raise UsageError(f"dependencies: expected a list of ids, found {_called(dependencies)}.")
        edges: dict[tuple[str, Condition], Edge] = {}
        for given in dependencies:
            edge = Edge(given) if isinstance(given, str) else given
            if not isinstance(edge, Edge):
                raise UsageError(
                    f"dependencies: expected ids that `add` returned, found {_called(given)}.",
                    hint="Use dependencies=[id1, run.after_any(id2)].",
                )
            if edge.upstream not in self.jobs:
                import difflib

                near = difflib.get_close_matches(edge.upstream, self.jobs, n=1)
                raise UsageError(
                    f"dependencies: there is no job {edge.upstream!r} in this experiment yet.",
                    hint=f"Did you mean {near[0]!r}?" if near else "Add it first, and use the id that `add` returns.",
                )
            edges[edge.upstream, edge.condition] = edge
        return tuple(edges.values())

    def _prepare(self, job: DraftJob) -> None:
        """Let hooks, then plugins, change copies of task and executor; note who changed what; check the result."""
        tasks = [task.clone() for task in job.tasks]
        executors = [executor.clone() for executor in job.executors]
        changes: list[Change] = []
        hooks = self._registry.hooks("nemorun_prepare_job")
        for hook in hooks:
            with _Noted(changes, hook.found.distribution, tasks, executors):
                view = PreparedJob(
                    experiment_id=self._experiment_id(),
                    title=self._title,
                    id=job.id,
                    tasks=tuple(tasks),
                    executors=tuple(executors),
                )
                try:
                    hook.call(job=view)
                except NemorunError:
                    raise
                except Exception as error:
                    raise Defect(
                        f"the hook nemorun_prepare_job of {hook.found.distribution} failed for job {job.id!r}: "
                        f"{type(error).__name__}: {error}.",
                        hint=f"Report it to its author; to go on without it: NEMORUN_PLUGINS_DISABLE={hook.found.name}",
                        distribution=hook.found.distribution,
                    ) from error
        for given in job.plugins:
            self._registry.record("nemorun.plugins", given)
            plugin = copy.deepcopy(given)
            plugin.assign(self._experiment_id())
            with _Noted(changes, type(plugin).__name__, tasks, executors):
                for task, executor in zip(tasks, executors, strict=True):
                    plugin.setup(task, executor)
        for executor in executors:
            executor.launcher = self._registry.made("nemorun.launchers", executor.launcher)  # type: ignore[assignment]
            executor.packager = self._registry.made("nemorun.packagers", executor.packager)  # type: ignore[assignment]
        _check(job, executors)
        for executor in executors:
            self._executor_record(executor)
        job.prepared_executors = executors
        job.prepared_tasks = [self._record(task) for task in tasks]
        for task, record, executor in zip(tasks, job.prepared_tasks, executors, strict=True):
            self.shipping.check(job.id, task, record, executor)
        job.changes = tuple(changes)
        job.given = None
        if changes:
            job.given = Given(
                tasks=tuple(self._record(task) for task in job.tasks),
                executors=tuple(self._registry.record(EXECUTORS, executor) for executor in job.executors),
            )

    def _record(self, task: Task) -> Kinded:
        kinded = self._registry.record_task(task)
        self.objects.update(task.objects())
        return kinded

    def _executor_record(self, executor: Executor) -> Kinded:
        """Return the record of an executor, the same object for equal ones, so that each is written once."""
        for known, kinded in reversed(self._checked[-8:]):
            if type(known) is type(executor) and known == executor:
                return kinded
        kinded = self._registry.record(EXECUTORS, executor)
        for _, other in self._checked:
            if other == kinded:
                kinded = other
                break
        self._checked.append((executor, kinded))
        return kinded


class _Noted:
    """Notes what the block changes of tasks and executors, under the name of who does it."""

    def __init__(self, changes: list[Change], by: str, tasks: Sequence[Task], executors: Sequence[Executor]) -> None:
        self._changes = changes
        self._by = by
        self._after: tuple[Sequence[object], Sequence[object]] = (tasks, executors)
        self._before: tuple[Sequence[object], Sequence[object]] = (
            [task.clone() for task in tasks],
            [executor.clone() for executor in executors],
        )

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        lines: list[str] = []
        for what, before, after in zip(("task", "executor"), self._before, self._after, strict=True):
            for index, new in enumerate(after):
                if new == before[index]:
                    continue
                from nemorun_core.model.show import diff

                name = what if len(after) == 1 else f"{what} {index}"
                lines.extend(f"{name} {difference}" for difference in diff(before[index], new))
        if lines:
            self._changes.append(Change(by=self._by, lines=tuple(lines)))


def _check(job: DraftJob, executors: Sequence[Executor]) -> None:
    """Refuse what an executor cannot honour (E16)."""
    for executor in {id(one): one for one in executors}.values():
        try:
            executor.check()
        except UsageError as error:
            raise UsageError(f"job {job.id!r}: {error.message}", hint=error.hint) from None
    if len(executors) > 1:
        able = executors[0].capabilities()
        if able.group is None:
            raise UsageError(
                f"job {job.id!r} is a group, and {type(executors[0]).__name__} runs none.",
                hint="Add its tasks one by one, or choose another executor.",
            )
        if len(set(map(connection_of, executors))) > 1:
            raise UsageError(
                f"job {job.id!r}: the executors of a group must name one scheduler.",
                hint="Use executors of one class and connection, or add the tasks one by one.",
            )
        try:
            executors[0].check_group(executors)
        except UsageError as error:
            raise UsageError(f"job {job.id!r}: {error.message}", hint=error.hint) from None


def _tasks(task: object) -> list[Task]:
    tasks = [task] if isinstance(task, Task) else task
    if not isinstance(tasks, (list, tuple)):
        raise UsageError(
            f"add: expected a run.Script, a run.Partial or a list of them, found {_called(task)}.",
            hint="Wrap a function: run.Partial(function, argument=value)." if callable(task) else "",
        )
    if not tasks:
        raise UsageError("add: the group is empty.", hint="Give at least one task.")
    for one in tasks:
        if not isinstance(one, Task):
            raise UsageError(
                f"add: expected tasks in the list, found {_called(one)}.",
                hint="Use run.Script(...) or run.Partial(...).",
            )
    return list(tasks)


def _default_name(tasks: Sequence[Task], group: bool) -> str:
    name = tasks[0].default_name() or type(tasks[0]).__name__.lower()
    return f"{name}_group" if group else name


def _plugins(plugins: object) -> list[Plugin]:
    if isinstance(plugins, Plugin):
        plugins = [plugins]
    if not isinstance(plugins, (list, tuple, type(None))):
        raise UsageError(f"plugins: expected a list, found {_called(plugins)}.")
    for plugin in plugins or ():
        if not isinstance(plugin, Plugin):
            raise UsageError(
                f"plugins: expected instances of run.Plugin, found {_called(plugin)}.",
                hint="Give an instance: plugins=[run.EnvVars({...})].",
            )
    return list(plugins or ())


def _until(until: str) -> Until:
    try:
        return Until(until)
    except ValueError:
        raise UsageError(
            f"until={until!r}: expected 'all', 'first' or 'leader'.", hint="'all' waits for every member."
        ) from None


def _called(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:60] + '…'}"
