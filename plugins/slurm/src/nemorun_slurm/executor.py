"""`SlurmExecutor`."""

from __future__ import annotations

import attrs

from nemorun_core import Executor

__all__ = ["SlurmExecutor"]


@attrs.define(kw_only=True)
class SlurmExecutor(Executor):
    """Jobs on a Slurm cluster, here or through SSH."""
