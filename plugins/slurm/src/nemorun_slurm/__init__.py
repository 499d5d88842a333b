"""Jobs on a Slurm cluster, here or through SSH."""

from nemorun_slurm.executor import SlurmExecutor
from nemorun_slurm.tunnel import LocalTunnel, SSHTunnel

__all__ = ["LocalTunnel", "SSHTunnel", "SlurmExecutor"]
