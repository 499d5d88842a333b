"""The fold, case by case: cancel, groups, edges, incarnations, and what an event costs."""

from __future__ import annotations

import sys

import pytest

from nemorun_core.engine.events import Asked, Delayed, Lost, Refused, Submitted, Withdrawn
from nemorun_core.engine.state import Act, Graph
from nemorun_core.model.definition import after_any, after_failure
from nemorun_core.model.state import Reason, ReasonKind, State
from tests.engine.graphs import TIME, define, ended, job, observed, reach, running, snapshot, starts, told

BY_USER = Reason(ReasonKind.BY_USER)
NO_MEMORY = Reason(ReasonKind.OUT_OF_MEMORY)
LIMIT = Reason(ReasonKind.LIMIT, "max_parallel=1")
U, P, R = State.UNSUBMITTED, State.PENDING, State.RUNNING
S, F, C, K, L = State.SUCCEEDED, State.FAILED, State.CANCELLED, State.SKIPPED, State.LOST


def ask(graph, *names):
    return graph.step(Asked(names, BY_USER), TIME)


# One job.


def test_a_job_goes_from_unsubmitted_over_pending_and_running_to_its_end():
    graph = Graph(define(job("a")))
    one = graph.jobs["a"]
    seen = [one.state]
    for members in [(), (running(),), (ended(),)]:
        reach(graph, "a", *members)
        seen.append(one.state)
    assert seen == [U, P, R, S]


def test_an_experiment_begins_with_the_jobs_that_wait_for_nothing():
    graph = Graph(define(job("a"), job("b", "a"), job("c")))
    assert starts(graph.begin()) == ["a", "c"]


def test_a_refused_job_fails_with_the_backends_reason():
    graph = Graph(define(job("a")))
    graph.step(Refused("a", 0, NO_MEMORY), TIME)
    assert (graph.jobs["a"].state, graph.jobs["a"].reason) == (F, NO_MEMORY)


def test_a_delayed_job_is_pending_with_the_limit_as_its_reason():
    graph = Graph(define(job("a")))
    graph.step(Delayed((("a", 0),), LIMIT), TIME)
    assert (graph.jobs["a"].state, graph.jobs["a"].reason) == (P, LIMIT)


def test_a_delay_is_news_once():
    """It is told as often as the jobs are offered: a driver that waits for hours must not fill its journal with it."""
    graph = Graph(define(job("a"), job("b")))
    event = Delayed((("a", 0), ("b", 0)), LIMIT)
    assert graph.is_news(event)
    graph.step(event, TIME)
    assert not graph.is_news(event)
    assert graph.is_news(event._replace(reason=NO_MEMORY))
    graph.step(Refused("b", 0, NO_MEMORY), TIME)
    assert not graph.is_news(Delayed((("a", 0),), LIMIT))


def test_a_delay_that_is_told_after_the_submission_changes_nothing():
    graph = Graph(define(job("a")))
    reach(graph, "a")
    before = snapshot(graph)
    graph.step(Delayed((("a", 0),), LIMIT), TIME)
    assert snapshot(graph) == before


def test_why_a_submitted_job_waits_is_the_schedulers_word():
    graph = Graph(define(job("a")))
    event = observed("a", ended(state=P))
    reach(graph, "a")
    graph.step(type(event)("a", 0, 0, event.members, LIMIT), TIME)
    assert (graph.jobs["a"].state, graph.jobs["a"].reason) == (P, LIMIT)


def test_events_of_another_attempt_are_not_this_ones():
    graph = Graph(define(job("a")))
    reach(graph, "a")
    before = snapshot(graph)
    graph.step(observed("a", ended(3), attempt=1), TIME)
    graph.step(Lost("a", 7), TIME)
    assert snapshot(graph) == before


def test_a_job_submitted_twice_keeps_its_first_handle():
    graph = Graph(define(job("a")))
    reach(graph, "a")
    graph.step(Submitted("a", 0, "another"), TIME)
    assert graph.jobs["a"].handle == "handle of a"


