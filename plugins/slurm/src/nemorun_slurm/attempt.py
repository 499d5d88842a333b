"""`Attempt`: one attempt of a job as this connection knows it, and what its records and Slurm's word say together."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import attrs

from nemorun_core import (
    UNKNOWN,
    MemberObservation,
    Observation,
    Reason,
    ReasonKind,
    State,
    Stopping,
    Submission,
    base_path,
    ended_member,
    iso_time,
    rank_suffix,
    read_rank,
)
from nemorun_core.contracts.witness import RankWitness
from nemorun_slurm.calls import Place
from nemorun_slurm.parse import QueueRow, observe_state
from nemorun_slurm.reasons import output_reason

__all__ = ["Attempt", "Word", "duplicates", "expects_records", "is_over_its_time", "runs_on"]

_MOST_INCARNATIONS = 10_000
_AGAIN_SECONDS = 5.0
_KILLED = (None, 137)  # exit codes of a program that KILL ended
_STUCK_SECONDS = 30.0
_DUPLICATE = 125  # what a shim says that finds its start taken
# What a record cannot know: the program was ended for this.
_OVERRIDING = frozenset(
    {ReasonKind.OUT_OF_MEMORY, ReasonKind.TIMEOUT, ReasonKind.NODE_FAILURE, ReasonKind.PREEMPTED, ReasonKind.IMAGE}
)


class Word(NamedTuple):
    """What Slurm said of an attempt.

    Attributes:
        rows: of its own jobs, each by id and name: one, or more where a submission was accepted late.
        since: squeue was asked after the submission, so that a job that it does not show is not held any more.
        told: accounting answered too, where it was asked.
    """

    rows: Sequence[QueueRow]
    since: bool
    told: bool

    @property
    def live(self) -> list[QueueRow]:
        """The rows that are not over."""
        return [row for row in self.rows if not observe_state(row)[0].is_final]

    @property
    def final(self) -> QueueRow | None:
        """The row that says how it ended: not that of a duplicate, which ran nothing."""
        over = [row for row in self.rows if observe_state(row)[0].is_final]
        return min(over, key=lambda row: (row.exit_code == _DUPLICATE, -row.restarts), default=None)


class _Ranks(NamedTuple):
    """The records of one member's ranks."""

    witnesses: Sequence[RankWitness]

    @property
    def claimed(self) -> bool:
        return any(witness.claimed or witness.outcome for witness in self.witnesses)

    @property
    def whole(self) -> bool:
        """Whether each rank has claimed its start."""
        return all(witness.claimed for witness in self.witnesses)

    @property
    def over(self) -> bool:
        return all(witness.outcome for witness in self.witnesses)

    @property
    def started(self) -> str | None:
        moments = [witness.started for witness in self.witnesses if witness.started]
        return iso_time(min(moments)) if moments else None

    @property
    def ended(self) -> str | None:
        moments = [witness.ended for witness in self.witnesses if witness.ended]
        return iso_time(max(moments)) if moments else None

    @property
    def host(self) -> str | None:
        return next((witness.start.host for witness in self.witnesses if witness.start), None)

    def end(self) -> MemberObservation:
        outcomes = [witness.outcome for witness in self.witnesses]
        return ended_member(outcomes, started=self.started, ended=self.ended, host=self.host)

    def run(self) -> MemberObservation:
        return MemberObservation(state=State.RUNNING, started=self.started, host=self.host)


