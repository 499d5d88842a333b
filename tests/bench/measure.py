"""What a figure is, and how CPU time is measured: of fresh processes, ours and bare ones in turn, the least of several."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = ["NEMORUN", "Figure", "Scale", "child", "cpu", "least", "process", "ratio"]

_CHILDREN = Path(__file__).with_name("children.py")
_SCRIPT = Path(sys.executable).with_name("nemorun")
NEMORUN = [str(_SCRIPT)] if _SCRIPT.exists() else [sys.executable, "-m", "nemorun_core._cli"]


class Figure(NamedTuple):
    """One line of the table. `details` are what it was made of: milliseconds of CPU, unless the name says otherwise."""

    what: str
    limit: float
    measured: float
    unit: str
    details: Mapping[str, float]

    @property
    def verdict(self) -> str:
        return "ok" if self.measured <= self.limit else "OVER"


class Scale(NamedTuple):
    """How much is measured: `rounds` of each, of which the least counts."""

    rounds: int = 15
    tasks: tuple[int, ...] = (500, 5000)
    chain: int = 50
    lines: int = 1_000_000
    experiments: int = 1000
    nodes: int = 1000
    depth: int = 500


def cpu(call: Callable[[], object]) -> float:
    """Return the CPU seconds, user and system, of this process and the children that it waited for in `call`."""
    before = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    call()
    after = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(a.ru_utime + a.ru_stime - b.ru_utime - b.ru_stime for a, b in zip(after, before, strict=True))


def process(argv: list[str]) -> dict[str, float]:
    """Run a program to its end, its output thrown away; return its `cpu` with its children's, and `wall`, in seconds."""
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, "wall": wall}


class child:
    """A fresh Python that runs one function of children.py, and tells figures on the last line of standard error."""

    def __init__(self, name: str, *arguments: object, output: str = os.devnull) -> None:
        with open(output, "wb") as stream:
            self._process = subprocess.Popen(
                [sys.executable, str(_CHILDREN), name, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.PIPE,
                text=True,
            )

    def figures(self) -> dict[str, float]:
        """Wait for its end and return what it told."""
        with self._process as running:
            _, words = running.communicate()
        if running.returncode:
            raise RuntimeError(f"{running.args} ended with {running.returncode}:\n{words}")
        return dict(json.loads(words.splitlines()[-1]))


def least(rounds: int, **calls: Callable[[], dict[str, float]]) -> dict[str, dict[str, float]]:
    """Call all in turn, `rounds` times, and return the least of each figure of each."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(call())
    return {name: {key: min(one[key] for one in seen) for key in seen[0]} for name, seen in found.items()}


def ratio(what: str, limit: float, ours: float, bare: float, **details: float) -> Figure:
    """Return how many times the CPU seconds of `bare` ours are."""
    return Figure(what, limit, ours / bare, "×", {"ours": ours * 1e3, "bare": bare * 1e3, **details})
