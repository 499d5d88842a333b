"""Many equal jobs on a real cluster: one sbatch, and yet each with its own state, log, cancel, retry and start."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from nemorun_devkit.kit import Kit
from nemorun_slurm import SlurmExecutor
from nemorun_slurm.calls import Batches
from nemorun_slurm.tunnel import SSHTunnel

import nemorun_core as run
from nemorun_core import Accepted, Observation, State, Submission, TransientError

from .slurm_cluster import Cluster, Wrapped, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]

LOST = 'real "$@" >/dev/null; echo "sbatch: error: Socket timed out on send/recv operation" >&2; exit 1'


@pytest.fixture
def kit_on(monkeypatch, tmp_path: Path) -> Iterator[Callable[..., Kit]]:
    """Return what drives the backend by hand on a cluster."""
    kits: list[Kit] = []

    def make(cluster: Cluster, ssh: bool = False, **fields: object) -> Kit:
        monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        shared = tmp_path / "kit" / "shared"
        shared.mkdir(parents=True)
        if ssh:
            options = ("-F", str(cluster.ssh_config))
            pre_command = f"PATH={tmp_path}/wrapped:$PATH; export SLURM_CONF={cluster.conf}"
            fields["tunnel"] = SSHTunnel(
                host="mini", job_dir=str(tmp_path / "remote"), options=options, pre_command=pre_command
            )
        kits.append(Kit(SlurmExecutor(partition="main", **fields), tmp_path / "kit", shared, 100.0))
        return kits[-1]

    yield make
    for kit in kits:
        kit.close()


@pytest.fixture
def calls(wrapped: Wrapped, tmp_path: Path) -> Callable[[], list[str]]:
    """Return what says with which words sbatch was called."""
    noted = tmp_path / "sbatch-calls"
    wrapped.put("sbatch", f'echo "$*" >>{noted}; real "$@"')
    return lambda: noted.read_text().splitlines() if noted.exists() else []


def equal(kit: Kit, amount: int, text: str) -> list[Submission]:
    """Return jobs that differ in name, argument and variable; the program notes that it ran."""
    program = f"echo $1 >>{kit.shared}/runs; {text}"
    return [
        kit.make(("sh", "-c", program, "sh", str(number)), name=f"job{number}", environment={"N": str(number)})
        for number in range(amount)
    ]


def take(kit: Kit, jobs: Sequence[Submission]) -> list[str]:
    answers = kit.answers(jobs)
    assert [type(answers[job.key]) for job in jobs] == [Accepted] * len(jobs)
    return [answer.handle for answer in answers.values() if isinstance(answer, Accepted)]


def poll(kit: Kit, handles: Sequence[str]) -> list[Observation]:
    seen = kit.backend.poll(handles)
    return [seen[handle] for handle in handles]


def ends(kit: Kit, handles: Sequence[str]) -> list[tuple[State, int | None]]:
    """Wait until all are over, by polls for all of them; return how each ended."""
    kit.until(lambda: all(seen.is_over for seen in poll(kit, handles)), "the end of all")
    return [(seen.members[0].state, seen.members[0].exit_code) for seen in poll(kit, handles)]


def rows(cluster: Cluster, kit: Kit) -> list[list[str]]:
    """Return id, state and name of the tasks of arrays of a kit's jobs."""
    said = cluster.run("squeue", "--me", "-h", "-r", "-t", "all", "-o", "%i %T %j %k").splitlines()
    names = {path.stem for path in kit.folder.rglob("batches/*.json")}
    return [row.split()[:2] for row in said if row.split()[2] in names]


def ran(kit: Kit) -> list[int]:
    return sorted(map(int, kit.lines("runs")))


