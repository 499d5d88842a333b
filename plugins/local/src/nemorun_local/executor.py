"""`LocalExecutor`: run on this machine."""

from __future__ import annotations

from collections.abc import Hashable

import attrs

from nemorun_core import Backend, Capabilities, Executor, UsageError

__all__ = ["LocalExecutor"]

_CAPABILITIES = Capabilities(
    runs_on_this_machine=True,
    shares_files=True,
    group="atomic",
    wait=True,
    timeout=True,
    separate_stderr=True,
)


@attrs.define(kw_only=True)
class LocalExecutor(Executor):
    """Runs each member as a process of this machine, in a session of its own, in the folder it was launched from.

    Programs inherit the environment of the process that drives the experiment, with `env_vars` on top. They go on if
    that process dies. When a program has ended, what it left running in its process group is killed.

    Attributes:
        nodes, ntasks_per_node: their product is the number of ranks of each member, all started on this machine;
            node ranks are simulated.
        max_parallel: most jobs at once of all executors with the same value; None: as many as the machine's limits on
            processes, files and memory allow. The rest wait as PENDING.
    """

    nodes: int = 1
    ntasks_per_node: int = 1
    max_parallel: int | None = None

    def capabilities(self) -> Capabilities:
        """Return what this machine can do for a job."""
        return _CAPABILITIES

    def connection(self) -> Hashable:
        """Return the identity of this machine's backend; each `max_parallel` has one of its own."""
        return ("local", self.max_parallel)

    def backend(self) -> Backend:
        """Open the backend."""
        from nemorun_local.backend import LocalBackend

        return LocalBackend(self.max_parallel)

    def ranks(self) -> int:
        """Return how many processes a member has."""
        return self.nodes * self.tasks_per_node()

    def tasks_per_node(self) -> int:
        """Return how many processes a member has on each of its nodes: one, where a launcher starts the others."""
        return 1 if self.launcher else self.ntasks_per_node

    def check(self) -> None:
        """Refuse what this machine cannot honour. Raises UsageError."""
        super().check()
        for name in ("nodes", "ntasks_per_node", "max_parallel"):
            value = getattr(self, name)
            if value is None and name == "max_parallel":
                continue
            if type(value) is not int or value < 1:
                raise UsageError(f"LocalExecutor({name}={value!r}): expected a whole number, 1 or more.")
