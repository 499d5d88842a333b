"""`SlurmExecutor`: run on a Slurm cluster."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, cast

import attrs

from nemorun_core import Capabilities, Executor, UsageError
from nemorun_slurm.containers import check_containers
from nemorun_slurm.options import check_options
from nemorun_slurm.tunnel import LocalTunnel, SSHTunnel

if TYPE_CHECKING:
    from nemorun_core import Backend

__all__ = ["LARGEST_ARRAY", "SlurmExecutor"]

LARGEST_ARRAY = 1000
"""Most jobs that go out as one array: what the usual MaxArraySize, 1001, takes."""

_PREFIX = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})?")


# None is the same as nothing given.


def _listed(value: list[str] | None) -> list[str]:
    return [] if value is None else value


def _named(value: dict[str, object] | None) -> dict[str, object]:
    return {} if value is None else value


def _text(value: str | None) -> str:
    return "" if value is None else value


@attrs.define(kw_only=True)
class SlurmExecutor(Executor):
    """Runs jobs on a Slurm cluster (22.05 and later): a batch script for each, and an srun(1) for each member.

    Fields that are called like an option of sbatch(1) are that option; None leaves it out, so that the site decides.

    Attributes:
        nodes, ntasks_per_node, ntasks: how many ranks a member has: `ntasks`, else the product of the others.
        time: longest time, as Slurm writes it ("90", "2:30:00", "1-12"); Slurm looks at it once a minute. Without it,
            `timeout_seconds` is told to Slurm, rounded up.
        exclusive: True, or "user", "mcs".
        signal: TERM, USR1, USR2 or HUP and how many seconds before the end each rank gets it: "USR1@120".
        requeue: whether Slurm may start a job again after a preemption or the failure of a node: True, False, or how
            often at most; None: as the site has it.
        comment: the user's own.
        job_name_prefix: what the job's name in Slurm begins with.
        open_mode: whether a restart appends to the batch script's own output, or truncates it.
        export: which variables of the environment of `sbatch` the job gets.
        container_image, container_mounts, container_env: run ranks in a container: an image; folders, "from:to"; names
            of variables that override the image's. The folders that the job needs are mounted by themselves.
        container_runtime: "pyxis", the plugin of srun, or "apptainer".
        srun_args: more options of srun(1).
        setup_lines: text of bash(1) that is run on the first node before the members, in the folder the job runs in.
        heterogeneous: give each member of a group a component of its own, as a heterogeneous job. Members that ask for
            different things get one anyway.
        het_group_indices: the component of each member; members of one share its nodes. The first executor's count.
        additional_parameters: more long options of sbatch, without `--`; True for a flag.
        tunnel: where Slurm's commands are run.
    """

    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    reservation: str | None = None
    time: str | None = None
    nodes: int | None = None
    ntasks: int | None = None
    ntasks_per_node: int | None = None
    cpus_per_task: int | None = None
    cpus_per_gpu: int | None = None
    gpus_per_node: int | str | None = None
    gpus_per_task: int | str | None = None
    gres: str | None = None
    mem: int | str | None = None
    mem_per_cpu: int | str | None = None
    mem_per_gpu: int | str | None = None
    constraint: str | None = None
    nodelist: str | None = None
    exclude: str | None = None
    exclusive: bool | str | None = None
    segment: int | None = None
    network: str | None = None
    signal: str | None = None
    requeue: int | bool | None = None  # in this order, so that a 1 of the command line is the number
    comment: str | None = None
    job_name_prefix: str = ""
    open_mode: str = "append"
    export: str = "ALL"
    container_image: str | None = None
    container_mounts: list[str] = attrs.field(factory=list, converter=_listed)
    container_env: list[str] = attrs.field(factory=list, converter=_listed)
    container_runtime: str = "pyxis"
    srun_args: list[str] = attrs.field(factory=list, converter=_listed)
    setup_lines: str = attrs.field(default="", converter=_text)
    heterogeneous: bool = False
    het_group_indices: list[int] | None = None
    additional_parameters: dict[str, object] = attrs.field(factory=dict, converter=_named)
    tunnel: LocalTunnel | SSHTunnel = attrs.field(factory=LocalTunnel)

    def capabilities(self) -> Capabilities:
        """Return what Slurm can do for a job."""
        shares_files = self.tunnel.shares_files
        return Capabilities(
            shares_files=shares_files,
            group="atomic",
            timeout=True,
            separate_stderr=True,
            fetch=not shares_files,
            native_edges=True,
            largest_batch=LARGEST_ARRAY,
            poll_interval_seconds=2.0,
        )

    def connection(self) -> Hashable:
        """Return the identity of the cluster and of the way to it."""
        return ("slurm", self.tunnel.connection())

    def backend(self) -> Backend:
        """Open the backend."""
        from nemorun_slurm.backend import SlurmBackend

        return SlurmBackend(self.tunnel)

    def ranks(self) -> int:
        """Return how many processes a member has: one on each node, where a launcher starts the others."""
        if self.launcher:
            return self.nodes or 1
        return self.ntasks or (self.nodes or 1) * (self.ntasks_per_node or 1)

    def check_group(self, executors: Sequence[Executor]) -> None:
        """Refuse members that cannot be one job of Slurm. Raises UsageError."""
        from nemorun_slurm.placement import components

        components(cast("Sequence[SlurmExecutor]", executors))

    def check(self) -> None:
        """Refuse what Slurm would refuse or misread. Raises UsageError."""
        super().check()
        self.tunnel.check()
        check_options(self)
        check_containers(self)
        if not _PREFIX.fullmatch(self.job_name_prefix):
            raise UsageError(
                f"SlurmExecutor(job_name_prefix={self.job_name_prefix!r}): expected at most 64 letters, digits, '.', "
                "'_' and '-', a letter or digit first."
            )
        if "\0" in self.setup_lines:
            raise UsageError("SlurmExecutor(setup_lines): a NUL character.", hint="Take it out.")
        if self.launcher and self.gpus_per_task is not None:
            raise UsageError(
                "SlurmExecutor(gpus_per_task) with a launcher, which is one task on each node.",
                hint="Use gpus_per_node.",
            )
        if self.launcher and self.nodes is None and self.ntasks not in (None, 1):
            raise UsageError(
                "SlurmExecutor(ntasks) with a launcher, which is started once on each node.",
                hint="Use nodes and ntasks_per_node.",
            )
