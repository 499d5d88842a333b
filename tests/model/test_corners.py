"""What is rare about values: names, keys, resolving, refusals, and words that say what is wrong."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import importlib.util
import sys
from fractions import Fraction
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nemorun_core as run
from nemorun_core import installed, registry
from nemorun_core.model import key as key_module
from nemorun_core.model import values, words
from nemorun_core.model.convert import structure
from nemorun_core.model.decoding import decode
from nemorun_core.model.definition import Definition, Edge
from nemorun_core.model.key import DNS_ALPHABET, Key, slug
from nemorun_core.model.records import MalformedRecord
from nemorun_core.model.resolving import resolve
from nemorun_core.model.target import EnumMember, Pickled, Reference, find_reference, member_key
from nemorun_core.registry import Found, Registry


class Colour(enum.Enum):
    RED = 1


class Bits(enum.Flag):
    ONE = 1
    TWO = 2


class Bytes(enum.Enum):
    A = b"a"


def function(*rest, option=None):
    return rest, option


def plain(option=None):
    return option


# Keys.


@given(st.from_regex(r"[0-9a-f]{16}", fullmatch=True), st.text(min_size=1, max_size=20), st.integers(0, 99))
def test_a_key_is_read_back_from_its_text(nonce, job, attempt):
    key = Key(nonce, job, attempt)
    assert Key.parse(str(key)) == key


@pytest.mark.parametrize("text", ["", "a", "a/b", "a/b/c", "/b/1", "a//1", "a/b/"])
def test_what_is_no_key_is_refused(text):
    with pytest.raises(ValueError, match="expected <nonce>/<job>/<attempt>"):
        Key.parse(text)


def test_a_name_for_kubernetes_is_small_letters():
    assert slug("Train_Model", 52, DNS_ALPHABET).startswith("train-model-")


def test_without_the_small_digest_module_the_names_are_the_same(monkeypatch):
    monkeypatch.setitem(sys.modules, "_sha2", None)
    spec = importlib.util.spec_from_file_location("key_again", key_module.__file__)
    assert spec is not None
    assert spec.loader is not None
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    assert again.sha256 is hashlib.sha256
    assert again.slug("text") == slug("text")


# Enums and what is not imported yet.


def test_an_enum_read_from_a_record_is_resolved_to_its_member():
    task = run.Partial(plain, option=[Colour.RED, Bits.ONE | Bits.TWO])
    read = run.Partial.from_record(task.to_record())
    assert isinstance(read.option[0], EnumMember)
    assert "Colour.RED" in repr(read)
    assert resolve(read, None).option == [Colour.RED, Bits.ONE | Bits.TWO]


def test_a_member_that_its_enum_no_longer_has_is_named():
    read = run.Partial.from_record(run.Partial(plain, option=Colour.RED).to_record())
    read.option = EnumMember(read.option.cls, "GREEN")
    with pytest.raises(run.UsageError, match="has no member 'GREEN'"):
        resolve(read, None)


def test_a_member_that_cannot_be_named_is_refused():
    stranger = object.__new__(Bytes)
    stranger._name_, stranger._value_ = None, b"b"
    with pytest.raises(run.UsageError, match="is no named member"):
        member_key(stranger)


def test_what_another_python_sent_by_value_is_not_loaded():
    read = run.Partial(Pickled(digest="0" * 64, item=0, name="f", python=(3, 1)))
    with pytest.raises(run.UsageError, match=r"f was sent by value from Python 3\.1, and this is"):
        resolve(read, lambda digest: b"")


def test_two_pythons_in_one_task_are_refused():
    parts = [Pickled(digest=str(n) * 64, item=0, name="f", python=(3, n)) for n in (8, 9)]
    with pytest.raises(run.UsageError, match=r"from Python 3\.8 and 3\.9"):
        run.Partial(plain, option=parts).to_record()


def test_a_task_that_was_read_is_called_when_it_is_resolved_and_not_before():
    read = run.Partial.from_record(run.Partial(plain, option=print).to_record())
    with pytest.raises(run.UsageError, match="not imported yet"):
        read.call()
    read.__target__  # noqa: B018
    holder = run.Partial(plain, option=Reference("os:getcwd"))
    with pytest.raises(run.UsageError, match=r"\$\.option is not imported yet"):
        holder.call()


# Attributes.


def test_the_rest_takes_a_list_and_can_be_cleared():
    task = run.Partial(function, 1, 2)
    with pytest.raises(run.UsageError, match="rest takes a list"):
        task.rest = 3
    task.rest = [4]
    assert task.call() == ((4,), None)
    del task.rest
    assert task.call() == ((), None)


def test_deleting_a_name_that_is_none_is_refused_with_the_nearest():
    task = run.Partial(plain)
    with pytest.raises(run.UsageError, match="no argument 'optoin'") as caught:
        del task.optoin
    assert "option" in caught.value.hint


def test_dir_names_arguments_and_methods():
    assert {"option", "clone", "call"} <= set(dir(run.Partial(plain)))
    assert "rest" in dir(run.Partial(function))


@attrs.define
class Derived:
    one: int = 1
    two: int = attrs.field(default=attrs.Factory(lambda self: self.one, takes_self=True))
    three: int = 3


def test_a_default_made_of_other_fields_cannot_be_read_before_it_is_built():
    config = run.Config(Derived)
    assert config.three == 3
    with pytest.raises(AttributeError, match="made from other fields"):
        config.two  # noqa: B018


@dataclasses.dataclass
class Plain:
    one: int = 1


def test_a_default_without_a_factory_is_read_as_it_is():
    assert run.Config(Plain).one == 1


# Showing and refusing.


def test_dicts_and_what_holds_itself_are_shown():
    task = run.Partial(plain, option={"a": [1, {"b": 2}], 3: ()})
    assert repr(task) == f"Partial({__name__}.plain, option={{'a': [1, {{'b': 2}}], 3: ()}})"
    loop: list[object] = []
    loop.append(loop)
    task["option"] = []
    task.__arguments__["option"] = loop
    assert "…" in repr(task)


class Item:
    """As a scalar of numpy."""

    __module__ = "numpy"
    dtype = "float32"
    shape: tuple[int, ...] = ()

    def item(self):
        return 1.5


class Array(Item):
    """As an array."""

    shape = (2,)

    def tolist(self):
        return [1.5]

    def item(self):
        raise ValueError("two of them")

    def __eq__(self, other):
        raise ValueError("which of them?")

    __hash__ = None


@pytest.mark.parametrize(("value", "hint"), [(Fraction(1, 2), ""), (Item(), "float"), (Array(), "tolist")])
def test_what_json_cannot_hold_is_refused_with_what_to_wrap_it_in(value, hint):
    with pytest.raises(run.UsageError, match=r"\$\.option is a") as caught:
        run.Partial(plain, option=value).to_record()
    assert hint in caught.value.hint


def test_values_that_refuse_to_be_compared_are_different():
    assert run.Partial(plain, option=Array()) != run.Partial(plain, option=Array())
    assert not values._same(Array(), Array())


def test_names_of_arguments_hold_no_surrogates():
    def anything(**options):
        return options

    with pytest.raises(run.UsageError, match="an argument named"):
        run.Partial(anything, **{"a\ud800": 1}).to_record()


def test_metadata_holds_no_functions():
    with pytest.raises(run.UsageError, match=r"\$\.metadata holds a Config or a function"):
        run.Script(inline="a", metadata={"a": run.Config(Derived)}).to_record()


# Records of others.


@pytest.mark.parametrize(
    "record",
    [
        {"nodes": [], "root": 1},
        {"nodes": [{"kind": "config", "target": {"ref": "os:getcwd"}, "kwargs": {}}], "root": {"$": "node", "id": 0}},
    ],
)
def test_a_record_that_is_no_partial_is_malformed(record):
    with pytest.raises(MalformedRecord, match="a partial"):
        run.Partial.from_record(record)


def test_a_record_nested_too_deep_is_malformed():
    deep: object = 1
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(MalformedRecord, match="levels"):
        decode({"nodes": [], "root": deep})


def test_a_complex_number_of_texts_is_malformed():
    with pytest.raises(MalformedRecord, match="known tag"):
        decode({"nodes": [], "root": {"$": "complex", "real": "a", "imag": "b"}})


@attrs.define
class Facts:
    facts: dict[str, object]


def test_an_object_is_expected_where_one_is_declared():
    with pytest.raises(MalformedRecord, match="expected dict"):
        structure({"facts": []}, Facts)


def test_what_is_no_object_at_all_is_malformed():
    with pytest.raises(MalformedRecord):
        structure(3, Definition)
    with pytest.raises(MalformedRecord, match="neither"):
        structure({"path": None}, run.Script)


@pytest.mark.parametrize(
    "edge",
    [
        7,
        {},
        {"upstream": 7},
        {"condition": "any"},
        {"upstream": "a", "condition": "never"},
        {"upstream": "a", "condition": 1},
        {"upstream": "a", "colour": "red"},
    ],
)
def test_what_is_no_edge_is_malformed(edge):
    with pytest.raises(MalformedRecord):
        structure(edge, Edge)


def test_an_edge_is_read_with_and_without_its_condition():
    assert structure({"upstream": "a"}, Edge) == Edge("a")
    assert structure({"upstream": "a", "condition": "any"}, Edge) == run.after_any("a")


def test_a_value_that_reads_back_different_is_refused():
    @attrs.define(eq=False)
    class Odd(run.Plugin):
        number: int = 1

    with pytest.raises(run.UsageError, match="it reads back different"):
        Registry().record("nemorun.plugins", Odd(2))


# The environment and secrets.


def test_an_environment_that_is_no_dict_is_refused():
    with pytest.raises(run.UsageError, match="expected a dict of names to text, found list"):
        run.Script(inline="a", env=["A=1"])
    from nemorun_core.model.environment import check_environment

    with pytest.raises(run.UsageError, match="found int"):
        check_environment(3, "env")


def test_a_secret_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(run.UsageError, match="No such file"):
        run.Secret.from_file(tmp_path / "absent").reveal()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(run.UsageError, match="it is not UTF-8 text"):
        run.Secret.from_file(tmp_path / "binary").reveal()


def test_a_pickle_whose_digest_names_no_file_is_malformed():
    data = {"$": "object", "pickle": "../../etc", "item": 0, "name": "f"}
    with pytest.raises(MalformedRecord, match="the pickle of a function"):
        decode({"nodes": [], "root": data, "pickles": {"../../etc": [3, 12]}})


def test_plain_values_are_resolved_as_they_are():
    path = Path("/data")
    read = run.Partial.from_record(run.Partial(plain, option=path).to_record())
    assert resolve(read, None).call() == path


def test_a_method_of_a_class_without_a_name_has_none_either():
    class Local:
        @classmethod
        def made(cls):
            return cls()

    assert find_reference(Local.made) is None


def test_a_task_that_cannot_be_written_differs_from_one_that_was_read():
    def local(option=None):
        return option

    read = run.Partial.from_record(run.Partial(local).to_record())
    assert read == run.Partial(local)
    assert run.Partial(local, option=Fraction(1, 2)) != read


# Words of the command line.


def test_a_word_that_suits_none_of_several_types_is_refused():
    with pytest.raises(run.UsageError, match="number"):
        words.parse("x", int | float | None, "number")


@attrs.define
class Needs:
    one: int


def test_a_class_that_lacks_what_it_needs_is_refused():
    with pytest.raises(run.UsageError, match="one") as caught:
        words.make("needs", lambda name: Needs)
    assert "nemorun plugins show needs" in caught.value.hint


# The registry.


def test_one_distribution_that_is_found_twice_is_one(monkeypatch):
    found = installed.points()
    monkeypatch.setattr(registry, "points", lambda: [*found, *found])
    assert Registry().named("nemorun.executors", "local") is not None


def test_an_entry_point_that_is_no_class_is_its_distributions_fault(monkeypatch):
    registry = Registry()
    monkeypatch.setattr(registry, "named", lambda group, name: Found(name, "os:getcwd", "odd 1.0"))
    with pytest.raises(run.Defect, match=r"os:getcwd is no class"):
        registry.load("nemorun.executors", "odd")
