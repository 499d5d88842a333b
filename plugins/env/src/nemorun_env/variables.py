"""`EnvVars`: set variables for the jobs that it is given to."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from nemorun_core import Executor, Plugin, Secret, Task, UsageError

__all__ = ["EnvVars"]


def _mapping(values: Mapping[str, str | Secret]) -> dict[str, str | Secret]:
    if not isinstance(values, Mapping):
        raise UsageError(f"EnvVars: expected a mapping, found {values!r}.", hint='Write EnvVars({"NAME": "value"}).')
    return dict(values)


@attrs.define
class EnvVars(Plugin):
    """Sets environment variables of the executor of each member; they win over those already there.

    Attributes:
        values: name to value; a value is text or a `Secret`.

    Raises:
        UsageError: `values` is no mapping. What can be no variable is refused by `add`.
    """

    values: dict[str, str | Secret] = attrs.field(converter=_mapping)

    def setup(self, task: Task, executor: Executor) -> None:
        """Set the variables."""
        executor.env_vars.update(self.values)
