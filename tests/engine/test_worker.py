"""The thread that alone calls a backend, against a scheduler that answers late, wrongly, or not at all."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

import attrs
import pytest

from nemorun_core.contracts.backend import After, Backend, Member, Submission
from nemorun_core.contracts.capabilities import Capabilities
from nemorun_core.contracts.executor import Executor
from nemorun_core.contracts.observation import UNKNOWN, Accepted, Deferred, Observation, Rejected
from nemorun_core.engine import backing_off, worker
from nemorun_core.engine.events import Delayed, Lost, Observed, Refused, Submitted, Warned, Withdrawn
from nemorun_core.engine.worker import Worker
from nemorun_core.errors import TransientError, UsageError
from nemorun_core.model.key import Key
from nemorun_core.model.state import Condition, Reason, ReasonKind, State
from nemorun_core.store.lock import Overtaken
from tests.engine.graphs import ended, running

LIMIT = Reason(ReasonKind.LIMIT, "quota")


class Scheduler(Backend):
    """Holds what it took, by job; tests script what each call does first. Notes calls that overlap."""

    def __init__(self):
        self.taken: dict[str, Observation] = {}
        self.calls: list[str] = []
        self.scripts: dict[str, list[Callable[[], object]]] = {}
        self.overlapped = False
        self.closed = False
        self._busy = threading.Lock()

    def _called(self, name):
        self.calls.append(name)
        if not self._busy.acquire(blocking=False):
            self.overlapped = True
            return
        try:
            script = self.scripts.get(name)
            if script:
                script.pop(0)()
        finally:
            self._busy.release()

    def render(self, job):
        return []

    def submit(self, jobs):
        for job in jobs:
            self._called("submit")
            yield job.key, self.take(job.key.job)
            self._called("submitted")

    def take(self, name):
        assert name not in self.taken, "submitted twice"
        self.taken[name] = Observation(members=(running(),))
        return Accepted(f"handle of {name}")

    def find(self, jobs):
        self._called("find")
        return {job.key: f"handle of {job.key.job}" for job in jobs if job.key.job in self.taken}

    def poll(self, handles):
        self._called("poll")
        return {handle: self.taken.get(handle.removeprefix("handle of "), UNKNOWN) for handle in handles}

    def cancel(self, handles):
        self._called("cancel")
        for handle in handles:
            self.taken[handle.removeprefix("handle of ")] = Observation(members=(ended(143, signals=["TERM"]),))

    def release(self, handles):
        self._called("release")

    def close(self):
        self.closed = True


@attrs.define(kw_only=True)
class Scripted(Executor):
    scheduler: Scheduler = attrs.field(factory=Scheduler)
    cannot: Exception | None = None
    largest: int | None = None

    def capabilities(self):
        return Capabilities(shares_files=True, poll_interval_seconds=0.01, largest_batch=self.largest)

    def connection(self):
        return "scripted"

    def backend(self):
        if self.cannot:
            raise self.cannot
        return self.scheduler


class Driven:
    """A worker and what it reported."""

    def __init__(self, executor):
        self.executor = executor
        self.scheduler = executor.scheduler
        self.events = []
        self.check = lambda: None
        self.edges = lambda job: ()
        self.worker = self.make()

    def make(self, **options):
        return Worker(
            self.executor, self.build, self.report, lambda: self.check(), lambda job: self.edges(job), **options
        )

    def report(self, events):
        self.events.extend(events)

    def build(self, job, attempt):
        if job == "unbuildable":
            raise UsageError("its plugin is not installed")
        return Submission(
            key=Key("0123456789abcdef", job, attempt),
            members=(Member(argv=("true",), environment={}, cwd="/"),),
            executors=(self.executor,),
            folder="/nowhere",
            support="/nowhere",
        )

    def submit(self, *names):
        self.worker.submit([(name, 0) for name in names])

    def until(self, condition):
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, self.events
            time.sleep(0.002)

    def expect(self, event):
        self.until(lambda: event in self.of(type(event)))

    def of(self, kind):
        return [event for event in list(self.events) if type(event) is kind]

    def end(self, name, code=0):
        self.scheduler.taken[name] = Observation(members=(ended(code),))


@pytest.fixture
def driven(monkeypatch):
    for module in (backing_off, worker):
        monkeypatch.setattr(module, "FIRST_SECONDS", 0.01)
    driven = Driven(Scripted(lost_after_seconds=60.0))
    started = []

    def start(**options):
        if options:
            driven.worker = driven.make(**options)
        driven.worker.start()
        started.append(driven.worker)
        return driven

    driven.start = start
    yield driven
    for one in started:
        one.stop()
        one.join(10)
        assert not one.is_alive()
    assert not driven.scheduler.overlapped
    assert driven.scheduler.closed or not started or driven.executor.cannot


def fail(error):
    def raise_it():
        raise error

    return raise_it


def test_a_job_is_submitted_watched_and_its_end_reported(driven):
    driven.start().submit("a")
    driven.expect(Submitted("a", 0, "handle of a"))
    driven.expect(Observed("a", 0, 0, (running(),)))
    driven.end("a", 3)
    driven.expect(Observed("a", 0, 0, (ended(3),)))


@pytest.mark.parametrize(("largest", "sizes"), [(None, [64, 36]), (1000, [100]), (30, [30, 30, 30, 10])])
def test_a_backend_is_offered_as_many_jobs_at_once_as_it_declares(driven, monkeypatch, largest, sizes):
    offered = []
    submit = driven.scheduler.submit

    def counted(jobs):
        offered.append(len(jobs))
        return submit(jobs)

    monkeypatch.setattr(driven.scheduler, "submit", counted)
    driven.executor.largest = largest
    driven.start(submits=True).submit(*[f"job{number}" for number in range(100)])
    driven.until(lambda: len(driven.of(Submitted)) == 100)
    assert offered == sizes


def test_jobs_that_a_call_did_not_answer_for_are_offered_again(driven, monkeypatch):
    submit = driven.scheduler.submit
    monkeypatch.setattr(driven.scheduler, "submit", lambda jobs: submit(jobs[-2:]))
    driven.start().submit(*"abcde")
    driven.until(lambda: len(driven.of(Submitted)) == 5)
    assert [event.job for event in driven.of(Submitted)] == list("debca")


def test_what_did_not_change_is_reported_once(driven):
    driven.start().submit("a")
    driven.until(lambda: driven.scheduler.calls.count("poll") > 10)
    assert len(driven.of(Observed)) == 1


def test_many_jobs_are_asked_about_in_one_call(driven):
    """E12."""
    driven.submit(*map(str, range(50)))
    driven.start()
    driven.until(lambda: len(driven.of(Observed)) == 50)
    before = driven.scheduler.calls.count("poll")
    assert before < 10


def test_a_job_that_was_taken_though_the_answer_was_lost_is_adopted_and_not_submitted_again(driven):
    """E2."""
    driven.scheduler.scripts["submitted"] = [fail(TransientError("no answer"))]
    driven.scheduler.scripts["submit"] = [lambda: None]
    original = driven.scheduler.take
    driven.scheduler.take = lambda name: (original(name), fail(TransientError("the answer was lost"))())
    driven.start().submit("a")
    driven.expect(Submitted("a", 0, "handle of a"))
    assert driven.scheduler.calls.count("submit") == 1
    assert driven.scheduler.calls.index("find") > driven.scheduler.calls.index("submit")


def test_a_job_that_was_not_taken_when_the_connection_broke_is_submitted_after_a_look(driven):
    driven.scheduler.scripts["submit"] = [fail(TransientError("no route"))]
    driven.start().submit("a")
    driven.expect(Submitted("a", 0, "handle of a"))
    assert [call for call in driven.scheduler.calls if call in ("submit", "find")] == ["submit", "find", "submit"]


def test_jobs_answered_before_the_connection_broke_keep_their_answers(driven):
    driven.scheduler.scripts["submit"] = [lambda: None, fail(TransientError("no route"))]
    driven.submit("a", "b", "c")
    driven.start()
    driven.until(lambda: len(driven.of(Submitted)) == 3)
    assert sorted(driven.scheduler.taken) == ["a", "b", "c"]
    assert len(set(driven.of(Submitted))) == 3


def test_a_failed_query_is_no_state_and_is_asked_again(driven):
    """E3."""
    driven.scheduler.scripts["poll"] = [fail(TransientError("busy"))] * 3
    driven.start().submit("a")
    driven.expect(Observed("a", 0, 0, (running(),)))
    assert not driven.of(Lost)
    assert driven.scheduler.calls.count("poll") >= 4


def test_a_job_unknown_for_less_than_its_time_is_not_lost(driven):
    driven.start().submit("a")
    driven.expect(Observed("a", 0, 0, (running(),)))
    kept = driven.scheduler.taken.pop("a")
    before = driven.scheduler.calls.count("poll")
    driven.until(lambda: driven.scheduler.calls.count("poll") > before + 5)
    driven.scheduler.taken["a"] = kept
    driven.end("a")
    driven.expect(Observed("a", 0, 0, (ended(),)))
    assert not driven.of(Lost)


def test_a_job_unknown_for_its_time_is_lost(driven):
    """E6."""
    driven.executor.lost_after_seconds = 0.05
    driven.start().submit("a")
    driven.expect(Observed("a", 0, 0, (running(),)))
    begun = time.monotonic()
    driven.scheduler.taken.pop("a")
    driven.expect(Lost("a", 0))
    assert time.monotonic() - begun >= 0.05


def test_time_in_which_the_scheduler_does_not_answer_does_not_make_a_job_lost(driven):
    driven.executor.lost_after_seconds = 0.0
    driven.start().submit("a")
    driven.expect(Observed("a", 0, 0, (running(),)))
    driven.scheduler.scripts["poll"] = [fail(TransientError("down"))] * 5
    driven.until(lambda: not driven.scheduler.scripts["poll"])
    driven.end("a")
    driven.expect(Observed("a", 0, 0, (ended(),)))
    assert not driven.of(Lost)


UNREACHED = "Scripted does not answer, and is asked again: down"


def warnings(driven):
    return [event.text for event in driven.of(Warned)]


@pytest.mark.parametrize("call", ["submit", "find", "poll", "cancel"])
def test_a_scheduler_that_did_not_answer_twice_running_is_warned_of_once(driven, call):
    """Once is a hiccup; and whoever has heard of it need not hear of it each minute."""
    driven.start().submit("a")
    if call in ("poll", "cancel"):
        driven.expect(Submitted("a", 0, "handle of a"))
    driven.scheduler.scripts[call] = [fail(TransientError("down"))] * 6
    if call in ("submit", "find"):
        driven.worker.adopt([(("b", 0), None)])
    if call == "cancel":
        driven.worker.cancel(["handle of a"])
    driven.until(lambda: not driven.scheduler.scripts[call])
    driven.submit("last")
    driven.expect(Submitted("last", 0, "handle of last"))
    assert warnings(driven) == [UNREACHED]


def test_a_scheduler_that_did_not_answer_once_is_not_warned_of(driven):
    driven.start().submit("a")
    driven.expect(Submitted("a", 0, "handle of a"))
    for _ in range(3):
        driven.scheduler.scripts["poll"] = [fail(TransientError("down"))]
        driven.until(lambda: not driven.scheduler.scripts["poll"])
        before = driven.scheduler.calls.count("poll")
        driven.until(lambda before=before: driven.scheduler.calls.count("poll") > before)
    assert warnings(driven) == []


def test_a_scheduler_that_fails_anew_is_warned_of_anew(driven):
    driven.start().submit("a")
    driven.expect(Submitted("a", 0, "handle of a"))
    for times in (1, 2):
        driven.scheduler.scripts["poll"] = [fail(TransientError("down"))] * 3
        driven.until(lambda: not driven.scheduler.scripts["poll"])
        before = driven.scheduler.calls.count("poll")
        driven.until(lambda before=before: driven.scheduler.calls.count("poll") > before + 1)
        assert warnings(driven) == [UNREACHED] * times


def test_jobs_that_wait_for_a_scheduler_that_does_not_answer_say_so(driven):
    driven.scheduler.scripts["submit"] = [fail(TransientError("down"))]
    driven.scheduler.scripts["find"] = [fail(TransientError("down"))]
    driven.submit("a", "b")
    driven.start()
    driven.expect(Delayed((("a", 0), ("b", 0)), Reason(ReasonKind.WAITING, UNREACHED)))
    driven.until(lambda: len(driven.of(Submitted)) == 2)


def test_a_scheduler_that_tells_of_no_news_and_answers_nothing_either_is_warned_of(driven, monkeypatch):
    """What waits for news asks nothing by itself."""
    monkeypatch.setattr(Scripted, "capabilities", lambda self: Capabilities(shares_files=True, wait=True))
    driven.worker = driven.make()
    monkeypatch.setattr(Scheduler, "wait", lambda self, handles, timeout_seconds: fail(TransientError("down"))())
    driven.start().submit("a")
    driven.expect(Submitted("a", 0, "handle of a"))
    driven.scheduler.scripts["poll"] = [fail(TransientError("down"))] * 4
    driven.until(lambda: driven.of(Warned))


def never_answers(nothing_done):
    def submit(jobs):
        raise TransientError("down", nothing_done=nothing_done)

    return submit


def test_a_job_that_was_surely_not_submitted_is_withdrawn_though_its_scheduler_does_not_answer(driven):
    driven.scheduler.submit = never_answers(nothing_done=True)
    driven.start().submit("a")
    driven.until(lambda: driven.of(Warned))
    driven.worker.withdraw([("a", 0)])
    driven.expect(Withdrawn((("a", 0),)))
    assert "find" not in driven.scheduler.calls


def test_a_job_that_may_have_been_submitted_is_not_withdrawn_before_its_scheduler_answers(driven):
    driven.scheduler.submit = never_answers(nothing_done=False)
    driven.scheduler.scripts["find"] = [fail(TransientError("down"))] * 4
    driven.start().submit("a")
    driven.until(lambda: driven.of(Warned))
    driven.worker.withdraw([("a", 0)])
    driven.expect(Withdrawn((("a", 0),)))
    assert driven.scheduler.scripts["find"] == []


def test_a_limit_that_lasts_is_asked_for_less_and_less_often(driven, monkeypatch):
    answers = [Deferred(LIMIT)] * 5
    moments = []
    original = driven.scheduler.take

    def take(name):
        moments.append(time.monotonic())
        return answers.pop() if answers else original(name)

    driven.scheduler.take = take
    driven.start().submit("a")
    driven.expect(Submitted("a", 0, "handle of a"))
    pauses = [after - before for before, after in itertools.pairwise(moments)]
    assert [pause >= 0.01 * 2**number for number, pause in enumerate(pauses)] == [True] * 5


def test_a_limit_holds_back_all_that_waits_and_they_are_offered_when_a_job_ends(driven):
    original = driven.scheduler.take

    def take_one(name):
        open_ones = [one for one in driven.scheduler.taken.values() if not one.members[0].state.is_final]
        return Deferred(LIMIT) if open_ones else original(name)

    driven.scheduler.take = take_one
    driven.submit("a", "b", "c")
    driven.start()
    driven.expect(Delayed((("b", 0), ("c", 0)), LIMIT))
    assert sorted(driven.scheduler.taken) == ["a"]
    for name in "abc":
        driven.until(lambda name=name: name in driven.scheduler.taken)
        driven.end(name)
    driven.until(lambda: len(driven.of(Submitted)) == 3)


def test_a_limit_that_nothing_here_holds_is_tried_again_after_a_pause(driven):
    answers = [Deferred(LIMIT), Deferred(LIMIT)]
    original = driven.scheduler.take
    driven.scheduler.take = lambda name: answers.pop() if answers else original(name)
    driven.start().submit("a")
    driven.expect(Submitted("a", 0, "handle of a"))


def test_a_refused_job_does_not_stop_the_others(driven):
    original = driven.scheduler.take
    reason = Reason(ReasonKind.IMAGE, "no such image")
    driven.scheduler.take = lambda name: Rejected(reason) if name == "b" else original(name)
    driven.submit("a", "b", "c")
    driven.start()
    driven.expect(Refused("b", 0, reason))
    driven.until(lambda: len(driven.of(Submitted)) == 2)


def test_a_job_that_cannot_be_built_is_refused_and_does_not_stop_the_others(driven):
    driven.submit("unbuildable", "a")
    driven.start()
    driven.expect(Submitted("a", 0, "handle of a"))
    [refused] = driven.of(Refused)
    assert "its plugin is not installed" in str(refused.reason)


def test_a_usage_error_while_submitting_refuses_the_job_with_its_words(driven):
    driven.scheduler.scripts["submit"] = [fail(UsageError("partition 'x' does not exist"))]
    driven.start().submit("a")
    driven.until(lambda: driven.of(Refused))
    assert "partition 'x' does not exist" in str(driven.of(Refused)[0].reason)


def test_a_backend_that_breaks_while_submitting_keeps_what_it_took_and_refuses_the_rest(driven):
    driven.scheduler.scripts["submit"] = [lambda: None, fail(ZeroDivisionError("oops"))]
    driven.submit("a", "b")
    driven.start()
    driven.until(lambda: driven.of(Refused))
    assert [event.job for event in driven.of(Submitted)] == ["a"]
    [refused] = driven.of(Refused)
    assert refused.job == "b"
    assert "ZeroDivisionError: oops" in str(refused.reason)


def test_a_backend_that_breaks_while_it_is_asked_is_warned_of_and_asked_again(driven):
    driven.scheduler.scripts["poll"] = [fail(ZeroDivisionError("oops"))]
    driven.start().submit("a")
    driven.expect(Observed("a", 0, 0, (running(),)))
    assert "oops" in driven.of(Warned)[0].text


def test_a_backend_that_tells_of_another_number_of_members_hurts_nothing(driven):
    """It is the plugin's defect: the driver says so, and believes what is right."""
    driven.start().submit("a")
    driven.expect(Observed("a", 0, 0, (running(),)))
    driven.scheduler.taken["a"] = Observation(members=(ended(), ended()))
    before = driven.scheduler.calls.count("poll")
    driven.until(lambda: driven.scheduler.calls.count("poll") > before + 2)
    driven.end("a", 3)
    driven.expect(Observed("a", 0, 0, (ended(3),)))
    assert {len(event.members) for event in driven.of(Observed)} == {1}
    assert driven.of(Warned)