@pytest.mark.parametrize("ssh", [False, True], ids=["here", "ssh"])
def test_thirty_jobs_are_one_sbatch_and_each_has_its_own_end_and_log(cluster, kit_on, calls, ssh):
    kit = kit_on(cluster, ssh=ssh)
    jobs = equal(kit, 30, 'echo "$1 of $N in $NEMORUN_JOB"; echo oops >&2; exit $(($1 % 3))')
    handles = take(kit, jobs)
    assert ends(kit, handles) == [
        (State.SUCCEEDED if number % 3 == 0 else State.FAILED, number % 3) for number in range(30)
    ]
    assert calls() == ["--parsable"]
    assert [kit.log(handle) for handle in handles] == [
        f"{number} of {number} in job{number}\noops\n".encode() for number in range(30)
    ]
    assert ran(kit) == list(range(30))
    assert take(kit, jobs) == handles, "what is there is not submitted again"
    kit.reopen()
    assert [kit.find(*jobs)[job.key] for job in jobs] == handles
    assert ends(kit, handles)[:2] == [(State.SUCCEEDED, 0), (State.FAILED, 1)]


def test_slurm_is_given_what_is_rendered(cluster, kit_on):
    kit = kit_on(cluster)
    jobs = equal(kit, 9, "true")
    [(keys, documents)] = kit.backend.render_together(jobs)
    assert not (kit.folder / kit.nonce / "batches").exists()
    take(kit, jobs)
    assert list(keys) == [job.key for job in jobs]
    [script, tasks] = documents
    assert cluster.run("scontrol", "write", "batch_script", rows(cluster, kit)[0][0], "-") == script.text
    assert Path(tasks.name).read_text() == tasks.text


def test_one_that_runs_and_one_that_waits_are_cancelled_alone(cluster, kit_on):
    node = cluster.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N").split()[0]
    kit = kit_on(cluster, cpus_per_task=4, nodelist=node)  # one at a time
    handles = take(kit, equal(kit, 9, f"echo up; {kit.gate()}; exit 4"))
    kit.until(lambda: any(seen.members[0].state is State.RUNNING for seen in poll(kit, handles)), "a start")
    running = next(number for number, seen in enumerate(poll(kit, handles)) if seen.members[0].state is State.RUNNING)
    waiting = (running + 5) % 9
    kit.backend.cancel([handles[running], handles[waiting]])
    kit.until(lambda: all(poll(kit, [handles[number]])[0].is_over for number in (running, waiting)), "both ends")
    kit.open_gate()
    expected = [(State.FAILED, 4)] * 9
    expected[running], expected[waiting] = (State.FAILED, 143), (State.CANCELLED, None)
    assert ends(kit, handles) == expected  # who asked for the end, and so for CANCELLED, is known to the engine
    assert poll(kit, [handles[running]])[0].members[0].signals == ("TERM",)
    assert ran(kit) == [number for number in range(9) if number != waiting]


def test_all_are_cancelled_and_killed_at_once(cluster, kit_on):
    kit = kit_on(cluster, grace_seconds=0.5)
    handles = take(kit, equal(kit, 40, "trap '' TERM; echo up; while :; do sleep 0.05; done"))
    kit.until(lambda: any(seen.members[0].state is State.RUNNING for seen in poll(kit, handles)), "a start")
    kit.backend.cancel(handles)
    assert {state for state, _ in ends(kit, handles)} <= {State.CANCELLED, State.FAILED}
    kit.until(lambda: not kit.processes(), "the end of every process")
    assert not [row for row in rows(cluster, kit) if row[1] in ("PENDING", "RUNNING")]


def test_one_is_started_again_by_slurm_and_the_others_are_not(cluster, kit_on):
    kit = kit_on(cluster, requeue=True)
    jobs = equal(kit, 8, f"echo up; {kit.gate()}; exit 4")
    handles = take(kit, jobs)
    kit.until(lambda: len(kit.lines("runs")) == 8, "all starts")
    [ours] = [row[0] for row in rows(cluster, kit) if row[0].endswith("_3")]
    cluster.run("scontrol", "requeue", ours)
    kit.until(lambda: len(kit.lines("runs")) == 9, "the second start")
    kit.open_gate()
    assert ends(kit, handles) == [(State.FAILED, 4)] * 8
    assert [seen.incarnation for seen in poll(kit, handles)] == [0, 0, 0, 1, 0, 0, 0, 0]
    assert ran(kit) == [0, 1, 2, 3, 3, 4, 5, 6, 7]


