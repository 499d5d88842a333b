"""One member of a job: what its records and its container say of it."""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

import attrs

from nemorun_core import (
    MemberObservation,
    Outcome,
    Reason,
    ReasonKind,
    State,
    Submission,
    base_path,
    boot_id,
    ended_member,
    hostname,
    iso_time,
    read_rank,
)
from nemorun_docker.containers import Container, Place
from nemorun_docker.job_folder import reclaim

__all__ = ["Ask", "DockerMember", "Last"]


class Last(NamedTuple):
    """What the engine knows of a container that has ended badly.

    Attributes:
        out_of_memory: the kernel killed a process of it for want of memory.
        words: the last that its first process said, beside the program's own output.
    """

    out_of_memory: bool = False
    words: str = ""


class Ask(Protocol):
    """Asks the engine about a container that has ended. Raises TransientError."""

    def __call__(self, container: Container, *, words: bool) -> Last:
        """Args:
        words: what it said is wanted, too.
        """


class DockerMember:
    """A member, its name on the engine, and how it ended once that is known.

    Attributes:
        given_up: why it will never be started.
    """

    def __init__(self, job: Submission, index: int, name: str) -> None:
        self.base = base_path(job.folder, job.key.attempt, 0, index)
        self.place: Place = (str(job.key), index)
        self.name = name
        self.end: MemberObservation | None = None
        self.given_up: Reason | None = None

    def observe(self, container: Container | None, last: Ask, *, timed_out: bool) -> MemberObservation | None:
        """Say how the member stands; None where nobody knows.

        Args:
            last: called once, for a container that did not succeed.
            timed_out: it was stopped because its time was over.

        Raises:
            TransientError: the engine did not answer.
        """
        if self.end is None and self.given_up:
            self.end = MemberObservation(state=State.FAILED, reason=self.given_up, ended=iso_time(time.time()))
        if self.end is not None:
            return self.end
        witness = read_rank(self.base, "")
        started = iso_time(witness.started) if witness.started else None
        if container is not None and not container.has_ended and not container.is_gone:
            if container.is_created:
                return MemberObservation(state=State.PENDING)
            return MemberObservation(state=State.RUNNING, started=started, host=hostname())
        restarted = witness.start is not None and witness.start.boot != boot_id()
        if witness.outcome is None and not restarted and (container is None or not container.has_ended):
            return None
        seen = ended_member(
            [witness.outcome], started=started, ended=iso_time(witness.ended or time.time()), host=hostname()
        )
        if seen.state is not State.SUCCEEDED:
            asked = container is not None and not container.is_gone
            facts = last(container, words=not witness.claimed) if container is not None and asked else Last()
            if witness.outcome is None and container is not None and container.exit_code is not None:
                seen = _killed(seen, container.exit_code, witness.claimed, facts.words)
            if facts.out_of_memory:
                memory = Reason(ReasonKind.OUT_OF_MEMORY, "the container's memory limit")
                seen = attrs.evolve(seen, reason=memory)
            if timed_out:
                seen = attrs.evolve(seen, reason=Reason(ReasonKind.TIMEOUT))
            elif restarted and witness.outcome is None:
                seen = attrs.evolve(seen, exit_code=None, reason=Reason(ReasonKind.NODE_FAILURE, "it was restarted"))
        reclaim(self.base)
        self.end = seen
        return seen


def _killed(seen: MemberObservation, code: int, claimed: bool, words: str) -> MemberObservation:
    """Say how a shim ended that wrote nothing down: as its container did."""
    if claimed:
        ended = ended_member([Outcome(code, (), None)], started=None, ended=None, host=None)
        reason = ended.reason or Reason(ReasonKind.REJECTED, "its shim ended without a word")
    else:
        reason = Reason(ReasonKind.REJECTED, f"its shim did not start (exit code {code}): {words}".removesuffix(": "))
    return attrs.evolve(seen, state=State.FAILED, exit_code=code, reason=reason)
