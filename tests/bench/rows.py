"""The rows of the table. Each function measures one, in a folder and a home of its own, and returns its figures."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median

import attrs
from nemorun_local.processes import shell, spawn

import nemorun_core as run
from nemorun_core.engine import loop
from nemorun_core.store.layout import Home
from tests.bench.children import LINE_BYTES, PROGRAM
from tests.bench.measure import Child, Figure, Scale, Times, against, beside, checksum, least, process, timed, waited

__all__ = ["ROWS"]

_NEMORUN = str(Path(sys.executable).with_name("nemorun"))
_ONE_TASK = """
import nemorun_core as run
with run.Experiment("one") as experiment:
    experiment.add(run.Script(inline="echo hello"))
    experiment.run()
"""
_BARE_TASK = f"""
import subprocess, sys
with open(sys.argv[1], "wb") as output:
    subprocess.Popen({PROGRAM}, stdout=output).wait()
"""
_AT_ONCE = 64  # so many tasks are offered to a backend at once; ones as short as these seldom overlap more
_SEVERAL = 20
_TMPFS = "/dev/shm"


def start(scale: Scale, folder: Path) -> list[Figure]:
    """Import the package, print the help, run one task end to end: each a fresh process."""
    found = least(
        scale.rounds,
        bare=lambda: process(sys.executable, "-c", "pass"),
        imported=lambda: process(sys.executable, "-c", "import nemorun_core"),
        helped=lambda: process(_NEMORUN, "--help"),
        bare_task=lambda: process(sys.executable, "-c", _BARE_TASK, str(folder / "bare")),
        task=lambda: process(sys.executable, "-c", _ONE_TASK),
    )
    cpu = {name: times["cpu"] for name, times in found.items()}
    return [
        against("`import nemorun_core`", 3, cpu["imported"], cpu["bare"]),
        against("`nemorun --help`", 8, cpu["helped"], cpu["bare"]),
        against("one task end to end", 5, cpu["task"], cpu["bare_task"]),
    ]


def shim(scale: Scale, folder: Path) -> list[Figure]:
    """Start a program by the shim alone, as LocalExecutor starts it; its records in memory, where there is a tmpfs.

    ext4 looks at each new file through the inodes that were deleted in the last minutes: here, by other rows.
    """
    with tempfile.TemporaryDirectory(dir=_TMPFS if os.path.isdir(_TMPFS) else folder) as records:
        return _shim(scale, Path(records))


def _shim(scale: Scale, folder: Path) -> list[Figure]:
    command, script = shell(), str(Path(loop.__file__).with_name("shim.sh"))
    place, numbers, environment = f"host={run.hostname()} boot={run.boot_id()}", count(), dict(os.environ)

    def ours(base: str) -> object:
        argv = [*command, *run.shim_argv(script, base, "", str(folder), PROGRAM, place=place)]
        return os.waitpid(spawn(argv, environment, []), 0)

    def bare(base: str) -> object:
        with open(base, "wb") as output:
            return subprocess.Popen(PROGRAM, stdin=subprocess.DEVNULL, stdout=output, stderr=output).wait()

    def several(call: Callable[[str], object]) -> Times:
        bases = [str(folder / str(next(numbers))) for _ in range(_SEVERAL)]
        for base in bases if call is ours else ():
            run.pad_outcome(base, "")  # the submitter's part, which counts with each further task
        return timed(lambda: [call(base) for base in bases])

    found = beside(4 * scale.rounds, bare=lambda: several(bare), ours=lambda: several(ours))
    each = {name: times["cpu"] / _SEVERAL for name, times in found.items()}
    return [against(f"the shim alone, in {Path(command[0]).name}", 1.8, **each)]


def tasks(scale: Scale, folder: Path) -> list[Figure]:
    """Run many tasks of one experiment, then ask for their status."""
    numbers = count()

    def measured(amount: int, rounds: int) -> dict[str, Times]:
        return least(
            min(scale.rounds, rounds),
            bare=lambda: Child("bare_tasks", amount, _AT_ONCE, folder / str(next(numbers))).figures(),
            ours=lambda: Child("tasks", amount, "").figures(),
        )

    found = {amount: measured(amount, rounds) for amount, rounds in zip((1, *scale.tasks), (9, 5, 3), strict=True)}
    figures = []
    for amount in scale.tasks:
        each = {name: (found[amount][name]["cpu"] - found[1][name]["cpu"]) / (amount - 1) for name in ("ours", "bare")}
        wall = {f"{name}, wall s": found[amount][name]["wall"] for name in ("ours", "bare")}
        figures.append(against(f"each further task, at {amount:,}", 2.5, **each, **wall))
    low, high = scale.tasks
    peaks = {f"peak MiB at {amount:,}": found[amount]["ours"]["peak"] / 1024 for amount in scale.tasks}
    memory = (found[high]["ours"]["peak"] - found[low]["ours"]["peak"]) / (high - low)
    newest = run.Experiment.catalog(f"tasks{high}")[-1]
    status = least(min(scale.rounds, 7), ours=lambda: process(_NEMORUN, "experiment", "status", newest))["ours"]
    of_all = waited(f"`status` of {high:,} finished tasks", 1000, status)
    return [*figures, Figure("memory a task", 20, memory, "KiB", peaks), of_all]


def chain(scale: Scale, folder: Path) -> list[Figure]:
    """Run tasks one after another."""
    numbers, amount = count(), scale.chain
    found = least(
        min(scale.rounds, 7),
        bare=lambda: Child("bare_tasks", amount, 1, folder / str(next(numbers))).figures(),
        first=lambda: Child("tasks", 1, "sequential").figures(),
        ours=lambda: Child("tasks", amount, "sequential").figures(),
    )
    ours = (found["ours"]["wall"] - found["first"]["wall"]) / (amount - 1) * 1e3
    bare = found["bare"]["wall"] / amount * 1e3
    details = {"ours, wall ms": ours, "bare, wall ms": bare}
    return [Figure(f"chain of {amount}, an edge over bare", 20, ours - bare, "ms", details)]


PREFIX = "s/^/lines | /"  # for sed(1)


def logs(scale: Scale, folder: Path) -> list[Figure]:
    """Follow a job that writes lines: by the run's `tail_logs`, by `logs` in another process, and bare, all at once."""
    numbers = count()

    def once(lines: int) -> Times:
        name = f"lines-{next(numbers)}"
        source = Path(Home.locate().path, "lines", name, "lines", "0.0.0.out")
        running = {
            "bare": Child("bare_follow", source, lines * LINE_BYTES),
            "bare-prefix": Child("bare_prefix", source, lines * LINE_BYTES),
            "logs": Child("follow", name),
            "tail": Child("tail", lines, name),
        }
        try:
            found = {what: child.figures() for what, child in running.items()}
        finally:
            for child in running.values():
                child.process.kill()
        for what, edit in (("bare", ""), ("bare-prefix", PREFIX), ("logs", ""), ("tail", PREFIX)):
            if running[what].sum != checksum(source, edit) or source.stat().st_size != lines * LINE_BYTES:
                raise RuntimeError(f"{what}: the bytes of {lines} lines are not those of the job")
        shutil.rmtree(source.parents[1])
        return {f"{what} {key}": value for what, times in found.items() for key, value in times.items()}

    tenth, figures = scale.lines // 10, []
    found = least(min(scale.rounds, 5), few=lambda: once(tenth), many=lambda: once(scale.lines))
    more = {key: many - found["few"][key] for key, many in found["many"].items()}
    both = (("logs", "bare", "`logs(follow=True)`"), ("tail", "bare-prefix", "`tail_logs`, prefixed"))
    for what, bare, name in both:
        title = f"{name}, {scale.lines - tenth:,} more lines"
        figures.append(against(title, 2, more[f"{what} cpu"], more[f"{bare} cpu"]))
        peak = {"peak MiB": found["many"][f"{what} peak"] / 1024}
        figures.append(Figure(f"{name}, memory of these", 1, more[f"{what} peak"] / 1024, "MiB", peak))
    return figures


