"""The batch script on a real cluster: where ranks run, who meets whom, how signals and restarts come through."""

from __future__ import annotations

import itertools
from pathlib import Path

import attrs
import pytest
from nemorun_slurm import SlurmExecutor
from nemorun_slurm.parse import submitted_id
from nemorun_slurm.reasons import output_reason
from nemorun_slurm.script import Layout, batch_output, batch_script

import nemorun_core
from nemorun_core import Key, Member, ReasonKind, Submission, read_outcome

from .slurm_cluster import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(120)]

SUPPORT = Path(nemorun_core.__file__).parent / "engine"
ALL_UP = "[ -e up0 ] && [ -e up1 ] && [ -e up2 ]"
OVER = {"CANCELLED", "COMPLETED", "FAILED", "OUT_OF_MEMORY", "TIMEOUT"}
PLACE = 'echo "$NEMORUN_RANK $NEMORUN_LOCAL_RANK $NEMORUN_NODE_RANK $NEMORUN_NNODES"'


class Jobs:
    """Gives batch scripts to a cluster as they are, and looks at what they leave."""

    def __init__(self, cluster, folder):
        self.cluster = cluster
        self.folder = folder
        self.ids = []
        self._numbers = itertools.count()

    def submit(self, *members, folder=None):
        """Submit a job of (executor, text of a shell script) pairs; return its number and its folder."""
        folder = folder or self.folder / f"job{next(self._numbers)}"
        folder.mkdir()
        job = Submission(
            key=Key("0" * 16, folder.name, 0),
            members=tuple(
                Member(argv=("sh", "-c", text), environment={"NEMORUN_MEMBER": str(number)}, cwd=str(self.folder))
                for number, (_, text) in enumerate(members)
            ),
            executors=tuple(attrs.evolve(executor, partition=executor.partition or "main") for executor, _ in members),
            folder=str(folder),
            support=str(SUPPORT),
        )
        script = batch_script(job, Layout(folder=job.folder, support=job.support))
        self.ids.append(submitted_id(self.cluster.run("sbatch", "--parsable", stdin=script)))
        return self.ids[-1], folder

    def run(self, *members, folder=None):
        """Run a job to its end; return its folder."""
        job, folder = self.submit(*members, folder=folder)
        self.end(job)
        return folder

    def end(self, job):
        """Wait until Slurm has let go of a job, with all its components."""
        wait_until(lambda: set(self.cluster.state(job).split()) <= OVER, f"the end of job {job}")

    def shows(self, path, text="up"):
        wait_until(lambda: path.exists() and text in path.read_text(), f"{text!r} in {path}")


@pytest.fixture
def jobs(cluster, tmp_path):
    jobs = Jobs(cluster, tmp_path)
    yield jobs
    cluster.run("scancel", *jobs.ids, check=False)
    for job in jobs.ids:
        jobs.end(job)


def log(folder, member=0, suffix=""):
    return (folder / f"0.0.{member}.out{suffix}").read_text().splitlines()


def test_ranks_know_their_places(jobs):
    folder = jobs.run((SlurmExecutor(nodes=2, ntasks_per_node=2), PLACE))
    assert [log(folder, suffix=suffix) for suffix in ("", ".1", ".2", ".3")] == [
        ["0 0 0 2"],
        ["1 1 0 2"],
        ["2 0 1 2"],
        ["3 1 1 2"],
    ]


def test_a_launcher_is_started_once_on_each_node(jobs):
    folder = jobs.run((SlurmExecutor(nodes=2, ntasks_per_node=2, cpus_per_task=1, launcher="any"), PLACE))
    assert [log(folder, suffix=suffix) for suffix in ("", ".1")] == [["0 0 0 2"], ["1 0 1 2"]]
    assert not (folder / "0.0.0.out.2").exists()


def test_a_launcher_has_the_processors_of_all_that_it_starts(jobs):
    executor = SlurmExecutor(ntasks_per_node=3, cpus_per_task=1, launcher="any")
    folder = jobs.run((executor, f"{PLACE}; echo $SLURM_CPUS_PER_TASK"))
    assert log(folder) == ["0 0 0 1", "3"]
    assert Path(batch_output(str(folder), 0)).read_text() == ""


GROUPS = {
    "apart": [SlurmExecutor(nodes=1, ntasks_per_node=2)] * 2,
    "packed": [SlurmExecutor()] * 6,
    "packed by memory": [SlurmExecutor(mem_per_cpu="50M")] * 3,
    "heterogeneous": [SlurmExecutor(mem="100M"), SlurmExecutor(nodes=2)],
    "shared": [SlurmExecutor(nodes=1, het_group_indices=[0, 1, 1])] * 3,
}


