"""Arguments of one Config or Partial node: bound to the signature, with defaults that can be read and changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from nemorun_core.errors import UsageError
from nemorun_core.model.graph import CONTAINERS, Copier, Node, Trail, constructor_fields, path_of
from nemorun_core.model.target import Pickled, Reference, find_reference, is_sendable, readable_name

if TYPE_CHECKING:
    import inspect

__all__ = [
    "UnknownArgument",
    "bind",
    "by_position",
    "check_name",
    "check_target",
    "default_of",
    "rest_name",
    "settled",
    "signature_of",
]


class UnknownArgument(UsageError, AttributeError):
    """A target takes no argument of this name, or it has no value yet."""


def check_target(target: object) -> None:
    """Refuse what can neither be named for import nor sent by value.

    Raises:
        UsageError: not a function or class; says how to describe it instead.
    """
    if isinstance(target, (Reference, Pickled)) or is_sendable(target) or find_reference(target) is not None:
        return
    hint = "Name a function or a class."
    if hasattr(target, "func") and hasattr(target, "keywords"):
        hint = "Use run.Partial(function, …) in its place."
    elif hasattr(target, "__func__"):
        hint = "Use a function that takes the object as an argument, and run.Config(cls, …) for the object."
    elif callable(target):
        hint = f"Use a function, or describe the object: run.Config({type(target).__qualname__}, …)."
    raise UsageError(f"the target must be a function or a class, found {type(target).__qualname__}", hint=hint)


def signature_of(node: Node) -> inspect.Signature | None:
    """Give the signature of a node's target; None if it has none, or is not imported yet."""
    if node.__shape__ is None:
        import inspect

        try:
            target = node.__target__
            shape = inspect.signature(target) if callable(target) else False
        except (TypeError, ValueError):  # some builtins
            shape = False
        object.__setattr__(node, "__shape__", shape)
    return None if isinstance(node.__shape__, bool) else node.__shape__


def rest_name(node: Node) -> str | None:
    """Name the target's `*args`, if it has that."""
    signature = signature_of(node)
    parameters = signature.parameters.values() if signature else ()
    return next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)


def check_name(node: Node, name: str) -> None:
    """Refuse a name that the target does not take; targets without a signature take any.

    Raises:
        UnknownArgument: names the nearest one, and the signature.
    """
    signature = signature_of(node)
    if signature is None:
        return
    parameter = signature.parameters.get(name)
    if parameter is not None and parameter.kind is not parameter.VAR_KEYWORD:
        return
    if any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        return
    raise _unknown(node, name, signature.parameters)


def _unknown(node: Node, name: str, names: Iterable[str]) -> UnknownArgument:
    import difflib

    near = difflib.get_close_matches(name, list(names), 1, 0.5)
    signature = signature_of(node)
    shown = f"{readable_name(node.__target__)}{signature or ''}"
    return UnknownArgument(
        f"{shown} takes no argument {name!r}" if signature else f"{shown} was given no argument {name!r}",
        hint=f"Did you mean {near[0]!r}?" if near else "Use one of its arguments.",
    )


