"""The journal's lines: what is written is read back equal, and nothing else is read at all."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemorun_core.contracts.observation import MemberObservation
from nemorun_core.engine import events as module
from nemorun_core.engine.events import Warned, dump, load
from nemorun_core.model.records import MalformedRecord
from nemorun_core.model.state import Reason, ReasonKind, State

text = st.text(max_size=20)
reasons = st.builds(Reason, st.sampled_from(ReasonKind), text)
attempts = st.lists(st.tuples(text, st.integers(0)), max_size=3).map(tuple)
members = st.builds(
    MemberObservation,
    state=st.sampled_from(State),
    exit_code=st.none() | st.integers(0, 255),
    reason=st.none() | reasons,
    signals=st.lists(text, max_size=3).map(tuple),
    started=st.none() | text,
    ended=st.none() | text,
    host=st.none() | text,
)
KINDS = {
    "Driven": st.builds(module.Driven, text, st.integers(1)),
    "Intended": st.builds(module.Intended, attempts),
    "Submitted": st.builds(module.Submitted, text, st.integers(0), text, st.booleans()),
    "Released": st.builds(module.Released, attempts),
    "Refused": st.builds(module.Refused, text, st.integers(0), reasons),
    "Delayed": st.builds(module.Delayed, attempts, reasons),
    "Withdrawn": st.builds(module.Withdrawn, attempts),
    "Observed": st.builds(
        module.Observed,
        text,
        st.integers(0),
        st.integers(0),
        st.lists(members, min_size=1, max_size=3).map(tuple),
        st.none() | reasons,
    ),
    "Lost": st.builds(module.Lost, text, st.integers(0)),
    "Asked": st.builds(module.Asked, st.lists(text, max_size=3).map(tuple), reasons),
    "Warned": st.builds(module.Warned, text),
}
events = st.one_of(*KINDS.values())
GOOD = '{"event":"lost","time":"t","epoch":1,"job":"a","attempt":0}'


def test_every_kind_of_event_is_in_these_tests():
    assert set(KINDS) == {name for name in module.__all__ if name[0].isupper()} - {"Event"}


@given(events, text, st.integers(1))
def test_an_event_is_read_back_equal(event, time, epoch):
    read = load(dump(event, time, epoch))
    assert (type(read[0]), *read) == (type(event), event, time, epoch)


@given(events)
def test_an_event_is_one_line_of_ascii_json(event):
    line = dump(event, "t", 1)
    assert line.isascii()
    assert "\n" not in line
    assert isinstance(json.loads(line), dict)


def test_the_line_these_tests_break_is_a_good_one():
    assert load(GOOD)[0] == module.Lost("a", 0)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        GOOD[:-1],
        "null",
        "[]",
        '"lost"',
        "\x00\x00",
        GOOD + GOOD,
        GOOD + " ",
        GOOD.replace("lost", "unheard"),
        GOOD.replace('"event":"lost",', ""),
        GOOD.replace('"time":"t",', ""),
        GOOD.replace('"t"', "7"),
        GOOD.replace('"epoch":1,', ""),
        GOOD.replace('"epoch":1', '"epoch":true'),
        GOOD.replace('"epoch":1', '"epoch":"1"'),
        GOOD.replace(',"attempt":0', ""),
        GOOD.replace('"attempt":0', '"attempt":0,"colour":"red"'),
        '{"event":"intended","time":"t","epoch":1,"attempts":[["a"]]}',
        '{"event":"intended","time":"t","epoch":1,"attempts":[["a","x"]]}',
        '{"event":"intended","time":"t","epoch":1,"attempts":3}',
        '{"event":"asked","time":"t","epoch":1,"jobs":["a"],"reason":["whim",""]}',
        '{"event":"asked","time":"t","epoch":1,"jobs":["a"],"reason":["signal"]}',
        '{"event":"observed","time":"t","epoch":1,"job":"a","attempt":0,"incarnation":0,"members":[{"state":"ODD"}]}',
        '{"event":"observed","time":"t","epoch":1,"job":"a","attempt":0,"incarnation":0,"members":[{}]}',
        '{"event":"observed","time":"t","epoch":1,"job":"a","attempt":0,"incarnation":0,"members":[]}',
        '{"event":"observed","time":"t","epoch":1,"job":"a","attempt":0,"incarnation":0,"members":[7]}',
        pytest.param("[" * 100_000, id="deeper than any reader goes"),
    ],
)
def test_a_malformed_line_is_refused(line):
    with pytest.raises(MalformedRecord):
        load(line)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(KINDS)), st.dictionaries(st.sampled_from(["job", "attempt", "members"]), json_values))
def test_any_json_is_read_or_refused_and_breaks_nothing(kind, fields):
    line = json.dumps({"event": kind.lower(), "time": "t", "epoch": 1, **fields})
    with contextlib.suppress(MalformedRecord):
        load(line)


def test_a_refusal_shows_what_was_found_and_not_a_whole_file():
    with pytest.raises(MalformedRecord) as caught:
        load('{"event":"x"' + "y" * 10_000)
    assert '{"event":"x"' in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_words_for_people_may_be_anything():
    warned = Warned('é😀\n\ud800\x00"\\')
    assert load(dump(warned, "t", 1))[0] == warned
