"""`KilledDrivers`: an experiment whose drivers are killed with SIGKILL at random instants, and brought to its end."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nemorun_core import Experiment, State

__all__ = ["LOG", "PROGRAM", "KilledDrivers", "kill_until"]

# Each program notes its start where only starts are noted, and writes a log whose bytes are known.
PROGRAM = """
echo "$NEMORUN_JOB $NEMORUN_MEMBER" >> "$STARTS"
for i in 1 2 3; do echo "line $i"; sleep 0.2; done
exit %d
"""
LOG = "line 1\nline 2\nline 3\n"
_MOST_A_HISTORY = 5
_DETACHED = 0.4


class KilledDrivers:
    """One experiment, `kills` by title and id, in a home of its own.

    Args:
        home: made here.
        driver: the text of a program of Python. Its first argument says how: "run" and "detach" make and run the
            experiment, "resume" and "resume --detach" go on with it.
        arguments: of the program, after the first.
        environment: of the program, over this process's own.
        latest_seconds: how long a driver lives at most before it is killed.
        seconds: how long anything is waited for.

    Attributes:
        kills: how many drivers were there to be killed.
        folder: of the experiment.
    """

    def __init__(
        self,
        home: Path,
        dice: random.Random,
        driver: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        latest_seconds: float = 2.0,
        seconds: float = 120.0,
    ) -> None:
        self.home = home
        self.kills = 0
        self.folder = home / "experiments" / "kills" / "kills"
        self._dice = dice
        self._driver = driver
        self._arguments = arguments
        self._environment = {**os.environ, **(environment or {}), "NEMORUN_HOME": str(home)}
        self._latest_seconds = latest_seconds
        self._seconds = seconds
        home.mkdir()

    def go(self, most: int) -> None:
        """Start drivers and kill them, at most so many, until all jobs are final."""
        deadline = time.monotonic() + self._seconds
        while not self.ended():
            assert time.monotonic() < deadline, f"the graph came to no end: {self.states()}"
            detached = self._dice.random() < _DETACHED
            launched = self._launch(detached)
            if self.kills < most:
                # The instant is the experiment, nothing is waited for.
                time.sleep(self._dice.uniform(0.1, self._latest_seconds))
                self.kills += self._kill(launched, detached)
            launched.wait(self._seconds)
            if self.kills >= most:
                self.until_nobody_drives()

    def _launch(self, detached: bool) -> subprocess.Popen[bytes]:
        if (self.folder / "experiment.json").exists():
            return self.start("resume --detach" if detached else "resume")
        # One that was killed before it ran the experiment leaves a claim, which is nobody's.
        shutil.rmtree(self.home / "experiments", ignore_errors=True)
        return self.start("detach" if detached else "run")

    def start(self, how: str) -> subprocess.Popen[bytes]:
        """Start a driver; whoever calls waits for it."""
        return subprocess.Popen(
            [sys.executable, "-c", self._driver, how, *self._arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def driver(self) -> int | None:
        """Return the pid of whoever drives by the record of the lock."""
        try:
            found = json.loads((self.folder / "lock").read_text())
        except (OSError, ValueError):
            return None
        return None if found["ended"] else int(found["pid"])

    def _kill(self, launched: subprocess.Popen[bytes], detached: bool) -> bool:
        if not detached:
            launched.kill()
            return launched.wait(self._seconds) == -signal.SIGKILL
        launched.wait(self._seconds)
        if (pid := self.driver()) is None:
            return False
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def until_nobody_drives(self) -> None:
        """Wait for the end of the last driver."""
        deadline = time.monotonic() + self._seconds
        while (pid := self.driver()) is not None and Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)

    def status(self) -> dict[str, dict[str, object]]:
        """Return what `status` says of each job; nothing before the experiment was run."""
        if not (self.folder / "journal.jsonl").exists():
            return {}
        return dict(Experiment.from_id("kills", base_dir=self.home).status(return_dict=True) or {})

    def states(self) -> dict[str, str]:
        """Return the state of each job."""
        return {name: str(job["state"]) for name, job in self.status().items()}

    def ended(self) -> bool:
        """Whether all jobs are final."""
        states = self.states()
        return bool(states) and all(State(state).is_final for state in states.values())

    def nonce(self) -> str:
        """Return the first part of its jobs' keys."""
        return str(json.loads((self.folder / "experiment.json").read_text())["nonce"])

    def check(self) -> None:
        """Assert what must hold at the end: nothing lost, doubled or wrong."""
        raise NotImplementedError


def kill_until(total: int, make: Callable[[int, random.Random], KilledDrivers]) -> None:
    """Kill so many drivers, over as many experiments as that takes, and check each; prints seed and counts.

    Args:
        make: makes the experiment of a number.
    """
    seed = random.randrange(1 << 32)
    dice = random.Random(seed)
    done = histories = 0
    print(f"seed {seed}")
    while done < total:
        history = make(histories, dice)
        history.go(min(_MOST_A_HISTORY, total - done))
        history.check()
        done += history.kills
        histories += 1
    print(f"{done} kills in {histories} histories: 0 lost, 0 doubled, 0 wrong")
