"""`EnvVars`: set variables for the jobs that it is given to."""

from __future__ import annotations

import attrs

from nemorun_core import Executor, Plugin, Task

__all__ = ["EnvVars"]


@attrs.define
class EnvVars(Plugin):
    """Sets environment variables of the executor of each member; they win over those already there.

    Attributes:
        values: name to value.
    """

    values: dict[str, str]

    def setup(self, task: Task, executor: Executor) -> None:
        """Set the variables."""
        executor.env_vars.update(self.values)