@attrs.define(eq=False)
class Attempt:
    """What this connection knows of an attempt.

    Attributes:
        job: as it was submitted; `name` is its name in Slurm where it goes out by itself.
        places: where it is to be looked for in Slurm.
        submitted: when it was taken, in POSIX seconds of this machine; 0.0 where another connection did it.
        changed: when something new was last seen, on the monotonic clock.
        incarnation: the newest that has a record.
        seen: what was said last; `over` once that is final and stays.
        over_since: when every rank of `incarnation` was first seen to have ended, on the monotonic clock.
        stopping: how far its cancellation is, on the monotonic clock; its time is kept by `is_over_its_time`.
    """

    job: Submission
    name: str
    places: Sequence[Place] = ()
    submitted: float = 0.0
    changed: float = 0.0
    incarnation: int = 0
    seen: Observation = UNKNOWN
    over: bool = False
    over_since: float | None = None
    _claimed: bool = attrs.field(default=False, init=False)
    stopping: Stopping = attrs.field(init=False)

    @stopping.default
    def _unstopped(self) -> Stopping:
        grace = max(executor.grace_seconds for executor in self.job.executors)
        return Stopping(grace, again_seconds=_AGAIN_SECONDS)

    @property
    def ids(self) -> set[str]:
        """Of Slurm's jobs that are surely ours, as its commands take them."""
        return {job_id for place in self.places for job_id in place.ids}

    def read(self) -> list[_Ranks]:
        """Read the records of the newest incarnation that has any. Raises OSError."""
        while self.incarnation < _MOST_INCARNATIONS and any(
            ranks.claimed for ranks in self._records(self.incarnation + 1)
        ):
            self.incarnation += 1
            self.over_since = None
        return self._records(self.incarnation)

    def _records(self, incarnation: int) -> list[_Ranks]:
        found = []
        for index, executor in enumerate(self.job.executors):
            base = base_path(self.job.folder, self.job.key.attempt, incarnation, index)
            found.append(_Ranks([read_rank(base, rank_suffix(rank)) for rank in range(executor.ranks())]))
        return found

    @property
    def claimed(self) -> bool:
        """Whether any rank has started. Once that was seen, no record is read for it."""
        if not self._claimed:
            self._claimed = any(ranks.claimed for ranks in self.read())
        return self._claimed

    def observe(self, word: Word) -> Observation:
        """Put together what the records say and what Slurm said before they were read.

        A program's end is its outcome's; why it ended may be Slurm's. It is final when Slurm has let go of the job, or
        at once where every member succeeded. Raises OSError.
        """
        members = self.read()
        restarts = max((row.restarts for row in word.live), default=0)
        if restarts > self.incarnation:
            return self._by_row(word.live, restarts)
        over = all(ranks.over for ranks in members)
        if over and self.over_since is None:
            self.over_since = self.changed = time.monotonic()
        if over and self._is_let_go(word):
            return self._observed(self._dead(ranks, None) for ranks in members)
        if not word.live and word.since and (over or word.final is not None):
            return self._observed(self._dead(ranks, word.final) for ranks in members)
        if not word.live and word.since and word.told:
            return self._untold(members)
        if any(ranks.claimed for ranks in members):
            return self._observed(self._alive(members))
        return self._by_row(word.live, self.incarnation)

    def _untold(self, members: Sequence[_Ranks]) -> Observation:
        """What is seen of a job that Slurm does not know: a cancelled task that waited in an array leaves no trace."""
        taken_back = self.stopping.begun and any(place.task for place in self.places)
        if not taken_back or any(ranks.claimed for ranks in members):
            return UNKNOWN
        cancelled = MemberObservation(state=State.CANCELLED, reason=Reason(ReasonKind.BY_USER))
        return self._observed([cancelled] * len(members))

    def _is_let_go(self, word: Word) -> bool:
        """Whether Slurm holds an ended job without a thought of starting it again: it says so, or has held it for long,
        as it does where slurmctld was down when the job ended."""
        if word.live and all(row.state == "COMPLETING" and row.reason == "NonZeroExitCode" for row in word.live):
            return True
        runs = bool(word.live) and all(row.state == "RUNNING" for row in word.live)
        return runs and self.over_since is not None and time.monotonic() - self.over_since > _STUCK_SECONDS

    def _observed(self, members: Iterable[MemberObservation]) -> Observation:
        return Observation(members=tuple(members), incarnation=self.incarnation)

    def _by_row(self, live: Sequence[QueueRow], incarnation: int) -> Observation:
        """What is seen before the first record of an incarnation."""
        if not live:
            waiting = Reason(ReasonKind.WAITING, "Slurm was not asked yet, or does not answer")
            pending = MemberObservation(state=State.PENDING)
            return Observation(members=(pending,) * len(self.job.members), incarnation=incarnation, reason=waiting)
        row = max(live, key=lambda row: row.restarts)
        _, reason = observe_state(row)
        # An allocation is no start: until a record says so, nothing runs.
        member = MemberObservation(state=State.PENDING)
        return Observation(members=(member,) * len(self.job.members), incarnation=incarnation, reason=reason)

    def _alive(self, members: Sequence[_Ranks]) -> list[MemberObservation]:
        """Say how members stand while Slurm holds the job: one that ended is final, but the last of them only where
        all succeeded, since Slurm may start the job again."""
        seen = [
            ranks.end() if ranks.over else ranks.run() if ranks.claimed else MemberObservation(state=State.PENDING)
            for ranks in members
        ]
        settled = all(member.state is State.SUCCEEDED and not member.signals for member in seen)
        if all(member.state.is_final for member in seen) and not settled:
            last = max(range(len(seen)), key=lambda index: (seen[index].ended or "", index))
            seen[last] = members[last].run()
        return seen

    @property
    def is_unexplained(self) -> bool:
        """Whether `explain` may know more: a program was killed, or one failed that never started."""
        return any(
            member.state is State.FAILED and (member.exit_code in _KILLED or member.host is None)
            for member in self.seen.members
        )

    def explain(self, output: str) -> None:
        """Take in what srun and the container's runtime said of the end, where nothing better explains it: that memory
        ran out of a program that was killed, or that there is no image for one that never started."""
        found = output_reason(output)
        if found is None:
            return
        members = []
        for member in self.seen.members:
            failed = member.state is State.FAILED
            fits = member.exit_code in _KILLED if found.kind is ReasonKind.OUT_OF_MEMORY else member.host is None
            overridden = member.reason is not None and member.reason.kind in _OVERRIDING
            members.append(attrs.evolve(member, reason=found) if failed and fits and not overridden else member)
        self.seen = attrs.evolve(self.seen, members=tuple(members))

    def _dead(self, ranks: _Ranks, final: QueueRow | None) -> MemberObservation:
        """Say how a member ended of which Slurm holds nothing any more."""
        state, reason = observe_state(final) if final is not None else (State.FAILED, None)
        overriding = reason if reason is not None and reason.kind in _OVERRIDING else None
        if self.stopping.expired:
            overriding = Reason(ReasonKind.TIMEOUT)
        if not ranks.claimed and final is not None:
            return MemberObservation(
                state=state,
                exit_code=final.exit_code,
                reason=reason,
                started=final.started if state is not State.CANCELLED else None,
                ended=final.ended,
            )
        member = ranks.end()
        if member.ended is None and final is not None:
            member = attrs.evolve(member, ended=final.ended)
        if member.state is State.FAILED and overriding is not None:
            return attrs.evolve(member, reason=overriding)
        if state is State.CANCELLED and (member.signals or not ranks.over):
            return attrs.evolve(member, state=State.CANCELLED, reason=reason)
        return member


