"""What Slurm does to a job in mid-run: a signal before its time is over, restarts, and the end of their budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from nemorun_core import State

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]


def test_a_program_hears_of_the_end_of_its_time_and_may_end_itself(cluster, kit_on):
    """Slurm looks at its limits each half minute, and sends the signal up to a minute early."""
    kit = kit_on(cluster, partition="main", time="1", signal="USR1@55")
    handle = kit.start(
        "trap 'echo told; exit 5' USR1; echo up; n=0; while [ $n -lt 6000 ]; do n=$((n+1)); sleep 0.02; done"
    )
    member = kit.member(handle)
    assert (member.state, member.exit_code, member.signals) == (State.FAILED, 5, ("USR1",))
    assert kit.log(handle) == b"up\ntold\n"


def test_a_program_that_starts_itself_again_does_so_within_its_budget(cluster, kit_on):
    """As is usual with the signal above; and what each incarnation printed is kept."""
    kit = kit_on(cluster, partition="main", requeue=1)
    again = 'scontrol requeue "$SLURM_JOB_ID" 2>&1 && sleep 60'
    handle = kit.start(f"echo attempt $NEMORUN_ATTEMPT; {again}; exit 5")
    seen = kit.end(handle)
    assert (seen.incarnation, seen.members[0].state, seen.members[0].exit_code) == (1, State.FAILED, 5)
    first, second = (kit.backend.read_log(handle, 0, "out", 0, 1000, number).decode() for number in (0, 1))
    assert first == "attempt 0\n"
    assert second.startswith("attempt 1\n")
    assert "disabled" in second, "Slurm itself refuses to start it again"


@pytest.mark.nightly
def test_a_job_that_is_started_over_its_budget_all_the_same_runs_nothing_and_fails(cluster, kit_on):
    """Somebody allowed it again."""
    kit = kit_on(cluster, partition="main", requeue=1)
    job = kit.make(f"echo ran >>{kit.shared}/runs; echo up; sleep 60")
    handle = kit.take(job)
    kit.until(lambda: kit.lines("runs") == ["ran"], "the first start")
    [number] = cluster.ids(handle)
    cluster.run("scontrol", "requeue", number)
    kit.until(lambda: kit.lines("runs") == ["ran"] * 2, "the second start")
    kit.until(lambda: "Requeue=0" in cluster.run("scontrol", "show", "job", number), "the end of the budget")
    cluster.run("scontrol", "update", f"JobId={number}", "Requeue=1")
    cluster.run("scontrol", "requeue", number)
    member = kit.member(handle)
    print(member, kit.poll(handle))
    assert member.state is State.FAILED
    assert kit.lines("runs") == ["ran"] * 2
    assert "1 restarts are over" in Path(job.folder, "0.batch").read_text()