def test_a_backend_that_cannot_be_opened_refuses_its_jobs(driven):
    driven.executor.cannot = UsageError("docker is not installed")
    driven.start().submit("a")
    driven.until(lambda: driven.of(Refused))
    assert "docker is not installed" in str(driven.of(Refused)[0].reason)


def test_an_overtaken_driver_submits_nothing(driven):
    driven.check = fail(Overtaken("another driver took over"))
    driven.start().submit("a")
    driven.worker.join(10)
    assert not driven.worker.is_alive()
    assert driven.scheduler.taken == {}


def test_a_job_in_doubt_that_is_there_is_adopted(driven):
    driven.scheduler.take("a")
    driven.worker.adopt([(("a", 0), None)])
    driven.start()
    driven.expect(Submitted("a", 0, "handle of a"))
    assert "submit" not in driven.scheduler.calls


def test_a_job_in_doubt_that_is_not_there_is_submitted(driven):
    driven.worker.adopt([(("a", 0), None)])
    driven.start()
    driven.expect(Submitted("a", 0, "handle of a"))
    assert driven.scheduler.calls.index("find") < driven.scheduler.calls.index("submit")


def test_who_only_settles_gives_a_job_back_that_is_not_there(driven):
    driven.start(submits=False)
    driven.worker.adopt([(("a", 0), None)])
    driven.expect(Withdrawn((("a", 0),)))
    assert driven.scheduler.taken == {}