def duplicates(live: Sequence[QueueRow]) -> list[QueueRow]:
    """Return the jobs that wait though another of the same key runs or waits before them: submissions that Slurm took
    late. They would run nothing, since the start is claimed."""
    waiting = [row for row in live if row.state == "PENDING" and not row.restarts]
    numbers = {row.het_job or row.job_id for row in live}
    if len(numbers) < 2:
        return []
    running = {row.het_job or row.job_id for row in live if row.state != "PENDING"}
    kept = running or {min(numbers, key=lambda number: int(number.partition("_")[0]))}
    return [row for row in waiting if (row.het_job or row.job_id) not in kept]


def runs_on(attempt: Attempt, word: Word) -> bool:
    """Whether a job's one rank has started and goes on, so that no new record of it is expected."""
    alone = len(attempt.job.members) == 1 and attempt.job.executors[0].ranks() == 1
    return alone and bool(word.live) and all(row.state == "RUNNING" for row in word.live) and attempt.claimed


def expects_records(attempt: Attempt, word: Word) -> bool:
    """Whether the cluster may have records that are not here: not while a job waits, nor while it goes on."""
    waits = bool(word.live) and all(row.state == "PENDING" for row in word.live)
    return not waits and not runs_on(attempt, word)


def is_over_its_time(attempt: Attempt) -> bool:
    for member, executor in zip(attempt.seen.members, attempt.job.executors, strict=False):
        limit = executor.timeout_seconds
        started = None if member.state.is_final else member.started
        if started is not None and limit is not None and iso_time(time.time() - limit) >= started:
            return True
    return False
