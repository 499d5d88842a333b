"""One member on this machine: its ranks, each a shim in a session of its own, and what their records say."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection

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
    process_started,
    rank_suffix,
    read_outcome,
    read_rank,
)
from nemorun_local.processes import shim_of

__all__ = ["LocalMember", "Rank"]

_CLAIM_TAKEN = 125
_TICK_SECONDS = 0.02
_TEXT_SECONDS = 0.5


@attrs.define(eq=False)
class Rank:
    """One shim. `pid` is its process and its session.

    Attributes:
        started, ended: on this machine's clock, POSIX seconds.
        failure: why there is no outcome, where that is not a signal.
    """

    number: int
    base: str
    pid: int = 0
    started: float = 0.0
    ended: float | None = None
    outcome: Outcome | None = None
    failure: Reason | None = None

    @property
    def suffix(self) -> str:
        return rank_suffix(self.number)

    def finish(self, status: int | None) -> bool:
        """Take in that the shim ended, with its exit code where this process is its parent; return whether the rank
        has ended: another shim may hold the claim, and then `pid` is that one's."""
        if status is not None and status != _CLAIM_TAKEN and (outcome := read_outcome(self.base, self.suffix)):
            self.outcome, self.ended = outcome, time.time()
            return True
        witness = read_rank(self.base, self.suffix)
        if status == _CLAIM_TAKEN and witness.start and witness.start.pid != self.pid:
            self.pid = witness.start.pid
            if self._lives(witness.start.uptime):
                return False
            witness = read_rank(self.base, self.suffix)
        self.outcome = witness.outcome
        if self.outcome is None and status is not None and status >= 0:
            if status == _CLAIM_TAKEN and not witness.claimed:
                self.failure = Reason(ReasonKind.REJECTED, "its start record could not be written")
            # The parent's word stands in for a record that did not arrive.
            self.outcome = Outcome(code=status, signals=(), uptime=None)
        self.ended = time.time()
        return True

    def give_up(self, reason: Reason) -> None:
        """End a rank that was never started."""
        self.failure = reason
        self.ended = time.time()

    @property
    def was_killed(self) -> bool:
        """Whether the shim is gone without having written how it ended."""
        return self.ended is not None and self.outcome is None and self.failure is None

    def adopt(self, marked: Collection[int]) -> bool:
        """Take in what another driver started; return whether its start was claimed.

        Args:
            marked: the processes that carry the job's mark, among which a shim is found whose record has no text.
        """
        witness = read_rank(self.base, self.suffix)
        deadline = time.monotonic() + _TEXT_SECONDS
        while witness.claimed and not (witness.start or witness.outcome) and marked and time.monotonic() < deadline:
            time.sleep(0.002)  # it is being written, and says which of several shims has the claim; or the disk is full
            witness = read_rank(self.base, self.suffix)
        self.outcome = witness.outcome
        self.started = witness.started or 0.0
        if not witness.claimed:
            return False
        if witness.outcome:
            self.ended = witness.ended
        elif witness.start is None:
            self.pid = shim_of(marked, self.base, self.suffix)
            self.ended = None if self.pid else time.time()
        elif witness.start.boot != boot_id():
            self.failure = Reason(ReasonKind.NODE_FAILURE, f"{witness.start.host} was restarted")
            self.ended = time.time()
        else:
            self.pid = witness.start.pid
            if not self._lives(witness.start.uptime):
                again = read_rank(self.base, self.suffix)
                self.outcome, self.ended = again.outcome, again.ended or time.time()
        return True

    def _lives(self, uptime: float | None) -> bool:
        """Whether `pid` is still the shim that wrote its start at `uptime`: a later process of that number started
        later."""
        began = process_started(self.pid)
        return began is not None and (uptime is None or began <= uptime + _TICK_SECONDS)

    def has_leftovers(self) -> bool:
        """Whether processes of the ended program's group are still there."""
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def remove_records(self) -> None:
        """Undo a start that is taken back."""
        for name in ("start", "outcome", "out", "err"):
            with contextlib.suppress(OSError):
                os.unlink(f"{self.base}.{name}{self.suffix}")

    def kill_shim(self) -> None:
        """End the shim itself."""
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)


class LocalMember:
    """The ranks of one member."""

    def __init__(self, job: Submission, index: int) -> None:
        base = base_path(job.folder, job.key.attempt, 0, index)
        self.ranks = [Rank(number, base) for number in range(job.executors[index].ranks())]

    def observe(self, *, timed_out: bool) -> MemberObservation:
        """Say how the member stands; `timed_out`: it was stopped because its time was over."""
        starts = [rank.started for rank in self.ranks if rank.started]
        started = iso_time(min(starts)) if starts else None
        if not all(rank.ended for rank in self.ranks):
            return MemberObservation(state=State.RUNNING, started=started, host=hostname())
        ended = iso_time(max(rank.ended or 0.0 for rank in self.ranks))
        outcomes = [rank.outcome for rank in self.ranks]
        seen = ended_member(outcomes, started=started, ended=ended, host=hostname())
        failure = next((rank.failure for rank in self.ranks if rank.failure), None)
        if timed_out and seen.state is not State.SUCCEEDED:
            failure = Reason(ReasonKind.TIMEOUT)
        if failure is None:
            return seen
        return attrs.evolve(seen, state=State.FAILED, reason=failure)
