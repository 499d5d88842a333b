"""The fold's laws, for any graph and any events: forward only, final for good, order, replay, and an oracle."""

from __future__ import annotations

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from nemorun_core.contracts.observation import MemberObservation
from nemorun_core.engine.events import (
    Asked,
    Delayed,
    Intended,
    Lost,
    Observed,
    Refused,
    Submitted,
    Withdrawn,
    dump,
    load,
)
from nemorun_core.engine.state import Act, Graph
from nemorun_core.model.definition import Edge
from nemorun_core.model.state import Condition, Reason, ReasonKind, State, Until
from tests.engine.graphs import TIME, define, ended, job, observed, reach, running, snapshot, starts

NAMES = "abcdef"
MEMBERS = 2
RANK = {State.UNSUBMITTED: 0, State.PENDING: 1, State.RUNNING: 2}
BACKEND_STATES = [State.PENDING, State.RUNNING, State.SUCCEEDED, State.FAILED, State.CANCELLED]

reasons = st.builds(Reason, st.sampled_from(ReasonKind), st.sampled_from(["", "x"]))
members = st.builds(
    MemberObservation,
    state=st.sampled_from(BACKEND_STATES),
    exit_code=st.none() | st.integers(0, 255),
    reason=st.none() | reasons,
    signals=st.sampled_from([(), ("TERM",), ("USR1", "TERM")]),
    started=st.none() | st.just(TIME),
    ended=st.none() | st.just(TIME),
)
names = st.sampled_from(NAMES)
attempts = st.integers(0, 1)
events = st.one_of(
    st.builds(Intended, st.tuples(st.tuples(names, attempts))),
    st.builds(Submitted, names, attempts, st.sampled_from(["h", "g"])),
    st.builds(Refused, names, attempts, reasons),
    st.builds(Delayed, st.tuples(st.tuples(names, attempts)), reasons),
    st.builds(Withdrawn, st.tuples(st.tuples(names, attempts))),
    st.builds(
        Observed,
        names,
        attempts,
        st.integers(0, 2),
        st.tuples(*[members] * MEMBERS),
        st.none() | reasons,
    ),
    st.builds(Lost, names, attempts),
    st.builds(Asked, st.tuples(names), reasons),
)


@st.composite
def definitions(draw, members=MEMBERS):
    """Acyclic graphs: a job depends on earlier ones only."""
    jobs = []
    for index, name in enumerate(NAMES):
        upstreams = draw(st.sets(st.sampled_from(NAMES[:index]))) if index else set()
        edges = [Edge(upstream, draw(st.sampled_from(Condition))) for upstream in sorted(upstreams)]
        jobs.append(job(name, *edges, members=members, until=draw(st.sampled_from(Until)).value))
    return define(*jobs)


def shown(one):
    return one.state, one.incarnation, one.reason, one.ended, one.members, one.exit_code


def rank(state):
    return RANK.get(state, 3)


@given(definitions(), st.lists(events, max_size=40))
@settings(max_examples=150)
def test_states_only_move_forward_within_an_incarnation_and_a_final_one_stays(definition, happened):
    graph = Graph(definition)
    for event in happened:
        before = {one.id: attrs.evolve(one) for one in graph.jobs.values()}
        graph.step(event, TIME)
        for one in graph.jobs.values():
            old = before[one.id]
            if old.state.is_final:
                assert shown(one) == shown(old)
            elif one.incarnation == old.incarnation:
                assert rank(one.state) >= rank(old.state)
                for was, now in zip(old.members, one.members, strict=len(old.members) > 0):
                    assert rank(now.state) >= rank(was.state)
                    assert now == was or not was.state.is_final
            assert one.incarnation >= old.incarnation


@given(definitions(), st.lists(events, max_size=40))
@settings(max_examples=150)
def test_what_is_open_is_counted_right_and_each_change_of_state_is_told(definition, happened):
    graph = Graph(definition)
    for event in happened:
        before = {one.id: one.state for one in graph.jobs.values()}
        actions = graph.step(event, TIME)
        assert graph.open == sum(not one.state.is_final for one in graph.jobs.values())
        changed = {one.id for one in graph.jobs.values() if one.state is not before[one.id]}
        assert changed <= {one.id for act, one in actions if act is Act.TELL}


@given(definitions(), st.lists(events, max_size=40))
@settings(max_examples=150)
def test_each_job_is_started_at_most_once_and_only_when_its_edges_hold(definition, happened):
    graph = Graph(definition)
    started = starts(graph.begin())
    for event in happened:
        if isinstance(event, Withdrawn):
            back = {name for name, attempt in event.attempts if graph.jobs[name].intended}
            started = [name for name in started if name not in back]
        for name in starts(graph.step(event, TIME)):
            started.append(name)
            for edge in graph.jobs[name].definition.edges:
                assert edge.condition.holds(graph.jobs[edge.upstream].state)
    assert len(started) == len(set(started))


