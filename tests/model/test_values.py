"""Argument values: what is written reads back equal, and what cannot be is refused with its path."""

from __future__ import annotations

import collections
import contextlib
import datetime
import functools
import io
import json
import math
import pathlib
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemorun_core.errors import UsageError
from nemorun_core.model.buildable import Config, Partial
from nemorun_core.model.decoding import decode
from nemorun_core.model.records import MalformedRecord
from nemorun_core.model.target import EnumMember, Reference
from nemorun_core.model.values import encode, equal
from tests.model.sample_targets import Access, Colour, Tokenizer, fail, show

any_text = st.text() | st.text(st.characters(), max_size=4)
hashables = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | any_text
    | st.binary()
    | st.complex_numbers()
    | st.builds(pathlib.PurePosixPath, st.text(max_size=5))
    | st.builds(pathlib.Path, st.text(max_size=5))
    | st.builds(pathlib.PureWindowsPath, st.sampled_from(["a", r"c:\x"]))
    | st.sampled_from([Colour.RED, Access.READ, Access.READ | Access.WRITE, show, Tokenizer, len, Tokenizer.load]),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
values = st.recursive(
    hashables,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.sets(hashables, max_size=3)
        | st.dictionaries(hashables, inner, max_size=3)
        | st.dictionaries(any_text, inner, max_size=3)
        | st.builds(lambda items: Config(show, *items), st.lists(inner, max_size=2))
        | st.builds(lambda items: Partial(show, a=items), st.lists(inner, max_size=2))
        | st.builds(lambda item: Config(show, item, again=[item, {"x": item}]), inner.map(lambda i: Config(dict, a=i)))
    ),
    max_leaves=8,
)


def through_json(value):
    return decode(json.loads(json.dumps(encode(value).record)))


@given(values)
def test_what_is_written_reads_back_equal(value):
    again = through_json(value)
    assert equal(again, value)
    assert encode(again).record == encode(value).record or value != value or "nan" in repr(value)


@given(values)
def test_a_record_says_the_same_in_utf8(value):
    json.dumps(encode(value).record, ensure_ascii=False).encode()


@given(values, values)
def test_equal_values_have_equal_records(left, right):
    same = json.dumps(encode(left).record, sort_keys=True) == json.dumps(encode(right).record, sort_keys=True)
    assert equal(left, right) or not same


@pytest.mark.parametrize(
    ("left", "right"), [(1, True), (1, 1.0), (0, False), ({1}, {True}), ([], ()), ("1", 1), ({1: 2}, {1.0: 2})]
)
def test_values_of_different_types_differ(left, right):
    assert not equal([left], [right])


def test_nan_equals_nan_and_orders_of_dicts_and_arguments_do_not_matter():
    assert equal({"a": math.nan, "b": (math.nan,)}, {"b": (math.nan,), "a": math.nan})
    assert equal({1: "x", None: Config(dict)}, {None: Config(dict), 1: "x"})
    assert Config(show, a=Config(dict, x=1), b=Config(dict)) == Config(show, b=Config(dict), a=Config(dict, x=1))


def test_the_order_of_a_dict_is_kept():
    assert list(through_json({"b": 1, "a": 2})) == ["b", "a"]
    assert list(through_json({2: 1, "a": 2, None: 3})) == [2, "a", None]


def test_neighbouring_lone_surrogates_stay_two_characters():
    text = chr(0xD800) + chr(0xDC00)
    assert through_json({text: text}) == {text: text}


def test_reading_a_record_imports_nothing(tmp_path):
    record = {
        "nodes": [
            {"kind": "config", "target": {"ref": "trap:boom"}, "kwargs": {"x": {"$": "object", "ref": "trap:x"}}}
        ],
        "root": {"$": "node", "id": 0},
    }
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    node = decode(record)
    assert node.x == Reference("trap:x")
    assert repr(node) == "Config(trap.boom, x=trap.x)"
    assert decode(encode(node.clone()).record) == node


def test_enum_members_are_read_as_names():
    assert through_json(Colour.RED) == EnumMember(Reference("tests.model.sample_targets:Colour"), "RED")
    assert equal(through_json(Colour.RED), Colour.RED)
    assert not equal(through_json(Colour.RED), Colour.BLUE)


