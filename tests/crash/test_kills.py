"""The driver is killed with SIGKILL at random instants, again and again: nothing is lost, doubled or wrong."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import nemorun_core as run

SECONDS = 60.0

# Each program notes its start where only starts are noted, and writes a log whose bytes are known.
PROGRAM = """
echo "$NEMORUN_JOB $NEMORUN_MEMBER" >> "$STARTS"
for i in 1 2 3; do echo "line $i"; sleep 0.06; done
exit %d
"""

DRIVER = """
import sys
import nemorun_core as run

how, starts, program = sys.argv[1:]
if how in ("run", "detach"):
    with run.Experiment("kills", id="kills") as experiment:
        def add(name, code=0, members=1, **more):
            tasks = [run.Script(inline=program % code, env={"STARTS": starts}) for _ in range(members)]
            return experiment.add(tasks if members > 1 else tasks[0], name=name, **more)

        first = add("first")
        pair = add("pair", members=2, dependencies=[first])
        bad = add("bad", code=3, dependencies=[first])
        add("never", dependencies=[bad])
        add("mend", dependencies=[run.after_failure(bad)])
        add("last", dependencies=[pair, run.after_any(bad)])
        experiment.run(detach=how == "detach")
else:
    run.Experiment.from_id("kills").resume(detach=how == "resume --detach")
"""

EXPECTED = {
    "first": "SUCCEEDED",
    "pair": "SUCCEEDED",
    "bad": "FAILED",
    "never": "SKIPPED",
    "mend": "SUCCEEDED",
    "last": "SUCCEEDED",
}
STARTS = ["bad 0", "first 0", "last 0", "mend 0", "pair 0", "pair 1"]
LOG = "line 1\nline 2\nline 3\n"


def kill_driver(home: Path, launched: subprocess.Popen[bytes], *, detached: bool, after: float) -> bool:
    """Let the driver go on for `after` seconds, then kill it; return whether it was there to be killed."""
    time.sleep(after)  # the instant is the experiment, nothing is waited for
    if not detached:
        launched.kill()
        return launched.wait(SECONDS) == -signal.SIGKILL
    launched.wait(SECONDS)
    record = home / "experiments" / "kills" / "kills" / "lock"
    try:
        driver = json.loads(record.read_text())
    except (OSError, ValueError):
        return False
    if driver["ended"]:
        return False
    try:
        os.kill(driver["pid"], signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def was_run(home: Path) -> bool:
    return (home / "experiments" / "kills" / "kills" / "experiment.json").exists()


def one_history(home: Path, random_source: random.Random, kills: int) -> int:
    """Run the graph to its end under at most `kills` kills; return how many there were."""
    starts = home / "starts"
    home.mkdir()
    environment = {**os.environ, "NEMORUN_HOME": str(home)}
    done = 0
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        detached = random_source.random() < 0.3
        how = ("detach" if detached else "run") if not was_run(home) else "resume --detach" if detached else "resume"
        if how in ("run", "detach"):  # killed before it was run: the claim is left, and is nobody's
            shutil.rmtree(home / "experiments", ignore_errors=True)
        launched = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(DRIVER), how, str(starts), PROGRAM],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        if done < kills:
            done += kill_driver(home, launched, detached=detached, after=random_source.uniform(0.05, 0.4))
            assert launched.stderr is not None
            launched.stderr.close()
        else:
            _, said = launched.communicate(timeout=SECONDS)
            # A supervisor that was not killed may drive it still, or have brought it to its end.
            refused = b"nothing is left to resume" in said or b"is driven by process" in said
            assert launched.returncode == 0 or refused, said.decode()
        if was_run(home) and (home / "experiments" / "kills" / "kills" / "journal.jsonl").exists():
            state = run.Experiment.from_id("kills", base_dir=home).status(return_dict=True)
            assert state is not None
            if all(job["state"] in ("SUCCEEDED", "FAILED", "SKIPPED") for job in state.values()):
                return done
    raise AssertionError("the graph came to no end")


def check(home: Path) -> None:
    experiment = run.Experiment.from_id("kills", base_dir=home)
    experiment.wait(timeout_seconds=SECONDS)
    status = experiment.status(return_dict=True)
    assert status is not None
    assert {name: job["state"] for name, job in status.items()} == EXPECTED
    assert status["bad"]["exit_code"] == 3
    assert sorted((home / "starts").read_text().splitlines()) == STARTS
    for name in ("first", "pair", "bad", "mend", "last"):
        for log in Path(str(status[name]["local_dir"])).glob("0.0.*.out"):
            assert log.read_text() == LOG, log


def kill_until(tmp_path: Path, total: int, seed: int) -> None:
    random_source = random.Random(seed)
    done = history = 0
    while done < total:
        home = tmp_path / f"nemorun-home-{history}"
        done += one_history(home, random_source, kills=min(6, total - done))
        check(home)
        history += 1
    print(f"{done} kills in {history} histories, seed {seed}")


@pytest.mark.timeout(600)
def test_a_hundred_kills_lose_double_and_falsify_nothing(tmp_path):
    kill_until(tmp_path, total=100, seed=random.randrange(1 << 32))


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_a_thousand_kills_lose_double_and_falsify_nothing(tmp_path):
    kill_until(tmp_path, total=1000, seed=random.randrange(1 << 32))
