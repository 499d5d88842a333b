"""What several tests here need: wait for a condition, run a launcher of its own, read what it left."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from nemorun_core import Experiment, Script

T = TypeVar("T")

SECONDS = 20.0


def wait_for(condition: Callable[[], T], what: str = "condition") -> T:
    """Return the condition's value as soon as it is true."""
    deadline = time.monotonic() + SECONDS
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {SECONDS:g} s: {what}")
        time.sleep(0.01)
    return value


def sh(text: str, **fields: object) -> Script:
    """Return a task of the shell."""
    return Script(inline=text, **fields)  # type: ignore[arg-type]


def states(experiment: Experiment) -> dict[str, str]:
    """Return job id to state."""
    return {name: str(job["state"]) for name, job in status(experiment).items()}


def status(experiment: Experiment) -> dict[str, dict[str, object]]:
    found = experiment.status(return_dict=True)
    assert found is not None
    return found


def log(experiment: Experiment, job: str, member: int = 0, rank: str = "") -> str:
    """Return what a member wrote, from its file."""
    folder = Path(str(status(experiment)[job]["local_dir"]))
    return (folder / f"0.0.{member}.out{rank}").read_text()


@contextlib.contextmanager
def start(
    folder: Path, text: str, *, env: Mapping[str, str] | None = None, warnings: str = "error"
) -> Iterator[subprocess.Popen[str]]:
    """Start a launcher: a script of its own, in `folder`. Its output comes through pipes."""
    script = folder / "launch.py"
    script.write_text("import nemorun_core as run\n" + textwrap.dedent(text))
    with subprocess.Popen(
        [sys.executable, "-W", warnings, str(script)],
        cwd=folder,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def launch(
    folder: Path, text: str, *, env: Mapping[str, str] | None = None, warnings: str = "error"
) -> subprocess.CompletedProcess[str]:
    """Run a launcher to its end."""
    with start(folder, text, env=env, warnings=warnings) as process:
        out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def python(code: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `python -c`, warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **(env or {})},
    )
