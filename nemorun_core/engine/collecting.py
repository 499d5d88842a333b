"""Logs of jobs that do not share this machine's files, brought into the job's folder, each from where its file ends."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from nemorun_core.contracts.backend import Backend, Submission
from nemorun_core.contracts.observation import Handle, Observation
from nemorun_core.contracts.witness import base_path, rank_suffix
from nemorun_core.model.state import State
from nemorun_core.store.files import guarded, make_folder

__all__ = ["Collector", "collect"]

_CHUNK_BYTES = 1 << 20
_FOLLOW_SECONDS = 2.0


class _Logs:
    """A job's logs: those of the incarnations before `incarnation` are complete here; `followed` is when it was last
    looked for more."""

    __slots__ = ("followed", "incarnation", "job")

    def __init__(self, job: Submission) -> None:
        self.job = job
        self.incarnation = 0
        self.followed = 0.0


class Collector:
    """Brings the logs of the jobs that it was given."""

    def __init__(self) -> None:
        self._logs: dict[Handle, _Logs] = {}

    def add(self, handle: Handle, job: Submission) -> None:
        """Bring the logs of this job from now on."""
        self._logs.setdefault(handle, _Logs(job))

    def has_new(self, handle: Handle, seen: Observation) -> bool:
        """Whether there may be something to bring."""
        begun = seen.incarnation or any(member.state is not State.PENDING for member in seen.members)
        return handle in self._logs and bool(begun)

    def follow(self, backend: Backend, running: Mapping[Handle, Observation]) -> None:
        """Bring what is new of jobs that run, those first that have waited longest, and not all where a scheduler is
        slow: their states are worth more than their logs. Raises as `collect` does."""
        deadline = time.monotonic() + _FOLLOW_SECONDS
        for handle in sorted(running, key=lambda handle: self._logs[handle].followed):
            self.bring(backend, handle, running[handle].incarnation, ended=False)
            self._logs[handle].followed = time.monotonic()
            if time.monotonic() >= deadline:
                break

    def bring(self, backend: Backend, handle: Handle, incarnation: int, *, ended: bool) -> None:
        """Bring what is new, and where the job has ended all of it. Raises as `collect` does; it may be repeated."""
        if (logs := self._logs.get(handle)) is None:
            return
        while logs.incarnation < incarnation:
            collect(backend, handle, logs.job, logs.incarnation, ended=True)
            logs.incarnation += 1
        collect(backend, handle, logs.job, incarnation, ended=ended)
        if ended:
            del self._logs[handle]


def collect(backend: Backend, handle: Handle, job: Submission, incarnation: int, *, ended: bool) -> None:
    """Append what is new of every stream of one incarnation: all of it where that has ended, else a piece each.

    May be repeated, also by another driver that was stopped in the midst of it: a file is a beginning of its stream.

    Raises:
        TransientError: the scheduler did not answer.
        StoreError: the disk refused.
    """
    for member, executor in enumerate(job.executors):
        base = base_path(job.folder, job.key.attempt, incarnation, member)
        for rank in range(executor.ranks()):
            for name in ("out", "err") if executor.separate_stderr else ("out",):
                stream = f"{name}{rank_suffix(rank)}"
                path = f"{base}.{stream}"
                offset = os.path.getsize(path) if os.path.exists(path) else 0
                while data := backend.read_log(handle, member, stream, offset, _CHUNK_BYTES, incarnation):
                    _write_at(path, offset, data)
                    offset += len(data)
                    if not ended:
                        break


def _write_at(path: str, offset: int, data: bytes) -> None:
    """Write a piece where it belongs, not at the end: an overtaken driver that wakes up writes there what is there."""
    make_folder(os.path.dirname(path))
    with guarded("write", path):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            with open(handle, "wb", closefd=False) as stream:
                stream.seek(offset)
                stream.write(data)
        finally:
            os.close(handle)
