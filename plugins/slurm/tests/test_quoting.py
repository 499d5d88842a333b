"""Any text survives the shell, and sbatch's own reading of `#SBATCH` lines."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nemorun_slurm.quoting import comment, directive, filename, shell

from nemorun_core import UsageError

LINES = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters=[chr(number) for number in range(32)]))
HOSTILE = [
    "",
    "a b",
    "it's",
    'a "b" c',
    "a\\b\\\\c\\",
    "$HOME `id` $(id) ${x}",
    "a #b",
    "# nothing",
    "a=b,c;d|e%x&f>g<h",
    "é ☃ 🎉",
    "tab\there",
    "--flag=-x",
    "hetjob",
    "a HetJob or a packJOB b",
    "'\"'\"'",
    " leading and trailing ",
]


def read_line(line: str) -> list[str]:
    """Read a `#SBATCH` line as Slurm's `get_argument` does."""
    words: list[str] = []
    word: list[str] | None = None
    quote, escaped = "", False
    for character in line.removeprefix("#SBATCH"):
        if escaped:
            word, escaped = [*(word or []), character], False
        elif character == "\\":
            escaped = True
        elif quote:
            if character == quote:
                quote = ""
            else:
                word = [*(word or []), character]
        elif character in "'\"":
            word, quote = word or [], character
        elif character == "#":
            break
        elif character.isspace():
            words += ["".join(word)] if word is not None else []
            word = None
        else:
            word = [*(word or []), character]
    return [*words, "".join(word)] if word is not None else words


@given(LINES)
def test_any_line_is_one_word_of_sbatch(value):
    assert read_line(directive("--comment", value)) == [f"--comment={value}"]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_value_is_one_word_of_sbatch(value):
    line = directive("--comment", value)
    assert read_line(line) == [f"--comment={value}"]
    assert "hetjob" not in line.lower()
    assert "packjob" not in line.lower()


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b", "\x1b[31m"])
def test_what_has_no_place_in_a_line_is_refused(value):
    with pytest.raises(UsageError, match="--comment"):
        directive("--comment", value)


def test_a_plain_value_is_written_plainly():
    assert directive("--gres", "gpu:a100:2") == "#SBATCH --gres=gpu:a100:2"
    assert directive("--exclusive") == "#SBATCH --exclusive"


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")), max_size=4))
@example(HOSTILE)
@example(["a\nb\n", "\n"])
def test_any_words_survive_the_shell(words):
    done = subprocess.run(["sh", "-c", f"printf '%s\\0' {shell(*words)}"], capture_output=True, check=True, timeout=20)
    assert done.stdout == b"".join(word.encode() + b"\0" for word in words or [""])


def test_the_shell_is_given_no_null_character():
    with pytest.raises(UsageError, match="NUL"):
        shell("a", "b\0c")


@given(st.text(st.characters(blacklist_categories=["Cs"])))
def test_a_comment_is_one_line(text):
    line = comment(text)
    assert line.startswith("# ")
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize(("path", "pattern"), [("/a/%j", "/a/%%j"), ("/a b/c", "/a b/c"), ("/a\\b/%j", "/a\\\\b/%j")])
def test_a_path_is_no_filename_pattern(path, pattern):
    assert filename(path) == pattern


@pytest.mark.slurm
@pytest.mark.parametrize("value", HOSTILE)
def test_sbatch_reads_a_line_as_it_was_meant(cluster, value):
    lines = ["#!/bin/sh", directive("--comment", value), "#SBATCH --hold --output=/dev/null", "exit 0"]
    job = cluster.run("sbatch", "--parsable", stdin="\n".join(lines) + "\n").strip()
    try:
        assert cluster.run("squeue", "--noheader", f"--jobs={job}", "--format=%k|%i") == f"{value}|{job}\n"
    finally:
        cluster.run("scancel", job)
