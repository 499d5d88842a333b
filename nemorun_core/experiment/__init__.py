"""`Experiment` and `run`: what users of the Python API see. Loaded when used: looking at what was run needs less."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nemorun_core.experiment.facade import Experiment
    from nemorun_core.experiment.single import run

__all__ = ["Experiment", "run"]


def __getattr__(name: str) -> object:
    if name == "Experiment":
        from nemorun_core.experiment.facade import Experiment

        return Experiment
    if name == "run":
        from nemorun_core.experiment.single import run

        return run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
