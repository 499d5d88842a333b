"""The laws of nemorun's backends as a test class to inherit: `from nemorun_devkit import ExecutorLaws`.

Names are loaded when they are first used, since pytest imports this package in every session where it is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nemorun_devkit.kit import Kit as Kit
    from nemorun_devkit.laws import ExecutorLaws as ExecutorLaws
    from nemorun_devkit.simulator import Scenario as Scenario
    from nemorun_devkit.simulator import SimulatedExecutor as SimulatedExecutor
    from nemorun_devkit.simulator import simulate as simulate

__all__ = ["ExecutorLaws", "Kit", "Scenario", "SimulatedExecutor", "simulate"]

_NAMES = {
    "ExecutorLaws": "laws",
    "Kit": "kit",
    "Scenario": "simulator",
    "SimulatedExecutor": "simulator",
    "simulate": "simulator",
}


def __getattr__(name: str) -> object:
    import importlib

    if name not in _NAMES:
        raise AttributeError(f"module 'nemorun_devkit' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"nemorun_devkit.{_NAMES[name]}"), name)
    globals()[name] = value
    return value
