"""Launchers, supervisors, shims and programs of real jobs are killed with SIGKILL at random instants.

0 lost, 0 doubled, 0 wrong, every byte of every log.

`tests/crash/test_kills.py` kills drivers only, and is quicker. Here a job whose shim or program was killed may end
FAILED by signal 9, and what depends on it as its edges say; nothing else may differ.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import nemorun_core as run
from tests.crash.test_kills import DRIVER, LOG, PROGRAM, SECONDS, was_run

KILLS = int(os.environ.get("PROOF_KILLS") or 200)
SEED = int(os.environ.get("PROOF_SEED") or random.randrange(1 << 32))
VICTIMS = ("driver", "driver", "shim", "program")
MOST_KILLS = 6
FAILURES = ("FAILED", "LOST", "CANCELLED")
# What bash(1) says when a program of its own is killed, before it is itself.
SHELL = re.compile(r"^(bash: line \d+: +\d+ )?(Killed|Terminated).*\n", re.MULTILINE)
# Members, upstreams with their conditions, and exit code, as in DRIVER.
GRAPH: dict[str, tuple[int, dict[str, str], int]] = {
    "first": (1, {}, 0),
    "pair": (2, {"first": "success"}, 0),
    "bad": (1, {"first": "success"}, 3),
    "never": (1, {"bad": "success"}, 0),
    "mend": (1, {"bad": "failure"}, 0),
    "last": (1, {"pair": "success", "bad": "any"}, 0),
}


class History:
    """One experiment, brought to its end under kills.

    Attributes:
        kills: how many of each kind hit somebody.
        hit: jobs of which a shim or program was killed.
    """

    def __init__(self, home: Path, dice: random.Random) -> None:
        self.home = home
        self.dice = dice
        self.kills: Counter[str] = Counter()
        self.hit: set[str] = set()
        self.folder = home / "experiments" / "kills" / "kills"
        home.mkdir()

    def go(self, most: int) -> None:
        deadline = time.monotonic() + SECONDS
        while not self.ended():
            assert time.monotonic() < deadline, f"the graph came to no end: {self.states()}"
            launched = self.launch()
            while self.kills.total() < most and not self.ended() and time.monotonic() < deadline:
                victim = self.dice.choice(VICTIMS)
                if victim != "driver" and not self.await_job(launched):
                    break
                time.sleep(self.dice.uniform(0.0, 0.2))  # the instant is the experiment, nothing is waited for
                if victim == "driver":
                    if not self.kill_driver(launched):
                        break
                    self.kills["driver"] += 1
                    break
                if job := self.kill_job(victim):
                    self.kills[victim] += 1
                    self.hit.add(job)
                elif launched.poll() is not None:
                    break
            else:
                with contextlib.suppress(subprocess.TimeoutExpired):  # whoever still drives goes on
                    launched.wait(SECONDS)
            launched.wait(SECONDS)

    def launch(self) -> subprocess.Popen[bytes]:
        detached = self.dice.random() < 0.3
        if was_run(self.home):
            how = "resume --detach" if detached else "resume"
        else:  # killed before it was run: the claim is left, and is nobody's
            how = "detach" if detached else "run"
            shutil.rmtree(self.home / "experiments", ignore_errors=True)
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(DRIVER), how, str(self.home / "starts"), PROGRAM],
            env={**os.environ, "NEMORUN_HOME": str(self.home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def await_job(self, launched: subprocess.Popen[bytes]) -> bool:
        """Wait until something runs that can be killed; False: nothing does, and the launcher has ended."""
        deadline = time.monotonic() + SECONDS
        while not self.processes():
            if launched.poll() is not None or time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
        return True

    def kill_driver(self, launched: subprocess.Popen[bytes]) -> bool:
        """Kill whoever drives: the launcher while it lives, else the supervisor that it left."""
        if launched.poll() is None:
            launched.kill()
            return launched.wait(SECONDS) == -signal.SIGKILL
        try:
            driver = json.loads((self.folder / "lock").read_text())
        except (OSError, ValueError):
            return False
        return not driver["ended"] and self.kill(driver["pid"])

    def kill_job(self, victim: str) -> str | None:
        """Kill a random shim or program of this experiment; return its job, None where none runs."""
        processes = self.processes()
        shims = {pid for pid, (_, _, command) in processes.items() if b"shim.sh" in command}
        chosen = shims if victim == "shim" else {pid for pid, (_, parent, _) in processes.items() if parent in shims}
        if not chosen:
            return None
        pid = self.dice.choice(sorted(chosen))
        return processes[pid][0] if self.kill(pid) else None

    def processes(self) -> dict[int, tuple[str, int, bytes]]:
        """Return this experiment's shims and programs: pid to job, parent and command line."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
                if self.mark not in environment:
                    continue
                jobs = [item[12:].decode() for item in environment if item.startswith(b"NEMORUN_JOB=")]
                parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
                if jobs:
                    found[int(entry.name)] = (jobs[0], parent, (entry / "cmdline").read_bytes())
            except OSError:  # it ended meanwhile, or belongs to another user
                continue
        return found

    @property
    def mark(self) -> bytes:
        return f"NEMORUN_HOME={self.home}".encode()

    def kill(self, pid: int) -> bool:
        """Kill a process of this experiment, and none that got its number since."""
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            if self.mark not in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return False
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        except (OSError, ProcessLookupError):
            return False
        finally:
            os.close(handle)
        return True

    def status(self) -> dict[str, Any]:
        if not was_run(self.home) or not (self.folder / "journal.jsonl").exists():
            return {}
        return run.Experiment.from_id("kills", base_dir=self.home).status(return_dict=True)

    def states(self) -> dict[str, str]:
        return {name: str(job["state"]) for name, job in self.status().items()}

    def ended(self) -> bool:
        states = self.states()
        return bool(states) and all(state in ("SUCCEEDED", "SKIPPED", *FAILURES) for state in states.values())

    def check(self) -> None:
        run.Experiment.from_id("kills", base_dir=self.home).wait(timeout_seconds=SECONDS)
        status, states = self.status(), self.states()
        begun: Counter[str] = Counter()
        with contextlib.suppress(FileNotFoundError):
            begun.update((self.home / "starts").read_text().splitlines())
        assert set(begun.values()) <= {1}, f"started twice: {begun}"
        for name, (members, upstreams, code) in GRAPH.items():
            told = (name, states, self.hit, status[name])
            good = {"success": ("SUCCEEDED",), "failure": FAILURES, "any": (*FAILURES, "SUCCEEDED", "SKIPPED")}
            logs = {log: log.read_text() for log in Path(str(status[name]["local_dir"])).glob("*.out")}
            starts = sum(begun[f"{name} {member}"] for member in range(members))
            if not all(states[upstream] in good[condition] for upstream, condition in upstreams.items()):
                assert states[name] == "SKIPPED", told
                assert not logs, told
                assert not starts, told
            elif name in self.hit and status[name]["exit_code"] != code:
                assert states[name] == "FAILED", told
                assert "signal 9" in str(status[name]["reason"]), told
                assert all(LOG.startswith(SHELL.sub("", text)) for text in logs.values()), [*logs.values(), told]
            else:
                assert states[name] == ("FAILED" if code else "SUCCEEDED"), told
                assert status[name]["exit_code"] == code, told
                assert starts == members, told
                assert list(logs.values()) == [LOG] * members, (told, logs)


def kill_until(tmp_path: Path, total: int) -> None:
    dice = random.Random(SEED)
    kills: Counter[str] = Counter()
    number = 0
    print(f"PROOF_KILLS={total} PROOF_SEED={SEED}")
    while kills.total() < total:
        # Its name begins with that of the home that the root's conftest looks for.
        history = History(tmp_path / f"nemorun-home-{number}", dice)
        history.go(min(MOST_KILLS, total - kills.total()))
        history.check()
        kills += history.kills
        number += 1
        wait_for_none(history)
        shutil.rmtree(history.home)
    print(f"{dict(kills)} in {number} histories: 0 lost, 0 doubled, 0 wrong")


def wait_for_none(history: History) -> None:
    """Wait until no shim and no program of an experiment runs any more."""
    deadline = time.monotonic() + SECONDS
    while left := history.processes():
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


@pytest.mark.proof
@pytest.mark.timeout(0)
def test_kills_of_drivers_shims_and_programs_lose_double_and_falsify_nothing(tmp_path):
    kill_until(tmp_path, KILLS)
