"""Rows on a Docker engine: ours and `docker run` from the shell, in turn. Left out where no engine answers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import nemorun_core as run
from tests.bench.measure import Figure, Scale, Times, least

__all__ = ["docker", "missing"]

_IMAGE = "test/bb"
_RUN = ["docker", "run", "--rm", _IMAGE, "sh", "-c"]
_ONE = f"""
import nemorun_core as run
with run.Experiment("one", log_level="ERROR") as experiment:
    task = run.Script(inline="echo hello", entrypoint="sh")
    experiment.add(task, executor=run.DockerExecutor(container_image={_IMAGE!r}, pull="never"))
    experiment.run(check=True)
"""
_MINUTE = 60.0


def missing() -> str:
    """Return why these rows are left out, "" if they are not."""
    try:
        asked = subprocess.run(["docker", "image", "inspect", _IMAGE], capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no Docker engine: {error}"
    return asked.stderr.decode().strip() if asked.returncode else ""


def docker(scale: Scale, folder: Path) -> list[Figure]:
    """Run one container end to end, then many at once; count what a hundred that run cost the engine."""
    amount, running, seconds = (50, 100, _MINUTE) if scale.rounds > 1 else (2, 2, 2.0)
    one = least(
        scale.rounds,
        bare=lambda: _timed(lambda: _wait([_bare("echo hello")])),
        fresh=lambda: _timed(lambda: subprocess.run([sys.executable, "-c", _ONE], check=True)),
        warm=lambda: _timed(lambda: _experiment(1)),
    )
    many = least(
        min(scale.rounds, 3),
        bare=lambda: _timed(lambda: _wait([_bare("echo hello") for _ in range(amount)])),
        ours=lambda: _timed(lambda: _experiment(amount)),
    )
    return [
        _over("one container, from a fresh process", one["fresh"]["wall"], one["bare"]["wall"]),
        _over("one container, from a launcher that runs", one["warm"]["wall"], one["bare"]["wall"]),
        _over(f"{amount} containers at once", many["ours"]["wall"], many["bare"]["wall"]),
        _requests(folder, running, seconds),
    ]


def _over(what: str, ours: float, bare: float) -> Figure:
    return Figure(what, 1.2, ours / bare, "×", {"ours, wall ms": ours * 1e3, "docker run, wall ms": bare * 1e3})


def _timed(call: Callable[[], object]) -> Times:
    before = time.perf_counter()
    call()
    return {"wall": time.perf_counter() - before}


def _bare(script: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*_RUN, script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _wait(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.wait(600):
            raise RuntimeError(f"docker run ended with {process.returncode}")


def _experiment(amount: int, script: str = "echo hello") -> None:
    with run.Experiment("many", log_level="ERROR") as experiment:
        for _ in range(amount):
            task = run.Script(inline=script, entrypoint="sh")
            experiment.add(task, executor=run.DockerExecutor(container_image=_IMAGE, pull="never"))
        experiment.run(check=True)


def _requests(folder: Path, running: int, seconds: float) -> Figure:
    """Count what is asked of the engine while containers run and another process watches."""
    from nemorun_docker.client import Engine

    counted: list[float] = []
    sent = Engine._send

    def counting(self: Engine, *arguments: object) -> object:
        counted.append(time.monotonic())
        return sent(self, *arguments)  # type: ignore[arg-type]

    Engine._send = counting  # type: ignore[assignment,method-assign]
    gate = folder / "gate"
    folder.chmod(0o755)
    script = f"while ! [ -e {gate} ]; do sleep 0.2; done"
    executor = run.DockerExecutor(container_image=_IMAGE, pull="never", volumes=[f"{folder}:{folder}"])
    try:
        with run.Experiment("running", log_level="ERROR") as experiment:
            for _ in range(running):
                experiment.add(run.Script(inline=script, entrypoint="sh"), executor=executor)
            experiment.run()
            while any(job["state"] != "RUNNING" for job in _status(experiment)):
                time.sleep(0.2)
            watcher = _watch(experiment.id)
            time.sleep(5.0)  # what the starts themselves asked is over
            began = time.monotonic()
            threading.Event().wait(seconds)
            asked = sum(1 for moment in counted if moment >= began)
            gate.touch()
        watcher.kill()
        watcher.wait()
    finally:
        gate.touch()
        Engine._send = sent  # type: ignore[method-assign]
    a_minute = asked * _MINUTE / seconds
    return Figure(f"{running} that run, requests a minute", 6, a_minute, "", {"in all": float(asked)})


def _status(experiment: run.Experiment) -> list[dict[str, object]]:
    return list((experiment.status(return_dict=True) or {}).values())


def _watch(name: str) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).with_name("nemorun")), "experiment", "wait", name]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))
