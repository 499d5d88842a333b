"""Jobs as they were given to `add`, made again of a definition."""

from __future__ import annotations

import os

from nemorun_core.errors import StoreError
from nemorun_core.experiment.draft import DraftJob
from nemorun_core.model.buildable import Partial
from nemorun_core.model.definition import Definition, Kinded
from nemorun_core.model.resolving import resolve
from nemorun_core.model.task import Task
from nemorun_core.registry import Registry
from nemorun_core.store.layout import Folder

__all__ = ["given_jobs"]


def given_jobs(definition: Definition, folder: Folder, registry: Registry, *, resolved: bool) -> list[DraftJob]:
    """Return the jobs as given, in order.

    Args:
        resolved: import what tasks name, so that they can be edited and run; else nothing is imported.

    Raises:
        UsageError: what they need is not installed or cannot be imported here.
    """

    def load(digest: str) -> bytes:
        path = os.path.join(folder.objects, digest)
        try:
            with open(path, "rb") as stream:
                return stream.read()
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}.") from error

    def task(kinded: Kinded) -> Task:
        made = registry.read_task(kinded)
        return resolve(made, load) if resolved and isinstance(made, Partial) else made

    jobs = []
    for job in definition.jobs:
        executors = [definition.executors[index] for index in job.executors]
        jobs.append(
            DraftJob(
                id=job.id,
                group=job.group,
                tasks=[task(kinded) for kinded in (job.given.tasks if job.given else job.tasks)],
                executors=[
                    registry.read_executor(kinded) for kinded in (job.given.executors if job.given else executors)
                ],
                plugins=[registry.read_plugin(kinded) for kinded in job.plugins],
                edges=() if definition.sequential else job.edges,
                until=job.until,
                tail_logs=job.tail_logs,
            )
        )
    return jobs
