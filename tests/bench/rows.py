"""The rows of the table: each function measures one and returns its figures."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import attrs

import nemorun_core as run
from nemorun_core.engine import loop
from nemorun_core.store.layout import Home
from tests.bench.children import AT_ONCE, LINE_BYTES, PROGRAM
from tests.bench.measure import NEMORUN, Figure, Scale, child, cpu, least, process, ratio

__all__ = ["ROWS"]

Row = Callable[[Scale, Path], list[Figure]]

_ONE_TASK = """
import nemorun_core as run
with run.Experiment("one") as experiment:
    experiment.add(run.Script(inline="echo hello"))
    experiment.run()
"""
_BARE_TASK = """
import subprocess
with open({path!r}, "wb") as output:
    subprocess.Popen(["bash", "-c", "echo hello"], stdout=output).wait()
"""
_SEVERAL = 100  # processes measured together, since one is shorter than the kernel's clock tick


def start(scale: Scale, folder: Path) -> list[Figure]:
    """Import the package; print the help."""
    python = [sys.executable, "-c"]
    found = least(
        scale.rounds,
        bare=lambda: process([*python, "pass"]),
        imported=lambda: process([*python, "import nemorun_core"]),
        helped=lambda: process([*NEMORUN, "--help"]),
    )
    bare = found["bare"]["cpu"]
    return [
        ratio("import nemorun_core", 3, found["imported"]["cpu"], bare),
        ratio("nemorun --help", 8, found["helped"]["cpu"], bare),
    ]


def one(scale: Scale, folder: Path) -> list[Figure]:
    """Run one task end to end in a fresh process."""
    bare = _BARE_TASK.format(path=str(folder / "one"))
    found = least(
        scale.rounds,
        bare=lambda: process([sys.executable, "-c", bare]),
        ours=lambda: process([sys.executable, "-c", _ONE_TASK]),
    )
    return [ratio("one task end to end", 5, found["ours"]["cpu"], found["bare"]["cpu"])]


def shim(scale: Scale, folder: Path) -> list[Figure]:
    """Start a program by the shim alone."""
    shell = shutil.which("dash") or shutil.which("busybox") or "sh"
    script = str(Path(loop.__file__).with_name("shim.sh"))
    place, numbers = f"host={run.hostname()} boot={run.boot_id()}", count()

    def shimmed() -> None:
        base = str(folder / f"{next(numbers)}.0.0")
        run.pad_outcome(base, "")
        arguments = run.shim_argv(script, base, "", str(folder), PROGRAM, place=place)
        null = subprocess.DEVNULL
        subprocess.Popen([shell, *arguments], stdin=null, stdout=null, stderr=null).wait()

    def bare() -> None:
        with open(folder / f"bare{next(numbers)}", "wb") as output:
            subprocess.Popen(PROGRAM, stdin=subprocess.DEVNULL, stdout=output, stderr=output).wait()

    def several(call: Callable[[], None]) -> dict[str, float]:
        return {"cpu": cpu(lambda: [call() for _ in range(_SEVERAL)]) / _SEVERAL}

    found = least(scale.rounds, bare=lambda: several(bare), ours=lambda: several(shimmed))
    name = f"the shim alone ({os.path.basename(os.path.realpath(shell))})"
    return [ratio(name, 1.8, found["ours"]["cpu"], found["bare"]["cpu"])]


def tasks(scale: Scale, folder: Path) -> list[Figure]:
    """Run many tasks of one experiment; afterwards ask for the status of the last one."""
    numbers, figures, peaks = count(), [], {}

    def ours(amount: int) -> dict[str, float]:
        return child("tasks", amount, "").figures()

    def bare(amount: int) -> dict[str, float]:
        here = folder / f"bare{next(numbers)}"
        try:
            return child("bare_tasks", amount, AT_ONCE, here).figures()
        finally:
            shutil.rmtree(here, ignore_errors=True)

    first = least(scale.rounds, bare=lambda: bare(1), ours=lambda: ours(1))
    for amount in scale.tasks:
        rounds = min(scale.rounds, max(2, 2500 // amount))
        found = least(rounds, bare=lambda n=amount: bare(n), ours=lambda n=amount: ours(n))  # type: ignore[misc]
        each = {name: (found[name]["cpu"] - first[name]["cpu"]) / (amount - 1) for name in found}
        wall = {f"{name} wall s": found[name]["wall"] for name in found}
        figures.append(ratio(f"each further task, at {amount:,}", 2.5, each["ours"], each["bare"], **wall))
        peaks[amount] = found["ours"]["peak_kib"]
    low, high = min(peaks), max(peaks)
    memory = (peaks[high] - peaks[low]) / (high - low)
    details = {f"peak KiB at {amount:,}": peak for amount, peak in peaks.items()}
    return [*figures, Figure("memory a task", 20, memory, "KiB", details), _status(scale, high)]


def _status(scale: Scale, amount: int) -> Figure:
    newest = run.Experiment.catalog(f"tasks{amount}")[-1]
    found = least(min(scale.rounds, 7), ours=lambda: process([*NEMORUN, "experiment", "status", newest]))["ours"]
    return Figure(f"status of {amount:,} finished tasks", 1, found["wall"], "s", {"ours": found["cpu"] * 1e3})


def chain(scale: Scale, folder: Path) -> list[Figure]:
    """Run tasks one after another."""
    numbers, amount = count(), scale.chain
    rounds = min(scale.rounds, 7)
    first = least(rounds, ours=lambda: child("tasks", 1, "sequential").figures())["ours"]
    found = least(
        rounds,
        bare=lambda: child("bare_tasks", amount, 1, folder / f"bare{next(numbers)}").figures(),
        ours=lambda: child("tasks", amount, "sequential").figures(),
    )
    ours = (found["ours"]["wall"] - first["wall"]) / (amount - 1) * 1e3
    bare = found["bare"]["wall"] / amount * 1e3
    return [Figure(f"chain of {amount}, an edge", 20, ours - bare, "ms wall", {"ours wall": ours, "bare wall": bare})]


def logs(scale: Scale, folder: Path) -> list[Figure]:
    """Follow a job that writes lines: the run's own `tail_logs`, `Experiment.logs` in another process, a bare loop."""

    def once(lines: int) -> dict[str, float]:
        name = f"lines-{lines}-{next(numbers)}"
        source = Path(Home.locate().path, "lines", name, "lines", "0.0.0.out")
        files = {what: folder / what for what in ("bare", "followed", "tailed")}
        running = {
            "bare": child("bare_follow", source, lines * LINE_BYTES, output=str(files["bare"])),
            "followed": child("follow", name, output=str(files["followed"])),
            "tailed": child("tail", lines, name, output=str(files["tailed"])),
        }
        found = {what: one.figures() for what, one in running.items()}
        exact = source.stat().st_size == lines * LINE_BYTES and filecmp.cmp(source, files["followed"], shallow=False)
        if not exact or not _is_prefixed(source, files["tailed"]):
            raise RuntimeError(f"{lines} lines: bytes were lost")
        shutil.rmtree(source.parents[1])
        return {f"{what} {key}": value for what, one in found.items() for key, value in one.items()}

    numbers = count()
    few, many = least(1, few=lambda: once(scale.lines // 10))["few"], scale.lines
    found = least(min(scale.rounds, 3), all=lambda: once(many))["all"]
    figures = []
    for what, name in (("followed", "logs(follow=True)"), ("tailed", "tail_logs, prefixed")):
        growth = (found[f"{what} peak_kib"] - few[f"{what} peak_kib"]) / 1024
        bare = found["bare cpu"]
        figures.append(ratio(f"{name}, {many:,} lines, none lost", 2, found[f"{what} cpu"], bare))
        peak = {"peak MiB": found[f"{what} peak_kib"] / 1024}
        figures.append(Figure(f"{name}, memory over that of {many // 10:,}", 4, growth, "MiB", peak))
    return figures


def _is_prefixed(source: Path, tailed: Path) -> bool:
    with source.open("rb") as wanted, tailed.open("rb") as found:
        return all(b"lines | " + line == found.readline() for line in wanted) and not found.read()


def list_(scale: Scale, folder: Path) -> list[Figure]:
    """List many experiments."""
    home = folder / "home"
    with run.Experiment("listed", base_dir=home, log_level="WARNING") as experiment:
        experiment.add(run.Script(inline="true"), name="job")
        experiment.run()
    parent = Path(Home.locate(home).path, "listed")
    text = (parent / experiment.id / "experiment.json").read_text()
    for number in range(1, scale.experiments):
        name = f"listed_{number}"
        shutil.copytree(parent / experiment.id, parent / name, ignore=shutil.ignore_patterns("requests"))
        (parent / name / "experiment.json").write_text(text.replace(json.dumps(experiment.id), json.dumps(name)))
    argv = [*NEMORUN, "experiment", "list", "--base-dir", str(home)]
    listed = subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout.count(b"\n")
    if listed != scale.experiments:
        raise RuntimeError(f"{listed} experiments were listed")
    found = least(min(scale.rounds, 7), ours=lambda: process(argv))["ours"]
    return [Figure(f"list with {listed:,} experiments", 0.5, found["wall"], "s", {"ours": found["cpu"] * 1e3})]


@attrs.define
class Node:
    number: int
    below: object = None


def collect(nodes: object) -> None:
    """Stand for a training function."""


def partial(scale: Scale, folder: Path) -> list[Figure]:
    """Add a Partial with many Config nodes, and load it; then a deep one."""
    wide = run.Partial(collect, [run.Config(Node, number) for number in range(scale.nodes)])
    deep: object = None
    for number in range(scale.depth):
        deep = run.Config(Node, number, deep)
    figures = []
    for name, task in ((f"{scale.nodes:,} Config nodes", wide), (f"depth {scale.depth}", run.Partial(collect, deep))):
        with run.Experiment("partial", log_level="WARNING") as experiment:
            timed = least(scale.rounds, add=lambda t=task, e=experiment: _process_time(lambda: e.add(t)))  # type: ignore[misc]
        with run.Experiment("partial", log_level="WARNING") as experiment:
            experiment.add(task)
            experiment.run(direct=True)
        loaded = run.Experiment.from_id(experiment.id).tasks
        if loaded != [task]:
            raise RuntimeError(f"{name}: it was not read back equal")
        timed |= least(
            scale.rounds,
            load=lambda e=experiment: _process_time(lambda: run.Experiment.from_id(e.id).tasks),  # type: ignore[misc]
        )
        figures += [Figure(f"{name}, {what}", 50, one["cpu"] * 1e3, "ms", {}) for what, one in timed.items()]
    return figures


def _process_time(call: Callable[[], object]) -> dict[str, float]:
    begun = time.process_time()
    call()
    return {"cpu": time.process_time() - begun}


ROWS: dict[str, Row] = {
    "start": start,
    "one": one,
    "shim": shim,
    "tasks": tasks,
    "chain": chain,
    "logs": logs,
    "list": list_,
    "partial": partial,
}
