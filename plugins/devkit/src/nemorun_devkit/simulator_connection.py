"""A backend whose scheduler exists only in memory: every call is a point at which its driver may be stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from nemorun_core import (
    UNKNOWN,
    Answer,
    Backend,
    Document,
    Handle,
    Key,
    Observation,
    Submission,
)
from nemorun_devkit.simulator_scheduler import Scheduler

__all__ = ["Connection"]


class Connection(Backend):
    """One driver's connection to the scheduler.

    Args:
        step: called before and after everything that it does, with a few words.
        rest: told for how long `wait` would have waited.
    """

    def __init__(self, scheduler: Scheduler, step: Callable[[str], None], rest: Callable[[float], None]) -> None:
        self._scheduler = scheduler
        self._step = step
        self._rest = rest
        self._answered: dict[Handle, Observation] = {}

    def render(self, job: Submission) -> Sequence[Document]:
        return [Document(str(job.key), repr(job.executors))]

    def submit(self, jobs: Sequence[Submission]) -> Iterator[tuple[Key, Answer]]:
        self._scheduler.called("submit")
        for job in jobs:
            self._step(f"before submitting {job.key.job} {job.key.attempt}")
            try:
                answer = self._scheduler.submit(job)
            finally:
                self._step(f"after submitting {job.key.job} {job.key.attempt}")
            yield job.key, answer

    def find(self, jobs: Collection[Submission]) -> Mapping[Key, Handle]:
        with self._around("find"):
            found = {job.key: self._scheduler.holds(job.key) for job in jobs}
        return {key: handle for key, handle in found.items() if handle is not None}

    def poll(self, handles: Collection[Handle]) -> Mapping[Handle, Observation]:
        with self._around("poll"):
            return {handle: self._answer(handle) for handle in handles}

    def _answer(self, handle: Handle) -> Observation:
        entry = self._scheduler.by_handle.get(handle)
        if entry is None:
            return UNKNOWN
        truth = self._scheduler.truth(entry)
        if not entry.truths or entry.truths[-1] != truth:
            entry.truths.append(truth)
        entry.polls += 1
        stale = self._scheduler.stale and truth.members and entry.polls % self._scheduler.stale == 0
        self._answered[handle] = entry.truths[-2] if stale and len(entry.truths) > 1 else truth
        return self._answered[handle]

    def cancel(self, handles: Collection[Handle]) -> None:
        with self._around("cancel"):
            for handle in handles:
                self._scheduler.cancel(handle, at_once=False)

    def kill(self, handles: Collection[Handle]) -> None:
        with self._around("kill"):
            for handle in handles:
                self._scheduler.cancel(handle, at_once=True)

    def release(self, handles: Collection[Handle]) -> None:
        with self._around("release"):
            for handle in handles:
                if entry := self._scheduler.by_handle.get(handle):
                    entry.released, entry.known = True, None

    def read_log(self, handle: Handle, member: int, stream: str, offset: int, limit: int, incarnation: int) -> bytes:
        with self._around("reading a log"):
            entry = self._scheduler.by_handle.get(handle)
            found = self._scheduler.written(entry, incarnation, member) if entry and stream == "out" else b""
        return found[offset : offset + limit]

    def wait(self, handles: Collection[Handle], timeout_seconds: float) -> Collection[Handle]:
        """Say what has changed, and when to ask again; the simulation moves the clock there, nobody blocks."""
        known = {handle: self._scheduler.by_handle[handle] for handle in handles if handle in self._scheduler.by_handle}
        changed = [
            handle for handle, entry in known.items() if self._scheduler.truth(entry) != self._answered.get(handle)
        ]
        due = self._scheduler.next_change(known.values())
        self._rest(0.0 if changed else min(timeout_seconds, due - self._scheduler.clock.seconds))
        return changed

    @contextlib.contextmanager
    def _around(self, name: str) -> Iterator[None]:
        self._step(f"before {name}")
        self._scheduler.called(name)
        yield
        self._step(f"after {name}")
