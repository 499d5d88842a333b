"""One member of a job: what its records and its container say of it."""

from __future__ import annotations

import time
from collections.abc import Callable

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

__all__ = ["DockerMember", "Last"]


@attrs.frozen(kw_only=True)
class Last:
    """What the engine knows of a container that has ended badly.

    Attributes:
        out_of_memory: the kernel killed a process of it for want of memory.
        exit_code: of its first process; None where the container is gone.
        words: the last that its first process said, beside the program's own output.
    """

    out_of_memory: bool = False
    exit_code: int | None = None
    words: str = ""


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

    def observe(
        self, container: Container | None, last: Callable[[Container], Last], *, timed_out: bool
    ) -> MemberObservation | None:
        """Say how the member stands; None where nobody knows.

        Args:
            last: asks the engine about a container that has ended; called once, for one that did not succeed.
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
            facts = last(container) if container is not None and not container.is_gone else Last()
            code = container.exit_code if container is not None else None
            seen = self._failed(seen, witness.claimed, witness.outcome, attrs.evolve(facts, exit_code=code))
            if timed_out:
                seen = attrs.evolve(seen, reason=Reason(ReasonKind.TIMEOUT))
            elif restarted and witness.outcome is None:
                seen = attrs.evolve(seen, exit_code=None, reason=Reason(ReasonKind.NODE_FAILURE, "it was restarted"))
        reclaim(self.base)
        self.end = seen
        return seen

    @staticmethod
    def _failed(seen: MemberObservation, claimed: bool, outcome: Outcome | None, last: Last) -> MemberObservation:
        """Add to an end what the engine alone knows: its reason overrides the record's, never its exit code."""
        if outcome is None and last.exit_code is not None:
            ended = ended_member([Outcome(last.exit_code, (), None)], started=None, ended=None, host=None)
            reason = ended.reason or Reason(ReasonKind.REJECTED, "its shim ended without a word")
            if not claimed:
                said = f": {last.words}" if last.words else ""
                reason = Reason(ReasonKind.REJECTED, f"its shim did not start (exit code {last.exit_code}){said}")
            seen = attrs.evolve(seen, state=State.FAILED, exit_code=last.exit_code, reason=reason)
        if last.out_of_memory:
            seen = attrs.evolve(seen, reason=Reason(ReasonKind.OUT_OF_MEMORY, "the container's memory limit"))
        return seen
