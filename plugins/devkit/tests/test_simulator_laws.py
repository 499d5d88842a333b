"""The simulator's scheduler keeps the laws of backends, E1 to E16, as far as one that runs no program can.

What the proofs say of the engine counts only as far as this holds. Two connections call one scheduler in any order, on
its own clock, through its faults. These laws speak of what nothing here has, and the tests hold what is left of them:

* E9: no process submits, so a driver dies here by an error out of any step, or is replaced between two calls.
* E10: no program, so nothing arrives. The engine builds what real backends are given from the same definition.
* E11: no environment is handed on; a rendering is the only text that is made, and it shows no secret.
* E13: there is no text that a scheduler is given; a rendering has a name, can be repeated, and asks nobody.
* E15: no names, no meeting point; a group starts as one.
* E16: what `Executor.check` refuses is refused at `add`, and `run` has no backend to open.

`Stale` breaks E4 on purpose, and nothing else: every so-manieth answer about a job is the last other one that a poll
could have had. `Amnesia` and `Vanishes` answer UNKNOWN, which is no state. An `AnswerLost` that comes late was not to
be found before, as with any scheduler that works through a queue. An edge on the failure of a job that has edges itself
is not handed over by the engine: no scheduler tells a job that failed from one that never could start.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence

import attrs
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from nemorun_devkit.simulator import (
    Amnesia,
    AnswerLost,
    Down,
    Fails,
    Fault,
    Forgets,
    Full,
    Hangs,
    Members,
    NodeLost,
    Outcome,
    Preempted,
    Refused,
    Scenario,
    SimulatedExecutor,
    Slow,
    Stale,
    Start,
    Succeeds,
    Vanishes,
)
from nemorun_devkit.simulator_connection import Connection
from nemorun_devkit.simulator_scheduler import Clock, Scheduler

import nemorun_core as run
from nemorun_core import (
    UNKNOWN,
    Accepted,
    After,
    Answer,
    Condition,
    Deferred,
    Handle,
    Key,
    Member,
    MemberObservation,
    Observation,
    ReasonKind,
    Rejected,
    Secret,
    State,
    Submission,
    TransientError,
    UsageError,
)
from nemorun_core.model.state import exit_reason

NONCE, STRANGER = "0123456789abcdef", "fedcba9876543210"
NOBODY = "nobody-aaaaaaaaaaaaa"
GRACE = 3.0
LATER = 10_000.0
OBSERVABLE = {State.PENDING, State.RUNNING, State.SUCCEEDED, State.FAILED, State.CANCELLED}
UNRECORDED = {ReasonKind.PREEMPTED, ReasonKind.NODE_FAILURE}


def make(
    name: str = "a", *, attempt: int = 0, nonce: str = NONCE, members: int = 1, after: Sequence[After] = (), **fields
) -> Submission:
    """Return an attempt of a job; `fields` are of its executors."""
    executor = SimulatedExecutor(**{"grace_seconds": GRACE, **fields})
    return Submission(
        key=Key(nonce, name, attempt),
        members=(Member(argv=("simulated",), environment={}, cwd="/"),) * members,
        executors=(executor,) * members,
        folder=f"/nowhere/{name}",
        support="/nowhere",
        after=tuple(after),
    )


def edge(job: Submission, handle: Handle, condition: str) -> After:
    return After(job.key, Condition(condition), handle, job.folder, (1,) * len(job.members))


JOBS = (make("a"), make("b", timeout_seconds=8.0), make("pair", members=2), make("a", attempt=1))


@attrs.frozen
class Call:
    """One call, by one of two connections, some seconds after the one before."""

    name: str
    job: int
    connection: int
    seconds: float


@attrs.frozen
class Seen:
    """What a connection was told of a job."""

    second: float
    key: Key
    observation: Observation


@attrs.define
class World:
    """A scheduler, those who call it, and what they were told."""

    scenario: Scenario = attrs.field(factory=Scenario)
    jobs: Sequence[Submission] = JOBS
    answers: list[tuple[Key, Answer]] = attrs.field(factory=list)
    handles: dict[Key, Handle] = attrs.field(factory=dict)
    seen: list[Seen] = attrs.field(factory=list)
    pieces: list[tuple[Handle, Start, int, bytes]] = attrs.field(factory=list)
    steps: list[str] = attrs.field(factory=list)
    rests: list[float] = attrs.field(factory=list)
    starts: dict[Start, float] = attrs.field(factory=dict)
    scheduler: Scheduler = attrs.field()
    connections: list[Connection] = attrs.field()

    @scheduler.default
    def _begin(self) -> Scheduler:
        return Scheduler(Clock(), self.scenario)

    @connections.default
    def _connect(self) -> list[Connection]:
        return [self.connect(), self.connect()]

    @property
    def clock(self) -> Clock:
        return self.scheduler.clock

    def connect(self) -> Connection:
        return Connection(self.scheduler, self.steps.append, self.rests.append)

    def at(self, second: float) -> World:
        self.clock.seconds = max(second, self.clock.seconds)  # a slow call may have taken longer
        self.scheduler.arrive()
        return self

    # Calls, whose answers are kept.

    def submit(self, *jobs: Submission, by: int = 0) -> list[tuple[Key, Answer]]:
        answers = []
        for key, answer in self.connections[by].submit(jobs):
            answers.append((key, answer))
            self.answers.append((key, answer))
            if isinstance(answer, Accepted):
                self._learn(key, answer.handle)
        self.see_starts()
        return answers

    def take(self, job: Submission, by: int = 0) -> Handle:
        [(_, answer)] = self.submit(job, by=by)
        assert isinstance(answer, Accepted), answer
        return answer.handle

    def find(self, *jobs: Submission, by: int = 0) -> dict[Key, Handle]:
        found = dict(self.connections[by].find(jobs))
        for key, handle in found.items():
            self._learn(key, handle)
        return found

    def _learn(self, key: Key, handle: Handle) -> None:
        assert self.handles.setdefault(key, handle) == handle, f"{key} has two handles"

    def poll(self, *handles: Handle, by: int = 0) -> list[Observation]:
        found = self.connections[by].poll(handles)
        assert set(found) == set(handles)
        keys = {handle: key for key, handle in self.handles.items()}
        self.seen += [
            Seen(self.clock.seconds, keys[handle], found[handle]) for handle in set(handles) if handle in keys
        ]
        return [found[handle] for handle in handles]

    def look(self, handle: Handle) -> Observation:
        return self.poll(handle)[0]

    def play(self, call: Call) -> bool:
        """Make a call as an engine may; return whether it was answered."""
        job, by = self.jobs[call.job % len(self.jobs)], call.connection
        self.clock.seconds += call.seconds
        known = [self.handles[job.key]] if job.key in self.handles else []
        backend = self.connections[by]
        try:
            if call.name == "submit":
                self.submit(job, *self.jobs[:1], by=by)
            elif call.name == "find":
                self.find(*self.jobs, by=by)
            elif call.name == "poll":
                self.poll(*self.handles.values(), NOBODY, by=by)
            elif call.name == "release":
                backend.release([handle for handle in known if self._ended(handle)])
            elif call.name == "read_log":
                self._read(job, known, backend, call)
            else:
                {"cancel": backend.cancel, "kill": backend.kill}[call.name](known)
        except TransientError:
            return False
        finally:
            self.see_starts()
        return True

    def _ended(self, handle: Handle) -> bool:
        return any(one.observation.is_over for one in self.seen if self.handles[one.key] == handle)

    def see_starts(self) -> None:
        """Remember every start of these jobs, and see that none that was is gone, or was again."""
        mine = {job.key.nonce for job in self.jobs}
        if len({key.nonce for key in self.scheduler.entries}) > len(mine):
            return  # starts are told by job and attempt: those of one experiment
        found = self.scheduler.starts()
        assert self.starts.items() <= found.items(), "a program that had started starts again"
        self.starts = found

    def _read(self, job: Submission, known: list[Handle], backend: Connection, call: Call) -> None:
        offset, limit, member = int(call.seconds * 3), call.job * 7 + 1, call.connection % len(job.members)
        for handle in known or [NOBODY]:
            seen = [one.observation.incarnation for one in self.seen if one.key == job.key]
            start = Start(job.key.job, job.key.attempt, max(seen, default=0), member)
            piece = backend.read_log(handle, member, "out", offset, limit, start.incarnation)
            assert len(piece) <= limit
            self.pieces.append((handle, start, offset, piece))

    # What was told.

    def told(self, key: Key) -> list[Observation]:
        return [one.observation for one in self.seen if one.key == key and one.observation.members]


def whole(backend: Connection, handle: Handle, start: Start, limit: int = 5) -> bytes:
    """Read a log piece by piece."""
    log = b""
    for _ in range(100):
        piece = backend.read_log(handle, start.member, "out", len(log), limit, start.incarnation)
        if not piece:
            return log
        log += piece
    raise AssertionError(f"a log without an end: {log!r}")


# What may happen.

SHORT = st.sampled_from([0.0, 1.0, 4.0, 9.0])
TIMES = {"after": SHORT, "queued": st.sampled_from([0.0, 0.0, 2.0]), "stops_after": st.sampled_from([0.0, 2.0, 50.0])}
WAITS = {name: TIMES[name] for name in ("queued", "stops_after")}
CODES = st.sampled_from([1, 3, 126, 127, 137, 143, 255])
PROGRAMS: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(Succeeds, **TIMES), st.builds(Fails, CODES, **TIMES), st.builds(Hangs, **WAITS)
)
UNSURE = PROGRAMS | st.builds(Vanishes, **TIMES) | st.builds(NodeLost, **TIMES) | st.builds(Preempted, **TIMES)
REQUEUED = st.one_of(
    st.builds(Preempted, then=UNSURE, **TIMES),
    st.builds(NodeLost, then=UNSURE | st.builds(Preempted, then=PROGRAMS, **TIMES), **TIMES),
)
ANY = UNSURE | REQUEUED
SPANS = st.tuples(SHORT, st.sampled_from([1.0, 5.0, 20.0])).map(lambda span: (span[0], sum(span)))
HARMLESS = st.one_of(  # to anything but time
    SPANS.map(lambda span: Down(*span)), SPANS.map(lambda span: Full(*span)), st.builds(Slow, SHORT)
)
FORGETFUL = SPANS.map(lambda span: Amnesia(*span)) | st.builds(Forgets, SHORT)
FAULTS: st.SearchStrategy[Fault] = st.one_of(
    HARMLESS, FORGETFUL, st.builds(AnswerLost, st.sampled_from(["a", "b", "pair"]), late=SHORT)
)


def groups(outcomes: st.SearchStrategy[Outcome], count: int = 2) -> st.SearchStrategy[Outcome]:
    queued = TIMES["queued"]
    return outcomes | st.builds(Members, st.lists(outcomes, min_size=count, max_size=count), queued=queued)


def scenarios(
    outcomes: st.SearchStrategy[Outcome] = ANY, faults: st.SearchStrategy[Fault] = FAULTS
) -> st.SearchStrategy[Scenario]:
    refused = st.builds(Refused, st.just("no such queue"))
    jobs = st.fixed_dictionaries(
        {
            "a": st.lists(outcomes, min_size=1, max_size=2),
            "b": outcomes | refused,
            "pair": groups(outcomes) if outcomes is not ANY else REQUEUED | groups(UNSURE),
        }
    )
    return st.builds(Scenario, jobs, faults=st.lists(faults, max_size=3))


NAMES = ("submit", "submit", "find", "poll", "poll", "poll", "cancel", "kill", "release", "read_log")
CALLS = st.lists(
    st.builds(
        Call,
        st.sampled_from(NAMES),
        st.integers(0, len(JOBS) - 1),
        st.integers(0, 1),
        st.sampled_from([0.0, 0.0, 1.0, 2.0, 5.0, 11.0]),
    ),
    min_size=5,
    max_size=25,
)
often = settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])


def played(scenario: Scenario, calls: Sequence[Call], **fields) -> World:
    """Make these calls, after each job was submitted once."""
    world = World(scenario, **fields)
    for call in [*(Call("submit", number, 0, 0.0) for number in range(len(world.jobs))), *calls]:
        world.play(call)
    return world


def is_down(world: World) -> bool:
    moment = world.clock.seconds
    return any(isinstance(one, Down) and one.start <= moment < one.end for one in world.scenario.faults)


class TestE1:
    """A job is taken whole or refused whole, with a reason."""

    @often
    @given(scenarios(), CALLS)
    def test_e1_what_was_answered_is_so(self, scenario, calls):
        world = played(scenario, calls)
        world.at(LATER)
        refused = {key for key, answer in world.answers if isinstance(answer, Rejected)}
        taken = {key for key, answer in world.answers if isinstance(answer, Accepted)}
        assert not refused & taken
        assert not refused & {Key(NONCE, *start[:2]) for start in world.scheduler.starts()}
        assert not refused & set(world.find(*world.jobs, by=1))
        for _, answer in world.answers:
            assert isinstance(answer, Accepted) or str(answer.reason)
        for key in taken:
            members = next(len(job.members) for job in world.jobs if job.key == key)
            assert {len(seen.members) for seen in world.told(key)} <= {members}

    def test_e1_each_job_of_a_call_is_answered_once_and_in_order(self):
        scenario = Scenario({"b": Refused("no such queue")})
        answers = World(scenario).submit(make("a"), make("b"), make("c"))
        assert [key.job for key, _ in answers] == ["a", "b", "c"]
        assert [type(answer) for _, answer in answers] == [Accepted, Rejected, Accepted]
        assert str(answers[1][1].reason) == "rejected: no such queue"

    def test_e1_a_submit_of_nothing_answers_nothing(self):
        assert World().submit() == []

    def test_e1_a_full_scheduler_defers_and_takes_the_job_later(self):
        world, job = World(Scenario(faults=[Full(0, 10)])), make()
        [(_, answer)] = world.submit(job)
        assert isinstance(answer, Deferred)
        assert str(answer.reason) == "limit: quota"
        assert world.at(20).find(job) == {}
        assert world.look(world.take(job)).members[0].state is State.RUNNING

    def test_e1_an_edge_to_a_job_that_is_not_there_is_refused(self):
        world, job = World(), make("next", after=[edge(make("a"), "a", "success")])
        [(_, answer)] = world.submit(job)
        assert isinstance(answer, Rejected)
        assert "'a'" in str(answer.reason)
        assert world.find(job) == {}


class TestE2:
    """One start a key and incarnation, whoever submits it, and how often; none where a kept edge does not hold."""

    @often
    @given(scenarios(), CALLS)
    @example(Scenario(faults=[AnswerLost("a", late=4.0)]), [Call("submit", 0, 1, 1.0), Call("poll", 0, 0, 11.0)])
    def test_e2_nothing_starts_twice_whatever_is_submitted_again(self, scenario, calls):
        world = played(scenario, calls)  # which looks after each call
        first = {}
        for again in range(4):
            world.at(LATER + again)
            for by in (0, 1):
                try:
                    world.submit(*world.jobs, by=by)
                except TransientError:
                    assert not again, "an answer is lost once"
            first = first or world.scheduler.starts()
            assert world.scheduler.starts().items() >= {**world.starts, **first}.items()
        world.at(2 * LATER)
        backend = world.connect()
        for start in world.scheduler.starts():
            handle = world.handles[Key(NONCE, start.job, start.attempt)]
            assert whole(backend, handle, start).count(b"begins") == 1

    @pytest.mark.parametrize("late", [0.0, 5.0])
    def test_e2_a_lost_submission_is_found_and_starts_once(self, late):
        world, job = World(Scenario(faults=[AnswerLost("a", late=late)])), make()
        with pytest.raises(TransientError):
            world.submit(job)
        assert world.find(job, by=1) == ({} if late else {job.key: world.handles.get(job.key)})
        assert list(world.at(late).find(job, by=1)) == [job.key]
        assert world.scheduler.starts() == {Start("a", 0, 0, 0): late}

    def test_e2_a_late_one_that_was_submitted_again_is_dropped(self):
        world, job = World(Scenario(faults=[AnswerLost("a", late=5)])), make()
        with pytest.raises(TransientError):
            world.submit(job)
        handle = world.at(2).take(job, by=1)
        assert world.at(6).take(job) == handle
        assert world.at(LATER).scheduler.starts() == {Start("a", 0, 0, 0): 2}

    def test_e2_a_further_attempt_is_a_start_of_its_own(self):
        world = World()
        assert world.take(make()) != world.take(make(attempt=1))
        assert set(world.scheduler.starts()) == {Start("a", 0, 0, 0), Start("a", 1, 0, 0)}

    def test_e2_a_requeued_job_starts_once_an_incarnation(self):
        world = World(Scenario({"a": Preempted(after=5, then=NodeLost(after=5, then=Succeeds(queued=2)))}))
        handle = world.take(make())
        assert world.at(12).look(handle).incarnation == 2
        assert world.take(make(), by=1) == handle
        assert world.scheduler.starts() == {Start("a", 0, number, 0): at for number, at in enumerate([0, 5, 12])}

    @often
    @given(
        outcome=REQUEUED | groups(UNSURE),
        condition=st.sampled_from(["success", "failure", "any"]),
        submitted=SHORT,
        late=st.none() | SHORT,
        cancelled=st.none() | SHORT,
        looks=st.lists(SHORT, max_size=3),
    )
    @example(Succeeds(after=4, stops_after=2), "success", 0.0, None, 3.0, [])
    @example(Succeeds(after=1), "any", 0.0, 9.0, None, [])
    def test_e2_a_job_starts_after_an_edge_that_holds_and_never_else(
        self, outcome, condition, submitted, late, cancelled, looks
    ):
        faults = [] if late is None else [AnswerLost("next", late=late)]
        world = World(Scenario({"up": outcome}, faults=faults), jobs=())
        up = make("up", members=2)
        handle = world.take(up)
        behind = make("next", members=2, after=[edge(up, handle, condition)])
        third = make("third", after=[edge(behind, "", "success"), edge(up, handle, condition)])
        acts = [
            (submitted, 0),
            *((second, 1) for second in looks),
            *([(cancelled, 2)] if cancelled is not None else []),
        ]
        for second, act in sorted(acts):
            world.at(second)
            if act == 2:
                world.connections[1].cancel([handle])
            elif act == 1:
                world.poll(*world.handles.values(), by=1)
            elif late is None:
                world.take(behind)
            else:
                with pytest.raises(TransientError):
                    world.submit(behind)
            world.see_starts()
        arrived = submitted + (late or 0.0)
        world.at(max(second for second, _ in [*acts, (arrived, 0)])).find(behind)
        third_handle = world.take(third)
        seen, last = world.at(LATER).poll(handle, world.handles[behind.key])
        good = all(one.state is State.SUCCEEDED and not one.signals for one in seen.members) and seen.is_over
        ends = up.key not in world.scheduler.running()
        holds = ends and {"success": good, "failure": not good, "any": True}[condition]
        starts = {start: at for start, at in world.scheduler.starts().items() if start.job == "next"}
        assert len(starts) == (2 if holds else 0)
        if holds:
            begun = {one.started or "" for one in last.members}
            ended = max((one.ended or "" for one in seen.members), default="")
            assert begun == {world.clock.iso(at) for at in starts.values()}
            assert min(starts.values()) >= arrived
            assert min(begun) >= ended
        elif ends:
            assert [one.state for one in last.members] == [State.CANCELLED] * 2
            [member] = world.look(third_handle).members
            assert member.state is State.CANCELLED
        else:
            assert [one.state for one in last.members] == [State.PENDING] * 2


class TestE3:
    """Silence is said to be silence; whatever is asked for is answered."""

    @often
    @given(scenarios(faults=HARMLESS | FORGETFUL), CALLS)
    def test_e3_a_call_fails_while_the_scheduler_is_down_and_is_answered_else(self, scenario, calls):
        world = World(scenario)
        for call in calls:
            before = len(world.answers), len(world.seen), len(world.pieces)
            answered = world.play(call)
            assert answered is not is_down(world)
            assert answered or before == (len(world.answers), len(world.seen), len(world.pieces))

    def test_e3_each_call_fails_while_the_scheduler_is_down(self):
        world, job = World(Scenario(faults=[Down(5, 10)])), make()
        handle = world.take(job)
        world.at(5)
        for backend in world.connections:
            for call in (
                lambda backend: list(backend.submit([make("b")])),
                lambda backend: backend.find([job]),
                lambda backend: backend.poll([handle]),
                lambda backend: backend.poll([NOBODY]),
                lambda backend: backend.cancel([handle]),
                lambda backend: backend.kill([handle]),
                lambda backend: backend.release([handle]),
                lambda backend: backend.read_log(handle, 0, "out", 0, 99, 0),
            ):
                with pytest.raises(TransientError):
                    call(backend)
        assert world.at(10).find(job, make("b")) == {job.key: handle}
        assert world.look(handle).members[0].state is State.RUNNING

    def test_e3_what_is_not_there_is_unknown_beside_what_is(self):
        world = World()
        handle = world.take(make())
        first, seen, last = world.poll(NOBODY, handle, f"{NOBODY}-2")
        assert (first, last) == (UNKNOWN, UNKNOWN)
        assert seen.members[0].state is State.RUNNING
        assert world.poll() == []
        assert world.find(make("b"), make()) == {make().key: handle}

    def test_e3_what_vanished_is_unknown(self):
        world = World(Scenario({"a": Vanishes(after=5)}, faults=[Amnesia(1, 2)]))
        handle = world.take(make())
        looks = [world.at(second).look(handle) for second in (0, 1, 2, 5, LATER)]
        assert [bool(seen.members) for seen in looks] == [True, False, True, False, False]


def rank(state: State) -> int:
    return [State.PENDING, State.RUNNING].index(state) if not state.is_final else 2


class TestE4:
    """States move forward within an incarnation, and what is final stays."""

    @often
    @given(scenarios(), CALLS)
    def test_e4_states_move_forward_and_ends_stay(self, scenario, calls):
        world = played(scenario, calls)
        for second in (1, 8, 50, LATER):
            world.at(world.clock.seconds + second)
            if not is_down(world):
                world.poll(*world.handles.values())
        for key in world.handles:
            told = world.told(key)
            for before, after in itertools.pairwise(told):
                assert before.incarnation <= after.incarnation
                if before.is_over:
                    assert after == before
                if before.incarnation == after.incarnation:
                    for one, other in zip(before.members, after.members, strict=True):
                        assert rank(one.state) <= rank(other.state)
                        assert one == other or not one.state.is_final
                        assert one.started in (None, other.started)

    @often
    @given(scenarios(), CALLS)
    def test_e4_what_is_told_of_a_member_fits_together(self, scenario, calls):
        world = played(scenario, calls)
        for member in (member for one in world.seen for member in one.observation.members):
            assert (member.started is None) is (member.state in (State.PENDING, State.CANCELLED))
            assert (member.ended is None) is (not member.state.is_final)
            assert (member.started or "") <= (member.ended or member.started or "") <= world.clock.iso(LATER)
            assert member.state.is_final or member.exit_code is None
            if member.state is State.SUCCEEDED:
                assert (member.exit_code, member.reason) == (0, None)

    def test_e4_a_requeue_is_no_end(self):
        world = World(Scenario({"a": Preempted(after=5, then=Succeeds(queued=5, after=5))}))
        handle = world.take(make())
        looks = [world.at(second).look(handle) for second in (4, 5, 10, 15)]
        assert [(seen.incarnation, seen.members[0].state.value) for seen in looks] == [
            (0, "RUNNING"),
            (1, "PENDING"),
            (1, "RUNNING"),
            (1, "SUCCEEDED"),
        ]

    @often
    @given(scenarios(), CALLS, st.integers(2, 4))
    def test_e4_a_stale_scheduler_breaks_this_alone_and_only_by_answers_of_before(self, scenario, calls, every):
        stale = played(attrs.evolve(scenario, faults=(*scenario.faults, Stale(every))), [])
        true = played(scenario, [])
        calls = [call for call in calls if call.name not in ("release", "read_log")]  # they follow what was told
        for call in calls:
            assert stale.play(call) is true.play(call)
        assert (stale.answers, stale.handles, stale.starts) == (true.answers, true.handles, true.starts)
        for key in true.handles:
            told, truths = ([one.observation for one in world.seen if one.key == key] for world in (stale, true))
            assert len(told) == len(truths)
            for number, (seen, truth) in enumerate(zip(told, truths, strict=True), 1):
                others = [one for one in truths[:number] if one != truth]
                assert seen == truth or (number % every == 0 and seen == others[-1])

    def test_e4_a_stale_scheduler_tells_old_answers(self):
        world = World(Scenario({"a": Fails(3, after=5, queued=2)}, faults=[Stale(2)]))
        handle = world.take(make())
        looks = [world.at(second).look(handle).members[0].state.value for second in (0, 1, 2, 7, 8, 9)]
        assert looks == ["PENDING", "PENDING", "RUNNING", "RUNNING", "FAILED", "RUNNING"]


def is_recorded(seen: Observation) -> bool:
    """Whether every member's program ended where its shim could write it down."""
    kinds = {one.reason.kind for one in seen.members if one.reason}
    return seen.is_over and all(one.started for one in seen.members) and not kinds & UNRECORDED


