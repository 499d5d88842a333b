"""`Component`: which members of a job share an allocation, and how much of it each takes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import attrs

from nemorun_core import UsageError

if TYPE_CHECKING:
    from nemorun_slurm.executor import SlurmExecutor

__all__ = ["Component", "components"]

# What a member asks for itself: members that differ in nothing else share an allocation.
_OF_A_MEMBER = frozenset(
    {
        "container_env",
        "container_image",
        "container_mounts",
        "container_runtime",
        "env_vars",
        "grace_seconds",
        "launcher",
        "lost_after_seconds",
        "outputs",
        "packager",
        "placement_timeout_seconds",
        "python",
        "retries",
        "retry_on",
        "separate_stderr",
        "srun_args",
        "timeout_seconds",
    }
)
# What a job has once, whatever its members are.
_OF_THE_JOB = ("export", "job_name_prefix", "open_mode", "requeue", "setup_lines")
_PER_NODE = ("gpus_per_node", "gres", "mem", "ntasks_per_node")


@attrs.frozen(kw_only=True)
class Component:
    """One allocation: a whole job of Slurm, or one component of a heterogeneous one.

    Attributes:
        executor: says what is asked for.
        members: their numbers, in order.
        placing: "alone": the one member has all. "apart": each has nodes of its own, one after the other. "packed":
            each is one task, on as few nodes as Slurm likes. "shared": all run on the same nodes.
    """

    executor: SlurmExecutor
    members: tuple[int, ...]
    placing: Literal["alone", "apart", "packed", "shared"]

    @property
    def nodes(self) -> int | None:
        """How many nodes are asked for; None: as many as the tasks need."""
        if self.executor.nodes is None or self.placing != "apart":
            return self.executor.nodes
        return self.executor.nodes * len(self.members)

    @property
    def ntasks(self) -> int | None:
        """How many tasks are asked for; None: as many as the nodes have."""
        if self.placing == "packed":
            return len(self.members)
        if self.placing == "apart" and self.executor.ntasks is not None:
            return self.executor.ntasks * len(self.members)
        return self.executor.ntasks

    def first_node(self, member: int) -> int:
        """Return the number of a member's first node in the allocation; of the task's slot where it is packed."""
        place = self.members.index(member)
        if self.placing == "packed":
            return place
        return place * (self.executor.nodes or 1) if self.placing == "apart" else 0


def components(executors: Sequence[SlurmExecutor]) -> tuple[Component, ...]:
    """Return the allocations of a job with these members: one, unless a member is heterogeneous or asks for others.

    Raises:
        UsageError: members differ in what a job has once, `het_group_indices` do not fit the members, members of one
            component ask for different things, or several tasks of a member would have to be packed.
    """
    first = executors[0]
    for number, field in itertools.product(range(1, len(executors)), _OF_THE_JOB):
        if getattr(executors[number], field) != getattr(first, field):
            raise UsageError(
                f"members 0 and {number} of a group have different {field} on SlurmExecutor, and are one job of Slurm.",
                hint=f"Give all members the same {field}.",
            )
    if len(executors) == 1:
        return (Component(executor=first, members=(0,), placing="alone"),)
    if first.het_group_indices is not None:
        return _indexed(executors, first.het_group_indices)
    if any(executor.heterogeneous or _asked(executor) != _asked(first) for executor in executors):
        return tuple(
            Component(executor=executor, members=(number,), placing="alone")
            for number, executor in enumerate(executors)
        )
    everyone = tuple(range(len(executors)))
    if first.nodes is not None:
        return (Component(executor=first, members=everyone, placing="apart"),)
    _check_packable(first)
    return (Component(executor=first, members=everyone, placing="packed"),)


def _indexed(executors: Sequence[SlurmExecutor], indices: Sequence[int]) -> tuple[Component, ...]:
    if len(indices) != len(executors) or sorted(set(indices)) != list(range(len(set(indices)))):
        raise UsageError(
            f"SlurmExecutor(het_group_indices={list(indices)}): expected a component, counted from 0 without gaps, for "
            f"each of the {len(executors)} members."
        )
    made = []
    for index in range(len(set(indices))):
        members = tuple(number for number, own in enumerate(indices) if own == index)
        executor = executors[members[0]]
        for number in members[1:]:
            if _asked(executors[number]) != _asked(executor):
                raise UsageError(
                    f"members {members[0]} and {number} share component {index} of het_group_indices, and their "
                    "executors ask for different things.",
                    hint="Give both the same fields, or components of their own.",
                )
        made.append(Component(executor=executor, members=members, placing="shared" if members[1:] else "alone"))
    return tuple(made)


def _check_packable(executor: SlurmExecutor) -> None:
    given = [name for name in _PER_NODE if getattr(executor, name) is not None]
    if executor.ranks() > 1:
        given.append("ntasks")
    if given:
        raise UsageError(
            f"a group on SlurmExecutor with {given[0]} and without nodes: several members may come to share a node.",
            hint="Give nodes: that many are then each member's own.",
        )


def _asked(executor: SlurmExecutor) -> dict[str, object]:
    return {
        field.name: getattr(executor, field.name)
        for field in attrs.fields(type(executor))
        if field.name not in _OF_A_MEMBER
    }