@given(definitions(), st.lists(events, max_size=40))
@settings(max_examples=150)
def test_an_observation_that_is_no_news_changes_nothing(definition, happened):
    graph = Graph(definition)
    for event in happened:
        if isinstance(event, (Delayed, Observed)) and not graph.is_news(event):
            before = snapshot(graph)
            graph.step(event, TIME)
            assert snapshot(graph) == before
        else:
            graph.step(event, TIME)


@given(definitions(), st.lists(events, max_size=30))
@settings(max_examples=100)
def test_every_event_told_twice_is_as_if_told_once(definition, happened):
    once, twice = Graph(definition), Graph(definition)
    for event in happened:
        once.step(event, TIME)
        twice.step(event, TIME)
        twice.step(event, TIME)
    assert snapshot(twice) == snapshot(once)


@given(definitions(), st.lists(events, max_size=40))
@settings(max_examples=100)
def test_a_journal_read_back_gives_the_same_state(definition, happened):
    driver, reader = Graph(definition), Graph(definition)
    lines = []
    for event in happened:
        lines.append(dump(event, TIME, 1))
        driver.step(event, TIME)
    for line in lines:
        reader.step(*load(line)[:2])
    assert snapshot(reader) == snapshot(driver)


# An experiment run to its end, in any order.

OUTCOMES = ["succeed", "fail", "lost", "refused", "cancel"]


def expected(definition, outcomes):
    """The end of every job, said once more without the engine: the graph is read in the order of its edges."""
    ends: dict[str, str] = {}
    for one in definition.jobs:
        ups = [(edge.condition.value, ends[edge.upstream]) for edge in one.edges]
        good = {"success": {"SUCCEEDED"}, "failure": {"FAILED", "LOST", "CANCELLED"}}
        if all(condition == "any" or end in good[condition] for condition, end in ups):
            word = outcomes[one.id]
            ends[one.id] = {"succeed": "SUCCEEDED", "lost": "LOST", "cancel": "CANCELLED"}.get(word, "FAILED")
        else:
            ends[one.id] = "SKIPPED"
    return ends


def advance(graph, name, outcome):
    if outcome == "refused":
        return graph.step(Refused(name, 0, Reason(ReasonKind.REJECTED)), TIME)
    if outcome == "lost":
        reach(graph, name)
        return graph.step(Lost(name, 0), TIME)
    reach(graph, name, running())
    if outcome == "cancel":
        graph.step(Asked((name,), Reason(ReasonKind.BY_USER)), TIME)
        return graph.step(observed(name, ended(143, signals=["TERM"])), TIME)
    return graph.step(observed(name, ended(0 if outcome == "succeed" else 3)), TIME)


@given(definitions(members=1), st.fixed_dictionaries({name: st.sampled_from(OUTCOMES) for name in NAMES}), st.randoms())
@settings(max_examples=200)
def test_in_whatever_order_jobs_end_the_graph_ends_as_its_edges_say(definition, outcomes, random):
    graph = Graph(definition)
    ready = starts(graph.begin())
    while ready:
        name = ready.pop(random.randrange(len(ready)))
        ready += starts(advance(graph, name, outcomes[name]))
    assert graph.open == 0
    assert {one.id: one.state.value for one in graph.jobs.values()} == expected(definition, outcomes)


@given(st.permutations(range(4)), st.lists(st.sampled_from([0, 0, 0, 3]), min_size=4, max_size=4))
def test_in_whatever_order_members_end_a_group_that_waits_for_all_ends_the_same(order, codes):
    graph = Graph(define(job("g", members=4)))
    seen = [running()] * 4
    reach(graph, "g", *seen)
    for index in order:
        seen[index] = ended(codes[index])
        graph.step(observed("g", *seen), TIME)
    assert graph.jobs["g"].state is (State.FAILED if 3 in codes else State.SUCCEEDED)


@given(st.data())
@settings(max_examples=50)
def test_jobs_without_edges_between_them_do_not_see_each_other(data):
    """Events of different jobs may be interleaved in any way."""
    mine = {name: [of(event, name) for event in data.draw(st.lists(events, max_size=8))] for name in "ab"}
    definition = define(job("a", members=MEMBERS), job("b", members=MEMBERS))
    one_after_another, mixed = Graph(definition), Graph(definition)
    for event in mine["a"] + mine["b"]:
        one_after_another.step(event, TIME)
    queues = {name: list(mine[name]) for name in "ab"}
    while any(queues.values()):
        name = data.draw(st.sampled_from([name for name in queues if queues[name]]))
        mixed.step(queues[name].pop(0), TIME)
    assert snapshot(mixed) == snapshot(one_after_another)


def of(event, name):
    """Return the same event of another job."""
    if isinstance(event, Asked):
        return event._replace(jobs=(name,))
    if isinstance(event, (Intended, Delayed, Withdrawn)):
        return event._replace(attempts=tuple((name, attempt) for _, attempt in event.attempts))
    return event._replace(job=name)