def list_(scale: Scale, folder: Path) -> list[Figure]:
    """List many experiments."""
    with run.Experiment("listed", log_level="WARNING") as experiment:
        experiment.add(run.Script(inline="true"), name="job")
        experiment.run()
    made = Path(Home.locate().path, "listed", experiment.id)
    text = (made / "experiment.json").read_text()
    for number in range(1, scale.experiments):
        copied = shutil.copytree(made, made.with_name(f"copy_{number}"), ignore=shutil.ignore_patterns("requests"))
        (copied / "experiment.json").write_text(text.replace(experiment.id, copied.name))
    assert len(run.Experiment.catalog()) == scale.experiments
    found = least(min(scale.rounds, 7), ours=lambda: process(_NEMORUN, "experiment", "list"))["ours"]
    return [waited(f"`list` with {scale.experiments:,} experiments", 500, found)]


@attrs.define
class Node:
    number: int
    below: object = None


def collect(nodes: object) -> None:
    """Stand for a training function."""


def partial(scale: Scale, folder: Path) -> list[Figure]:
    """Add a Partial with many Config nodes, and load it; then a deep one."""
    deep: object = None
    for number in range(scale.depth):
        deep = run.Config(Node, number, deep)
    wide = [run.Config(Node, number) for number in range(scale.nodes)]
    return [*_added(f"{scale.nodes:,} Config nodes", wide, scale), *_added(f"depth {scale.depth}", deep, scale)]


