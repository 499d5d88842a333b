"""What every test of the repository gets: a home of its own, and the check that it leaves no process behind."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# A loaded machine is no reason to fail.
hypothesis.settings.register_profile("nemorun", deadline=None, print_blob=True)
hypothesis.settings.load_profile("nemorun")

SECONDS_TO_END = 5.0

# Under nohup(1), as CI may be, hang-ups are ignored, and so they would be by every process that a test starts.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def nemorun_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Point NEMORUN_HOME into `tmp_path`, drop the user's other settings; afterwards fail if a process still runs."""
    home = tmp_path / "nemorun-home"
    for name in [name for name in os.environ if name.startswith("NEMORUN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NEMORUN_HOME", str(home))
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # which hides what is never flushed
    yield home
    if left := wait_for_end(home):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        listing = "\n".join(f"  {pid}: {command}" for pid, command in left.items())
        pytest.fail(
            f"Processes of this test still ran {SECONDS_TO_END:g} s after it (killed now):\n{listing}", pytrace=False
        )


def wait_for_end(home: Path) -> dict[int, str]:
    """Wait until no process of this home runs; return those that still do, pid to command line."""
    deadline = time.monotonic() + SECONDS_TO_END
    while (left := processes_of(home)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def processes_of(home: Path) -> dict[int, str]:
    """Return the processes that were started with this home, pid to command line; none where there is no /proc."""
    marker = f"NEMORUN_HOME={home}".encode()
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        try:
            if pid == os.getpid() or marker not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            found[pid] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:  # it ended meanwhile, or belongs to another user
            continue
    return found