@pytest.mark.parametrize("late", [Submitted("a", 0, "h"), Delayed((("a", 0),), LIMIT)], ids=["submitted", "delayed"])
def test_a_job_that_was_seen_running_is_not_put_back_by_what_is_told_late(late):
    """E4. No driver writes this order; a fold must not depend on that."""
    graph = Graph(define(job("a")))
    graph.step(observed("a", running()), TIME)
    graph.step(late, TIME)
    assert graph.jobs["a"].state is R


def test_the_end_of_a_job_on_a_backend_releases_it():
    graph = Graph(define(job("a")))
    assert told(reach(graph, "a", ended()), Act.RELEASE) == ["a"]


@pytest.mark.parametrize("members", [(), (running(), running())], ids=["none", "too many"])
def test_an_observation_of_another_number_of_members_is_refused_and_changes_nothing(members):
    graph = Graph(define(job("a")))
    reach(graph, "a")
    before = snapshot(graph)
    with pytest.raises(ValueError, match="members of a job that has 1"):
        graph.step(observed("a", *members), TIME)
    assert snapshot(graph) == before


# Cancel.


def test_a_job_that_was_never_submitted_is_cancelled_at_once():
    graph = Graph(define(job("a"), job("b", "a")))
    ask(graph, "b")
    assert (graph.jobs["b"].state, graph.jobs["b"].reason) == (C, BY_USER)


def test_a_job_in_doubt_is_withdrawn_first():
    graph = Graph(define(job("a")))
    graph.jobs["a"].intended = True
    assert [act for act, _ in ask(graph, "a")] == [Act.WITHDRAW]
    assert graph.jobs["a"].state is U
    graph.step(Withdrawn((("a", 0),)), TIME)
    assert graph.jobs["a"].state is C


def test_a_job_in_doubt_that_turns_out_to_be_taken_is_cancelled_there():
    graph = Graph(define(job("a")))
    graph.jobs["a"].intended = True
    ask(graph, "a")
    assert told(graph.step(Submitted("a", 0, "h"), TIME), Act.CANCEL) == ["a"]


def test_a_withdrawn_job_that_nobody_cancelled_is_to_be_submitted_again():
    graph = Graph(define(job("a")))
    graph.jobs["a"].intended = True
    graph.step(Withdrawn((("a", 0),)), TIME)
    assert [one.id for one in graph.resume() if not one.intended] == ["a"]


def test_a_job_refused_while_it_was_being_cancelled_is_cancelled():
    graph = Graph(define(job("a")))
    graph.jobs["a"].intended = True
    ask(graph, "a")
    graph.step(Refused("a", 0, NO_MEMORY), TIME)
    assert (graph.jobs["a"].state, graph.jobs["a"].reason) == (C, BY_USER)


@pytest.mark.parametrize(
    ("end", "state"),
    [
        (ended(0), S),
        (ended(0, signals=["TERM"]), C),
        (ended(0, signals=["USR1"]), C),
        (ended(3), C),
        (ended(143, signals=["TERM"]), C),
    ],
    ids=["exit 0", "exit 0 after TERM", "exit 0 after USR1", "exit 3", "killed by TERM"],
)
def test_after_a_cancel_only_exit_0_without_a_signal_is_success_and_the_exit_code_is_kept(end, state):
    graph = Graph(define(job("a")))
    reach(graph, "a", running())
    assert told(ask(graph, "a"), Act.CANCEL) == ["a"]
    graph.step(observed("a", end), TIME)
    one = graph.jobs["a"]
    assert (one.state, one.exit_code) == (state, end.exit_code)
    assert one.reason == (BY_USER if state is C else None)


def test_a_signal_without_a_cancel_does_not_make_success_anything_else():
    graph = Graph(define(job("a")))
    reach(graph, "a", ended(0, signals=["TERM"]))
    assert graph.jobs["a"].state is S


@pytest.mark.parametrize("end", [ended(0), ended(3)])
def test_a_cancel_leaves_a_finished_job_alone(end):
    graph = Graph(define(job("a")))
    reach(graph, "a", end)
    before = snapshot(graph)
    assert ask(graph, "a") == []
    assert snapshot(graph) == before