def _added(what: str, nodes: object, scale: Scale) -> list[Figure]:
    task = run.Partial(collect, nodes)
    with run.Experiment("added", log_level="WARNING") as experiment:
        added = least(scale.rounds, ours=lambda: timed(lambda: experiment.add(task)))["ours"]
    with run.Experiment("loaded", log_level="WARNING") as experiment:
        experiment.add(task)
        experiment.run(direct=True)
    assert run.Experiment.from_id(experiment.id).reset().tasks == [task]
    loaded = least(scale.rounds, ours=lambda: timed(run.Experiment.from_id(experiment.id).reset))["ours"]
    return [waited(f"{what}, `add`", 50, added), waited(f"{what}, load", 50, loaded)]


def bundle(scale: Scale, folder: Path) -> list[Figure]:
    """Pack a repository of many files that is unchanged: look, name, and find that it stands there already."""
    from nemorun_git import GitArchivePackager

    from nemorun_core.store.bundles import digest_of, write_bundle

    top = folder / "repository"
    for number in range(scale.files):
        place = top / str(number % 100) / f"{number}.py"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"print({number})\n" * 20)
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a", "commit", "-qm", "a"]):
        subprocess.run(["git", *command], cwd=top, check=True)
    shared, numbers = str(folder / "shared"), count()

    def packed() -> None:
        files = GitArchivePackager().collect(str(top)).files
        digest, _ = digest_of(files)
        write_bundle(files, digest, shared, str(folder / f"own{next(numbers)}"))

    packed()
    found = least(min(scale.rounds, 7), ours=lambda: timed(packed))["ours"]
    return [waited(f"a repository of {scale.files:,} unchanged files", 1000, found)]


def many(scale: Scale, folder: Path) -> list[Figure]:
    """Run a large experiment on the simulator: the state machine, the loop and the journal, without programs."""

    numbers, few, figures = count(), scale.few, []
    several = min(scale.rounds, 10)

    def once(jobs: int, per_job: int) -> Times:
        place = str(folder / str(next(numbers)))
        os.mkdir(place)
        simulated = Child("simulated", jobs, per_job * jobs, place, file="simulated.py").figures()
        for name in ("recover", "status") if jobs > few else ():
            simulated = {**Child(name, jobs, place, file="simulated.py").figures(), **simulated}
        shutil.rmtree(place)
        return simulated

    def compared(per_job: int) -> Times:
        """Measure a large one between small ones, of the same minute."""
        small = [once(few, per_job)["cpu"] for _ in range(several)]
        large = once(scale.many, per_job)
        small += [once(few, per_job)["cpu"] for _ in range(several)]
        return {**large, "ratio": large["cpu"] / scale.many / (median(small) / few)}

    for per_job, what in ((0, "independent"), (3, "with three edges each")):
        seen = [compared(per_job) for _ in range(min(scale.rounds, 3))]
        large = {key: (median if key == "ratio" else min)(one[key] for one in seen) for key in seen[0]}
        name = f"{scale.many:,} jobs, {what}"
        figures += [
            Figure(name, 60, large["cpu"], "s", {"CPU µs a job": large["cpu"] / scale.many * 1e6}),
            Figure(f"{name}: a job, over one of {few:,}", 1.2, large["ratio"], "×", {}),
            Figure(f"{name}: memory", 1024, large["peak"] / 1024, "MiB", {}),
            Figure(f"{name}: recovery", 10, large["recovery"], "s", {}),
            Figure(f"{name}: status", 2, large["status"], "s", {}),
        ]
    return figures


ROWS = {row.__name__.rstrip("_"): row for row in (start, shim, tasks, chain, logs, list_, partial, bundle, many)}
