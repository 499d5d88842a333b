"""Scripts: what they accept, how they start, and that their records read back equal."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemorun_core.errors import UsageError
from nemorun_core.model.records import MalformedRecord
from nemorun_core.model.secret import Secret
from nemorun_core.model.task import Place, Script

PLACE = Place(folder="/job", member=0, python="python3", runner="/r.py", objects="/o")

arguments = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def argv(script):
    return script.command(PLACE).argv


def test_a_path_is_also_taken_by_position():
    assert Script("train.sh") == Script(path="train.sh")
    assert argv(Script("train.sh", args=["a b", 1, 0.5, Path("x")])) == ("bash", "train.sh", "a b", "1", "0.5", "x")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"path": "a", "inline": "b"}, "found both"),
        ({}, "found neither"),
        ({"inline": " \n"}, "found neither"),
        ({"path": ""}, "found neither"),
        ({"path": "a\0b"}, "NUL"),
        ({"inline": "echo \0"}, "NUL"),
        ({"path": "a", "args": ["\0"]}, r"args\[0\]"),
        ({"path": "a", "args": ["x", True]}, r"args\[1\]"),
        ({"path": "a", "args": "abc"}, "must be a list"),
        ({"path": "a", "args": ["\ud800"]}, "surrogate"),
        ({"path": "a", "env": {"": "x"}}, "name"),
        ({"path": "a", "env": {"A=B": "x"}}, "name"),
        ({"path": "a", "env": {"A\0": "x"}}, "no name of an environment variable"),
        ({"path": "a", "env": {"A": 1}}, r"env\['A'\]"),
        ({"path": "a", "env": {"A": "\0"}}, r"env\['A'\]"),
        ({"inline": "x", "m": True}, "m=True"),
        ({"inline": "x", "entrypoint": ""}, "empty entrypoint"),
        ({"path": "a", "entrypoint": "bash 'x"}, "entrypoint"),
        ({"path": b"a".join([])}, "found neither|text"),
    ],
)
def test_what_no_program_can_be_passed_is_refused(fields, said):
    with pytest.raises((UsageError, TypeError), match=said):
        Script(**fields)


def test_inline_text_over_the_limit_is_refused_with_the_way_out():
    Script(inline="x" * 120 * 1024)
    with pytest.raises(UsageError, match=r"120 KiB.*(?s:.)*Put it in a file"):
        Script(inline="é" * 60 * 1024 + "x")


def test_a_change_that_cannot_be_honoured_is_refused_when_recorded():
    script = Script("a")
    script.env["A=B"] = "x"
    with pytest.raises(UsageError, match="A=B"):
        script.to_record()


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (Script(inline="echo $1", args=["x"]), ("bash", "-c", "echo $1", "bash", "x")),
        (Script(inline="print(1)", entrypoint="python", args=["x"]), ("python", "-c", "print(1)", "x")),
        (Script(inline="print 1", entrypoint="/usr/bin/env perl"), ("/usr/bin/env", "perl", "-e", "print 1")),
        (Script(inline="a", entrypoint="bash -e"), ("bash", "-e", "-c", "a", "bash")),
        (Script("run.sh", entrypoint=""), ("./run.sh",)),
        (Script("bin/run", entrypoint="", args=["x"]), ("bin/run", "x")),
        (Script("package.train", m=True), ("python", "-m", "package.train")),
        (Script("package.train", m=True, entrypoint="python3.11 -u"), ("python3.11", "-u", "-m", "package.train")),
    ],
)
def test_the_interpreter_gets_the_text_as_it_expects_it(script, expected):
    assert argv(script) == expected


@pytest.mark.parametrize("entrypoint", ["bash", "sh", "python3"])
def test_arguments_of_inline_text_arrive_from_the_first(entrypoint):
    text = 'printf "%s." "$@"' if entrypoint != "python3" else 'import sys; print(*sys.argv[1:], sep=".", end=".")'
    script = Script(inline=text, entrypoint=entrypoint, args=["a b", "", "$x"])
    assert subprocess.run(argv(script), capture_output=True, check=True).stdout == b"a b..$x."


@pytest.mark.parametrize(
    ("script", "name"),
    [
        (Script("jobs/train.sh"), "train.sh"),
        (Script(Path("/a/b.py")), "b.py"),
        (Script("package.train", m=True), "package.train"),
        (Script(inline="echo hello; date"), "echo_hello"),
        (Script(inline="a-é"), "a_"),
    ],
)
def test_the_default_name_tells_what_runs(script, name):
    assert script.default_name() == name


@given(
    st.builds(
        Script,
        arguments.filter(bool) | arguments.map(Path),
        args=st.lists(arguments),
        env=st.dictionaries(
            st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True).filter(
                lambda name: name not in ("IFS", "PWD")
            ),
            arguments | st.builds(Secret, st.sampled_from(["env", "file"]), arguments),
        ),
        m=st.booleans(),
        entrypoint=st.sampled_from(["bash", "", "python -u"]),
        metadata=st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.floats())),
    )
    | st.builds(Script, inline=arguments.filter(str.strip))
)
def test_a_record_reads_back_equal(script):
    again = Script.from_record(json.loads(json.dumps(script.to_record())))
    assert repr(again) == repr(script)
    assert type(again.path) is type(script.path)
    if "nan" not in repr(script):
        assert again == script


def test_a_secret_stays_a_reference():
    script = Script("a", env={"TOKEN": Secret("env", "TOKEN")})
    assert script.to_record()["env"] == {"TOKEN": {"secret": "env", "name": "TOKEN"}}
    assert script.command(PLACE).env == {"TOKEN": Secret("env", "TOKEN")}


def test_a_clone_is_independent():
    script = Script("a", args=["x"], env={"A": "1"}, metadata={"tags": ["t"]})
    copy = script.clone()
    copy.args.append("y")
    copy.env["B"] = "2"
    copy.metadata["tags"] = []
    assert script == Script("a", args=["x"], env={"A": "1"}, metadata={"tags": ["t"]})


def test_repr_shows_what_was_given():
    assert repr(Script(inline="date", env={"A": "1"})) == "Script(inline='date', env={'A': '1'})"
    assert repr(Script("a.sh", args=["x"])) == "Script('a.sh', args=['x'])"


@pytest.mark.parametrize(
    "record", [{}, {"path": 1}, {"path": "a", "nope": 1}, {"path": "a", "env": {"A": {"secret": "env"}}}, {"path": [1]}]
)
def test_a_malformed_record_is_refused(record):
    with pytest.raises(MalformedRecord):
        Script.from_record(record)


def test_metadata_that_json_cannot_hold_is_refused_with_its_path():
    with pytest.raises(UsageError, match=r"\$\.metadata\['x'\]"):
        Script("a", metadata={"x": object()}).to_record()
