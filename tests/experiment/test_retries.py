"""A failed attempt is tried again where that may help; each attempt keeps its log and outcome."""

from __future__ import annotations

from pathlib import Path

import pytest

import nemorun_core as run
from nemorun_core.engine import backing_off
from tests.experiment.helpers import sh, states, status

UNTIL_THIRD = 'echo "attempt $NEMORUN_ATTEMPT"; [ "$NEMORUN_ATTEMPT" -ge 2 ] || exit 7'


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(backing_off, "FIRST_SECONDS", 0.01)


def one(text, **fields):
    with run.Experiment("again", log_level="WARNING") as experiment:
        experiment.add(sh(text), run.LocalExecutor(**fields), name="job")
        experiment.add(sh("true"), name="after", dependencies=["job"])
        experiment.run()
    return experiment


def logs(experiment):
    folder = Path(str(status(experiment)["job"]["local_dir"]))
    return [path.read_text() for path in sorted(folder.glob("*.0.0.out"))]


def test_it_is_tried_again_until_it_succeeds_and_every_log_is_kept():
    experiment = one(UNTIL_THIRD, retries=3)
    assert states(experiment) == {"job": "SUCCEEDED", "after": "SUCCEEDED"}
    assert status(experiment)["job"]["attempt"] == 2
    assert logs(experiment) == ["attempt 0\n", "attempt 1\n", "attempt 2\n"]


def test_after_the_last_retry_it_has_failed_with_its_last_reason():
    experiment = one("echo x; exit 7", retries=2)
    assert states(experiment) == {"job": "FAILED", "after": "SKIPPED"}
    assert (status(experiment)["job"]["reason"], status(experiment)["job"]["attempt"]) == ("exit code 7", 2)
    assert logs(experiment) == ["x\n"] * 3


@pytest.mark.parametrize(
    ("kinds", "attempts"), [({"exit code"}, 2), ({"timeout", "exit code"}, 2), ({"out of memory"}, 1)]
)
def test_only_the_given_reasons_are_tried_again(kinds, attempts):
    assert len(logs(one("exit 7", retries=1, retry_on=kinds))) == attempts


def test_a_refused_job_is_not_tried_again_unless_asked_for():
    refused = one("true", retries=1, env_vars={"ABSENT": run.Secret.from_env("NO_SUCH_VARIABLE_HERE")})
    assert states(refused)["job"] == "FAILED"
    assert status(refused)["job"]["attempt"] == 0
    asked = one(
        "true", retries=1, retry_on={"rejected"}, env_vars={"ABSENT": run.Secret.from_env("NO_SUCH_VARIABLE_HERE")}
    )
    assert status(asked)["job"]["attempt"] == 1


def test_while_it_waits_it_says_for_what_and_a_cancel_ends_it(monkeypatch):
    monkeypatch.setattr(backing_off, "FIRST_SECONDS", 60.0)
    seen = []
    with run.Experiment("waits", log_level="WARNING") as experiment:
        experiment.add(sh("exit 7"), run.LocalExecutor(retries=1), name="job")
        experiment.run()
        from tests.experiment.helpers import wait_for

        wait_for(lambda: status(experiment)["job"]["attempt"] == 1)
        seen.append((status(experiment)["job"]["state"], status(experiment)["job"]["reason"]))
        experiment.cancel("job")
    assert seen == [("PENDING", "waiting: for attempt 1, after exit code 7")]
    assert states(experiment) == {"job": "CANCELLED"}
    assert len(logs(experiment)) == 1


def test_a_cancelled_job_is_not_tried_again(tmp_path):
    from tests.experiment.helpers import wait_for

    with run.Experiment("cancelled", log_level="WARNING") as experiment:
        experiment.add(sh("echo up; sleep 60"), run.LocalExecutor(retries=3), name="job")
        experiment.run()
        wait_for(lambda: logs(experiment) == ["up\n"])
        experiment.cancel("job")
    assert states(experiment) == {"job": "CANCELLED"}
    assert len(logs(experiment)) == 1


def test_a_group_is_tried_again_as_a_whole():
    with run.Experiment("group", log_level="WARNING") as experiment:
        tasks = [sh("echo ran"), sh('[ "$NEMORUN_ATTEMPT" = 1 ]')]
        experiment.add(tasks, run.LocalExecutor(retries=1), name="job")
        experiment.run()
    assert states(experiment) == {"job": "SUCCEEDED"}
    assert logs(experiment) == ["ran\n"] * 2


def test_a_resumed_experiment_goes_on_counting(tmp_path):
    """The journal says how often it failed; a new driver reads that."""
    experiment = one("exit 7", retries=2)
    from nemorun_core.engine.loop import read_view

    folder = run.Experiment.from_id(experiment.id)._session.folder
    job = read_view(folder.read_definition(), folder).graph.jobs["job"]
    assert job.failures == (3, 0)