class TestE5:
    """How a program ended is told as long as a record of it stays."""

    @often
    @given(scenarios(), CALLS)
    def test_e5_an_end_survives_that_it_is_forgotten_and_released(self, scenario, calls):
        world = played(scenario, calls)
        ends = {key: seen[-1] for key in world.handles if (seen := world.told(key)) and is_recorded(seen[-1])}
        world.at(LATER)
        for _ in range(2):
            for key, end in ends.items():
                job = next(job for job in world.jobs if job.key == key)
                assert world.find(job, by=1) == {key: world.handles[key]}
                assert world.poll(world.handles[key], by=1) == [end]
            world.connections[0].release(list(world.handles.values()))

    @pytest.mark.parametrize("faults", [[], [Forgets(0)]])
    @pytest.mark.parametrize("code", [1, 3, 126, 127, 137, 255])
    def test_e5_an_exit_code_and_its_reason_are_the_programs_own(self, code, faults):
        world = World(Scenario({"a": Fails(code, after=5)}, faults=faults))
        handle = world.take(make())
        [member] = world.at(LATER).look(handle).members
        assert (member.state, member.exit_code, member.reason) == (State.FAILED, code, exit_reason(code))

    def test_e5_a_job_over_its_time_fails_with_that_reason(self):
        world = World(Scenario({"b": Hangs()}))
        handle = world.take(make("b", timeout_seconds=8))
        assert world.at(7.9).look(handle).members[0].state is State.RUNNING
        [member] = world.at(8).look(handle).members
        assert member.reason is not None
        assert (member.state, member.reason.kind) == (State.FAILED, ReasonKind.TIMEOUT)

    @pytest.mark.parametrize("outcome", [NodeLost(after=5), Preempted(after=5)])
    def test_e5_an_end_without_a_record_becomes_unknown_and_no_other_end(self, outcome):
        world = World(Scenario({"a": outcome}, faults=[Forgets(10)]))
        handle = world.take(make())
        assert world.at(14).look(handle).is_over
        assert world.at(15).look(handle) == UNKNOWN


