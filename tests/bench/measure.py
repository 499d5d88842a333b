"""What a figure is, and how it is measured: ours and the bare thing in turn, several times."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.bench.children import all_cpu

__all__ = ["Child", "Figure", "Scale", "Times", "against", "beside", "checksum", "least", "process", "timed", "waited"]

Times = dict[str, float]


class Scale(NamedTuple):
    """How much is measured, and how often at most."""

    rounds: int = 15
    tasks: tuple[int, int] = (500, 5000)
    chain: int = 50
    lines: int = 1_000_000
    experiments: int = 1000
    nodes: int = 1000
    depth: int = 500
    files: int = 10_000
    few: int = 1000
    many: int = 100_000


class Figure(NamedTuple):
    """One line of the table; `details` are what it was made of."""

    what: str
    limit: float
    measured: float
    unit: str
    details: Mapping[str, float]

    @property
    def verdict(self) -> str:
        return "ok" if self.measured <= self.limit else "OVER"


def against(what: str, limit: float, ours: float, bare: float, **details: float) -> Figure:
    """Return how many times the CPU seconds of `bare` ours are."""
    return Figure(what, limit, ours / bare, "×", {"ours, CPU ms": ours * 1e3, "bare, CPU ms": bare * 1e3, **details})


def waited(what: str, limit_ms: float, times: Times) -> Figure:
    """Return how many milliseconds something took."""
    return Figure(what, limit_ms, times["wall"] * 1e3, "ms", {"CPU ms": times["cpu"] * 1e3})


def timed(call: Callable[[], object]) -> Times:
    """Call, and return the seconds that it took: `wall`, and `cpu` of this process and the children it waited for."""
    begun, before = time.perf_counter(), all_cpu()
    call()
    return {"cpu": all_cpu() - before, "wall": time.perf_counter() - begun}


def _in_turn(rounds: int, calls: Mapping[str, Callable[[], Times]]) -> dict[str, list[Times]]:
    found: dict[str, list[Times]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(call())
    return found


def beside(rounds: int, bare: Callable[[], Times], **calls: Callable[[], Times]) -> dict[str, Times]:
    """Call all in turn, `rounds` times, and return the median of each figure of `bare`, and of the others that median
    times the median of their ratios to the `bare` call of the same round.

    For what is short: of two lists the least are seldom of the same moment, and a machine may change its speed by half.
    """
    found = _in_turn(rounds, {"bare": bare, **calls})
    middle = {key: median(one[key] for one in found["bare"]) for key in ("cpu", "wall")}
    return {
        name: {
            key: value * median(one[key] / other[key] for one, other in zip(seen, found["bare"], strict=True))
            for key, value in middle.items()
        }
        for name, seen in found.items()
    }


def process(*argv: str) -> Times:
    """Time a program, its output thrown away."""
    null = subprocess.DEVNULL
    return timed(lambda: subprocess.run(argv, stdin=null, stdout=null, stderr=null, check=True))


def least(rounds: int, **calls: Callable[[], Times]) -> dict[str, Times]:
    """Call all in turn, `rounds` times, and return the least of each figure of each."""
    found = _in_turn(rounds, calls)
    return {name: {key: min(one[key] for one in seen) for key in seen[0]} for name, seen in found.items()}


class Child:
    """A fresh Python that runs a function of children.py, or another file here; `sum` is that of its standard output,
    read as it comes."""

    def __init__(self, name: str, *arguments: object, file: str = "children.py") -> None:
        words = (*([name] if name else []), *arguments)
        argv = [sys.executable, str(Path(__file__).with_name(file)), *map(str, words)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._sum = subprocess.Popen(["cksum"], stdin=self.process.stdout, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.process.stdout.close()
        self.process.stdout = None  # for `communicate`: it is the reader's alone

    def figures(self) -> Times:
        """Wait for its end and return the figures that it told."""
        words = self.process.communicate(timeout=900)[1]
        self.sum = self._sum.communicate()[0].strip()
        if self.process.returncode:
            raise RuntimeError(words)
        return dict(json.loads(words.splitlines()[-1]))


def checksum(path: Path, edit: str = "") -> str:
    """Return the `Child.sum` of a file's content, edited by sed."""
    return subprocess.check_output(f"sed '{edit}' '{path}' | cksum", shell=True, text=True).strip()
