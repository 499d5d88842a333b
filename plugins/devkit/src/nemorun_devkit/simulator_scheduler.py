"""A scheduler that exists only in memory, on a clock that only the simulation moves. It keeps the laws of backends."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator
from typing import NamedTuple

import attrs

from nemorun_core import (
    UNKNOWN,
    Accepted,
    Answer,
    Deferred,
    Handle,
    Key,
    MemberObservation,
    Observation,
    Reason,
    ReasonKind,
    Rejected,
    State,
    Submission,
    TransientError,
    iso_time,
)
from nemorun_core.model.state import exit_reason, signal_reason
from nemorun_devkit.simulator_script import (
    Amnesia,
    AnswerLost,
    Down,
    Fails,
    Forgets,
    Full,
    Members,
    NodeLost,
    Outcome,
    Preempted,
    Refused,
    Scenario,
    Slow,
    Stale,
    Vanishes,
)

__all__ = ["Clock", "Scheduler", "Start"]

_BEGINNING = 1893456000.0  # 2030-01-01
_QUEUED = Reason(ReasonKind.WAITING, "in the queue")


class Clock:
    """The simulation's time. Stands in for the module `time` where the engine asks what time it is."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def iso(self, seconds: float | None = None) -> str:
        return iso_time(_BEGINNING + (self.seconds if seconds is None else seconds))


class Start(NamedTuple):
    """One start of one program."""

    job: str
    attempt: int
    incarnation: int
    member: int


@attrs.define
class _Plan:
    """What one member does in one incarnation: when it ends, how, and whether a record of that stays."""

    end: float
    seen: MemberObservation | None
    recorded: bool
    stops_after: float


@attrs.define
class _Incarnation:
    begun: float
    start: float
    members: list[_Plan]
    requeued: float = math.inf


@attrs.define(eq=False)
class _Entry:
    """One attempt on the scheduler."""

    submission: Submission
    handle: Handle
    incarnations: list[_Incarnation]
    released: bool = False
    truths: list[Observation] = attrs.field(factory=list)
    polls: int = 0
    waits: bool = False
    known: tuple[Observation, float] | None = None