class TestE6:
    """Only the engine says LOST."""

    @often
    @given(scenarios(faults=FAULTS | st.builds(Stale, st.integers(2, 3))), CALLS)
    def test_e6_a_poll_says_what_it_may_say_alone(self, scenario, calls):
        world = played(scenario, calls)
        world.at(LATER).poll(*world.handles.values())
        assert {member.state for one in world.seen for member in one.observation.members} <= OBSERVABLE


def was_stopped(member: MemberObservation) -> bool:
    """Whether an end can be told from one that nobody asked for: that of a node cannot, and is no success."""
    lost = member.reason is not None and member.reason.kind is ReasonKind.NODE_FAILURE
    return member.state is State.CANCELLED or "TERM" in member.signals or lost


class TestE7:
    """A cancel ends what has not ended, once, and leaves alone what has."""

    @often
    @given(
        outcome=REQUEUED | groups(UNSURE),
        cancelled=SHORT,
        repeats=st.lists(SHORT, max_size=3),
        at_once=st.booleans(),
    )
    @example(Succeeds(after=4, stops_after=2), 3.0, [], False)
    @example(Fails(3, after=4, stops_after=2), 3.0, [], False)
    def test_e7_what_runs_ends_as_stopped_and_what_has_ended_stays(self, outcome, cancelled, repeats, at_once):
        job = make(members=2)
        world, other = World(Scenario({"a": outcome})), World(Scenario({"a": outcome}))
        handle = world.take(job)
        assert other.take(job) == handle
        before = other.at(cancelled).look(handle)
        world.at(cancelled)
        getattr(world.connections[0], "kill" if at_once else "cancel")([handle])
        ended = world.at(cancelled + (0 if at_once else GRACE)).look(handle)
        assert ended.is_over or ended == UNKNOWN
        assert ended.incarnation == before.incarnation or ended == UNKNOWN
        if before.is_over:
            assert ended == before
        for number, member in enumerate(ended.members):
            if before.members and before.members[number].state.is_final:
                assert member == before.members[number]
            else:
                assert was_stopped(member), member
        for second in sorted(repeats):
            world.at(world.clock.seconds + second)
            world.connections[1].cancel([handle])
            world.connections[0].kill([handle])
            assert world.look(handle) == ended
        assert world.at(LATER).look(handle) == ended
        assert not world.scheduler.running()

    @often
    @given(outcome=groups(PROGRAMS), cancelled=SHORT, repeats=st.lists(st.floats(0, GRACE), max_size=3))
    def test_e7_a_cancel_that_is_repeated_puts_nothing_off(self, outcome, cancelled, repeats):
        worlds = once, again = World(Scenario({"a": outcome})), World(Scenario({"a": outcome}))
        [handle] = {world.take(make(members=2)) for world in worlds}
        for world in worlds:
            world.at(cancelled).connections[0].cancel([handle])
        for second in sorted(repeats):
            again.at(cancelled + second).connections[1].cancel([handle])
        assert again.at(LATER).look(handle) == once.at(LATER).look(handle)

    @pytest.mark.parametrize(
        ("outcome", "at_once", "code", "seconds"),
        [
            (Hangs(stops_after=2), False, 143, 2),
            (Hangs(stops_after=50), False, 137, GRACE),
            (Hangs(stops_after=2), True, 137, 0),
            (Succeeds(after=7, stops_after=50), False, 0, 2),
            (Fails(3, after=7, stops_after=50), False, 3, 2),
        ],
    )
    def test_e7_a_signal_is_noted_and_a_stubborn_program_is_killed_after_its_grace(
        self, outcome, at_once, code, seconds
    ):
        world = World(Scenario({"a": outcome}))
        handle = world.take(make())
        backend = world.at(5).connections[1]
        (backend.kill if at_once else backend.cancel)([handle])
        [member] = world.at(LATER).look(handle).members
        assert (member.exit_code, member.signals) == (code, ("TERM",))
        assert member.ended == world.clock.iso(5 + seconds)

    def test_e7_what_waits_is_cancelled_and_never_starts(self):
        world = World(Scenario({"a": Succeeds(queued=9)}))
        handle = world.take(make(members=2))
        world.at(5).connections[1].cancel([handle, NOBODY])
        assert [member.state for member in world.look(handle).members] == [State.CANCELLED] * 2
        assert world.at(LATER).scheduler.starts() == {}


