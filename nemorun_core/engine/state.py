"""The state of an experiment as a fold over its journal: `step(event) -> actions`, without input, output or clock.

An event touches only its own job and, when that job becomes final, the jobs that depend on it.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import attrs

from nemorun_core.contracts.observation import MemberObservation
from nemorun_core.engine.events import (
    Asked,
    Delayed,
    Event,
    Intended,
    Lost,
    Observed,
    Refused,
    Released,
    Submitted,
    Withdrawn,
)
from nemorun_core.model.definition import Definition, JobDefinition
from nemorun_core.model.garbage import uncollected
from nemorun_core.model.state import Condition, Reason, ReasonKind, State, Until

__all__ = ["Act", "Action", "Graph", "Job"]


class Act(enum.Enum):
    """What the engine has to do after an event."""

    SUBMIT = "submit"
    WITHDRAW = "withdraw"
    CANCEL = "cancel"
    RELEASE = "release"
    RETRY = "retry"
    TELL = "tell"


@attrs.define(eq=False)
class Job:
    """One job as it stands. Only `Graph.step` changes it.

    Attributes:
        members: one each, in order; empty until the job was first seen by its backend.
        waiting: how many upstreams are not final yet.
        intended: the attempt may be on the scheduler, so it is looked for before it is submitted again.
        asked: why the job is to be cancelled, where it is.
        verdict: state and reason that an end of one member decided for the whole group.
        retries: further attempts after failures of the program, and as many again after failures around it.
        retry_on: kinds of reason that are retried; empty: all that may pass, but LOST.
        failures: how often it failed by itself, and how often by what is around it.
        retired: the attempt that ended last, and its handle, to be released.
        held: what was seen of a job that its scheduler let start, until the end of its upstreams was seen as well.
        remaining: attempts that leave something on their scheduler, with their handles, until they are released.
    """

    definition: JobDefinition
    index: int
    waiting: int
    dependants: list[tuple[Job, Condition]] = attrs.field(factory=list)
    state: State = State.UNSUBMITTED
    reason: Reason | None = None
    attempt: int = 0
    incarnation: int = 0
    handle: str | None = None
    members: tuple[MemberObservation, ...] = ()
    started: str | None = None
    ended: str | None = None
    intended: bool = False
    asked: Reason | None = None
    verdict: tuple[State, Reason | None] | None = None
    retries: int = 0
    retry_on: frozenset[str] = frozenset()
    failures: tuple[int, int] = (0, 0)
    retired: tuple[int, str] | None = None
    remaining: tuple[tuple[int, str], ...] = ()
    held: Observed | Lost | Refused | None = None

    @property
    def id(self) -> str:
        return self.definition.id

    @property
    def exit_code(self) -> int | None:
        """The highest of the members' exit codes; where members failed, or the job succeeded without some, of those
        alone that did."""
        deciding = State.SUCCEEDED if self.state is State.SUCCEEDED else State.FAILED
        chosen = [member for member in self.members if member.state is deciding]
        codes = [member.exit_code for member in chosen or self.members if member.exit_code is not None]
        return max(codes, default=None)


Action = tuple[Act, Job]


class Graph:
    """All jobs of an experiment."""

    def __init__(self, definition: Definition) -> None:
        policies = [
            (int(str(one.fields.get("retries", 0))), _kinds(one.fields.get("retry_on"))) for one in definition.executors
        ]
        self.jobs: dict[str, Job] = {}
        with uncollected():
            for index, job in enumerate(definition.jobs):
                made = Job(definition=job, index=index, waiting=len(job.edges))
                if policies:
                    made.retries, made.retry_on = policies[job.executors[0]]
                self.jobs[job.id] = made
            for made in self.jobs.values():
                for edge in made.definition.edges:
                    self.jobs[edge.upstream].dependants.append((made, edge.condition))
        self.open = len(self.jobs)
        self.leaving: set[str] = set()  # skipped ones of which it is not known whether their scheduler took them
        self._due: deque[Job] = deque()

    def begin(self) -> list[Action]:
        """Return what has to be done before any event: submit what waits for nothing."""
        return [(Act.SUBMIT, job) for job in self.jobs.values() if job.waiting == 0]

    def resume(self) -> Iterator[Job]:
        """Yield the jobs that a new driver has to look after: ready, in doubt, or on a backend."""
        return (
            job
            for job in self.jobs.values()
            if ((job.waiting == 0 or job.intended) and not job.state.is_final) or job.id in self.leaving
        )

    def remains(self) -> list[tuple[Job, int, str]]:
        """Return the ended attempts that may still have something on their scheduler, with their handles."""
        return [
            (job, attempt, handle)
            for job in self.jobs.values()
            for attempt, handle in job.remaining
            if job.state.is_final or attempt != job.attempt
        ]

    def is_news(self, event: Event) -> bool:
        """Whether an event says anything that is not known."""
        if isinstance(event, Submitted):
            return self.jobs[event.job].handle != event.handle
        if isinstance(event, Delayed):  # told at each offer
            told = (State.PENDING, event.reason)
            return any((job.state, job.reason) != told for job in (self.jobs[name] for name, _ in event.attempts))
        if not isinstance(event, Observed):
            return True
        job = self.jobs[event.job]
        if job.state.is_final or event.attempt != job.attempt or event.incarnation < job.incarnation:
            return False
        if job.held is not None or _runs_ahead(job, event):
            return event != job.held
        if event.incarnation > job.incarnation or not job.members:
            return True
        return event.reason != job.reason or any(
            not old.state.is_final and _rank(new.state) >= _rank(old.state) and not _alike(old, new)
            for old, new in zip(job.members, event.members, strict=True)
        )

    def step(self, event: Event, time: str) -> list[Action]:
        """Fold one event in, and return what has to be done now."""
        actions: list[Action] = []
        if isinstance(event, (Observed, Submitted, Refused, Lost)):
            job = self.jobs[event.job]
            if job.attempt == event.attempt and not job.state.is_final:
                self._follow(job, event, time, actions)
            elif job.id in self.leaving and isinstance(event, (Refused, Submitted)):
                self.leaving.discard(job.id)
                if isinstance(event, Submitted):
                    self._take_back(job, event, actions)
        elif isinstance(event, Intended):
            for name, attempt in event.attempts:
                job = self.jobs[name]
                if job.attempt == attempt and not job.state.is_final:
                    job.intended = True
        elif isinstance(event, Delayed):
            for name, attempt in event.attempts:
                self._delay(self.jobs[name], attempt, event.reason, actions)
        elif isinstance(event, Withdrawn):
            self.leaving.difference_update(name for name, _ in event.attempts)
            for name, attempt in event.attempts:
                self._withdraw(self.jobs[name], attempt, time, actions)
        elif isinstance(event, Released):
            for name, attempt in event.attempts:
                job = self.jobs[name]
                job.remaining = tuple(one for one in job.remaining if one[0] != attempt)
        elif isinstance(event, Asked):
            for name in event.jobs:
                self._ask(self.jobs[name], event.reason, time, actions)
        while self._due:
            job = self._due.popleft()
            held, job.held = job.held, None
            if held is not None and not job.state.is_final:
                self._follow(job, held, time, actions)
        return actions

    @staticmethod
    def _take_back(job: Job, event: Submitted, actions: list[Action]) -> None:
        """A job that is skipped by now was on its way to its scheduler: it has to leave there."""
        job.handle = event.handle
        job.retired = (job.attempt, event.handle)
        if event.remains:
            job.remaining += (job.retired,)
        actions += [(Act.CANCEL, job), (Act.RELEASE, job)]

    def _follow(self, job: Job, event: Submitted | Refused | Observed | Lost, time: str, actions: list[Action]) -> None:
        if not isinstance(event, Submitted) and _runs_ahead(job, event):
            job.held = event
        elif isinstance(event, Observed):
            self._observe(job, event, time, actions)
        elif isinstance(event, Submitted):
            job.intended = True
            if job.handle is None:
                job.handle = event.handle
                if event.remains:
                    job.remaining += ((job.attempt, event.handle),)
                if not job.members:
                    self._move(job, State.PENDING, None, actions)
                if job.asked:
                    actions.append((Act.CANCEL, job))
        elif isinstance(event, Refused):
            if job.asked:
                self._end(job, State.CANCELLED, job.asked, time, actions)
            else:
                self._end(job, State.FAILED, event.reason, time, actions)
        else:
            lost = Reason(ReasonKind.LOST, "its scheduler does not know it any more")
            job.members = tuple(
                member if member.state.is_final else attrs.evolve(member, state=State.LOST, reason=lost)
                for member in job.members
            )
            self._end(job, State.LOST, lost, time, actions)

    def _delay(self, job: Job, attempt: int, reason: Reason, actions: list[Action]) -> None:
        if job.attempt == attempt and not job.state.is_final and job.handle is None and not job.members:
            self._move(job, State.PENDING, reason, actions)

    def _withdraw(self, job: Job, attempt: int, time: str, actions: list[Action]) -> None:
        if job.attempt == attempt and not job.state.is_final and job.handle is None:
            intended, job.intended, job.held = job.intended, False, None
            if job.asked:
                self._end(job, State.CANCELLED, job.asked, time, actions)
            elif intended and job.waiting == 0:
                actions.append((Act.SUBMIT, job))

    def _ask(self, job: Job, reason: Reason, time: str, actions: list[Action]) -> None:
        if job.state.is_final:
            return
        job.asked = job.asked or reason
        if job.held is not None:
            self._due.append(job)
        if job.handle is not None:
            actions.append((Act.CANCEL, job))
        elif job.intended:
            actions.append((Act.WITHDRAW, job))
        else:
            self._end(job, State.CANCELLED, reason, time, actions)

    def _observe(self, job: Job, event: Observed, time: str, actions: list[Action]) -> None:
        if len(event.members) != len(job.definition.tasks):
            raise ValueError(f"{len(event.members)} members of a job that has {len(job.definition.tasks)}")
        if event.incarnation < job.incarnation:
            return
        if event.incarnation > job.incarnation or not job.members:
            # A new incarnation begins anew: what the last one did is history.
            job.incarnation = event.incarnation
            job.members = (_UNSEEN,) * len(event.members)
            job.verdict = None
            job.started = None
        members = list(job.members)
        for index in _in_order(event.members):
            seen, known = event.members[index], members[index]
            if known.state.is_final or _rank(seen.state) < _rank(known.state):
                continue
            member = _judge(seen, job)
            if known.started and member.started != known.started:
                # Another driver reads the start from the shim's record, and this one saw it: one start, one time.
                member = attrs.evolve(member, started=known.started)
            members[index] = member
            if member.state.is_final:
                self._decide(job, index, member, len(members), actions)
        job.members = tuple(members)
        starts = [member.started for member in members if member.started]
        job.started = min(starts) if starts else None
        if all(member.state.is_final for member in members):
            state, reason = _verdict(job)
            self._end(job, state, reason, max((m.ended for m in members if m.ended), default=time), actions)
        elif any(member.state is not State.PENDING for member in members):
            self._move(job, State.RUNNING, None, actions)
        else:
            self._move(job, State.PENDING, event.reason, actions)

    def _decide(self, job: Job, index: int, member: MemberObservation, count: int, actions: list[Action]) -> None:
        """Let the end of one member decide for the group, where it does, and stop the rest."""
        if count == 1 or job.verdict or job.asked:
            return
        until = job.definition.until
        if member.state is State.SKIPPED:
            job.verdict = (State.SKIPPED, member.reason)
        elif member.state is not State.SUCCEEDED:
            reason = member.reason or Reason(ReasonKind.GROUP)
            where = f"{reason.detail} in member {index}" if reason.detail else f"in member {index}"
            job.verdict = (State.FAILED, reason._replace(detail=where))
        elif until is Until.FIRST or (until is Until.LEADER and index == 0):
            job.verdict = (State.SUCCEEDED, None)
        if job.verdict:
            actions.append((Act.CANCEL, job))

    def _try_again(self, job: Job, state: State, reason: Reason | None, actions: list[Action]) -> bool:
        """Begin a new attempt, with a new key, where the failed one may be retried; return whether it is."""
        if not job.retries or job.asked or state not in (State.FAILED, State.LOST) or reason is None:
            return False
        if job.retry_on and reason.kind.value not in job.retry_on:
            return False
        if not job.retry_on and reason.kind in (ReasonKind.LOST, ReasonKind.REJECTED):
            return False
        own, around = job.failures
        job.failures = (own, around + 1) if reason.kind in _AROUND else (own + 1, around)
        if max(job.failures) > job.retries:
            return False
        if job.handle is not None:
            job.retired = (job.attempt, job.handle)
            actions.append((Act.RELEASE, job))
        job.attempt += 1
        job.handle = None
        job.members, job.incarnation, job.verdict, job.intended, job.started = (), 0, None, False, None
        self._move(
            job, State.PENDING, Reason(ReasonKind.WAITING, f"for attempt {job.attempt}, after {reason}"), actions
        )
        actions.append((Act.RETRY, job))
        return True

    def _move(self, job: Job, state: State, reason: Reason | None, actions: list[Action]) -> None:
        if (job.state, job.reason) != (state, reason):
            job.state, job.reason = state, reason
            actions.append((Act.TELL, job))

    def _end(self, job: Job, state: State, reason: Reason | None, time: str, actions: list[Action]) -> None:
        """Make a job final, and with it whatever follows from that without running: iterative, a chain may be long."""
        if self._try_again(job, state, reason, actions):
            return
        ended = deque([self._close(job, state, reason, time, actions)])
        while ended:
            job = ended.popleft()
            for dependant, condition in job.dependants:
                if dependant.state.is_final:
                    continue
                dependant.waiting -= 1
                if not condition.holds(job.state):
                    if dependant.handle is not None:
                        actions.append((Act.CANCEL, dependant))
                    elif dependant.intended:
                        self.leaving.add(dependant.id)
                        actions.append((Act.WITHDRAW, dependant))
                    ended.append(self._close(dependant, State.SKIPPED, _cause(job), time, actions))
                elif dependant.waiting == 0 and dependant.held is not None:
                    self._due.append(dependant)
                elif dependant.waiting == 0 and not dependant.intended:
                    actions.append((Act.SUBMIT, dependant))

    def _close(self, job: Job, state: State, reason: Reason | None, time: str, actions: list[Action]) -> Job:
        job.state, job.reason, job.ended = state, reason, time
        self.open -= 1
        actions.append((Act.TELL, job))
        if job.handle is not None:
            job.retired = (job.attempt, job.handle)
            actions.append((Act.RELEASE, job))
        return job


_UNSEEN = MemberObservation(state=State.PENDING)
# Reasons that lie around a program, not in it; their retries are counted apart.
_AROUND = frozenset(
    {
        ReasonKind.IMAGE,
        ReasonKind.LIMIT,
        ReasonKind.LOST,
        ReasonKind.NODE_FAILURE,
        ReasonKind.PREEMPTED,
        ReasonKind.REJECTED,
        ReasonKind.UNSCHEDULABLE,
    }
)


def _in_order(members: Sequence[MemberObservation]) -> Sequence[int]:
    """Return the members' numbers in the order in which they ended, as far as one clock tells it."""
    if len(members) == 1 or len({member.host for member in members}) > 1:
        return range(len(members))
    return sorted(range(len(members)), key=lambda index: members[index].ended or "~")


