"""What a member's records and its container say together. Needs no engine."""

from __future__ import annotations

import attrs
import pytest
from nemorun_docker import DockerExecutor
from nemorun_docker.containers import Container
from nemorun_docker.member import DockerMember, Last

import nemorun_core as run


@pytest.fixture
def member(tmp_path):
    job = run.Submission(
        key=run.Key("0" * 16, "a", 0),
        members=(run.Member(argv=("true",), environment={}, cwd="/"),),
        executors=(DockerExecutor(container_image="i"),),
        folder=str(tmp_path),
        support="/support",
    )
    return DockerMember(job, 0, "a")


def started(member, boot=""):
    with open(f"{member.base}.start", "w") as stream:
        print(f"nemorun-start 1 pid=1 uptime=1.00 host=here boot={boot or run.boot_id()} end", file=stream)


def ended(member, code, signals="none"):
    with open(f"{member.base}.outcome", "w") as stream:
        print(f"nemorun-outcome 1 code={code} signals={signals} uptime=2.00 end", file=stream)


def look(member, container=None, *, timed_out=False, **last):
    return member.observe(container, lambda container, *, words: Last(**last), timed_out=timed_out)


def container(**fields):
    return attrs.evolve(Container("1"), **fields)


def test_a_container_that_was_made_waits(member):
    assert look(member, container(is_created=True)).state is run.State.PENDING


def test_a_container_that_runs_is_running_also_when_its_program_has_just_ended(member):
    """What the engine adds to an end comes with the container's own."""
    started(member)
    ended(member, 3)
    assert look(member, container()).state is run.State.RUNNING


def test_nobody_knows_of_a_start_without_a_container_and_without_an_end(member):
    started(member)
    assert look(member) is None
    assert look(member, container(is_gone=True)) is None


def test_the_outcome_is_enough(member):
    started(member)
    ended(member, 3)
    seen = look(member)
    assert (seen.state, seen.exit_code, str(seen.reason)) == (run.State.FAILED, 3, "exit code 3")


@pytest.mark.parametrize(("code", "reason"), [(137, "signal 9 (SIGKILL)"), (143, "signal 15 (SIGTERM)")])
def test_a_killed_shim_ends_as_its_container(member, code, reason):
    started(member)
    seen = look(member, container(has_ended=True, exit_code=code))
    assert (seen.exit_code, str(seen.reason)) == (code, reason)


def test_the_engines_reason_overrides_the_records_and_leaves_its_code(member):
    started(member)
    ended(member, 1)
    seen = look(member, container(has_ended=True, exit_code=1), out_of_memory=True)
    assert (seen.exit_code, seen.reason.kind) == (1, run.ReasonKind.OUT_OF_MEMORY)


def test_a_success_is_not_asked_about(member):
    started(member)
    ended(member, 0)
    seen = member.observe(container(has_ended=True, exit_code=0), pytest.fail, timed_out=False)
    assert seen.state is run.State.SUCCEEDED


def test_a_shim_that_did_not_start_says_why(member):
    seen = look(member, container(has_ended=True, exit_code=2), words="sh: can't open '/support/shim.sh'")
    assert seen.reason.kind is run.ReasonKind.REJECTED
    assert "can't open" in seen.reason.detail


def test_an_end_by_its_time_is_a_timeout(member):
    started(member)
    ended(member, 143, "TERM")
    assert look(member, container(has_ended=True), timed_out=True).reason.kind is run.ReasonKind.TIMEOUT


def test_a_start_of_another_boot_is_a_failure_of_the_machine(member):
    started(member, boot="before")
    seen = look(member, container(has_ended=True, exit_code=255))
    assert (seen.exit_code, seen.reason.kind) == (None, run.ReasonKind.NODE_FAILURE)


def test_an_end_stays_as_it_was_told(member):
    started(member)
    ended(member, 3)
    seen = look(member)
    ended(member, 4)
    assert look(member) is seen
