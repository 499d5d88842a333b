"""`Experiment` and `run`: what users of the Python API see."""

from nemorun_core.experiment.facade import Experiment
from nemorun_core.experiment.single import run

__all__ = ["Experiment", "run"]