def _kinds(value: object) -> frozenset[str]:
    return frozenset(map(str, value)) if isinstance(value, (list, tuple, frozenset)) else frozenset()


def _alike(old: MemberObservation, new: MemberObservation) -> bool:
    return new == old or (old.started is not None and attrs.evolve(new, started=old.started) == old)


def _runs_ahead(job: Job, event: Observed | Lost | Refused) -> bool:
    """Whether a job's scheduler let it start, or ended it, before the end of all its upstreams was seen here.

    What became of it waits for them: it is skipped where an edge does not hold, whatever its scheduler did with it.
    """
    if not job.waiting or job.asked:
        return False
    return not isinstance(event, Observed) or any(member.state is not State.PENDING for member in event.members)


def _rank(state: State) -> int:
    return 0 if state is State.PENDING else 1 if state is State.RUNNING else 2


def _judge(seen: MemberObservation, job: Job) -> MemberObservation:
    """Say what a member's end means, knowing who wanted it: a stopped program that still reports 0 has succeeded only
    if no signal reached it."""
    if not seen.state.is_final:
        return seen
    if seen.state is State.SUCCEEDED and not seen.signals:
        return seen
    if job.asked:
        return attrs.evolve(seen, state=State.CANCELLED, reason=job.asked)
    if job.verdict:
        return attrs.evolve(seen, state=State.CANCELLED, reason=Reason(ReasonKind.GROUP, "stopped with its group"))
    return seen


def _cause(upstream: Job) -> Reason:
    """Return why a dependant is skipped: the job that ended wrong, however far up it stands."""
    if upstream.state is State.SKIPPED and upstream.reason:
        return upstream.reason
    because = f": {upstream.reason}" if upstream.reason else ""
    return Reason(ReasonKind.DEPENDENCY, f"{upstream.id!r} {upstream.state}{because}")


def _verdict(job: Job) -> tuple[State, Reason | None]:
    if job.verdict:
        return job.verdict
    worst: Iterable[State] = (State.LOST, State.FAILED, State.CANCELLED)
    if job.asked:
        worst = (State.CANCELLED, State.LOST, State.FAILED)
    for state in (*worst, State.SKIPPED):
        for member in job.members:
            if member.state is state:
                return state, member.reason
    return State.SUCCEEDED, None
