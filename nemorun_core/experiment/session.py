"""One experiment that was run, whoever drives it: its state, logs, requests and end, from any process."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from nemorun_core.display.console import prefixes
from nemorun_core.display.logs import Source, compiled, follow, last_lines, sources_of
from nemorun_core.engine.loop import Engine, View
from nemorun_core.engine.output import binary
from nemorun_core.engine.settle import cancel_beside, driver_lives, look
from nemorun_core.engine.state import Graph, Job
from nemorun_core.engine.submission import Builder
from nemorun_core.engine.summary import rows_of
from nemorun_core.errors import StoreError, UsageError
from nemorun_core.experiment.status import JobStatus, status_of
from nemorun_core.model.definition import Definition
from nemorun_core.model.secret import Secret
from nemorun_core.model.state import ReasonKind, State
from nemorun_core.registry import Registry
from nemorun_core.store.layout import Folder
from nemorun_core.store.lock import driver_of
from nemorun_core.store.requests import Request, Requests

__all__ = ["Brought", "Session"]

_POLL_SECONDS = 0.1
_ANSWER_SECONDS = 5.0


class Brought(NamedTuple):
    """Outputs of one member that were copied: their names below the folder `to`."""

    job: str
    member: int
    to: str
    files: tuple[str, ...]

    def text(self) -> str:
        """Return one line that says what came."""
        if not self.files:
            return f"{self.job}: none of its declared outputs is there (member {self.member})."
        return f"{self.job}: {len(self.files)} files in {self.to}"


class Session:
    """What can be asked of an experiment after `run`. `engine` is the driver, where this process is it."""

    def __init__(self, definition: Definition, folder: Folder, registry: Registry, engine: Engine | None = None):
        self.definition = definition
        self.folder = folder
        self.registry = registry
        self.engine = engine
        self._builder = Builder(definition, folder, registry)
        self._view: View | None = None
        self._looking = threading.Lock()

    @property
    def drives(self) -> bool:
        """Whether this process drives the experiment now."""
        return self.engine is not None and not self.engine.ended.is_set()

    def graph(self) -> Graph:
        """Return the state now: the driver's own in its process, else what the records say. Raises StoreError."""
        engine = self.engine
        if engine is not None and (self.drives or (engine.error is None and not engine.graph.open)):
            return engine.graph
        with self._looking:  # what was read once is only read on from there
            if self._view is None or (self._view.graph.open and not driver_lives(self.folder)):
                self._view = look(self.definition, self.folder, self.registry)
            else:
                self._view.advance()
            return self._view.graph

    def status(self, graph: Graph | None = None) -> dict[str, JobStatus]:
        """Return the status of each job, in the order of `add`: now, or as it stands in `graph`."""
        return status_of(self.folder, rows_of(self.definition, graph or self.graph()))

    def driver(self) -> dict[str, str | int] | None:
        """Return host and pid of the process that drives the experiment, None if there is none."""
        record = driver_of(self.folder.lock) if driver_lives(self.folder) else None
        return {"host": record.host, "pid": record.pid} if record and not record.settles else None

    def is_orphaned(self, graph: Graph) -> bool:
        """Whether work is left and nobody drives."""
        return graph.open > 0 and not self.drives and not driver_lives(self.folder)

    def check_startable(self) -> None:
        """Refuse to drive what this process could not start: a plugin or a secret's source is missing.

        Raises:
            UsageError: what is missing, by name.
        """
        for job in self.graph().jobs.values():
            if job.state is State.UNSUBMITTED or job.state is State.PENDING:
                for member in self._builder.build(job.definition, job.attempt).members:
                    for value in member.environment.values():
                        if isinstance(value, Secret):
                            value.reveal()

    def job_id(self, job: str | int) -> str:
        """Return the id of a job given by id, or by its number in the order of `add`. Raises UsageError."""
        ids = [one.id for one in self.definition.jobs]
        if isinstance(job, str) and job in ids:
            return job
        number = job if isinstance(job, int) else int(job) if job.isdecimal() else -1
        if 0 <= number < len(ids):
            return ids[number]
        import difflib

        near = difflib.get_close_matches(str(job), ids, n=1)
        listed = ", ".join(map(repr, ids[:10])) + (", …" if len(ids) > 10 else "")
        raise UsageError(
            f"there is no job {job!r} in {self.definition.id}.",
            hint=f"Did you mean {near[0]!r}?" if near else f"Its jobs are {listed}.",
        )

    def cancel(self, jobs: Sequence[str], kind: ReasonKind = ReasonKind.BY_USER) -> None:
        """Ask, durably, that jobs be cancelled; return when a driver took the request, or carried out without one.

        Raises:
            StoreError: the request could not be written, so nothing was asked.
        """
        path = Requests(self.folder.requests).leave(Request(tuple(jobs), kind.value))
        if not self.drives and not driver_lives(self.folder):
            look(self.definition, self.folder, self.registry)
            return
        deadline = time.monotonic() + _ANSWER_SECONDS
        while os.path.exists(path) and time.monotonic() < deadline:
            time.sleep(0.01)
        if os.path.exists(path) and not self.drives:
            cancel_beside(self.definition, self.folder, self.registry, jobs)

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until every job is final, and return whether all succeeded; False where the time was over before.

        Raises:
            StoreError: work is left that only a driver can start, and there is none.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        if self.engine is not None and self.drives:
            self.engine.wait(timeout_seconds)
        pause = 0.02
        while True:
            graph = self.graph()
            if not graph.open or (deadline is not None and time.monotonic() >= deadline):
                return all(job.state is State.SUCCEEDED for job in graph.jobs.values())
            if self.is_orphaned(graph) and not any(job.state is State.RUNNING for job in graph.jobs.values()):
                raise StoreError(
                    f"{self.definition.id} has jobs that were never started, and no process drives it.",
                    hint=f"nemorun experiment resume {self.definition.id}",
                )
            rest = pause if deadline is None else min(pause, max(0.0, deadline - time.monotonic()))
            time.sleep(rest)
            pause = min(2 * pause, 0.5)

    def check_resumable(self, *, take_over: bool = False) -> None:
        """Make sure that a new driver has something to do here, and no other is in its way.

        Raises:
            UsageError: nothing is left, the jobs ran inside their own process, or a driver lives; says which.
        """
        graph, name = self.graph(), self.definition.id
        if not graph.open:
            raise UsageError(f"{name} has ended: nothing is left to resume.", hint=f"nemorun experiment rerun {name}")
        if self.definition.direct:
            raise UsageError(
                f"{name} ran inside its own process, which cannot be resumed.", hint=f"nemorun experiment rerun {name}"
            )
        if not take_over and (driver := self.driver()):
            raise UsageError(
                f"{name} is driven by process {driver['pid']} on {driver['host']}.",
                hint=f"nemorun experiment status {name} -f follows it; --take-over stops that driver.",
            )

    def check_quiet(self, what: str) -> None:
        """Refuse to have it `what` ("deleted") while it is driven, or has jobs that may run. Raises UsageError."""
        busy = [job.id for job in self.graph().jobs.values() if job.intended and not job.state.is_final]
        if busy or self.driver():
            name, which = self.definition.id, ", ".join(busy[:5])
            raise UsageError(
                f"{name} still runs{f' ({which})' if busy else ''}: it cannot be {what}.",
                hint=f"nemorun experiment cancel {name} --all && nemorun experiment wait {name}",
            )

    def cancel_local(self, kind: ReasonKind) -> tuple[int, int]:
        """Cancel what runs on this machine; return how many jobs that is, and how many go on elsewhere."""
        open_jobs = [job for job in self.graph().jobs.values() if not job.state.is_final]
        local = [
            job.id for job in open_jobs if self._builder.executor(job.definition).capabilities().runs_on_this_machine
        ]
        if local:
            self.cancel(local, kind)
        return len(local), len(open_jobs) - len(local)

    def show_logs(
        self,
        jobs: Sequence[str],
        *,
        following: bool = False,
        member: int | None = None,
        stream: str | None = None,
        tail: int | None = None,
        regex: str | None = None,
        prefixed: bool = False,
    ) -> None:
        """Write the logs of jobs to standard output, each line prefixed where several streams are shown.

        Raises:
            UsageError: no such member, or `regex` is none; StoreError: a log cannot be read.
        """
        compiled(regex)
        for name in jobs:
            members = len(self.graph().jobs[name].definition.tasks)
            if member is not None and not 0 <= member < members:
                raise UsageError(
                    f"job {name!r} has no member {member}; it has {members}, counted from 0.", hint="Leave member out."
                )
        streams = sum(sum(self._ranks(name)) if member is None else 1 for name in jobs)
        colour = prefixes(sys.stdout) if prefixed or streams > 1 else None
        known: dict[str, Source] = {}

        def sources() -> list[Source]:
            graph = self.graph() if following else snapshot
            found = []
            for name in jobs:
                for source in self.sources(graph.jobs[name], colour, member, stream):
                    if source.path not in known:
                        known[source.path] = source
                        if tail is not None:
                            source.skip_to_last(tail)
                    found.append(known[source.path])
            return found

        snapshot = self.graph()

        def finished() -> bool:
            graph = self.graph()
            return not following or all(graph.jobs[name].state.is_final for name in jobs) or self.is_orphaned(graph)

        follow(sources, binary(sys.stdout), finished=finished, rest=lambda: time.sleep(_POLL_SECONDS), regex=regex)

    def with_outputs(self) -> list[str]:
        """Return the jobs that declare outputs, in the order of `add`."""
        executors = self.definition.executors
        return [
            job.id for job in self.definition.jobs if any(executors[one].fields.get("outputs") for one in job.executors)
        ]

    def sync(self, jobs: Sequence[str], to: str | os.PathLike[str] | None = None) -> Iterator[Brought]:
        """Bring the declared outputs of jobs, member by member. Raises UsageError for a job that declares none."""
        from nemorun_core.engine.outputs import bring

        folder = os.path.abspath(os.fspath(to) if to is not None else self.definition.id)
        graph = self.graph()
        for name in jobs:
            job = graph.jobs[name]
            submission = self._builder.build(job.definition, job.attempt)
            if not any(executor.outputs for executor in submission.executors):
                raise UsageError(
                    f"job {name!r} declares no outputs.", hint="Say which files it makes: outputs=['results/*.json']."
                )
            for member, executor in enumerate(submission.executors):
                place = os.path.join(folder, job.definition.folder, *([str(member)] if job.definition.group else []))
                if executor.outputs:
                    yield Brought(name, member, place, tuple(bring(submission, member, place)))

    def last_lines(self, name: str, lines: int = 20) -> str:
        """Return the last lines of a job's log, of the member that failed first where one did."""
        job = self.graph().jobs[name]
        member = next((index for index, one in enumerate(job.members) if one.state is State.FAILED), None)
        paths = [source.path for source in self.sources(job, None, member)]
        return last_lines(reversed(paths), lines).decode("utf-8", "replace").rstrip("\n")

    def sources(
        self,
        job: Job,
        colour: Callable[[str, int], bytes] | None,
        member: int | None = None,
        stream: str | None = None,
    ) -> list[Source]:
        """Return the streams of a job's current attempt, in order."""
        return sources_of(
            self.folder.job(job.definition),
            label=job.id,
            number=job.index,
            attempt=job.attempt,
            incarnations=job.incarnation + 1,
            ranks=self._ranks(job.id),
            member=member,
            stream=stream,
            colour=colour,
        )

    def _ranks(self, name: str) -> list[int]:
        job = next(one for one in self.definition.jobs if one.id == name)
        counts = []
        for index in job.executors:
            fields = self.definition.executors[index].fields
            nodes, per_node = fields.get("nodes", 1), fields.get("ntasks_per_node", 1)
            per_node = 1 if fields.get("launcher") else per_node
            counts.append(int(str(nodes or 1)) * int(str(per_node or 1)))
        return counts