class TestE8:
    """A log is read by offset, each piece as often as one likes, of each incarnation and member apart."""

    @often
    @given(scenarios(faults=HARMLESS | st.builds(AnswerLost, st.just("a"))), CALLS, st.integers(1, 9))
    def test_e8_every_piece_ever_read_is_a_piece_of_the_whole(self, scenario, calls, limit):
        world = played(scenario, calls)
        world.at(LATER).find(*world.jobs)
        backend = world.connect()
        for handle, start, offset, piece in world.pieces:
            log = whole(backend, handle, start, limit)
            assert log == whole(backend, handle, start, 1000)
            assert piece == log[offset : offset + len(piece)]
        for start in world.scheduler.starts():
            log = whole(backend, world.handles[Key(NONCE, start.job, start.attempt)], start, limit)
            name = f"{start.job} {start.attempt}.{start.incarnation}.{start.member} "
            assert log.decode().startswith(f"{name}begins\n")
            assert all(line.startswith(name) for line in log.decode().splitlines())

    def test_e8_lines_can_be_read_while_a_program_runs_and_the_rest_later(self):
        world = World(Scenario({"a": Fails(3, after=5)}))
        handle = world.take(make())
        start = Start("a", 0, 0, 0)
        log = whole(world.connections[0], handle, start)
        assert log == b"a 0.0.0 begins\n"
        assert world.connections[1].read_log(handle, 0, "out", len(log), 99, 0) == b""
        assert world.at(5).connections[1].read_log(handle, 0, "out", len(log), 99, 0) == b"a 0.0.0 ends with 3\n"
        assert whole(world.connections[0], handle, start) == b"a 0.0.0 begins\na 0.0.0 ends with 3\n"

    def test_e8_an_earlier_incarnations_log_stays(self):
        world = World(Scenario({"a": Preempted(after=5, then=Succeeds(after=5))}))
        handle = world.take(make())
        logs = [whole(world.at(LATER).connections[1], handle, Start("a", 0, number, 0)) for number in (0, 1)]
        assert logs == [b"a 0.0.0 begins\n", b"a 0.1.0 begins\na 0.1.0 ends with 0\n"]

    @pytest.mark.parametrize("stream", ["err", "out.1", "err.1"])
    def test_e8_another_stream_is_empty(self, stream):
        world = World()
        handle = world.take(make())
        assert world.connections[0].read_log(handle, 0, stream, 0, 99, 0) == b""

    def test_e8_of_what_is_not_there_is_nothing_to_read(self):
        world = World(Scenario({"a": Preempted(after=5, then=Succeeds())}))
        handle = world.take(make())
        world.at(2).connections[0].cancel([handle])
        for asked, incarnation, member in ((NOBODY, 0, 0), (handle, 1, 0), (handle, 0, 1)):
            assert world.connections[1].read_log(asked, member, "out", 0, 99, incarnation) == b""