@pytest.mark.parametrize("executors", GROUPS.values(), ids=GROUPS)
def test_members_run_together_where_all_were_told(jobs, executors):
    count = len(executors)
    all_up = " && ".join(f"[ -e up{number} ]" for number in range(count))
    hosts = " ".join(f"$NEMORUN_MEMBER_{number}_HOST" for number in range(count))
    text = (
        f"touch up$NEMORUN_MEMBER; n=0; until {all_up} || [ $n -gt 2000 ]; do n=$((n + 1)); sleep 0.01; done; "
        f'{all_up} && echo "$SLURMD_NODENAME $NEMORUN_HEAD_HOST $NEMORUN_HEAD_PORT {hosts}"'
    )
    folder = jobs.run(*((executor, text) for executor in executors))
    logs = [log(folder, member)[0].split() for member in range(count)]
    assert len({tuple(words[1:]) for words in logs}) == 1
    head, port, *hosts = logs[0][1:]
    assert [words[0] for words in logs] == hosts
    assert head == hosts[0]
    assert 1024 < int(port) < 65536


def test_packed_members_run_together_where_the_first_could_take_all_memory(own_cluster, tmp_path):
    extra = tmp_path / "extra.conf"
    extra.write_text("PartitionName=whole Nodes=ALL DefMemPerNode=1000 State=UP\n")
    jobs = Jobs(own_cluster("--nodes", "1", "--acct", "none", "--extra", str(extra)), tmp_path)
    text = (
        f"touch up$NEMORUN_MEMBER; n=0; until {ALL_UP} || [ $n -gt 2000 ]; do n=$((n + 1)); sleep 0.01; done; {ALL_UP}"
    )
    folder = jobs.run(*[(SlurmExecutor(partition="whole"), text)] * 3)
    assert [read_outcome(str(folder / f"0.0.{member}"), "").code for member in range(3)] == [0, 0, 0]


def test_members_apart_have_nodes_of_their_own(jobs):
    folder = jobs.run(*[(SlurmExecutor(nodes=2), "echo $SLURMD_NODENAME")] * 2)
    assert len({log(folder, member, suffix)[0] for member in (0, 1) for suffix in ("", ".1")}) == 4


def test_each_member_ends_with_its_own_exit_code(jobs):
    folder = jobs.run(*[(SlurmExecutor(), "exit $((NEMORUN_MEMBER * 100))")] * 3)
    codes = [read_outcome(str(folder / f"0.0.{member}"), "").code for member in range(3)]
    assert codes == [0, 100, 200]


@pytest.mark.parametrize("options", [["--signal=TERM"], []], ids=["signalled", "cancelled"])
def test_a_program_may_end_itself_when_it_is_told_to(jobs, options):
    program = "trap 'echo told; exit 5' TERM; echo up; n=0; while [ $n -lt 3000 ]; do n=$((n + 1)); sleep 0.02; done"
    job, folder = jobs.submit((SlurmExecutor(), program))
    jobs.shows(folder / "0.0.0.out")
    jobs.cluster.run("scancel", *options, job)
    jobs.end(job)
    # Without cgroups the program's own sleep gets the signal as well, and its shell says so.
    assert [line for line in log(folder) if line != "Terminated"] == ["up", "told"]
    outcome = read_outcome(str(folder / "0.0.0"), "")
    assert (outcome.code, outcome.signals) == (5, ("TERM",))


def test_a_restart_is_an_incarnation_and_its_budget_ends(jobs):
    job, folder = jobs.submit((SlurmExecutor(requeue=1), "echo attempt $NEMORUN_ATTEMPT; sleep 60"))
    jobs.shows(folder / "0.0.0.out", "attempt 0")
    jobs.cluster.run("scontrol", "requeue", job)
    jobs.shows(folder / "0.1.0.out", "attempt 1")
    wait_until(lambda: "Requeue=0" in jobs.cluster.run("scontrol", "show", "job", job), "the end of the budget")


@pytest.mark.parametrize("name", ["a b", "%j%x", 'it\'s "it"', "back\\slash %j", "hetjob", "é ☃"])
def test_the_scripts_own_output_is_kept_whatever_the_folder_is_called(jobs, name):
    folder = jobs.run((SlurmExecutor(setup_lines="echo from the script"), "echo ran"), folder=jobs.folder / name)
    assert Path(batch_output(str(folder), 0)).read_text() == "from the script\n"
    assert log(folder) == ["ran"]


def test_memory_that_ran_out_is_told_by_the_scripts_output(jobs):
    if "cgroup" not in jobs.cluster.setting("TaskPlugin"):
        pytest.skip("this cluster does not hold jobs to their memory: tests/clusters/slurm/up --cgroup")
    folder = jobs.run((SlurmExecutor(mem="60M"), "exec python3 -c 'bytearray(300 << 20)'"))
    reason = output_reason(Path(batch_output(str(folder), 0)).read_text())
    assert reason is not None
    assert reason.kind is ReasonKind.OUT_OF_MEMORY
    assert read_outcome(str(folder / "0.0.0"), "").code == 137
