"""What is run in fresh processes: `python children.py FUNCTION ARGUMENT...` tells its figures on standard error."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections import deque

PROGRAM = ["bash", "-c", "echo hello"]
LINE_BYTES = 200
_LINES_A_PIECE = 1000
_PAUSE_SECONDS = 0.1  # of a bare follower that has read all; ours is no longer


def own_cpu() -> float:
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])


def all_cpu() -> float:
    return own_cpu() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def tell(**figures: float) -> None:
    """Tell the figures, with the most memory that was held: VmHWM, since `ru_maxrss` begins with the parent's."""
    with open("/proc/self/status", encoding="ascii") as stream:
        peak = next(float(line.split()[1]) for line in stream if line.startswith("VmHWM:"))
    print(json.dumps({**figures, "peak": peak}), file=sys.stderr)


def tasks(count: str, sequential: str) -> None:
    """Run so many tasks of one experiment."""
    import nemorun_core as run

    begun = time.perf_counter()
    with run.Experiment(f"tasks{count}", id=f"tasks{count}-{os.getpid()}") as experiment:
        for number in range(int(count)):
            experiment.add(run.Script(inline=PROGRAM[2]), name=f"task{number}")
        experiment.run(sequential=bool(sequential))
    wall = time.perf_counter() - begun
    assert experiment.wait()
    tell(cpu=all_cpu(), wall=wall)


def bare_tasks(count: str, at_once: str, folder: str) -> None:
    """Start as many processes as `tasks` does, so many at once, the output of each into a file of its own."""
    os.makedirs(folder)
    begun = time.perf_counter()
    running: deque[subprocess.Popen[bytes]] = deque()
    for number in range(int(count)):
        with open(os.path.join(folder, str(number)), "wb") as output:
            running.append(subprocess.Popen(PROGRAM, stdin=subprocess.DEVNULL, stdout=output, stderr=output))
        if len(running) >= int(at_once):
            running.popleft().wait()
    for process in running:
        process.wait()
    tell(cpu=all_cpu(), wall=time.perf_counter() - begun)


def write_lines(count: str) -> None:
    """Write so many different lines, like a program that has something else to do in between."""
    for first in range(0, int(count), _LINES_A_PIECE):
        piece = b"".join(b"%-*d\n" % (LINE_BYTES - 1, first + number) for number in range(_LINES_A_PIECE))
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        time.sleep(0.002)


def tail(count: str, experiment_id: str) -> None:
    """Run the job that writes lines, and show its output."""
    import nemorun_core as run

    with run.Experiment("lines", id=experiment_id, log_level="WARNING") as experiment:
        experiment.add(run.Script(__file__, args=["write_lines", count], entrypoint=sys.executable), name="lines")
        before = own_cpu()
        experiment.run(tail_logs=True)
    tell(cpu=own_cpu() - before)


def follow(experiment_id: str) -> None:
    """Follow the job that writes lines, from another process than the one that runs it."""
    import nemorun_core as run

    while experiment_id not in run.Experiment.catalog("lines"):
        time.sleep(0.01)
    experiment = run.Experiment.from_id(experiment_id)
    before = own_cpu()
    experiment.logs("lines", follow=True)
    tell(cpu=own_cpu() - before)


def bare_follow(path: str, size: str) -> None:
    """Follow a file until it has this size."""
    while not os.path.exists(path):
        time.sleep(0.01)
    before, left = own_cpu(), int(size)
    with open(path, "rb", buffering=0) as stream:
        while left:
            if data := stream.read(1 << 16):
                sys.stdout.buffer.write(data)
                left -= len(data)
            else:
                time.sleep(_PAUSE_SECONDS)
    tell(cpu=own_cpu() - before)


def bare_prefix(path: str, size: str) -> None:
    """Follow a file until it has this size, with a prefix before each line."""
    while not os.path.exists(path):
        time.sleep(0.01)
    before, left = own_cpu(), int(size)
    write = sys.stdout.buffer.write
    write(b"lines | ")
    with open(path, "rb", buffering=0) as stream:
        while left:
            if data := stream.read(1 << 16):
                left -= len(data)
                # After the last byte of all comes no line more.
                write(data.replace(b"\n", b"\nlines | ") if left else data[:-1].replace(b"\n", b"\nlines | ") + b"\n")
            else:
                time.sleep(_PAUSE_SECONDS)
    tell(cpu=own_cpu() - before)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
