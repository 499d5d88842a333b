"""What is run in fresh processes: `python children.py NAME ARGUMENT...`. Figures in seconds go to standard error."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections import deque

PROGRAM = ["bash", "-c", "echo hello"]
AT_ONCE = 64  # what the engine offers to a backend at once; tasks as short as these seldom overlap more
PAUSE_SECONDS = 0.1  # of a follower that has read all
LINE_BYTES = 200
LINES_A_PIECE = 1000


def tell(**figures: float) -> None:
    print(json.dumps(figures), file=sys.stderr)


def own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def all_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own_cpu() + usage.ru_utime + usage.ru_stime


def peak_kib() -> float:
    """Return the most memory that this process held. The kernel's own `ru_maxrss` begins with the parent's."""
    with open("/proc/self/status", encoding="ascii") as stream:
        return next(float(line.split()[1]) for line in stream if line.startswith("VmHWM:"))


def tasks(count: str, sequential: str) -> None:
    """Run so many tasks of one experiment."""
    import nemorun_core as run

    with run.Experiment(f"tasks{count}", id=f"tasks{count}-{os.getpid()}") as experiment:
        for number in range(int(count)):
            experiment.add(run.Script(inline=PROGRAM[2]), name=f"task{number}")
        begun = time.perf_counter()
        experiment.run(sequential=bool(sequential))
    wall = time.perf_counter() - begun
    states = experiment.status(return_dict=True)
    assert states and all(job["state"] == "SUCCEEDED" for job in states.values())
    tell(cpu=all_cpu(), wall=wall, peak_kib=peak_kib())


def bare_tasks(count: str, at_once: str, folder: str) -> None:
    """Start as many processes as `tasks` does, so many at once, each with a file of its own for its output."""
    os.makedirs(folder)
    running: deque[subprocess.Popen[bytes]] = deque()
    begun = time.perf_counter()
    for number in range(int(count)):
        with open(os.path.join(folder, str(number)), "wb") as output:
            running.append(subprocess.Popen(PROGRAM, stdin=subprocess.DEVNULL, stdout=output, stderr=output))
        if len(running) >= int(at_once):
            assert running.popleft().wait() == 0
    assert all(process.wait() == 0 for process in running)
    tell(cpu=all_cpu(), wall=time.perf_counter() - begun, peak_kib=peak_kib())


def write_lines(count: str) -> None:
    """Write so many different lines, as a program that has something else to do in between."""
    for first in range(0, int(count), LINES_A_PIECE):
        last = min(first + LINES_A_PIECE, int(count))
        lines = b"".join(b"%-*d\n" % (LINE_BYTES - 1, number) for number in range(first, last))
        sys.stdout.buffer.write(lines)
        sys.stdout.buffer.flush()
        time.sleep(0.002)


def tail(count: str, experiment_id: str) -> None:
    """Run the job that writes lines, and show its output."""
    import nemorun_core as run

    with run.Experiment("lines", id=experiment_id, log_level="WARNING") as experiment:
        writer = run.Script(os.path.abspath(__file__), args=["write_lines", count], entrypoint=sys.executable)
        experiment.add(writer, name="lines")
        before = own_cpu()
        experiment.run(tail_logs=True)
    tell(cpu=own_cpu() - before, peak_kib=peak_kib())


def follow(experiment_id: str) -> None:
    """Follow the job that writes lines, from another process."""
    import nemorun_core as run

    while experiment_id not in run.Experiment.catalog("lines"):
        time.sleep(0.01)
    experiment = run.Experiment.from_id(experiment_id)
    before = own_cpu()
    experiment.logs("lines", follow=True)
    tell(cpu=own_cpu() - before, peak_kib=peak_kib())


def bare_follow(path: str, size: str) -> None:
    """Follow a file until it has this size."""
    while not os.path.exists(path):
        time.sleep(0.01)
    before, left = own_cpu(), int(size)
    with open(path, "rb", buffering=0) as stream:
        while left:
            data = stream.read(1 << 16)
            if data:
                sys.stdout.buffer.write(data)
                left -= len(data)
            else:
                time.sleep(PAUSE_SECONDS)
    sys.stdout.buffer.flush()
    tell(cpu=own_cpu() - before, peak_kib=peak_kib())


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
