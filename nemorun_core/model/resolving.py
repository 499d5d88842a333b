"""Turning the names in a task that was read from a record back into functions and classes. This runs code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from nemorun_core.errors import UsageError
from nemorun_core.model.arguments import check_name
from nemorun_core.model.graph import Copier, Node, Trail, path_of
from nemorun_core.model.target import EnumMember, Pickled, Reference, import_reference

__all__ = ["resolve"]

N = TypeVar("N", bound=Node)


def resolve(task: N, load: Callable[[str], bytes]) -> N:
    """Import and load what a task read from a record names, and return a task that can be called.

    Args:
        task: left as it is.
        load: digest to the pickle's content.

    Raises:
        UsageError: a module cannot be imported, a pickle is of another Python version, or a function no longer takes
            an argument that the task gives; with the path.
    """
    pickles: dict[str, list[object]] = {}

    def found(value: object) -> object:
        if isinstance(value, Reference):
            return import_reference(value)
        if isinstance(value, Pickled):
            if value.digest not in pickles:
                pickles[value.digest] = _load(value, load)
            return pickles[value.digest][value.item]
        if isinstance(value, EnumMember):
            cls = found(value.cls)
            try:
                return cls[value.member] if isinstance(value.member, str) else cls(value.member)  # type: ignore[index,operator]
            except (KeyError, ValueError, TypeError):
                raise UsageError(f"{cls!r} has no member {value.member!r}", hint="Set the argument again.") from None
        return value

    def leaf(value: object, trail: Trail) -> object:
        try:
            made = found(value)
        except UsageError as error:
            raise UsageError(f"{path_of(trail)}: {error.message}", hint=error.hint) from error.__cause__
        return made

    memo: dict[int, object] = {}
    resolved = Copier(deep=True, memo=memo, leaf=leaf).copy(task)
    assert isinstance(resolved, type(task))
    for node in memo.values():
        assert isinstance(node, Node)
        for name in node.__arguments__:
            check_name(node, name)
    return resolved


def _load(pickled: Pickled, load: Callable[[str], bytes]) -> list[object]:
    import pickle

    if pickled.python != sys.version_info[:2]:
        raise UsageError(
            f"{pickled.name} was sent by value from Python {pickled.python[0]}.{pickled.python[1]}, and this is "
            f"{sys.version_info[0]}.{sys.version_info[1]}",
            hint="Use the same version, or name the function again.",
        )
    items: list[object] = pickle.loads(load(pickled.digest))
    return items
