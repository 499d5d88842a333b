"""What the plugin prints, and what it skips."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SUITE = """
import pytest
from nemorun_devkit import ExecutorLaws
from plugins.devkit.tests.memory import MemoryExecutor

class TestOne(ExecutorLaws):
    @pytest.fixture
    def executor(self, tmp_path):
        return MemoryExecutor(directory=str(tmp_path / "scheduler"){fields})
"""


@pytest.fixture
def session(tmp_path):
    """Run a suite of one class in a session of its own, and return what it prints."""

    def run(*arguments, fields="", suite=SUITE):
        path = tmp_path / "test_one.py"
        path.write_text(suite.replace("{fields}", fields))
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([*command, str(path)], cwd=tmp_path, env=environment, capture_output=True, text=True)
        return done.stdout

    return run


def rows(printed):
    found = re.findall(r"^(E\d+) +(\d+) +(\d+) +(\d+) +(\d+)$", printed, re.MULTILINE)
    return {law: tuple(map(int, counts)) for law, *counts in found}


def test_a_broken_law_is_printed_with_its_sentence(session):
    printed = session("-k", "told_without_a_connection or there_is_an_interval", fields=", lie='nobody'")
    assert "An option that cannot be honoured is a `UsageError` before anything is created." in printed
    assert rows(printed)["E16"] == (1, 0, 1, 0)


def test_the_table_counts_what_was_kept_and_skipped_and_says_why(session):
    printed = session("-k", "test_e13_")
    assert "laws of TestOne" in printed
    assert rows(printed) == {"E13": (10, 6, 0, 4)}
    assert "skipped 1: not offered: scheduler_down" in printed
    assert "skipped 3: not offered: submitted_documents" in printed


def test_a_capability_that_is_missing_is_skipped_and_its_refusal_is_tested(session):
    printed = session("-k", "test_e15_", fields=", groups=False")
    assert rows(printed) == {"E15": (16, 1, 0, 15)}


def test_a_class_without_an_executor_is_told_what_to_give(session, tmp_path):
    printed = session("-k", "the_executor_itself_is_fit", suite=SUITE.partition("    @pytest")[0] + "    pass\n")
    assert "give a fixture `executor` that returns the executor under test" in printed
    assert rows(printed) == {"E16": (1, 0, 1, 0)}


def test_every_law_has_tests_and_the_long_ones_ten(session):
    printed = session("--collect-only", "-q", "-m", "")
    counts = {f"E{number}": len(re.findall(f"::test_e{number}_", printed)) for number in range(1, 17)}
    assert all(count >= 5 for count in counts.values()), counts
    assert all(counts[law] >= 10 for law in ("E2", "E5", "E7", "E8", "E10", "E15")), counts