class Text(str):
    pass


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "kind", "hint"),
    [
        (datetime.timedelta(3), "datetime.timedelta", "run.Config(datetime.timedelta"),
        (Text("x"), "Text", "str(x)"),
        (Point(1, 2), "Point", "tuple(x)"),
        (collections.OrderedDict(), "collections.OrderedDict", "dict(x)"),
        (io.StringIO(), "StringIO", "path"),
        (functools.partial(print), "functools.partial", "run.Partial"),
        (range(3), "range", "list(x)"),
        (iter([]), "list_iterator", "list(x)"),
        (bytearray(), "bytearray", "bytes(x)"),
        (math, "module", "Import"),
        (Tokenizer("x").encode, "method", "run.Config"),
        (object(), "object", "run.Config(object"),
        (list[int], "GenericAlias", "run.Config"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_type_and_what_to_wrap_it_in(value, kind, hint):
    with pytest.raises(UsageError) as caught:
        encode(Partial(show, model=Config(show, loss=value)))
    assert caught.value.message.startswith("$.model.loss is a ")
    assert kind in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("holder", "path"),
    [
        (lambda bad: {"layers": [1, 2, bad]}, "$.layers[2]"),
        (lambda bad: {"table": {"a b": (bad,)}}, "$.table['a b'][0]"),
        (lambda bad: {"model": Config(show, Config(show, x=[bad]))}, "$.model[0].x[0]"),
        (lambda bad: {"tags": {bad}}, "$.tags{…}"),
    ],
)
def test_the_path_says_where(holder, path):
    with pytest.raises(UsageError) as caught:
        encode(Partial(show, **holder(object())))
    assert caught.value.message.startswith(path + " is a")


def test_numbers_too_long_for_text_are_refused():
    encode(10**4000)
    with pytest.raises(UsageError, match=r"\$\.n is an integer"):
        encode(Config(show, n=10**5000))


def test_cycles_are_refused_with_their_path():
    inner = Config(show)
    outer = Config(show, inner=inner)
    inner.back = [outer]
    with pytest.raises(UsageError, match=r"\$\.inner\.back\[0\]"):
        encode(outer)
    assert "#1#" in repr(outer)
    held = Config(show, items=[[]])
    held.items[0].append(held.items)
    with pytest.raises(UsageError, match=r"\$\.items\[0\]\[0\] contains itself"):
        encode(held)
    loop: list[object] = []
    loop += [loop, loop]
    with pytest.raises(UsageError, match=r"\$\.x\[0\] contains itself"):
        Config(show, x=loop)


def test_deep_lists_are_refused_without_a_recursion_error():
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(UsageError, match="nests more than"):
        Config(show, x=deep)


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"nodes": {}, "root": None},
        {"nodes": [1], "root": None},
        {"nodes": [{"kind": "other"}], "root": None},
        {"nodes": [{"kind": []}], "root": None},
        {"nodes": [{"kind": "config", "target": {"ref": "nothing"}, "kwargs": {}}], "root": None},
        {"nodes": [{"kind": "config", "target": {"ref": "a:b"}, "kwargs": []}], "root": None},
        {"nodes": [{"kind": "config", "target": {"ref": "a:b"}, "kwargs": {}, "positional": ["x"]}], "root": None},
        {"nodes": [{"kind": "config", "target": {"pickle": "../x", "item": 0, "name": "x"}, "kwargs": {}}], "root": 1},
        *(
            {"nodes": [], "root": root}
            for root in [
                {"$": "node", "id": 0},
                {"$": "node", "id": -1},
                {"$": "unknown"},
                {"$": []},
                {"$": "set", "items": [[]]},
                {"$": "dict", "items": [1]},
                {"$": "bytes", "base64": "!"},
                {"$": "path", "type": "os", "path": "x"},
                {"$": "path", "type": "Path", "path": 3},
                {"$": "float", "value": "1"},
                {"$": "complex", "real": 1, "imag": 1.0},
                {"$": "enum", "class": {"ref": "a:b"}, "member": None},
                {"$": "object"},
                {"$": "object", "pickle": [], "item": 0, "name": "x"},
                object(),
            ]
        ),
    ],
)
def test_a_malformed_record_is_refused_with_path_and_reason(record):
    with pytest.raises(MalformedRecord, match=r"^\$.*: expected .+, found "):
        decode(record)


words = st.sampled_from(["node", "set", "dict", "enum", "object", "bytes", "path", "config", "a:b", "a" * 64])
names = st.sampled_from(["$", "items", "id", "kind", "target", "ref", "kwargs", "pickle", "name", "item", "member"])
json_values = st.recursive(
    st.none() | st.integers() | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["nodes", "root", "pickles"]), json_values))
def test_rubbish_is_read_or_refused_never_worse(record):
    with contextlib.suppress(MalformedRecord):
        decode(record)


def test_importing_tasks_loads_nothing_heavy():
    code = (
        "import sys, attrs, json; before = set(sys.modules)\n"
        "import nemorun_core.model.values, nemorun_core.model.buildable, nemorun_core.model.show\n"
        "print({'cattrs', 'cloudpickle', 'multiprocessing', 'difflib'} & (set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_functions_equal_themselves_only():
    assert equal([fail], [fail])
    assert not equal([fail], [show])