class Scheduler:
    """Holds the jobs of a simulation, whoever drives it.

    Attributes:
        calls: how often each call was made.
        doubled: keys that were submitted although the scheduler had them already.
    """

    def __init__(self, clock: Clock, scenario: Scenario) -> None:
        self.clock = clock
        self.scenario = scenario
        self.entries: dict[Key, _Entry] = {}
        self.by_handle: dict[Handle, _Entry] = {}
        self.calls: Counter[str] = Counter()
        self.doubled: list[Key] = []
        self._late: dict[Key, tuple[float, Submission]] = {}
        self._lost: set[tuple[str, int]] = set()
        self._forgets = min((one.after for one in scenario.faults if isinstance(one, Forgets)), default=math.inf)
        self._amnesias = [one for one in scenario.faults if isinstance(one, Amnesia)]
        self.stale = min((one.every for one in scenario.faults if isinstance(one, Stale)), default=0)

    # What the world does to it.

    def arrive(self) -> None:
        """Take the late submissions that are due by now."""
        for key, (due, submission) in list(self._late.items()):
            if due <= self.clock.seconds:
                del self._late[key]
                if key not in self.entries:
                    self._take(submission, due)

    def called(self, name: str) -> None:
        """Count a call, let it take its time, and fail it while the scheduler is down."""
        self.calls[name] += 1
        faults, begun = self.scenario.faults, self.clock.seconds
        self.clock.seconds += sum(
            one.seconds for one in faults if isinstance(one, Slow) and one.start <= begun < one.end
        )
        moment = self.clock.seconds
        if any(isinstance(one, Down) and one.start <= moment < one.end for one in faults):
            raise TransientError("the scheduler does not answer")
        self.arrive()

    def submit(self, job: Submission) -> Answer:
        """Answer one submission. Raises TransientError where the answer gets lost."""
        name, attempt = job.key.job, job.key.attempt
        outcome, moment = self.scenario.outcome(name, attempt), self.clock.seconds
        if isinstance(outcome, Refused):
            return Rejected(Reason(ReasonKind.REJECTED, outcome.detail))
        if job.key in self.entries:
            self.doubled.append(job.key)
            return Accepted(self.entries[job.key].handle)
        if strangers := [edge.key for edge in job.after if edge.key not in self.entries]:
            return Rejected(Reason(ReasonKind.REJECTED, f"there is no job {strangers[0].job!r} to wait for"))
        if any(isinstance(one, Full) and one.start <= moment < one.end for one in self.scenario.faults):
            return Deferred(Reason(ReasonKind.LIMIT, "quota"))
        for one in self.scenario.faults:
            if isinstance(one, AnswerLost) and (one.job, one.attempt) == (name, attempt) not in self._lost:
                self._lost.add((name, attempt))
                self._late[job.key] = (moment + one.late, job)
                self.arrive()
                raise TransientError("the answer got lost")
        return Accepted(self._take(job, moment).handle)

    def _take(self, job: Submission, moment: float) -> _Entry:
        handle = str(job.key)
        if job.after:
            unseen = MemberObservation(state=State.PENDING)
            never = [_Plan(math.inf, unseen, False, 0.0) for _ in job.executors]
            entry = _Entry(job, handle, [_Incarnation(moment, math.inf, never)], waits=True)
        else:
            outcome = self.scenario.outcome(job.key.job, job.key.attempt)
            entry = _Entry(job, handle, list(self._incarnations(job, outcome, moment)))
        self.entries[job.key] = self.by_handle[handle] = entry
        return entry

    def _let_start(self, entry: _Entry) -> None:
        """Start a job whose upstreams have ended as it needs, or end it where one has not: the scheduler keeps edges
        by itself, and a driver hears of it later."""
        ends = [self._end_of(edge.key) for edge in entry.submission.after]
        moment = max(entry.incarnations[0].begun, *(end for end, _ in ends))
        if moment > self.clock.seconds:
            return
        entry.waits, entry.known = False, None
        job = entry.submission
        if all(edge.condition.holds(state) for edge, (_, state) in zip(job.after, ends, strict=True)):
            entry.incarnations = list(
                self._incarnations(job, self.scenario.outcome(job.key.job, job.key.attempt), moment)
            )
        else:
            unmet = MemberObservation(state=State.CANCELLED, ended=self.clock.iso(moment))
            plans = [_Plan(moment, unmet, False, 0.0) for _ in job.executors]
            entry.incarnations = [_Incarnation(moment, moment, plans)]

    def _end_of(self, key: Key) -> tuple[float, State]:
        """Return when a job ends for good, as things stand, and how; never, while it waits itself."""
        entry = self.entries[key]
        plans = self._now(entry).incarnations[-1].members
        states = {plan.seen.state if plan.seen else State.FAILED for plan in plans}
        signalled = any(plan.seen and plan.seen.signals for plan in plans)
        failed = states != {State.SUCCEEDED} or signalled
        return max(plan.end for plan in plans), State.FAILED if failed else State.SUCCEEDED

    def _now(self, entry: _Entry) -> _Entry:
        if entry.waits:
            self._let_start(entry)
        return entry

    def _incarnations(self, job: Submission, outcome: Outcome | None, moment: float) -> Iterator[_Incarnation]:
        limits = [one.timeout_seconds for one in job.executors if one.timeout_seconds is not None]
        while outcome is not None:
            start = moment + outcome.queued
            ones = outcome.outcomes if isinstance(outcome, Members) else [outcome] * len(job.executors)
            if len(ones) != len(job.executors):
                raise ValueError(f"{len(ones)} outcomes for the {len(job.executors)} members of {job.key.job!r}")
            plans = [self._plan(one, start, min(limits, default=math.inf)) for one in ones]
            then = outcome.then if isinstance(outcome, (Preempted, NodeLost)) else None
            timed_out = any(plan.seen and plan.seen.reason == _TIMEOUT for plan in plans)
            if then is None or timed_out:
                yield _Incarnation(moment, start, plans)
                return
            yield _Incarnation(moment, start, plans, requeued=start + outcome.after)
            moment, outcome = start + outcome.after, then

    def _plan(self, outcome: Outcome, start: float, limit: float) -> _Plan:
        end, recorded = start + outcome.after, True
        signals: tuple[str, ...] = ("TERM",)
        state, code, reason = State.FAILED, None, None
        if limit < outcome.after:
            end, code, reason = start + limit, 143, _TIMEOUT
        elif isinstance(outcome, Vanishes):
            return _Plan(end, None, False, outcome.stops_after)
        elif isinstance(outcome, Preempted):
            code, reason, recorded = 143, Reason(ReasonKind.PREEMPTED, "its place was taken away"), False
        elif isinstance(outcome, NodeLost):
            reason, signals, recorded = Reason(ReasonKind.NODE_FAILURE, "the node is gone"), (), False
        elif isinstance(outcome, Fails):
            code, signals = outcome.code, ()
            reason = Reason(outcome.reason, "the scheduler says so") if outcome.reason else exit_reason(code)
        else:
            state, code, signals = State.SUCCEEDED, 0, ()
        times = (self.clock.iso(start), self.clock.iso(end) if end < math.inf else None)
        seen = MemberObservation(
            state=state, exit_code=code, reason=reason, signals=signals, started=times[0], ended=times[1]
        )
        return _Plan(end, seen, recorded, outcome.stops_after)

    # What it says.

    def current(self, entry: _Entry) -> tuple[int, _Incarnation]:
        """Return the incarnation that stands now, and its number."""
        moment = self.clock.seconds
        self._now(entry)
        number = sum(one.requeued <= moment for one in entry.incarnations[:-1])
        return number, entry.incarnations[number]

    def truth(self, entry: _Entry) -> Observation:
        """Return what is to be seen of a job now."""
        if self._now(entry).waits or entry.known is None or entry.known[1] <= self.clock.seconds:
            entry.known = (self._look(entry), self._change(entry))
        return entry.known[0]

    def _look(self, entry: _Entry) -> Observation:
        moment = self.clock.seconds
        number, current = self.current(entry)
        last = max(plan.end for plan in current.members)
        if any(plan.seen is None and plan.end <= moment for plan in current.members):
            return UNKNOWN
        if any(one.start <= moment < one.end for one in self._amnesias):
            return UNKNOWN
        forgotten = entry.released or moment >= last + self._forgets
        if forgotten and not (last <= moment and all(plan.recorded for plan in current.members)):
            return UNKNOWN
        members = tuple(self._member(plan, current.start) for plan in current.members)
        waits = all(member.state is State.PENDING for member in members)
        return Observation(members=members, incarnation=number, reason=_QUEUED if waits else None)

    def _change(self, entry: _Entry) -> float:
        """Return when there will be something else to see of a job."""
        times = [
            time for one in entry.incarnations for time in (one.start, one.requeued, *(p.end for p in one.members))
        ]
        last = max(plan.end for plan in entry.incarnations[-1].members)
        times += [time for one in self._amnesias for time in (one.start, one.end)]
        times += [self._end_of(edge.key)[0] for edge in entry.submission.after if entry.waits]
        times += [self._change(self.entries[edge.key]) for edge in entry.submission.after if entry.waits]
        moment = self.clock.seconds
        return min((time for time in [*times, last + self._forgets] if time > moment), default=math.inf)

    def _member(self, plan: _Plan, start: float) -> MemberObservation:
        moment = self.clock.seconds
        if plan.end <= moment:
            assert plan.seen is not None
            return plan.seen
        if moment < start:
            return MemberObservation(state=State.PENDING)
        return MemberObservation(state=State.RUNNING, started=self.clock.iso(start))

    def cancel(self, handle: Handle, *, at_once: bool) -> None:
        """Ask that a job ends: what waits at once, what runs as soon as its program allows."""
        entry, moment = self.by_handle.get(handle), self.clock.seconds
        if entry is None:
            return
        entry.known = None
        number, current = self.current(entry)
        entry.waits = False
        del entry.incarnations[number + 1 :]
        current.requeued = math.inf
        for plan, executor in zip(current.members, entry.submission.executors, strict=True):
            if plan.end <= moment:
                continue
            if moment < current.start:
                plan.end, plan.recorded = moment, False
                plan.seen = MemberObservation(state=State.CANCELLED, ended=self.clock.iso(moment))
                continue
            grace = 0.0 if at_once else executor.grace_seconds
            number = 15 if plan.stops_after <= grace else 9
            end = moment + min(plan.stops_after, grace)
            if end < plan.end:
                plan.end, plan.recorded = end, True
                plan.seen = MemberObservation(
                    state=State.FAILED,
                    exit_code=128 + number,
                    reason=signal_reason(number),
                    signals=("TERM",),
                    started=self.clock.iso(current.start),
                    ended=self.clock.iso(end),
                )
            elif plan.recorded and plan.seen and "TERM" not in plan.seen.signals:
                plan.seen = attrs.evolve(plan.seen, signals=(*plan.seen.signals, "TERM"))

    def holds(self, key: Key) -> Handle | None:
        """Return the handle of a key that is there, or whose program has left a record in the job's folder."""
        entry = self.entries.get(key)
        if entry is None:
            return None
        self._now(entry)
        _, current = self.current(entry)
        ended = max(plan.end for plan in current.members)
        started = any(self._has_started(entry.incarnations[0], plan) for plan in entry.incarnations[0].members)
        gone = entry.released or self.clock.seconds >= ended + self._forgets
        return entry.handle if started or not gone else None

    def next_change(self, entries: Collection[_Entry]) -> float:
        """Return when something will happen next to one of these jobs, or a late one arrives."""
        for entry in entries:
            self.truth(entry)
        times = [entry.known[1] for entry in entries if entry.known]
        return min([*times, *(due for due, _ in self._late.values())], default=math.inf)

    # What the laws are checked by.

    def starts(self) -> dict[Start, float]:
        """Return every start of a program so far, and when it was."""
        return {
            Start(key.job, key.attempt, number, member): one.start
            for key, entry in self.entries.items()
            for number, one in enumerate(self._now(entry).incarnations)
            for member, plan in enumerate(one.members)
            if self._has_started(one, plan)
        }

    def _has_started(self, incarnation: _Incarnation, plan: _Plan) -> bool:
        begins = incarnation.start < plan.end or plan.seen is None or plan.seen.started
        return incarnation.start <= self.clock.seconds and bool(begins)

    def log(self, start: Start) -> bytes:
        """Return what a program has written so far."""
        entry = next(entry for key, entry in self.entries.items() if (key.job, key.attempt) == start[:2])
        return self.written(entry, start.incarnation, start.member)

    def written(self, entry: _Entry, number: int, member: int) -> bytes:
        """Return what a member has written so far: a line when it begins, and one when it ends by itself."""
        if number >= len(self._now(entry).incarnations) or member >= len(entry.submission.members):
            return b""
        incarnation = entry.incarnations[number]
        plan = incarnation.members[member]
        if not self._has_started(incarnation, plan):
            return b""
        name = f"{entry.submission.key.job} {entry.submission.key.attempt}.{number}.{member}"
        if plan.end > self.clock.seconds or plan.seen is None or "TERM" in plan.seen.signals or not plan.recorded:
            return f"{name} begins\n".encode()
        return f"{name} begins\n{name} ends with {plan.seen.exit_code}\n".encode()

    def running(self) -> list[Key]:
        """Return what is queued or runs now."""
        moment = self.clock.seconds
        return [
            key
            for key, entry in self.entries.items()
            if any(plan.end > moment for plan in self.current(entry)[1].members)
        ]


_TIMEOUT = Reason(ReasonKind.TIMEOUT, "timeout_seconds is over")
