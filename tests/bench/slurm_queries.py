"""Rows on a Slurm cluster: what jobs that run cost its controller, however many processes watch them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nemorun_core as run
from tests.bench.measure import Figure, Scale, process

__all__ = ["queries", "without_cluster"]

_NEMORUN = str(Path(sys.executable).with_name("nemorun"))
_WATCHERS = 20
_MINUTE = 60.0
_START_SECONDS = 600.0
_ASKED = re.compile(r"^\s*REQUEST_(?:JOB_INFO\w*|BATCH_SCRIPT|BUILD_INFO)\s.*count:(\d+)", re.MULTILINE)


def without_cluster() -> str:
    """Return why these rows are left out, "" if they are not."""
    try:
        asked = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no Slurm: {error}"
    return "" if "is UP" in asked.stdout else "no Slurm cluster answers"


def queries(scale: Scale, folder: Path) -> list[Figure]:
    """Count what slurmctld is asked about jobs that run, by sdiag(1), while 20 processes wait for them: with a driver,
    and when that was killed. As many jobs as the cluster has processors idle, up to 1,000."""
    wanted, seconds = (1000, _MINUTE) if scale.rounds > 1 else (4, 3.0)
    amount = min(wanted, _idle())
    os.environ["XDG_RUNTIME_DIR"] = str(folder)  # nobody else's answers
    with run.Experiment("watched", run.SlurmExecutor(time="60", mem="10M"), log_level="ERROR") as experiment:
        for _ in range(amount):
            experiment.add(run.Script(inline="exec sleep 3000", entrypoint="sh"))
        experiment.run(detach=True)
    status = (_NEMORUN, "experiment", "status", experiment.id)
    try:
        running = _started(experiment.id)
        with _watchers(experiment.id):
            first, second = _asked(seconds), _asked(seconds)
            driven = process(*status)
            os.kill(_driver(experiment.id), signal.SIGKILL)
            left_alone = _asked(seconds)
        settled = process(*status)
    finally:
        for words in (["cancel", "--all"], ["wait"]):  # the latter settles what is left: there is no driver
            subprocess.run([_NEMORUN, "experiment", *words, experiment.id], capture_output=True, timeout=_START_SECONDS)
    what = f"{running} that run, {_WATCHERS} watch"
    minutes = _MINUTE / seconds
    return [
        Figure(f"{what}, queries a minute", 6, second * minutes, "", {"in the minute before": first * minutes}),
        Figure(f"{what}, without a driver", 6, left_alone * minutes, "", {}),
        _status(f"`status` of {running} that run", driven),
        _status("`status`, without a driver", settled),
    ]


def _status(what: str, times: dict[str, float]) -> Figure:
    """CPU time: where twenty others look as well, the wall's is theirs."""
    return Figure(what, 1000, times["cpu"] * 1e3, "ms", {"wall ms": times["wall"] * 1e3})


def _idle() -> int:
    """Return how many processors are idle (sinfo(1), %C: allocated/idle/other/total)."""
    return int(subprocess.check_output(["sinfo", "-h", "-o", "%C"], text=True).split("/")[1])


def _shown(name: str) -> dict[str, object]:
    return dict(json.loads(subprocess.check_output([_NEMORUN, "experiment", "status", "--json", name])))


def _started(name: str) -> int:
    """Wait until no job waits any more; return how many run. On a machine that is too busy, Slurm cannot start all."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        states = [job["state"] for job in _shown(name)["jobs"]]  # type: ignore[attr-defined]
        if not {"PENDING", "UNSUBMITTED"} & set(states) or time.monotonic() > deadline:
            return states.count("RUNNING")
        time.sleep(1.0)


def _driver(name: str) -> int:
    driver = _shown(name)["driver"]
    assert isinstance(driver, dict)
    return int(driver["pid"])


@contextlib.contextmanager
def _watchers(name: str) -> Iterator[None]:
    command = [_NEMORUN, "experiment", "wait", name]
    watchers = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(_WATCHERS)
    ]
    try:
        yield
        if ended := [watcher.returncode for watcher in watchers if watcher.poll() is not None]:
            raise RuntimeError(f"{len(ended)} watchers ended: {ended}")
    finally:
        for watcher in watchers:
            watcher.kill()
            watcher.wait()


def _asked(seconds: float) -> int:
    """Return how many questions about jobs slurmctld was asked in so many seconds."""
    before = _count()
    time.sleep(seconds)
    return _count() - before


def _count() -> int:
    return sum(map(int, _ASKED.findall(subprocess.check_output(["sdiag"], text=True))))
