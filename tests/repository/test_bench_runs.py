"""The benchmarks run: `python tests/bench` measures every row, whatever it finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def bench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tests/bench", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"TMPDIR": str(folder)}, capture_output=True, text=True)


def test_a_quick_run_measures_every_row_and_leaves_nothing(tmp_path):
    done = bench(tmp_path, "--quick", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    figures = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(figures) == len({figure["what"] for figure in figures}) == 29
    assert {figure["verdict"] for figure in figures} <= {"ok", "OVER"}
    assert not list(tmp_path.glob("nemorun-bench-*"))


def test_a_row_is_chosen_by_name_and_an_unknown_one_is_refused(tmp_path):
    done = bench(tmp_path, "partial", "--quick")
    assert done.stdout.count(" at most ") == 4
    assert bench(tmp_path, "nothing").returncode == 2
