"""What a dry run prints: what would be submitted, and what the schedulers say of it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import ExitStack

from nemorun_core.contracts.backend import Backend, Document
from nemorun_core.contracts.executor import connection_of
from nemorun_core.contracts.observation import Rejected
from nemorun_core.engine.submission import Builder
from nemorun_core.errors import UsageError
from nemorun_core.model.definition import Definition, JobDefinition

__all__ = ["show", "verify"]


def show(definition: Definition, builder: Builder) -> None:
    """Print the documents of each job; of jobs that go out in one call, with the first of them."""
    first: dict[str, str] = {}
    shown: dict[str, Sequence[Document]] = {}
    connections: dict[Hashable, list[JobDefinition]] = {}
    for job in definition.jobs:
        connections.setdefault(connection_of(builder.executor(job)), []).append(job)
    for jobs in connections.values():
        with builder.executor(jobs[0]).backend() as backend:
            ready = [builder.build(job, 0) for job in jobs if not job.edges]
            for keys, documents in backend.render_together(ready):
                first.update((key.job, keys[0].job) for key in keys)
                shown[keys[0].job] = documents
            shown.update((job.id, backend.render(builder.build(job, 0))) for job in jobs if job.edges)
    for number, job in enumerate(definition.jobs):
        print(f"Task {number}: {job.id}")
        if job.id not in shown:
            print(f"--- in one call with {first[job.id]}\n")
        for document in shown.get(job.id, ()):
            print(f"--- {document.name}\n{document.text}")


def verify(definition: Definition, builder: Builder) -> None:
    """Print what its scheduler says of each job, as if all that it depends on had ended.

    Raises:
        UsageError: jobs would be refused; says which, when all were asked about.
        TransientError: a scheduler did not answer.
    """
    refused: list[str] = []
    backends: dict[Hashable, Backend] = {}
    with ExitStack() as stack:
        for number, job in enumerate(definition.jobs):
            executor = builder.executor(job)
            connection = connection_of(executor)
            if connection not in backends:
                backends[connection] = stack.enter_context(executor.backend())
            answer = backends[connection].verify(builder.build(job, 0))
            if isinstance(answer, Rejected):
                refused.append(job.id)
                said = f"refused: {answer.reason.detail}"
            else:
                said = answer or f"{type(executor).__name__} cannot be asked"
            print(f"Task {number}: {job.id}: {said}{' (when its dependencies have ended)' if job.edges else ''}")
    if refused:
        raise UsageError(
            f"{len(refused)} of {len(definition.jobs)} jobs would be refused: {', '.join(refused)}.",
            hint="Change what their executors ask for; the lines above say why.",
        )
