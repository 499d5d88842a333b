"""Which jobs go out together as one job array: from a threshold on, those that differ in nothing that sbatch sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from nemorun_core import Submission, UsageError
from nemorun_slurm.executor import LARGEST_ARRAY, SlurmExecutor
from nemorun_slurm.files import batches_folder, sources_of_secrets
from nemorun_slurm.script import array_script

__all__ = ["LEAST", "Sorted", "sort_out"]

LEAST = 8
"""Fewer equal jobs go out one by one: each is then the job of Slurm that its dry run shows."""


class Sorted(NamedTuple):
    """Jobs by how they go out, each in one place and in the order given: many at once, or alone."""

    arrays: list[list[Submission]]
    alone: list[Submission]


def sort_out(jobs: Sequence[Submission]) -> Sorted:
    """Put jobs together that may be one array: equal but for command, arguments, environment and folder."""
    shapes: dict[tuple[object, ...], str | None] = {}
    alike: dict[tuple[object, ...], list[Submission]] = {}
    for job in jobs:
        if len(job.members) == 1 and not job.after and sources_of_secrets(job) is None:
            # Of one executor, as jobs of an experiment have it, the text is made once.
            origin = (id(job.executors[0]), job.members[0].cwd, batches_folder(job), job.key.nonce, job.support)
            if origin not in shapes:
                shapes[origin] = _shape(job)
            if shapes[origin] is not None:
                alike.setdefault((shapes[origin], *origin[1:]), []).append(job)
    arrays = [
        same[begin : begin + LARGEST_ARRAY]
        for same in alike.values()
        for begin in range(0, len(same), LARGEST_ARRAY)
        if len(same) - begin >= LEAST
    ]
    together = {job.key for array in arrays for job in array}
    return Sorted(arrays, [job for job in jobs if job.key not in together])


def _shape(job: Submission) -> str | None:
    """Return what jobs of one array have in common; None where a job cannot even go out alone."""
    prefix = cast("SlurmExecutor", job.executors[0]).job_name_prefix
    try:
        return array_script(job, name=f"{prefix}-", mark="", size=1, tasks=batches_folder(job))
    except UsageError:
        return None
