"""What ended attempts leave on their scheduler: released once, by whichever driver comes to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nemorun_core.contracts.backend import Backend, Submission
from nemorun_core.contracts.observation import Handle

__all__ = ["Attempt", "Leftovers"]

Attempt = tuple[str, int]


class Leftovers:
    """Ended attempts that are to be released."""

    def __init__(self) -> None:
        self._own: dict[Attempt, Handle] = {}
        self._inherited: dict[Attempt, Handle] = {}

    def add(self, attempts: Iterable[tuple[Attempt, Handle]]) -> None:
        """Release what ended under this driver."""
        self._own.update(attempts)

    def inherit(self, attempts: Iterable[tuple[Attempt, Handle]]) -> None:
        """Release what ended under a driver before, which may have done it: its connection is gone, so that each has
        to be found first."""
        self._inherited.update(attempts)

    def forget(self) -> None:
        """Leave all to another driver."""
        self._own.clear()
        self._inherited.clear()

    def release(self, backend: Backend, build: Callable[[str, int], Submission]) -> tuple[Attempt, ...]:
        """Release all, and return what was. Raises as `Backend.find` and `Backend.release`; it may be repeated."""
        if self._inherited:
            backend.find([build(*attempt) for attempt in self._inherited])
            self._own.update(self._inherited)
            self._inherited.clear()
        released = tuple(self._own)
        if released:
            backend.release(list(self._own.values()))
            self._own.clear()
        return released
