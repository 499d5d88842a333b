"""`run.run`: one task without the ceremony."""

from __future__ import annotations

from collections.abc import Sequence

from nemorun_core.contracts.executor import Executor
from nemorun_core.contracts.plugin import Plugin
from nemorun_core.experiment.facade import Experiment
from nemorun_core.model.task import Task

__all__ = ["run"]


def run(
    task: Task,
    executor: Executor | str | None = None,
    *,
    plugins: Sequence[Plugin] | None = None,
    name: str = "",
    dryrun: bool = False,
    direct: bool = False,
    detach: bool = False,
    tail_logs: bool = True,
    check: bool = False,
) -> Experiment:
    """Run one task as an experiment of its own, wait for it, and return the experiment.

    Args:
        executor: where; None: in this process, as with `direct`.
        name: of the job and the experiment; by default made of the task.
        dryrun: only print what would be submitted.

    The other arguments are those of `Experiment.add` and `Experiment.run`, with the same errors.
    """
    title = name or (task.default_name() if isinstance(task, Task) else "run")  # `add` refuses what is no task
    with Experiment(title, executor) as experiment:
        experiment.add(task, name=name, plugins=plugins)
        if dryrun:
            experiment.dryrun()
        else:
            in_process = direct or (executor is None and not detach)
            experiment.run(direct=in_process, detach=detach, tail_logs=tail_logs, check=check)
    return experiment
