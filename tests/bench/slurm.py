"""Rows on a Slurm cluster: ours and sbatch from the shell, in turn. Left out where no cluster answers."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import nemorun_core as run
from nemorun_core.store.layout import Home
from tests.bench.measure import Figure, Scale, Times, least

__all__ = ["slurm"]

_SBATCH = ["sbatch", "--parsable", "--output=/dev/null"]
_PROGRAM = "#!/bin/sh\ntrue\n"
_LOOK_SECONDS, _TICK_SECONDS = 1.0, 0.1
_LATER = "now+1hour"  # only how they are submitted counts, and none runs meanwhile


def slurm(scale: Scale, folder: Path) -> list[Figure]:
    """Run many equal jobs to their end; submit many that are all different."""
    equal, different = (1000, 200) if scale.rounds > 1 else (20, 5)
    rounds = min(scale.rounds, 2)
    found = least(
        rounds, bare=lambda: _bare_array(equal), ours=lambda: _experiment(run.SlurmExecutor() for _ in range(equal))
    )
    apart = least(
        rounds,
        bare=lambda: _bare_loop(different),
        ours=lambda: _submitted(
            run.SlurmExecutor(time=str(number + 1), additional_parameters={"begin": _LATER})
            for number in range(different)
        ),
    )
    ours, bare = found["ours"]["wall"], found["bare"]["wall"]
    details = {"ours, wall s": ours, "sbatch --array, wall s": bare, "sbatch calls": found["ours"]["calls"]}
    sent, loop = apart["ours"]["submitted"], apart["bare"]["wall"]
    return [
        Figure(f"{equal:,} equal jobs to their end", 3, ours / bare, "×", details),
        Figure(
            f"{different} different jobs submitted",
            1.3,
            sent / loop,
            "×",
            {"ours, wall s": sent, "sbatch, wall s": loop},
        ),
    ]


def _sbatch(*options: str) -> str:
    done = subprocess.run([*_SBATCH, *options], input=_PROGRAM, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _bare_array(amount: int) -> Times:
    begun = time.perf_counter()
    _wait([_sbatch(f"--array=0-{amount - 1}")])
    return {"wall": time.perf_counter() - begun}


def _bare_loop(amount: int) -> Times:
    begun = time.perf_counter()
    numbers = [_sbatch(f"--time={number + 1}", f"--begin={_LATER}") for number in range(amount)]
    taken = time.perf_counter() - begun
    subprocess.run(["scancel", *numbers], check=True)
    return {"wall": taken}


def _wait(numbers: list[str]) -> None:
    command = ["squeue", "--noheader", "--format=%i", f"--jobs={','.join(numbers)}"]
    while subprocess.run(command, capture_output=True, text=True).stdout.strip():
        time.sleep(_LOOK_SECONDS)


def _experiment(executors: Iterable[run.SlurmExecutor]) -> Times:
    with _added(executors) as experiment:
        begun = time.perf_counter()
        experiment.run(check=True)
        experiment.wait()
        taken = time.perf_counter() - begun
    return {"wall": taken, "calls": float(len(_calls(experiment)))}


def _submitted(executors: Iterable[run.SlurmExecutor]) -> Times:
    """Return the seconds until the last of the files was written that say what number a job got."""
    with _added(executors) as experiment:
        begun = time.time()
        experiment.run()
        while len(_records(experiment)) < len(experiment.jobs):
            time.sleep(_TICK_SECONDS)
        taken = max(path.stat().st_mtime for path in _records(experiment)) - begun
        subprocess.run(["scancel", *_calls(experiment)], check=True)
    return {"submitted": taken}


def _added(executors: Iterable[run.SlurmExecutor]) -> run.Experiment:
    experiment = run.Experiment("slurm", log_level="ERROR")
    with experiment:
        for number, executor in enumerate(executors):
            experiment.add(run.Script(inline="true", entrypoint="sh"), executor, name=f"job{number}")
    return experiment


def _calls(experiment: run.Experiment) -> list[str]:
    """Return the numbers of Slurm's jobs and arrays that the experiment's jobs went out as."""
    return [line.split()[0] for path in _records(experiment) for line in path.read_text().splitlines()]


def _records(experiment: run.Experiment) -> list[Path]:
    return list(Path(Home.locate().path, "slurm", experiment.id).glob("*/*.slurm"))
