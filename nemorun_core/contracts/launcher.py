"""`Launcher`: what wraps a member's command, such as torchrun."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import attrs

from nemorun_core.model.task import Command

if TYPE_CHECKING:
    from nemorun_core.contracts.executor import Executor

__all__ = ["Launcher"]


@attrs.define(kw_only=True)
class Launcher:
    """Base of all launchers. An attrs class whose fields JSON can hold.

    A launcher is started once on each node of a member and starts the processes there itself. Of where it is, it learns
    only by the environment that every backend sets: `NEMORUN_NODE_RANK`, `NEMORUN_NNODES`, `NEMORUN_HEAD_HOST`,
    `NEMORUN_HEAD_PORT`, `NEMORUN_MEMBER_<n>_HOST`; never by a scheduler's own.
    """

    contract: ClassVar[int] = 1

    def check(self, executor: Executor) -> None:
        """Refuse an executor that it cannot work on. Raises UsageError."""

    def wrap(self, command: Command, executor: Executor, member: int, peers: Sequence[int]) -> Command:
        """Return the command that starts `command` the launcher's way. Pure: nothing is written or run.

        Args:
            member: the number of the member in its job.
            peers: the numbers of all members of the job whose launchers are equal, in order, this one among them.
        """
        raise NotImplementedError