def test_the_first_reason_to_cancel_is_the_one_that_is_kept():
    graph = Graph(define(job("a")))
    reach(graph, "a", running())
    ask(graph, "a")
    graph.step(Asked(("a",), Reason(ReasonKind.INTERRUPT)), TIME)
    graph.step(observed("a", ended(143, signals=["TERM"])), TIME)
    assert graph.jobs["a"].reason == BY_USER


def test_a_cancelled_group_keeps_what_its_members_had_reached():
    graph = Graph(define(job("g", members=3)))
    reach(graph, "g", ended(0), running(), running())
    ask(graph, "g")
    graph.step(observed("g", ended(0), ended(143, signals=["TERM"]), ended(0)), TIME)
    assert graph.jobs["g"].state is C
    assert [member.state for member in graph.jobs["g"].members] == [S, C, S]


# Groups.


def group(until, *ends):
    """Let members end one after another, `ends` as (member, exit code); the rest is stopped by TERM where asked."""
    size = max(index for index, _ in ends) + 1
    graph = Graph(define(job("g", members=size, until=until)))
    members = [running()] * size
    reach(graph, "g", *members)
    cancelled = False
    for index, code in ends:
        members[index] = ended(143, signals=["TERM"]) if code is None else ended(code)
        cancelled |= told(graph.step(observed("g", *members), TIME), Act.CANCEL) == ["g"]
    return graph.jobs["g"], cancelled


STOPPED = None


@pytest.mark.parametrize(
    ("until", "ends", "state", "states", "cancelled"),
    [
        ("all", [(0, 0), (1, 0), (2, 0)], S, [S, S, S], False),
        ("all", [(2, 0), (1, 0), (0, 0)], S, [S, S, S], False),
        ("all", [(1, 3), (0, STOPPED), (2, STOPPED)], F, [C, F, C], True),
        ("all", [(0, 0), (1, 3), (2, STOPPED)], F, [S, F, C], True),
        ("all", [(0, 0), (1, 0), (2, 5)], F, [S, S, F], True),
        ("first", [(1, 0), (0, STOPPED), (2, STOPPED)], S, [C, S, C], True),
        ("first", [(1, 4), (0, STOPPED), (2, STOPPED)], F, [C, F, C], True),
        ("first", [(2, 0), (0, 0), (1, STOPPED)], S, [S, C, S], True),
        ("leader", [(0, 0), (1, STOPPED), (2, STOPPED)], S, [S, C, C], True),
        ("leader", [(0, 7), (1, STOPPED), (2, STOPPED)], F, [F, C, C], True),
        ("leader", [(1, 0), (2, 0), (0, 0)], S, [S, S, S], True),
        ("leader", [(1, 3), (0, STOPPED), (2, STOPPED)], F, [C, F, C], True),
        ("leader", [(1, 0), (0, 0), (2, STOPPED)], S, [S, S, C], True),
    ],
)
def test_a_groups_policy_decides_its_end_and_stops_the_rest(until, ends, state, states, cancelled):
    one, was_cancelled = group(until, *ends)
    assert one.state is state
    assert [member.state for member in one.members] == states
    if len({code for _, code in ends} - {0}):
        assert was_cancelled is cancelled


def test_members_stopped_with_their_group_say_so():
    one, _ = group("first", (0, 0), (1, STOPPED))
    assert one.members[1].reason is not None
    assert one.members[1].reason.kind is ReasonKind.GROUP


def test_the_reason_of_a_failed_group_names_the_member_that_failed_first():
    one, _ = group("all", (1, 3), (0, STOPPED))
    assert str(one.reason) == "exit code 3 in member 1"
    assert one.exit_code == 3


def test_a_single_job_is_not_stopped_by_its_own_end():
    graph = Graph(define(job("a")))
    assert told(reach(graph, "a", ended(3)), Act.CANCEL) == []


def test_the_exit_code_of_a_group_is_the_highest_of_those_that_failed():
    one, _ = group("all", (0, 3), (1, 5), (2, 143))
    assert one.exit_code == 3  # the others were stopped by then


# Edges.