def bind(node: Node, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
    """Give a new node its arguments, by the names of the target's parameters. Some may be missing still.

    Raises:
        UsageError: too many by position, an unknown name, or one given twice.
    """
    signature = signature_of(node)
    if signature is None:
        named: dict[str, object] = {}
        extra: Sequence[object] = args
    else:
        places = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        named = {place.name: value for place, value in zip(places, args)}  # noqa: B905  # either may be longer
        extra = args[len(places) :]
        if extra and rest_name(node) is None:
            raise UsageError(
                f"{readable_name(node.__target__)}{signature} takes {len(places)} arguments by position, "
                f"found {len(args)}",
                hint="Pass the others by name.",
            )
    for name in kwargs:
        check_name(node, name)
        if name in named or name == rest_name(node):
            wrong = "twice" if name in named else "by name, and takes what is given by position"
            raise UsageError(f"{readable_name(node.__target__)} is given {name!r} {wrong}", hint="Give it once.")
    object.__setattr__(node, "__positional__", tuple(named))
    copier = Copier(deep=False)
    for name, value in {**named, **kwargs}.items():
        node.__arguments__[name] = copier.copy(value, (None, node, name))
    node.__rest__.extend(copier.copy(value, (None, node, index)) for index, value in enumerate(extra))


def by_position(node: Node, arguments: Mapping[str, object], trail: Trail, *, is_called: bool) -> list[str]:
    """List the arguments to be passed by position, in their order.

    Args:
        is_called: False for a Partial within another task: what it lacks, its caller gives, and what it was given by
            position stays so.

    Raises:
        UsageError: a required argument is missing; with the node's path.
    """
    signature = signature_of(node)
    if signature is None:
        return list(node.__positional__)
    parameters = signature.parameters.values()
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if not node.__rest__:
        given = () if is_called else node.__positional__
        while places and not (
            places[-1].name in arguments and (places[-1].kind is places[-1].POSITIONAL_ONLY or places[-1].name in given)
        ):
            places.pop()
    needed = {place.name for place in places}
    if is_called:
        variable = {p.name for p in parameters if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        needed |= {p.name for p in parameters if p.default is p.empty} - variable
    missing = [name for name in signature.parameters if name in needed and name not in arguments]
    if missing:
        raise UsageError(
            f"{path_of(trail)}: {readable_name(node.__target__)}{signature} is not given {', '.join(missing)}",
            hint=f"Set {path_of((trail, node, missing[0])).replace('$', 'task', 1)} first.",
        )
    return [place.name for place in places]


def default_of(node: Node, name: str) -> object:
    """Give an argument's default. What can be changed is a copy, which is kept with the node.

    Raises:
        UnknownArgument: there is no such argument, or no default.
    """
    if name in node.__defaults__:
        return node.__defaults__[name][0]
    signature = signature_of(node)
    parameter = signature.parameters.get(name) if signature else None
    if signature is None or parameter is None or parameter.kind is parameter.VAR_KEYWORD:
        raise _unknown(node, name, signature.parameters if signature else node.__arguments__)
    default = _made_default(node.__target__, name, parameter.default)
    if default is parameter.empty:
        raise UnknownArgument(
            f"{readable_name(node.__target__)}{signature} has no value yet for {name!r}", hint="Set it first."
        )
    kind = type(default)
    if kind in CONTAINERS or isinstance(default, Node) or (not isinstance(default, type) and constructor_fields(kind)):
        trail = (None, node, name)
        kept = Copier(deep=True).copy(default, trail)
        node.__defaults__[name] = (Copier(deep=True).copy(kept, trail), kept)
        return node.__defaults__[name][0]
    return default


def _made_default(target: object, name: str, default: object) -> object:
    """Call the factory where a dataclass or attrs class has one."""
    if hasattr(target, "__attrs_attrs__"):
        import attrs

        for field in target.__attrs_attrs__:
            if field.alias == name and isinstance(field.default, attrs.Factory):  # type: ignore[arg-type]
                if field.default.takes_self:
                    raise UnknownArgument(
                        f"the default of {name!r} is made from other fields when {readable_name(target)} is built",
                        hint="Set it to change it.",
                    )
                return field.default.factory()
    elif hasattr(target, "__dataclass_fields__") and name in target.__dataclass_fields__:
        import dataclasses

        factory = target.__dataclass_fields__[name].default_factory
        if factory is not dataclasses.MISSING:
            return factory()
    return default


def settled(node: Node) -> dict[str, object]:
    """Give a node's arguments: the explicit ones, and the defaults that were changed after they were read."""
    if not node.__defaults__:
        return node.__arguments__
    from nemorun_core.model.values import equal

    changed = {name: live for name, (live, kept) in node.__defaults__.items() if not equal(live, kept)}
    return {**changed, **node.__arguments__}
