"""Jobs on a Slurm cluster, here or through SSH."""

from nemorun_slurm.executor import SlurmExecutor

__all__ = ["SlurmExecutor"]