class TestDoubt:
    def test_a_map_whose_array_was_never_sent_holds_nobody_back(self, cluster, kit_on, calls):
        """The driver died between the two. The jobs go out in another way, and each starts once."""
        kit = kit_on(cluster)
        jobs = equal(kit, 12, "exit 4")
        Batches().write(jobs)
        kit.reopen()
        assert kit.find(*jobs) == {}
        handles = take(kit, jobs[3:])
        handles += take(kit, jobs[:3])
        assert len(calls()) == 1 + 3
        assert ends(kit, handles) == [(State.FAILED, 4)] * 12
        assert ran(kit) == list(range(12))

    @pytest.mark.parametrize("ssh", [False, True], ids=["here", "ssh"])
    def test_an_array_whose_answer_was_lost_is_found_by_the_next_driver(self, cluster, kit_on, wrapped, ssh):
        kit = kit_on(cluster, ssh=ssh)
        jobs = equal(kit, 20, f"{kit.gate()}; exit 4")
        wrapped.put("sbatch", LOST)
        with pytest.raises(TransientError):
            kit.answers(jobs)
        wrapped.drop(["sbatch"])
        wrapped.put("sbatch", "exit 1")
        kit.reopen()
        found = kit.find(*jobs)
        assert set(found) == {job.key for job in jobs}
        kit.open_gate()
        assert ends(kit, [found[job.key] for job in jobs]) == [(State.FAILED, 4)] * 20
        assert ran(kit) == list(range(20))

    def test_an_array_that_is_taken_late_is_taken_back(self, cluster, kit_on, wrapped, tmp_path):
        """Meanwhile its jobs went out in another array, and are started once each."""
        kit = kit_on(cluster)
        jobs = equal(kit, 20, f"echo up; {kit.gate()}; exit 4")
        wrapped.put("sbatch", f'cat >{tmp_path}/letter; echo "sbatch: error: Socket timed out" >&2; exit 1')
        with pytest.raises(TransientError):
            kit.answers(jobs)
        wrapped.drop(["sbatch"])
        assert kit.find(*jobs) == {}
        handles = take(kit, jobs[1:]) + take(kit, jobs[:1])
        late = cluster.run("sbatch", "--parsable", "--begin=now+1hour", stdin=(tmp_path / "letter").read_text()).strip()

        def waiting() -> list[list[str]]:
            return [row for row in rows(cluster, kit) if row[0].startswith(f"{late}_") and row[1] == "PENDING"]

        kit.until(lambda: poll(kit, handles) and not waiting(), "the end of the duplicate")
        kit.open_gate()
        assert ends(kit, handles) == [(State.FAILED, 4)] * 19 + [(State.FAILED, 4)]
        assert ran(kit) == list(range(20))

    def test_a_task_that_started_twice_runs_its_program_once(self, cluster, kit_on):
        """Both arrays run; of each job one of the two finds its start taken."""
        kit = kit_on(cluster)
        jobs = equal(kit, 10, "exit 4")
        [(_, documents)] = kit.backend.render_together(jobs)
        handles = take(kit, jobs)
        cluster.run("sbatch", stdin=documents[0].text)
        assert ends(kit, handles) == [(State.FAILED, 4)] * 10
        wait_until(lambda: not [row for row in rows(cluster, kit) if row[1] in ("PENDING", "RUNNING")], "all ends")
        assert ran(kit) == list(range(10))


