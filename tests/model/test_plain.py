"""What is written without the converter is what the converter would write, and reads back the same."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Literal

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import given

import nemorun_core as run
from nemorun_core.model.convert import structure
from nemorun_core.model.plain import plain_copy, read_plainly, written_plainly
from nemorun_core.model.records import MalformedRecord
from nemorun_core.registry import Registry

CONVERTER = Registry().converter


@attrs.define(kw_only=True)
class Sample(run.Executor):
    number: int = 3
    ratio: float = 0.5
    names: tuple[str, ...] = ()
    words: list[str] = attrs.field(factory=list)
    place: str | None = "here"
    how: Literal["fast", "slow"] = "fast"
    whole: bool = False
    inner: dict[str, object] = attrs.field(factory=dict)


@attrs.define
class Hidden:
    _number: int


@attrs.define
class Picky:
    number: int = attrs.field(validator=attrs.validators.gt(3))


@attrs.define
class Derived:
    one: int = 1
    two: int = attrs.Factory(lambda self: self.one, takes_self=True)


def test_defaults_are_written_as_the_converter_writes_them_and_read_back_equal():
    written = written_plainly(Sample())
    assert written == json.loads(json.dumps(CONVERTER.unstructure(Sample())))
    assert read_plainly(written, Sample) == Sample() == structure(written, Sample, CONVERTER)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "number": st.integers(0, 4),
            "retries": st.sampled_from([0, 1]),
            "ratio": st.sampled_from([0.5, 2.0]),
            "env_vars": st.dictionaries(st.sampled_from(["A", "B"]), st.text(max_size=3), max_size=1),
            "python": st.sampled_from([None, "python3"]),
            "words": st.lists(st.text(max_size=3), max_size=2),
            "place": st.none() | st.text(max_size=3),
            "how": st.sampled_from(["fast", "slow"]),
            "whole": st.booleans(),
        },
    )
)
def test_every_value_is_recorded_as_the_converter_would(fields):
    value = Sample(**fields)
    registry = Registry()
    kinded = registry.record("nemorun.executors", value)
    assert kinded.fields == json.loads(json.dumps(CONVERTER.unstructure(value)))
    assert registry.read_executor(kinded) == value


@pytest.mark.parametrize(
    "value",
    [object(), Sample(number=True), Sample(ratio=1), Sample(words=["a", 1]), Sample(how="late"), Hidden(1)],
)
def test_what_does_not_stand_for_itself_is_left_to_the_converter(value):
    assert written_plainly(value) is None


def test_fields_of_plain_types_load_no_converter_either():
    value = Sample(number=4, words=["a"], place="there", how="slow", whole=True)
    written = written_plainly(value)
    assert written == json.loads(json.dumps(CONVERTER.unstructure(value)))
    assert read_plainly(written or {}, Sample) == value
    assert read_plainly({**(written or {}), "how": "late"}, Sample) is None


def test_a_record_with_other_fields_is_left_to_the_converter():
    written = written_plainly(Sample()) or {}
    assert read_plainly({**written, "number": "4"}, Sample) is None
    assert read_plainly({**written, "number": 3.0}, Sample) is None
    assert read_plainly({**written, "more": 1}, Sample) is None
    assert read_plainly({}, Derived) is None
    assert read_plainly({"one": 1, "two": 1}, Derived) == Derived()
    assert read_plainly({}, object) is None
    assert read_plainly({"number": 3}, Picky) is None


def test_what_is_read_shares_nothing_with_the_record():
    written = written_plainly(Sample()) or {}
    made = read_plainly(written, Sample)
    assert made is not None
    made.env_vars["A"] = "1"
    assert written["env_vars"] == {}


@pytest.mark.parametrize("value", [["a", 1], {"a": run.Secret.from_env("A")}, {"a": ["b"]}, ("a",)])
def test_only_texts_are_copied(value):
    assert plain_copy(value) is None


def test_a_script_that_cannot_be_is_a_malformed_record():
    with pytest.raises(MalformedRecord, match="neither"):
        run.Script.from_record({"path": ""})


def test_one_inline_task_on_an_executor_of_defaults_loads_no_converter(tmp_path, monkeypatch):
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # which loads much of its own
    script = (
        "import sys, nemorun_core as run\n"
        "with run.Experiment('x') as exp:\n"
        "    exp.add(run.Script(inline='true'), executor=run.LocalExecutor())\n"
        "    exp.run()\n"
        # Before Python 3.12 the names on schedulers need hashlib; see nemorun_core/model/key.py.
        "heavy = ('cattrs', 'tarfile', *(('hashlib',) if sys.version_info >= (3, 12) else ()))\n"
        "print(any(name in sys.modules for name in heavy), exp.wait())\n"
    )
    pytest.importorskip("nemorun_local")
    (tmp_path / "one.py").write_text(script)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "one.py")], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.splitlines()[-1] == "False True"
