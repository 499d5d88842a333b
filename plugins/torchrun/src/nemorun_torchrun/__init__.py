"""torchrun as a launcher of nemorun's jobs."""

from nemorun_torchrun.launcher import Torchrun

__all__ = ["Torchrun"]
