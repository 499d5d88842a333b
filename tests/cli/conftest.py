"""How these tests call the command: in this process for what it says, as a process for what a terminal would see."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import nemorun_core as nemorun
from nemorun_core._cli.main import main


class Said(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str


Call = Callable[..., Said]


@pytest.fixture
def call(capfdbinary: pytest.CaptureFixture[bytes]) -> Call:
    """Run a command line in this process."""

    def run(*words: object) -> Said:
        capfdbinary.readouterr()
        code = main([str(word) for word in words])
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return Said(code, out.decode(), err.decode())

    return run


@pytest.fixture
def shell(tmp_path: Path) -> Call:
    """Run a line of bash with this environment's commands on PATH."""

    def run(line: str, **variables: str) -> Said:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=tmp_path,
            env={**os.environ, "PATH": path, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def ran(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., nemorun.Experiment]:
    """Run shell texts as jobs, by name, each after the one before; return the experiment when all have ended."""

    def run(title: str, /, id: str | None = None, **jobs: str) -> nemorun.Experiment:
        with nemorun.Experiment(title, id=id) as experiment:
            before: list[str] = []
            for name, text in jobs.items():
                before = [experiment.add(nemorun.Script(inline=text), name=name, dependencies=before)]
            experiment.run()
        return experiment

    return run