class Killed(BaseException):
    """A driver is dead."""


class TestE9:
    """Jobs go on without whoever submitted them."""

    @often
    @given(scenarios(), CALLS, st.integers(1, 5))
    def test_e9_who_watches_makes_no_difference(self, scenario, calls, every):
        staying, leaving = World(scenario), World(scenario)
        for number, call in enumerate(calls):
            assert staying.play(call) is leaving.play(call)
            if number % every == 0:
                for backend in leaving.connections:
                    backend.close()
                    backend.close()
                leaving.connections = [leaving.connect(), leaving.connect()]
        for world in (staying, leaving):
            world.at(LATER).poll(*world.handles.values())
        assert sorted(map(str, leaving.seen)) == sorted(map(str, staying.seen))
        assert (leaving.pieces, leaving.starts) == (staying.pieces, staying.starts)

    @pytest.mark.parametrize("point", range(4))
    def test_e9_a_job_goes_on_when_its_driver_dies_at_any_step(self, point):
        world, jobs, count = World(Scenario({"a": Fails(3, after=5)})), [make("a"), make("b")], iter(range(9))

        def step(label: str) -> None:
            if next(count) == point:
                raise Killed(label)

        with pytest.raises(Killed):
            list(Connection(world.scheduler, step, world.rests.append).submit(jobs))
        taken = (point + 1) // 2
        assert list(world.find(*jobs, by=1)) == [job.key for job in jobs[:taken]]
        assert list(world.at(LATER).scheduler.starts().values()) == [0.0] * taken
        for job in jobs[:taken]:
            assert world.look(world.handles[job.key]).is_over


