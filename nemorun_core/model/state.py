"""The states of a job, and the reasons for them."""

import enum
import signal
from typing import NamedTuple

__all__ = ["Condition", "Reason", "ReasonKind", "State", "Until", "exit_reason", "signal_reason"]


class State(str, enum.Enum):
    """Where a job or member stands. The last five are for good: nothing can follow them, `is_final` says."""

    is_final: bool

    UNSUBMITTED = "UNSUBMITTED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"
    LOST = "LOST"

    def __init__(self, value: str) -> None:
        self.is_final = value not in ("UNSUBMITTED", "PENDING", "RUNNING")

    def __str__(self) -> str:
        return str.__str__(self)


class Condition(str, enum.Enum):
    """What a dependant asks of its upstream's final state."""

    SUCCESS = "success"
    FAILURE = "failure"
    ANY = "any"

    def holds(self, state: State) -> bool:
        """Whether a final `state` lets the dependant start."""
        if self is Condition.ANY:
            return True
        if self is Condition.SUCCESS:
            return state is State.SUCCEEDED
        return state in (State.FAILED, State.LOST, State.CANCELLED)


class Until(str, enum.Enum):
    """When a group has ended: all members, the first to end, or member 0."""

    ALL = "all"
    FIRST = "first"
    LEADER = "leader"


class ReasonKind(str, enum.Enum):
    """The kinds of reason; the words that `retry_on` takes and that reasons begin with."""

    EXIT_CODE = "exit code"
    SIGNAL = "signal"
    BAD_COMMAND = "bad command"
    OUT_OF_MEMORY = "out of memory"
    TIMEOUT = "timeout"
    PREEMPTED = "preempted"
    NODE_FAILURE = "node failure"
    IMAGE = "image"
    REJECTED = "rejected"
    UNSCHEDULABLE = "unschedulable"
    LIMIT = "limit"
    DEPENDENCY = "dependency"
    GROUP = "group"
    INTERRUPT = "interrupt"
    BY_USER = "by user"
    LOST = "lost"
    WAITING = "waiting"


class Reason(NamedTuple):
    """Why a job is in its state. `str()` gives one line for people that begins with the kind's words."""

    kind: ReasonKind
    detail: str = ""

    def __str__(self) -> str:
        if not self.detail:
            return self.kind.value
        separator = " " if self.kind in (ReasonKind.EXIT_CODE, ReasonKind.SIGNAL) else ": "
        return f"{self.kind.value}{separator}{self.detail}"


def signal_reason(number: int) -> Reason:
    """Return the reason of a program that a signal ended, with the signal's name where this machine knows it."""
    try:
        name = f" ({signal.Signals(number).name})"
    except ValueError:
        name = ""
    return Reason(ReasonKind.SIGNAL, f"{number}{name}")


def exit_reason(code: int) -> Reason | None:
    """Return the reason for an exit code as a shell reports it, None for 0 (POSIX sh, 2.8.2)."""
    if code == 0:
        return None
    if code == 127:
        return Reason(ReasonKind.BAD_COMMAND, "not found (exit code 127)")
    if code == 126:
        return Reason(ReasonKind.BAD_COMMAND, "cannot be executed (exit code 126)")
    if 128 < code < 128 + 65:
        return signal_reason(code - 128)
    return Reason(ReasonKind.EXIT_CODE, str(code))