def test_a_job_known_to_have_been_taken_is_followed_though_nobody_finds_it(driven):
    """E6: it may be found later; until then it is unknown, and lost at last."""
    driven.executor.lost_after_seconds = 0.05
    driven.worker.adopt([(("a", 0), "handle of a")])
    driven.start()
    driven.expect(Lost("a", 0))
    assert driven.scheduler.taken == {}


def test_a_withdrawn_job_that_was_not_offered_yet_is_given_back(driven):
    driven.scheduler.take = lambda name: Deferred(LIMIT)
    driven.submit("a", "b")
    driven.start()
    driven.until(lambda: driven.of(Delayed))
    driven.worker.withdraw([("b", 0)])
    driven.expect(Withdrawn((("b", 0),)))


def test_what_must_not_start_any_more_is_given_back_just_before_it_would_be_submitted(driven):
    driven.edges = lambda job: None if job == "b" else ()
    driven.submit("a", "b", "c")
    driven.start()
    driven.expect(Withdrawn((("b", 0),)))
    driven.expect(Submitted("c", 0, "handle of c"))
    assert set(driven.scheduler.taken) == {"a", "c"}


def test_edges_are_handed_over_as_they_stand_when_a_job_is_submitted(driven, monkeypatch):
    monkeypatch.setattr(backing_off, "FIRST_SECONDS", 0.01)
    edge = After(Key("0123456789abcdef", "up", 0), Condition.SUCCESS, "handle of up", "/nowhere", (1,))
    stand, offered = [(edge,), ()], []
    original = driven.scheduler.submit

    def submit(jobs):
        offered.extend(job.after for job in jobs)
        if len(offered) == 1:
            return [(job.key, Deferred(LIMIT)) for job in jobs]
        return original(jobs)

    driven.scheduler.submit = submit
    driven.edges = lambda job: stand.pop(0)
    driven.start().submit("a")
    driven.expect(Submitted("a", 0, "handle of a"))
    assert offered == [(edge,), ()]


