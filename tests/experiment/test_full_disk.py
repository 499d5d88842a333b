"""A disk that is full while jobs run: they go on, nothing new is started, and all is well once there is space."""

from __future__ import annotations

import time

import pytest

from nemorun_core import Experiment, Script
from tests.engine.disk import small_disk


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", size="600k") as disk:
        yield disk


def test_on_a_full_disk_jobs_go_on_and_nothing_new_is_started_until_there_is_space(disk, tmp_path, capfd):
    gate, started = tmp_path / "gate", tmp_path / "started"
    with Experiment("full", base_dir=disk.path, log_level="WARNING") as experiment:
        running = experiment.add(Script(inline=f"until [ -e '{gate}' ]; do sleep 0.01; done; exit 0"), name="running")
        experiment.add(Script(inline=f"touch '{started}'"), name="next", dependencies=[running])
        experiment.run()
        while experiment.status(return_dict=True)["running"]["state"] != "RUNNING":
            time.sleep(0.01)
        disk.fill()
        gate.touch()
        # Told as why the job waits, or by the driver where its journal, too, needs more space than is left in a page.
        deadline, said = time.monotonic() + 60, ""
        while "No space left on device" not in said:
            assert time.monotonic() < deadline, said
            said += capfd.readouterr().err + str(experiment.status(return_dict=True)["next"]["reason"])
            time.sleep(0.01)
        assert not started.exists()
        disk.free()
        assert experiment.wait(timeout_seconds=30)
    assert started.exists()
    again = Experiment.from_id(experiment.id, base_dir=disk.path).status(return_dict=True)
    assert {name: job["state"] for name, job in again.items()} == {"running": "SUCCEEDED", "next": "SUCCEEDED"}
