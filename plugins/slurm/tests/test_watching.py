"""However many processes look at jobs, and however often: Slurm is asked seldom, and what is told is so."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nemorun_devkit.kit import Kit
from nemorun_slurm import SlurmExecutor

from nemorun_core import State, Submission

from .slurm_cluster import Cluster, Wrapped, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(120)]


@pytest.fixture
def kit_of(cluster: Cluster, monkeypatch, tmp_path: Path) -> Iterator[Callable[..., Kit]]:
    """Return what drives the backend by hand, with answers that no other test shares."""
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    kits: list[Kit] = []

    def make(**fields: object) -> Kit:
        shared = tmp_path / "kit" / "shared"
        shared.mkdir(parents=True)
        kits.append(Kit(SlurmExecutor(**fields), tmp_path / "kit", shared, 60.0))
        return kits[-1]

    yield make
    for kit in kits:
        kit.close()


@pytest.fixture
def asked(wrapped: Wrapped, tmp_path: Path) -> Callable[[], int]:
    """How often squeue and scontrol were run; squeue gives another reason each time."""
    log = tmp_path / "asked"
    log.touch()
    wrapped.put("squeue", f'echo >>{log}; real "$@" | sed "s/BeginTime/Word$(date +%N)/"')
    wrapped.put("scontrol", f'echo >>{log}; real "$@"')
    return lambda: len(log.read_text())


def pass_by(seconds: float) -> None:
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > seconds, "the end of an interval")


def taken_an_hour_ago(kit: Kit, job: Submission) -> str:
    """Submit a job, see it once in Slurm's answer, and let an hour pass since the last change of it."""
    handle = kit.take(job)
    pass_by(1.1)
    kit.until(lambda: kit.poll(handle).reason or kit.poll(handle).members[0].state is State.RUNNING, "an answer")
    look_an_hour_later(kit, job)
    return handle


def look_an_hour_later(kit: Kit, job: Submission) -> None:
    os.utime(job.folder, (time.time() - 3600,) * 2)
    kit.reopen()
    assert kit.find(job)


def test_processes_that_look_one_after_another_share_an_answer(kit_of, asked):
    kit = kit_of()
    job = kit.make("sleep 60")
    handle = taken_an_hour_ago(kit, job)
    before = asked()
    for _ in range(5):
        look_an_hour_later(kit, job)
        assert kit.poll(handle).members[0].state is State.RUNNING
    assert asked() - before <= 1


def test_an_end_is_told_though_the_shared_answer_is_from_before_it(kit_of):
    kit = kit_of()
    job = kit.make(f"{kit.gate()}; exit 7")
    handle = taken_an_hour_ago(kit, job)
    kit.open_gate()

    def has_ended() -> bool:
        look_an_hour_later(kit, job)
        return bool(kit.poll(handle).members[0].exit_code == 7)

    wait_until(has_ended, "the end", seconds=10)  # an answer might be 15 s old


def test_words_that_change_ask_for_no_sooner_answer(kit_of, asked):
    kit = kit_of(additional_parameters={"begin": "now+5hours"})
    handle = taken_an_hour_ago(kit, kit.make("true"))
    first, before = str(kit.poll(handle).reason), asked()
    began = time.monotonic()
    wait_until(lambda: kit.poll(handle) and time.monotonic() - began > 4.0, "a while")
    assert first.startswith("waiting: Word")
    assert asked() - before <= 1


def test_a_start_that_hardly_moves_is_told_once(kit_of, cluster):
    kit = kit_of(additional_parameters={"begin": "now+5hours"})
    handle = kit.take(kit.make("true"))
    [number] = cluster.ids(handle)

    def reason_when_it_starts(when: str) -> str:
        cluster.run("scontrol", "update", f"JobId={number}", f"StartTime={when}")
        pass_by(1.5)
        return str(kit.poll(handle).reason)

    first = reason_when_it_starts("now+300minutes")
    assert "expected to start at" in first
    assert reason_when_it_starts("now+310minutes") == first
    assert reason_when_it_starts("now+400minutes") != first