class TestE12:
    """Any number of jobs costs one question."""

    @pytest.mark.parametrize("count", [0, 1, 20, 1000])
    def test_e12_each_call_asks_the_scheduler_once_for_any_number(self, count):
        world, jobs = World(), [make(str(number)) for number in range(count)]
        world.submit(*jobs)
        handles = list(world.find(*jobs).values())
        assert len(handles) == count
        for backend in world.connections:
            backend.poll(handles)
            backend.wait(handles, 5.0)
            backend.cancel(handles)
            backend.kill(handles)
            backend.release(handles)
        both = dict.fromkeys(("poll", "cancel", "kill", "release"), 2)
        assert world.scheduler.calls == {"submit": 1, "find": 1, **both}

    def test_e12_a_slow_scheduler_takes_its_time_once_a_call(self):
        world = World(Scenario(faults=[Slow(2)]))
        world.submit(*(make(str(number)) for number in range(20)))
        world.poll(*world.handles.values())
        assert world.clock.seconds == 4

    @often
    @given(scenarios(faults=FORGETFUL))
    def test_e12_a_wait_tells_every_change_and_when_the_next_may_be(self, scenario):
        world, told = World(scenario), {}
        world.submit(*JOBS)
        handles = list(world.handles.values())
        for _ in range(8):
            changed = world.connections[1].wait(handles, 30.0)
            seen = dict(zip(handles, world.poll(*handles, by=1), strict=True))
            assert set(changed) == {handle for handle in handles if seen[handle] != told.get(handle)}
            assert (world.rests[-1] == 0) is bool(changed)
            told = seen
            assert world.connections[1].wait(handles, 30.0) == []
            rest = world.rests[-1]
            assert 0 < rest <= 30
            now = world.clock.seconds
            assert dict(zip(handles, world.at(now + rest * 0.99).poll(*handles), strict=True)) == told
            world.at(now + rest)


