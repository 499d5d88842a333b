"""What a backend answers: whether it took a job, and what it saw of it."""

from typing import NamedTuple

import attrs

from nemorun_core.model.state import Reason, State

__all__ = ["UNKNOWN", "Accepted", "Answer", "Deferred", "Handle", "MemberObservation", "Observation", "Rejected"]

Handle = str
"""An opaque string by which a backend names one attempt of one job."""


class Accepted(NamedTuple):
    """The job was taken whole, or was found to have been taken before."""

    handle: Handle


class Rejected(NamedTuple):
    """The job was surely refused; trying the same again cannot help. It ends FAILED with this reason."""

    reason: Reason


class Deferred(NamedTuple):
    """A quota or limit is reached. The job stays PENDING with this reason and is offered again.

    The engine offers no later job of the same call: a backend that defers one may stop looking at the rest.
    """

    reason: Reason


Answer = Accepted | Rejected | Deferred


@attrs.frozen(kw_only=True)
class MemberObservation:
    """What was seen of one member.

    Attributes:
        state: PENDING, RUNNING, SUCCEEDED, FAILED or CANCELLED; never a guess.
        exit_code: as a shell reports it, the highest of the member's ranks; None while unknown.
        signals: names of the signals that the shim noted, without SIG, in order of arrival.
        started, ended: ISO 8601 UTC with milliseconds, on the clock of the machine where it happened.
        host: where it runs.
    """

    state: State
    exit_code: int | None = None
    reason: Reason | None = None
    signals: tuple[str, ...] = ()
    started: str | None = None
    ended: str | None = None
    host: str | None = None


@attrs.frozen(kw_only=True)
class Observation:
    """What was seen of one attempt of a job: every member in order, or none at all where it is UNKNOWN.

    Attributes:
        incarnation: 0, then one more for each restart by the scheduler. Within one, states only move forward (E4).
        reason: why the job waits, in the scheduler's words.
    """

    members: tuple[MemberObservation, ...] = ()
    incarnation: int = 0
    reason: Reason | None = None

    @property
    def is_over(self) -> bool:
        """Whether every member is final."""
        return bool(self.members) and all(member.state.is_final for member in self.members)


UNKNOWN = Observation()
"""The scheduler answered, and does not know the handle."""