def test_a_cancel_that_the_scheduler_did_not_hear_is_repeated(driven):
    driven.scheduler.scripts["cancel"] = [fail(TransientError("busy"))] * 2
    driven.start().submit("a")
    driven.expect(Submitted("a", 0, "handle of a"))
    driven.worker.cancel(["handle of a"])
    driven.until(lambda: any(event.members[0].state is State.FAILED for event in driven.of(Observed)))
    assert driven.scheduler.calls.count("cancel") == 3


def test_a_finished_job_is_released_and_asked_about_no_more(driven):
    driven.start().submit("a")
    driven.expect(Submitted("a", 0, "handle of a"))
    driven.end("a")
    driven.expect(Observed("a", 0, 0, (ended(),)))
    driven.worker.release([(("a", 0), "handle of a")])
    driven.until(lambda: "release" in driven.scheduler.calls)
    before = driven.scheduler.calls.count("poll")
    driven.submit("b")
    driven.expect(Submitted("b", 0, "handle of b"))
    assert driven.scheduler.calls.count("poll") <= before + 3


def test_what_ended_last_is_released_before_the_thread_ends(driven):
    driven.start().submit("a")
    driven.expect(Submitted("a", 0, "handle of a"))
    driven.worker.release([(("a", 0), "handle of a")])
    driven.worker.stop()
    driven.worker.join(5)
    assert driven.scheduler.calls.count("release") == 1