class TestE14:
    """What carries another key is not touched, whatever it is called."""

    @often
    @given(
        scenarios(faults=SPANS.map(lambda span: Down(*span)) | st.builds(Forgets, SHORT)),
        CALLS,
        st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 3)), min_size=1, max_size=25),
    )
    def test_e14_calls_for_others_change_nothing_of_mine(self, scenario, calls, theirs):
        alone, shared = World(scenario), World(scenario)
        others = [attrs.evolve(job, key=job.key._replace(nonce=STRANGER)) for job in JOBS]
        stranger = World(scenario, jobs=others, scheduler=shared.scheduler)
        for number, call in enumerate(calls):
            assert alone.play(call) is shared.play(call)
            name, job = theirs[number % len(theirs)]
            stranger.play(Call(name, job, call.connection, 0.0))
            stranger.play(Call("poll", job, call.connection, 0.0))
        assert sorted(map(str, shared.seen)) == sorted(map(str, alone.seen))
        assert (shared.answers, shared.pieces) == (alone.answers, alone.pieces)
        assert not set(shared.handles.values()) & set(stranger.handles.values())

    def test_e14_only_the_full_key_is_found(self):
        world = World()
        handle = world.take(make())
        strangers = [make(nonce=STRANGER), make(attempt=1), make("a.0"), make("A"), make("é")]
        assert world.find(make(), *strangers, by=1) == {make().key: handle}
        handles = {handle, *(world.take(job, by=1) for job in strangers)}
        assert len(handles) == 6

    def test_e14_a_handle_that_is_not_there_is_no_title(self):
        world = World()
        handle = world.take(make())
        for backend in world.connections:
            for call in (backend.cancel, backend.kill, backend.release):
                call([NOBODY, "a.0", "a", str(make(nonce=STRANGER).key)])
        assert world.look(handle).members[0].state is State.RUNNING


