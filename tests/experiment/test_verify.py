"""A dry run that verifies asks each job's scheduler, prints what it says, and leaves nothing either."""

from __future__ import annotations

import attrs
import pytest

import nemorun_core as run
from nemorun_core import Experiment, LocalExecutor, TransientError, UsageError
from tests.experiment.helpers import sh

OPENED: list[Asked] = []


class Asked(run.Backend):
    """Says of a job what its variable ANSWER says."""

    def __init__(self) -> None:
        OPENED.append(self)

    def render(self, job):
        return [run.Document("script", job.key.job)]

    def verify(self, job):
        assert not job.after
        word = job.members[0].environment["ANSWER"]
        if word == "down":
            raise TransientError("it does not answer.")
        return run.Rejected(run.Reason(run.ReasonKind.REJECTED, "too large")) if word == "no" else word


class Together(Asked):
    """Sends jobs of one answer in one call."""

    def render_together(self, jobs):
        for word in dict.fromkeys(job.members[0].environment["ANSWER"] for job in jobs):
            same = [job.key for job in jobs if job.members[0].environment["ANSWER"] == word]
            yield same, [run.Document("all", " ".join(key.job for key in same))]


Asked.__abstractmethods__ = Together.__abstractmethods__ = frozenset()


@attrs.define(kw_only=True)
class AskedExecutor(LocalExecutor):
    def backend(self):
        return Asked()  # type: ignore[abstract]  # a dry run needs no more of it


def answering(word: str) -> AskedExecutor:
    return AskedExecutor(env_vars={"ANSWER": word})


@pytest.fixture(autouse=True)
def opened():
    OPENED.clear()


def test_what_each_scheduler_says_stands_below_all_that_a_dry_run_prints(capsys, nemorun_home):
    with Experiment("verified") as experiment:
        first = experiment.add(sh("true"), answering("would start at 9"), name="first")
        experiment.add(sh("true"), answering("would start at 10"), name="second", dependencies=[first])
        experiment.add(sh("true"), LocalExecutor(), name="here")
        experiment.dryrun()
        shown = capsys.readouterr().out
        experiment.dryrun(verify=True)
    assert capsys.readouterr().out.removeprefix(shown).splitlines() == [
        "Task 0: first: would start at 9",
        "Task 1: second: would start at 10 (when its dependencies have ended)",
        "Task 2: here: LocalExecutor cannot be asked",
    ]
    assert not list(nemorun_home.rglob("verified*"))


def test_a_refusal_is_an_error_when_all_were_asked(capsys):
    with Experiment("verified") as experiment:
        experiment.add(sh("true"), answering("no"), name="large")
        experiment.add(sh("true"), answering("fits"), name="small")
        with pytest.raises(UsageError, match=r"1 of 2 jobs would be refused: large\."):
            experiment.dryrun(verify=True)
        experiment.dryrun()  # asks nobody
    assert "Task 0: large: refused: too large\nTask 1: small: fits\n" in capsys.readouterr().out


def test_a_scheduler_that_does_not_answer_refuses_nothing():
    with Experiment("verified") as experiment:
        experiment.add(sh("true"), answering("down"))
        with pytest.raises(TransientError, match="does not answer"):
            experiment.dryrun(verify=True)


def test_jobs_of_one_connection_are_asked_about_through_one():
    with Experiment("verified") as experiment:
        for _ in range(3):
            experiment.add(sh("true"), answering("fits"))
        experiment.dryrun()
        before = len(OPENED)
        experiment.dryrun(verify=True)
    assert (before, len(OPENED) - before) == (1, 1 + 1)


@attrs.define(kw_only=True)
class TogetherExecutor(AskedExecutor):
    def backend(self):
        return Together()  # type: ignore[abstract]


def test_what_goes_out_in_one_call_is_shown_with_its_first_job(capsys, nemorun_home):
    with Experiment("together", TogetherExecutor(env_vars={"ANSWER": "a"})) as experiment:
        first = experiment.add(sh("true"), name="first")
        experiment.add(sh("true"), TogetherExecutor(env_vars={"ANSWER": "b"}), name="other")
        experiment.add(sh("true"), name="second")
        experiment.add(sh("true"), name="later", dependencies=[first])
        experiment.dryrun()
    assert capsys.readouterr().out.splitlines() == [
        "Task 0: first",
        "--- all",
        "first second",
        "Task 1: other",
        "--- all",
        "other",
        "Task 2: second",
        "--- in one call with first",
        "",
        "Task 3: later",
        "--- script",
        "later",
    ]
