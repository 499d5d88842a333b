"""SlurmExecutor keeps the laws, on a real cluster, here and through ssh."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from nemorun_devkit import ExecutorLaws
from nemorun_slurm import SlurmExecutor
from nemorun_slurm.tunnel import SSHTunnel

from nemorun_core import Document, Submission

from .slurm_cluster import Cluster, Wrapped, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(180)]

TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
LIMIT = (
    "sbatch: error: QOSMaxSubmitJobPerUserLimit\n"
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size "
    "and/or time limits)"
)


class TestSlurmExecutor(ExecutorLaws):
    patience_seconds = 60.0

    @pytest.fixture
    def cluster(self, request, running_cluster: Cluster, own_cluster) -> Cluster:
        """The running one, or one of the test's own where its slurmctld is to be restarted."""
        if "restart_scheduler" not in request.fixturenames:
            return running_cluster
        made: Cluster = own_cluster("--nodes", "2", "--acct", "none", "--ssh")
        return made

    @pytest.fixture(autouse=True)
    def on_the_cluster(self, cluster: Cluster, monkeypatch, tmp_path_factory):
        """Point Slurm's commands to the cluster, and what is kept in a home to one of the test's own."""
        monkeypatch.setenv("SLURM_CONF", str(cluster.conf))
        monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))

    @pytest.fixture
    def executor(self, cluster):
        return SlurmExecutor(partition="main")

    @pytest.fixture
    def point_to(self, monkeypatch):
        """Return what says where Slurm's commands look for the cluster."""
        return lambda conf: monkeypatch.setenv("SLURM_CONF", str(conf))

    @pytest.fixture
    def scheduler_down(self, cluster, tmp_path, point_to):
        """Nobody answers where slurmctld was."""

        @contextlib.contextmanager
        def down() -> Iterator[None]:
            with cluster.unreachable(tmp_path) as conf:
                point_to(conf)
                yield
                point_to(cluster.conf)

        return down

    @pytest.fixture
    def answer_lost(self, wrapped: Wrapped):
        """sbatch gives the job to Slurm, and then does not hear from it in time."""

        @contextlib.contextmanager
        def lost() -> Iterator[None]:
            wrapped.put("sbatch", f"real \"$@\" >/dev/null; echo '{TIMED_OUT}' >&2; exit 1")
            yield
            wrapped.drop(["sbatch"])

        return lost

    @pytest.fixture
    def accepted_late(self, wrapped: Wrapped, cluster, tmp_path):
        """slurmctld works through a submission when sbatch has given up."""

        @contextlib.contextmanager
        def late() -> Iterator[None]:
            letters = tmp_path / "letters"
            letters.mkdir()
            wrapped.put("sbatch", f"cat >{letters}/$$; echo '{TIMED_OUT}' >&2; exit 1")
            yield
            wrapped.drop(["sbatch"])
            for letter in sorted(letters.iterdir()):
                cluster.run("sbatch", stdin=letter.read_text())

        return late

    @pytest.fixture
    def scheduler_full(self, wrapped: Wrapped):
        """A QOS allows no more jobs."""

        @contextlib.contextmanager
        def full() -> Iterator[None]:
            wrapped.put("sbatch", f'cat >/dev/null; echo "{LIMIT}" >&2; exit 1')
            yield
            wrapped.drop(["sbatch"])

        return full

    @pytest.fixture
    def restart_scheduler(self, cluster):
        return cluster.restart

    @pytest.fixture
    def expire(self, wrapped: Wrapped, cluster):
        """slurmctld and slurmdbd know the job no more."""
        forgotten: list[str] = []

        def forget(handle: str) -> None:
            forgotten.extend(cluster.ids(handle))
            pattern = "|".join(forgotten)
            wrapped.drop(["squeue", "sacct"])
            for name in ("squeue", "sacct"):
                wrapped.put(name, f"real \"$@\" | grep -vE '^({pattern})[^0-9]'; exit 0")

        yield forget
        wrapped.drop(["squeue", "sacct"])
        if forgotten:
            cluster.run("scancel", *forgotten)

    @pytest.fixture
    def requeue(self, cluster):
        return lambda handle: cluster.run("scontrol", "requeue", *cluster.ids(handle))

    @pytest.fixture
    def namesake(self, cluster):
        """Somebody called a job like ours."""
        theirs: list[str] = []

        def put(job: Submission) -> Callable[[], bool]:
            found = cluster.run(
                "sbatch", "--parsable", "-o", "/dev/null", "-J", job.key.slug(128), stdin="#!/bin/sh\nexec sleep 60\n"
            ).strip()
            theirs.append(found)
            wait_until(lambda: cluster.state(found) == "RUNNING", "the namesake")
            return lambda: cluster.state(found) == "RUNNING"

        yield put
        if theirs:
            cluster.run("scancel", *theirs)

    @pytest.fixture
    def count_queries(self, wrapped: Wrapped, tmp_path):
        """Each run of a command that asks; sdiag would count those of other tests as well."""
        asked = tmp_path / "asked"
        for name in ("squeue", "sacct", "scontrol"):
            wrapped.put(name, f'echo {name} >>{asked}; real "$@"')
        return lambda: len(asked.read_text().splitlines()) if asked.exists() else 0

    @pytest.fixture
    def submitted_documents(self, cluster):
        def read(job: Submission) -> list[Document]:
            name = job.key.slug(128)
            return [
                Document(f"{name}.sbatch", cluster.run("scontrol", "write", "batch_script", *cluster.ids(name), "-"))
            ]

        return read

    @pytest.fixture
    def kept_by_scheduler(self, cluster):
        """Scripts, and what Slurm shows of jobs. The environment of sbatch is not among it: `export` hands it over."""

        def read() -> Iterable[bytes]:
            yield cluster.run("scontrol", "show", "job", "-o").encode()
            yield cluster.run("sacct", "-P", "-o", "ALL", "--starttime=now-1hour").encode()
            yield from (path.read_bytes() for path in (cluster.folder / "state").rglob("script"))
            yield from (path.read_bytes() for path in (cluster.folder / "spool").rglob("slurm_script"))
            yield from (path.read_bytes() for path in (cluster.folder / "log").iterdir())

        return read

    @pytest.fixture
    def refused_executor(self, executor):
        return SlurmExecutor(partition="no-such-partition", tunnel=executor.tunnel)

    @pytest.fixture
    def unhonoured_executors(self, executor):
        return [
            SlurmExecutor(tunnel=executor.tunnel, **fields)
            for fields in ({"nodes": 0}, {"signal": "INT@60"}, {"mem": "1G", "mem_per_cpu": "1G"}, {"time": "soon"})
        ]