class TestOtherClusters:
    def test_a_site_with_a_small_largest_array_and_no_accounting(self, own_cluster, kit_on, calls, tmp_path):
        extra = tmp_path / "extra.conf"
        extra.write_text("MaxArraySize=11\nMinJobAge=2\n")
        kit = kit_on(own_cluster("--nodes", "1", "--acct", "none", "--extra", str(extra)))
        handles = take(kit, equal(kit, 30, "exit $(($1 % 2))"))
        assert len(calls()) == 1 + 1 + 5  # of 30 and 15 at once, which were too many, then of 7 at most
        assert ends(kit, handles) == [
            (State.FAILED if number % 2 else State.SUCCEEDED, number % 2) for number in range(30)
        ]

    def test_a_limit_on_jobs_is_waited_for(self, own_cluster, kit_on, monkeypatch):
        """MaxSubmitJobs counts each task; what is over it stays with us until others have ended."""
        cluster = own_cluster("--nodes", "1", "--acct", "dbd")
        kit = kit_on(cluster)
        cluster.run("sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=12")
        conf = cluster.conf.read_text()
        cluster.conf.write_text(f"{conf}\nAccountingStorageEnforce=limits\n")
        cluster.restart()
        with run.Experiment("limited", kit.executor, log_level="ERROR") as experiment:
            for number in range(30):
                experiment.add(run.Script(inline=f"exit {number % 2}"), name=f"job{number}")
            experiment.run()
        assert states(experiment) == {f"job{number}": "FAILED" if number % 2 else "SUCCEEDED" for number in range(30)}


def states(experiment: run.Experiment) -> dict[str, str]:
    return {name: str(job["state"]) for name, job in (experiment.status(return_dict=True) or {}).items()}


def test_in_an_experiment_those_that_failed_are_tried_again_together(cluster, monkeypatch, tmp_path, calls):
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    with run.Experiment("many", SlurmExecutor(partition="main", retries=1), log_level="ERROR") as experiment:
        for number in range(20):
            experiment.add(run.Script(inline=f'[ "$NEMORUN_ATTEMPT" -ge {number % 2} ]'), name=f"job{number}")
        experiment.run()
    assert set(states(experiment).values()) == {"SUCCEEDED"}
    assert [job["attempt"] for job in (experiment.status(return_dict=True) or {}).values()] == [0, 1] * 10
    assert len(calls()) < 1 + 10


def test_in_an_experiment_one_that_runs_and_one_that_waits_are_cancelled(cluster, monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    node = cluster.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N").split()[0]
    gate = tmp_path / "gate"
    executor = SlurmExecutor(partition="main", cpus_per_task=4, nodelist=node)
    with run.Experiment("many", executor, log_level="ERROR") as experiment:
        for number in range(8):
            experiment.add(run.Script(inline=f"while ! [ -e {gate} ]; do sleep 0.05; done"), name=f"job{number}")
        experiment.run()
        wait_until(lambda: "RUNNING" in states(experiment).values(), "a start")
        running = next(name for name, state in states(experiment).items() if state == "RUNNING")
        waiting = f"job{(int(running[-1]) + 4) % 8}"
        for name in (running, waiting):
            experiment.cancel(name)
        wait_until(lambda: states(experiment)[waiting] == "CANCELLED", "the end of what waited")
        gate.touch()
    found = states(experiment)
    assert [found.pop(name) for name in (running, waiting)] == ["CANCELLED"] * 2
    assert set(found.values()) == {"SUCCEEDED"}


def test_a_job_may_wait_in_slurm_for_one_task_of_an_array(cluster, monkeypatch, tmp_path, calls):
    monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    gate = tmp_path / "gate"
    with run.Experiment("many", SlurmExecutor(partition="main"), log_level="ERROR") as experiment:
        for number in range(10):
            text = f"while ! [ -e {gate} ]; do sleep 0.05; done; exit {number % 2}"
            experiment.add(run.Script(inline=text), name=f"job{number}")
        experiment.add(run.Script(inline="true"), name="good", dependencies=["job2"])
        experiment.add(run.Script(inline="true"), name="never", dependencies=["job3"])
        experiment.add(run.Script(inline="true"), name="mend", dependencies=[run.after_failure("job3")])
        experiment.run()
        wait_until(lambda: len(calls()) == 4, "all submissions")
        gate.touch()
    found = states(experiment)
    assert (found["good"], found["never"], found["mend"]) == ("SUCCEEDED", "SKIPPED", "SUCCEEDED")
    edges = [re.sub(r":\d+_", " of task ", call) for call in calls()]
    assert edges[0] == "--parsable"
    assert sorted(edge.split("=")[1].partition(" --")[0] for edge in edges[1:]) == [
        "afternotok of task 3",
        "afterok of task 2",
        "afterok of task 3",
    ]
