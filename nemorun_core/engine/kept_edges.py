"""`KeptEdges`: which jobs can wait on their scheduler, since it can keep their edges rightly."""

from __future__ import annotations

from nemorun_core.contracts.backend import After
from nemorun_core.contracts.executor import connection_of
from nemorun_core.engine.events import Event, Observed, Submitted, Withdrawn
from nemorun_core.engine.state import Graph, Job
from nemorun_core.engine.submission import Builder
from nemorun_core.model.definition import Definition
from nemorun_core.model.state import Condition, Until
from nemorun_core.store.layout import Folder

__all__ = ["KeptEdges"]


class KeptEdges:
    """Hands edges over to schedulers, so that these jobs need no driver to start. But for `of`, of the engine's own
    thread."""

    def __init__(self, definition: Definition, folder: Folder, graph: Graph, builder: Builder) -> None:
        self._definition = definition
        self._folder = folder
        self._graph = graph
        self._builder = builder
        self._able: dict[int, bool] = {}  # of each executor, whether its scheduler keeps edges
        self._alive: set[str] = set()  # jobs that this driver itself has seen on their scheduler
        self._next: dict[str, Job] = {}  # those whose edges could perhaps be handed over now

    def consider(self, event: Event) -> None:
        """Note whose edges could be handed over since this event."""
        if isinstance(event, Withdrawn):
            self._next.update((name, self._graph.jobs[name]) for name, _ in event.attempts)
        elif isinstance(event, (Submitted, Observed)):
            job = self._graph.jobs[event.job]
            if job.dependants and job.id not in self._alive and self._is_able(job):
                self._alive.add(job.id)
                self._next.update((dependant.id, dependant) for dependant, _ in job.dependants)

    def take(self) -> list[Job]:
        """Return the jobs that can go to their scheduler now, each once."""
        jobs, self._next = self._next, {}
        waiting = (job for job in jobs.values() if job.waiting and not job.intended and job.held is None)
        return [job for job in waiting if self._is_trusted(job)]

    def _is_able(self, job: Job) -> bool:
        index = job.definition.executors[0]
        if index not in self._able:
            self._able[index] = self._builder.executor(job.definition).capabilities().native_edges
        return self._able[index]

    def _is_trusted(self, job: Job) -> bool:
        """Whether the scheduler can be trusted with a job's edges: each upstream has ended, or is known to be there,
        will not be tried again, and ends for this job's purpose as it does for the scheduler."""
        if not self._is_able(job) or job.state.is_final or job.asked:
            return False
        connection = connection_of(self._builder.executor(job.definition))
        for edge in job.definition.edges:
            upstream = self._graph.jobs[edge.upstream]
            if upstream.state.is_final:
                continue
            if (
                upstream.id not in self._alive
                or upstream.handle is None
                or upstream.retries
                or upstream.asked
                or upstream.verdict
                or upstream.definition.until is not Until.ALL
                or (edge.condition is Condition.FAILURE and upstream.definition.edges)
                or connection_of(self._builder.executor(upstream.definition)) != connection
                or "\n" in self._folder.job(upstream.definition)
            ):
                return False
        return True

    def of(self, name: str) -> tuple[After, ...] | None:
        """Return the edges that the scheduler has to keep if it takes a job now; None where it must not take it any
        more, or not yet. Asked by the workers just before they submit: what was intended may have been overtaken."""
        job = self._graph.jobs[name]
        kept: list[After] = []
        for edge in job.definition.edges:
            upstream = self._graph.jobs[edge.upstream]
            if (state := upstream.state).is_final:
                if not edge.condition.holds(state):
                    return None
            elif (handle := upstream.handle) is None:
                return None
            else:
                members = range(len(upstream.definition.tasks))
                ranks = tuple(self._builder.executor(upstream.definition, member).ranks() for member in members)
                key = self._definition.key(upstream.id, upstream.attempt)
                kept.append(After(key, edge.condition, handle, self._folder.job(upstream.definition), ranks))
        return None if job.state.is_final else tuple(kept)
