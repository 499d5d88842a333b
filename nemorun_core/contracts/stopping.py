"""How an attempt is stopped: politely, and after its grace by force."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from typing_extensions import Self

    from nemorun_core.contracts.executor import Executor

__all__ = ["Stopping"]

_AGAIN_SECONDS = 1.0


class Stopping:
    """When an attempt is to be sent which signal, since it was cancelled or its time is over.

    TERM, again after 1 s, since a signal can be lost in the instant between fork and exec; KILL after the grace, and
    again each second while any process is there, for those made in between. The caller reads the clock, in seconds,
    any that does not go back, and sends.

    Args:
        grace_seconds: from the first TERM to the KILL.
        expires: when the attempt's time is over; None: never.
        again_seconds: from one KILL to the next, where another costs more than here.

    Attributes:
        due: when `next` has to be asked; None: nothing is to be sent.
        begun: it is being stopped.
        expired: it is being stopped because its time was over.
    """

    __slots__ = ("_again_seconds", "_grace_seconds", "_kill_at", "_terms", "begun", "due", "expired")

    def __init__(
        self, grace_seconds: float, expires: float | None = None, *, again_seconds: float = _AGAIN_SECONDS
    ) -> None:
        self._grace_seconds = grace_seconds
        self._again_seconds = again_seconds
        self._kill_at = 0.0
        self._terms = 0
        self.due = expires
        self.begun = self.expired = False

    @classmethod
    def of(cls, executors: Sequence[Executor], begun: float) -> Self:
        """Return it for an attempt whose members have these executors: the longest grace, the shortest time.

        Args:
            begun: when the attempt began, which its time counts from.
        """
        limits = [executor.timeout_seconds for executor in executors if executor.timeout_seconds is not None]
        grace = max(executor.grace_seconds for executor in executors)
        return cls(grace, begun + min(limits) if limits else None)

    def begin(self, moment: float) -> None:
        """Stop it from now on; nothing changes where it is being stopped already."""
        if not self.begun:
            self.begun = True
            self._kill_at = moment + self._grace_seconds
            self.due = moment

    def hurry(self, moment: float) -> None:
        """Let KILL be what is due now, without grace."""
        self.begun, self._terms, self._kill_at, self.due = True, 2, moment, moment

    def next(self, moment: float) -> Literal["TERM", "KILL"] | None:
        """Return the signal that is due, once; None where none is."""
        if self.due is None or moment < self.due:
            return None
        if not self.begun:
            self.expired = True
            self.begin(moment)
        if self._terms and moment >= self._kill_at:
            self.due = moment + self._again_seconds
            return "KILL"
        self._terms += 1
        self.due = min(moment + _AGAIN_SECONDS, self._kill_at) if self._terms == 1 else self._kill_at
        return "TERM"
