"""The pause after failures in a row; `BackOff`: when a backend is asked again that did not answer, or took no more."""

from __future__ import annotations

__all__ = ["FIRST_SECONDS", "BackOff", "pause_seconds"]

FIRST_SECONDS, _LONGEST_SECONDS = 1.0, 60.0
_MOST_DOUBLINGS = 32  # far beyond the longest pause, and no number that is too large after days


def pause_seconds(failures: int) -> float:
    """Return the pause after so many failures in a row, at least one: it doubles, from a second to a minute."""
    return min(FIRST_SECONDS * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), _LONGEST_SECONDS)


class BackOff:
    """The pause after the last of failures in a row. Times are of the monotonic clock.

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
        self.failures += 1
        self._until = now + pause_seconds(self.failures)

    def succeed(self) -> None:
        """The next failure is the first again."""
        self.failures = 0