def test_a_last_release_that_fails_is_said_and_hurts_nothing(driven):
    driven.start().submit("a")
    driven.expect(Submitted("a", 0, "handle of a"))
    driven.scheduler.scripts["release"] = [fail(TransientError("busy"))] * 3
    driven.worker.release([(("a", 0), "handle of a")])
    driven.worker.stop()
    driven.worker.join(10)
    [warning] = driven.of(Warned)
    assert warning.text.endswith("busy")


def test_a_last_release_that_fails_once_is_tried_again(driven):
    driven.start().submit("a")
    driven.expect(Submitted("a", 0, "handle of a"))
    driven.scheduler.scripts["release"] = [fail(TransientError("busy"))]
    driven.worker.release([(("a", 0), "handle of a")])
    driven.worker.stop()
    driven.worker.join(10)
    assert (driven.of(Warned), driven.scheduler.calls.count("release")) == ([], 2)


def test_a_command_that_comes_while_it_backs_off_waits(driven, monkeypatch):
    monkeypatch.setattr(backing_off, "FIRST_SECONDS", 0.2)
    driven.worker = driven.make()
    driven.scheduler.scripts["submit"] = [fail(TransientError("busy"))]
    driven.start().submit("a")
    driven.until(lambda: driven.scheduler.calls.count("submit") == 1)
    driven.submit("b")
    driven.until(lambda: {event.job for event in driven.of(Submitted)} == {"a", "b"})


def test_what_cannot_be_built_is_not_looked_for_and_said(driven):
    driven.worker.adopt([(("unbuildable", 0), None), (("b", 0), "handle of b")])
    driven.start()
    driven.expect(Submitted("b", 0, "handle of b"))
    driven.until(lambda: any("'unbuildable' cannot be looked for" in event.text for event in driven.of(Warned)))


def test_offers_that_cannot_be_built_are_refused_and_nothing_is_submitted(driven):
    driven.start().submit("unbuildable")
    driven.until(lambda: [event.job for event in driven.of(Refused)] == ["unbuildable"])
    assert "submit" not in driven.scheduler.calls


def test_answers_may_come_in_another_order(driven, monkeypatch):
    real = type(driven.scheduler).submit
    monkeypatch.setattr(type(driven.scheduler), "submit", lambda self, jobs: reversed(list(real(self, jobs))))
    driven.submit("a", "b")
    driven.start()
    driven.until(lambda: {event.job for event in driven.of(Submitted)} == {"a", "b"})