@pytest.mark.parametrize(
    ("end", "after_success", "on_failure", "on_any"),
    [(S, U, K, U), (F, K, U, U), (C, K, U, U), (L, K, U, U), (K, K, K, U)],
)
def test_an_edge_lets_its_dependant_start_or_skips_it(end, after_success, on_failure, on_any):
    upstream = [job("root"), job("up", "root")]
    graph = Graph(define(*upstream, job("s", "up"), job("f", after_failure("up")), job("a", after_any("up"))))
    reach(graph, "root", ended(3 if end is K else 0))
    if end is L:
        reach(graph, "up")
        graph.step(Lost("up", 0), TIME)
    elif end is C:
        ask(graph, "up")
    elif end is not K:
        reach(graph, "up", ended(0 if end is S else 3))
    assert graph.jobs["up"].state is end
    assert [graph.jobs[name].state for name in "sfa"] == [after_success, on_failure, on_any]


def test_a_skipped_job_names_the_cause_however_far_up_it_stands():
    graph = Graph(define(job("a"), job("b", "a"), job("c", "b")))
    reach(graph, "a", ended(3))
    assert str(graph.jobs["c"].reason) == "dependency: 'a' FAILED: exit code 3"


def test_a_job_starts_when_the_last_of_its_upstreams_ends():
    graph = Graph(define(job("a"), job("b"), job("c", "a", "b")))
    assert starts(reach(graph, "b", ended())) == []
    assert starts(reach(graph, "a", ended())) == ["c"]


def test_a_job_that_one_edge_skips_is_not_started_by_another_in_the_same_step():
    graph = Graph(define(job("a"), job("b", "a"), job("c", "a", after_any("b"))))
    assert starts(reach(graph, "a", ended(3))) == []
    assert graph.jobs["c"].state is K


def test_a_job_that_was_cancelled_early_is_not_skipped_later():
    graph = Graph(define(job("a"), job("b", "a")))
    ask(graph, "b")
    reach(graph, "a", ended(3))
    assert graph.jobs["b"].state is C


# Lost.


def test_a_lost_job_is_final_and_its_open_members_are_lost_with_it():
    graph = Graph(define(job("g", members=2)))
    reach(graph, "g", ended(0), running())
    graph.step(Lost("g", 0), TIME)
    assert graph.jobs["g"].state is L
    assert [member.state for member in graph.jobs["g"].members] == [S, L]
    graph.step(observed("g", ended(0), ended(0)), TIME)
    assert graph.jobs["g"].state is L


# Incarnations.


def test_a_new_incarnation_begins_anew():
    graph = Graph(define(job("a")))
    reach(graph, "a", running())
    graph.step(observed("a", ended(state=P), incarnation=1), TIME)
    one = graph.jobs["a"]
    assert (one.state, one.incarnation, one.started) == (P, 1, TIME)


def test_what_an_old_incarnation_did_is_history():
    graph = Graph(define(job("a")))
    reach(graph, "a", running())
    graph.step(observed("a", running(), incarnation=2), TIME)
    before = snapshot(graph)
    assert graph.step(observed("a", ended(3), incarnation=1), TIME) == []
    assert snapshot(graph) == before


def test_no_incarnation_follows_a_final_state():
    graph = Graph(define(job("a")))
    reach(graph, "a", ended(3))
    graph.step(observed("a", running(), incarnation=1), TIME)
    assert graph.jobs["a"].state is F


# Cost.


def test_a_chain_of_a_hundred_thousand_jobs_is_skipped_without_recursion():
    count = 100_000
    jobs = [job("0"), *(job(str(index), str(index - 1)) for index in range(1, count))]
    graph = Graph(define(*jobs))
    reach(graph, "0", ended(3))
    assert graph.open == 0
    assert graph.jobs[str(count - 1)].state is K


def test_an_event_touches_only_its_job_and_its_dependants():
    def lines_of_a_step(count):
        graph = Graph(define(*(job(str(index)) for index in range(count)), job("last", "0")))
        reach(graph, "0", running())
        lines = 0

        def trace(frame, event, argument):
            nonlocal lines
            lines += event == "line"
            return trace

        previous = sys.gettrace()
        sys.settrace(trace)
        try:
            graph.step(observed("0", ended()), TIME)
        finally:
            sys.settrace(previous)
        return lines

    assert lines_of_a_step(10_000) == lines_of_a_step(10) > 0
