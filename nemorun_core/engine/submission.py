"""A job of the definition becomes a `Submission`: the same in every process that drives, renders or resumes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from nemorun_core.contracts.backend import Member, Submission
from nemorun_core.contracts.executor import Executor
from nemorun_core.model.definition import Definition, JobDefinition
from nemorun_core.model.secret import Secret
from nemorun_core.model.task import Place
from nemorun_core.registry import Registry
from nemorun_core.store.files import make_folder, write_atomically
from nemorun_core.store.layout import Folder

__all__ = ["Builder", "write_support"]

_SUPPORT = ("shim.sh", "runner.py")


def write_support(folder: Folder, objects: Mapping[str, bytes]) -> None:
    """Write what travels with jobs: the shim, the runner and, where a function goes by value, its pickle with the
    few files of cloudpickle that read it.

    Raises:
        StoreError: the disk refused.
    """
    make_folder(folder.support)
    for name in _SUPPORT:
        _copy(os.path.join(os.path.dirname(__file__), name), folder.support)
    if not objects:
        return
    make_folder(folder.objects)
    for digest, content in objects.items():
        write_atomically(os.path.join(folder.objects, digest), content, sync=False)
    import cloudpickle  # type: ignore[import-untyped]

    package = os.path.dirname(cloudpickle.__file__)
    make_folder(os.path.join(folder.support, "cloudpickle"))
    for name in os.listdir(package):
        if name.endswith(".py"):
            _copy(os.path.join(package, name), os.path.join(folder.support, "cloudpickle"))


def _copy(source: str, folder: str) -> None:
    with open(source, "rb") as stream:
        write_atomically(os.path.join(folder, os.path.basename(source)), stream.read(), sync=False)


class Builder:
    """Builds submissions out of one definition. Executors are read once each and not changed."""

    def __init__(self, definition: Definition, folder: Folder, registry: Registry) -> None:
        self._definition = definition
        self._folder = folder
        self._registry = registry
        self._executors: dict[int, Executor] = {}

    def executor(self, job: JobDefinition, member: int = 0) -> Executor:
        """Return the executor of a member. Raises UsageError if its class is not installed here."""
        index = job.executors[member]
        if index not in self._executors:
            self._executors[index] = self._registry.read_executor(self._definition.executors[index])
        return self._executors[index]

    def build(self, job: JobDefinition, attempt: int) -> Submission:
        """Return one attempt of a job, ready to be submitted. Creates nothing on disk.

        Raises:
            UsageError: a task or executor cannot be made here, because what it needs is not installed.
        """
        executors = tuple(self.executor(job, index) for index in range(len(job.tasks)))
        return Submission(
            key=self._definition.key(job.id, attempt),
            members=tuple(self._member(job, attempt, index, executor) for index, executor in enumerate(executors)),
            executors=executors,
            folder=self._folder.job(job),
            support=self._folder.support,
        )

    def _member(self, job: JobDefinition, attempt: int, index: int, executor: Executor) -> Member:
        shared = executor.capabilities().shares_files
        place = Place(
            folder=self._folder.job(job),
            member=index,
            python=executor.python or (sys.executable if shared else "python3"),
            runner=os.path.join(self._folder.support, "runner.py"),
            objects=self._folder.objects,
            support=self._folder.support,
            sys_path=self._definition.python_path if shared else (),
        )
        command = self._registry.read_task(job.tasks[index]).command(place)
        environment: dict[str, str | Secret] = {
            **executor.env_vars,
            **command.env,
            "NEMORUN_EXPERIMENT_ID": self._definition.id,
            "NEMORUN_JOB": job.id,
            "NEMORUN_ATTEMPT": str(attempt),
            "NEMORUN_MEMBER": str(index),
        }
        return Member(argv=command.argv, environment=environment, cwd=self._definition.cwd, files=command.files)
