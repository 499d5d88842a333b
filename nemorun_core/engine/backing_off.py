"""`BackOff`: when a backend is asked again that did not answer, or that would take no more."""

from __future__ import annotations

__all__ = ["FIRST_SECONDS", "BackOff"]

FIRST_SECONDS, _LONGEST_SECONDS = 1.0, 60.0


class BackOff:
    """A pause that doubles with each failure in a row, from a second to a minute. Times are of the monotonic clock.

    Attributes:
        failures: how many there were in a row.
    """

    def __init__(self) -> None:
        self._until = 0.0
        self.failures = 0

    def left(self, now: float) -> float:
        """Return how many seconds of the pause are left; 0.0 where there is none."""
        return max(0.0, self._until - now)

    def fail(self, now: float) -> None:
        """Begin the next pause."""
        self._until = now + min(FIRST_SECONDS * 2**self.failures, _LONGEST_SECONDS)
        self.failures += 1

    def succeed(self) -> None:
        """The next failure is the first again."""
        self.failures = 0
