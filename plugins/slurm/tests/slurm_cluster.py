"""`Cluster`: the Slurm that the tests run on, how to ask it, and how to break it."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from nemorun_core import TransientError

__all__ = ["SCRIPTS", "Cluster", "Wrapped", "connections", "fails", "missing", "start_cluster", "wait_until"]

SCRIPTS = Path(__file__).parents[3] / "tests" / "clusters" / "slurm"
SECONDS = 100.0
_REQUIRED = os.environ.get("NEMORUN_REQUIRE_ENGINES") == "1"  # read here: tests get settings of their own


def missing(why: str) -> NoReturn:
    """Skip a test for want of something, or fail it where NEMORUN_REQUIRE_ENGINES=1."""
    if _REQUIRED:
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


def wait_until(condition: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    """Wait for a condition; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {seconds:g} s"
        time.sleep(0.02)


class Cluster:
    """A cluster that `tests/clusters/slurm/up` started in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self.ssh_config = folder / "ssh" / "config"

    @property
    def environment(self) -> dict[str, str]:
        """What Slurm's own need: nothing of the test's, which would make a daemon one of its processes."""
        return {"PATH": os.environ["PATH"], "SLURM_CONF": str(self.conf), "LC_ALL": "C", "TZ": "UTC"}

    def run(self, *argv: str, stdin: str = "", check: bool = True) -> str:
        """Run one of Slurm's commands on this cluster, and return what it printed."""
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, timeout=SECONDS, env=self.environment, cwd="/"
        )
        assert not check or done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout

    def answers(self) -> bool:
        return "is UP" in self.run("scontrol", "ping", check=False)

    def ids(self, name: str) -> list[str]:
        """Return the numbers of the jobs of a name that slurmctld knows."""
        return self.run("squeue", "--me", "-h", "-t", "all", "-o", "%A", f"--name={name}").split()

    def state(self, job_id: str) -> str:
        """Return the state of a job that slurmctld knows, "" where it knows none."""
        return self.run("squeue", "-h", "-t", "all", "-o", "%T", "-j", job_id, check=False).strip()

    def setting(self, name: str) -> str:
        found = re.search(rf"^{name}=(.*)$", self.conf.read_text(), re.MULTILINE)
        assert found, name
        return found[1]

    # Daemons.

    def pid(self, daemon: str) -> int:
        path = self.folder / "run" / f"{daemon}.pid"
        return int(path.read_text()) if path.exists() else 0

    def stop(self, daemon: str, number: int = signal.SIGTERM) -> None:
        """End a daemon and wait until it is gone."""
        pid = self.pid(daemon)
        os.kill(pid, number)
        wait_until(lambda: not _lives(pid), f"the end of {daemon}")

    def start_slurmctld(self) -> None:
        """Start slurmctld and wait until it answers."""
        subprocess.run(["slurmctld"], env=self.environment, check=True, timeout=SECONDS, capture_output=True)
        wait_until(self.answers, "slurmctld")

    def start_slurmdbd(self) -> None:
        environment = {**self.environment, "MYSQL_UNIX_PORT": str(self.folder / "db" / "sock")}
        subprocess.run(["slurmdbd"], env=environment, check=True, timeout=SECONDS, capture_output=True)
        wait_until(lambda: self.run("sacctmgr", "-n", "list", "cluster", check=False), "slurmdbd")

    def restart(self) -> None:
        self.stop("slurmctld")
        self.start_slurmctld()

    def start_munged(self) -> None:
        """Start munged as `tests/clusters/slurm/up` did, and wait until slurmctld hears its clients again."""
        place = self.folder / "munge"
        files = {"socket": "sock", "key-file": "key", "log-file": "munged.log", "pid-file": "pid", "seed-file": "seed"}
        argv = ["munged", *(f"--{option}={place / name}" for option, name in files.items()), "--num-threads=2"]
        subprocess.run(argv, check=True, timeout=SECONDS, capture_output=True)
        shutil.copy(place / "pid", self.folder / "run" / "munged.pid")
        wait_until(lambda: self.run("squeue", check=False), "munged")

    def loses_memory(self) -> Callable[[], None]:
        """Return what kills slurmctld and starts it with what it had written down until now."""
        state, kept = self.folder / "state", self.folder / "state-of-before"
        shutil.copytree(state, kept)

        def lose() -> None:
            self.stop("slurmctld", signal.SIGKILL)
            shutil.rmtree(state)
            subprocess.run(["cp", "-a", str(kept), str(state)], check=True)
            shutil.chown(state, self.setting("SlurmUser"))
            for path in state.rglob("*"):
                shutil.chown(path, self.setting("SlurmUser"))
            self.start_slurmctld()

        return lose

    def node(self, name: str, what: str) -> None:
        """Break or mend a node: crash, hang, resume, start."""
        subprocess.run([str(SCRIPTS / "node"), str(self.folder), name, what], check=True, timeout=SECONDS)

    def queries(self) -> int:
        """Return how many questions about jobs slurmctld was asked so far, by sdiag(1)."""
        counts = re.findall(r"^\s*REQUEST_(?:JOB_INFO\w*|BATCH_SCRIPT)\s.*count:(\d+)", self.run("sdiag"), re.MULTILINE)
        return sum(map(int, counts))

    @contextlib.contextmanager
    def with_setting(self, folder: Path, name: str, value: str) -> Iterator[Path]:
        """Yield a configuration of this cluster in which one setting is another."""
        conf = folder / f"{name}.conf"
        conf.write_text(re.sub(rf"^{name}=.*$", f"{name}={value}", self.conf.read_text(), flags=re.MULTILINE))
        yield conf
        conf.unlink()

    def unreachable(self, folder: Path) -> contextlib.AbstractContextManager[Path]:
        """Return a configuration of this cluster in which nobody answers at slurmctld's port."""
        return self.with_setting(folder, "SlurmctldPort", "9\nMessageTimeout=1")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def connections(config: Path) -> list[int]:
    """Return this process's connections: children that are ssh(1) with this configuration."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if words[0] == b"ssh" and str(config).encode() in words and parent == os.getpid():
            found.append(int(entry.name))
    return found


def start_cluster(folder: Path, *options: str) -> Cluster:
    """Start a cluster of a test's own."""
    done = subprocess.run(
        [str(SCRIPTS / "up"), "--dir", str(folder), "--no-install", *options],
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return Cluster(folder)


class Wrapped:
    """Commands that stand before Slurm's on PATH: shell text, in which `real` runs the real one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(exist_ok=True)
        self.path = f"{folder}:{os.environ['PATH']}"

    def put(self, name: str, text: str) -> None:
        real = subprocess.run(["which", name], capture_output=True, text=True, check=True).stdout.strip()
        if real.startswith(str(self.folder)):
            raise AssertionError(f"{name} is wrapped already")
        file = self.folder / name
        file.write_text(f'#!/bin/sh\nreal() {{ {shlex.quote(real)} "$@"; }}\n{text}\n')
        file.chmod(0o755)

    def drop(self, names: Sequence[str]) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)


def fails(ask: Callable[[], object], words: str) -> bool:
    """Whether a question is not answered, for this reason."""
    try:
        ask()
    except TransientError as error:
        return words in str(error)
    return False