class TestSlurmExecutorThroughSSH(TestSlurmExecutor):
    """The same cluster, with nothing shared but a shell: sshd on loopback."""

    @pytest.fixture
    def profile(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """What the login node's shell reads first."""
        return tmp_path_factory.mktemp("login") / "profile"

    @pytest.fixture
    def point_to(self, profile: Path):
        """The answers of a moment ago, which are shared, are no failed ones: they have to be too old first."""

        def point(conf: Path) -> None:
            profile.write_text(f"export SLURM_CONF={conf}\n")
            began = time.time()
            wait_until(lambda: time.time() - began > 1.1, "the end of the shortest interval")

        return point

    @pytest.fixture
    def executor(self, cluster: Cluster, tmp_path_factory, tmp_path, profile, point_to):
        if not cluster.ssh_config.exists():
            pytest.skip("the cluster has no sshd: tests/clusters/slurm/up --ssh")
        point_to(cluster.conf)
        return SlurmExecutor(
            partition="main",
            tunnel=SSHTunnel(
                host="mini",
                job_dir=str(tmp_path_factory.mktemp("remote")),
                pre_command=f"PATH={tmp_path}/wrapped:$PATH; . {profile}",
                options=("-F", str(cluster.ssh_config)),
            ),
        )

    @pytest.fixture
    def shared_folder(self, tmp_path: Path) -> Path:
        """This login node is this machine."""
        folder = tmp_path / "shared"
        folder.mkdir()
        return folder
