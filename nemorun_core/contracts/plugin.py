"""`Plugin`: a value that changes task and executor together; and the job as hooks see it."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from nemorun_core.contracts.executor import Executor
from nemorun_core.model.task import Task

__all__ = ["Event", "Plugin", "PreparedJob"]


class Plugin:
    """Base of what is given as `plugins=[...]`. An attrs class whose fields can be written to JSON.

    `assign` is called once for each job, then `setup` once for each of its members, in the order of the list, when the
    job is added. What they change is kept in the definition, beside what was given. `reset()` calls them again.
    """

    contract: ClassVar[int] = 1

    def assign(self, experiment_id: str) -> None:
        """Learn the id of the experiment. By default it is not kept."""
        return None

    def setup(self, task: Task, executor: Executor) -> None:
        """Change `task` and `executor` in place; both are this job's own copies.

        Raises:
            UsageError: they do not suit the plugin. `add` fails and nothing is recorded.
        """
        raise NotImplementedError


class PreparedJob(NamedTuple):
    """A job that is being added, as `nemorun_prepare_job` sees it.

    Attributes:
        experiment_id, title: of the experiment.
        id: of the job; cannot be changed.
        tasks, executors: the job's own copies, one a member, to be changed in place.
    """

    experiment_id: str
    title: str
    id: str
    tasks: tuple[Task, ...]
    executors: tuple[Executor, ...]


class Event(NamedTuple):
    """A change of a job's state, as `nemorun_event` sees it. States and reasons are strings, as in `status`."""

    experiment_id: str
    job: str
    state: str
    reason: str | None
    attempt: int
    time: str