class TestE15:
    """All members of a group start at one moment, or none does."""

    @often
    @given(REQUEUED | groups(UNSURE, 3), st.lists(st.sampled_from([1.0, 2.0, 5.0]), max_size=8), st.none() | SHORT)
    def test_e15_a_group_starts_as_one(self, outcome, passes, cancelled):
        world = World(Scenario({"a": outcome}))
        handle = world.take(make(members=3))
        for seconds in [0.0, *passes, LATER]:
            world.at(world.clock.seconds + seconds)
            if cancelled is not None and world.clock.seconds >= cancelled:
                world.connections[0].cancel([handle])
            seen = world.look(handle)
            assert len({(member.state is State.PENDING, member.started) for member in seen.members}) <= 1
        starts = defaultdict(list)
        for start, second in world.scheduler.starts().items():
            starts[start.incarnation].append(second)
        assert all(len(seconds) == 3 and len(set(seconds)) == 1 for seconds in starts.values())

    def test_e15_a_group_has_one_handle_and_ends_of_its_own(self):
        world = World(Scenario({"a": Members([Succeeds(after=5), Fails(3, after=9)], queued=2)}))
        handle = world.take(make(members=2))
        assert world.find(make(members=2), by=1) == {make().key: handle}
        codes = [[one.exit_code for one in world.at(second).look(handle).members] for second in (2, 7, 11)]
        assert codes == [[None, None], [0, None], [0, 3]]


class TestE13AndE11:
    """A rendering is all the text that there is."""

    @given(scenarios(), st.sampled_from(JOBS))
    @settings(max_examples=20)
    def test_e13_a_rendering_can_be_repeated_and_asks_nobody(self, scenario, job):
        world = World(attrs.evolve(scenario, faults=[Down(0, math.inf)]))
        first, second = (list(backend.render(job)) for backend in world.connections)
        assert first == second
        assert all(document.name and document.text for document in first)
        assert (world.scheduler.calls, world.steps, world.scheduler.entries) == ({}, [], {})

    def test_e13_renderings_of_two_jobs_differ(self):
        first, second = (list(World().connections[0].render(make(name))) for name in "ab")
        assert first != second

    def test_e11_a_rendering_holds_no_secret(self, monkeypatch):
        monkeypatch.setenv("TOKEN", "wq8-very-secret")
        job = make(env_vars={"TOKEN": Secret.from_env("TOKEN")})
        [document] = World().connections[0].render(job)
        assert "TOKEN" in document.text
        assert "wq8-very-secret" not in document.text


class TestE16:
    """What cannot be honoured is refused before anything is created."""

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("grace_seconds", -1.0),
            ("timeout_seconds", float("nan")),
            ("lost_after_seconds", math.inf),
            ("retries", -1),
            ("retry_on", frozenset({"bad luck"})),
            ("env_vars", {"A=B": "x"}),
            ("outputs", ["../up"]),
            ("poll_seconds", -1.0),
        ],
    )
    def test_e16_a_value_that_makes_no_sense_is_refused_at_add(self, field, value, nemorun_home):
        executor = SimulatedExecutor(**{field: value})
        with run.Experiment("laws", executor) as experiment, pytest.raises(UsageError, match=field):
            experiment.add(run.Script(inline="exit 0"), name="a")
        assert [path for path in nemorun_home.rglob("*") if path.is_file()] == []

    @pytest.mark.parametrize(
        ("field", "value"), [("timeout_seconds", 5.0), ("separate_stderr", True), ("outputs", ["*.pt"])]
    )
    def test_e16_what_is_declared_is_taken(self, field, value):
        SimulatedExecutor(shares_files=False, **{field: value}).check()

    def test_e16_there_is_no_backend_to_run_with(self):
        with pytest.raises(UsageError, match="simulate"):
            SimulatedExecutor().backend()

    def test_e16_equal_executors_share_a_connection(self):
        executor = SimulatedExecutor(native_edges=True)
        assert executor.clone().connection() == executor.connection()
        assert executor.connection() != SimulatedExecutor(name="other").connection()
