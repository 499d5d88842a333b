"""A job of the definition becomes a `Submission`: the same in every process that drives, renders or resumes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from nemorun_core.contracts.backend import Bundle, Member, Submission
from nemorun_core.contracts.executor import Executor
from nemorun_core.contracts.launcher import Launcher
from nemorun_core.model.definition import Definition, JobDefinition
from nemorun_core.model.secret import Secret
from nemorun_core.model.task import Place
from nemorun_core.registry import Registry
from nemorun_core.store.bundles import bundle_path, bundle_root, unpack
from nemorun_core.store.files import make_folder, write_atomically
from nemorun_core.store.layout import Folder

__all__ = ["Builder", "write_support"]

_SUPPORT = ("shim.sh", "elsewhere.sh", "edges.sh", "runner.py")


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
    from pathlib import Path

    import cloudpickle  # type: ignore[import-untyped]

    make_folder(os.path.join(folder.support, "cloudpickle"))
    for path in Path(cloudpickle.__file__).parent.glob("*.py"):
        _copy(str(path), os.path.join(folder.support, "cloudpickle"))


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
        digests = job.bundles or ("",) * len(executors)
        return Submission(
            key=self._definition.key(job.id, attempt),
            members=tuple(self._member(job, attempt, index, executors) for index in range(len(executors))),
            executors=executors,
            folder=self._folder.job(job),
            support=self._folder.support,
            bundles=tuple(
                Bundle(digest, bundle_path(self._folder.bundles, digest)) if digest else None for digest in digests
            ),
        )

    def unpack(self, job: JobDefinition) -> None:
        """Unpack what travels with a job to where this machine's file system is shared. Raises StoreError."""
        for index, digest in enumerate(job.bundles):
            if digest and self.executor(job, index).capabilities().shares_files:
                unpack(self._folder.bundles, digest)

    def _member(self, job: JobDefinition, attempt: int, index: int, executors: Sequence[Executor]) -> Member:
        executor = executors[index]
        shared = executor.capabilities().shares_python
        cwd, python_path = self._definition.cwd, self._definition.python_path
        folders: tuple[str, ...] = ()
        if job.bundles and job.bundles[index]:
            bundled = next(one for one in self._definition.bundles if one.digest == job.bundles[index])
            cwd = bundle_root(self._folder.bundles, bundled.digest)
            folders = tuple(os.path.join(cwd, name) if name else cwd for name in bundled.folders)
            python_path = tuple(path for path in python_path if path not in bundled.replaces)
        place = Place(
            folder=self._folder.job(job),
            member=index,
            python=executor.python or (sys.executable if shared else "python3"),
            runner=os.path.join(self._folder.support, "runner.py"),
            objects=self._folder.objects,
            support=self._folder.support,
            sys_path=python_path if shared else (),
            bundle=folders,
        )
        command = self._registry.read_task(job.tasks[index]).command(place)
        launcher = executor.launcher
        if isinstance(launcher, Launcher):
            peers = [number for number, other in enumerate(executors) if other.launcher == launcher]
            command = launcher.wrap(command, executor, index, peers)
        environment: dict[str, str | Secret] = {
            **executor.env_vars,
            **command.env,
            "NEMORUN_EXPERIMENT_ID": self._definition.id,
            "NEMORUN_JOB": job.id,
            "NEMORUN_ATTEMPT": str(attempt),
            "NEMORUN_MEMBER": str(index),
        }
        return Member(argv=command.argv, environment=environment, cwd=cwd, files=command.files)
