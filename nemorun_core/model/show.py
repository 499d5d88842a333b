"""Tasks as people read them: `repr` of a graph, and the differences between two tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum

import attrs

from nemorun_core.model.arguments import settled
from nemorun_core.model.graph import CONTAINERS, Node, Trail, path_of
from nemorun_core.model.target import EnumMember, Pickled, Reference, find_reference, is_sendable, readable_name
from nemorun_core.model.task import Task
from nemorun_core.model.values import equal

__all__ = ["ABSENT", "Difference", "Mark", "diff", "shown"]


@attrs.frozen
class Mark:
    """What stands in a difference where there is no value to show."""

    text: str

    def __repr__(self) -> str:
        return f"<{self.text}>"


ABSENT = Mark("absent")


@attrs.frozen
class Difference:
    """One place where two tasks differ.

    Attributes:
        path: as `$.model.lr`.
        left: the value there in the first task; ABSENT if it has none.
        right: the same for the second.
    """

    path: str
    left: object
    right: object

    def __str__(self) -> str:
        return f"{self.path}: {shown(self.left)} -> {shown(self.right)}"


@attrs.frozen(eq=False)
class _Part:
    """A piece of text; `closes` is the id of the container that it ends."""

    text: str
    closes: int = 0


def shown(value: object) -> str:
    """Spell a value as in a program. A node held twice is marked `#1=` at first, and is `#1#` from then on."""
    out: list[str] = []
    places: dict[int, int] = {}
    numbers: dict[int, int] = {}
    open_containers: set[int] = set()
    stack: list[object] = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, _Part):
            out.append(item.text)
            open_containers.discard(item.closes)
        elif isinstance(item, Node):
            place = places.get(id(item))
            if place is None:
                places[id(item)] = len(out)
                out.append("")
                stack.extend(reversed(list(_node_parts(item))))
            else:
                number = numbers.setdefault(id(item), len(numbers) + 1)
                out[place] = f"#{number}="
                out.append(f"#{number}#")
        elif type(item) in CONTAINERS and item:
            if id(item) in open_containers:
                out.append("…")
            else:
                open_containers.add(id(item))
                stack.extend(reversed(list(_container_parts(item))))
        else:
            out.append(_leaf_text(item))
    return "".join(out)


def _node_parts(node: Node) -> Iterator[object]:
    yield _Part(f"{type(node).__name__}({readable_name(node.__target__)}")
    for name, item in settled(node).items():
        yield _Part(f", {name}=")
        yield item
    if node.__rest__:
        yield _Part(", *")
        yield node.__rest__
    yield _Part(")")


def _container_parts(container: object) -> Iterator[object]:
    if isinstance(container, dict):
        before = "{"
        for key, item in container.items():
            yield _Part(before)
            yield key
            yield _Part(": ")
            yield item
            before = ", "
        yield _Part("}", closes=id(container))
        return
    assert isinstance(container, (list, tuple, set, frozenset))
    start, end = {list: ("[", "]"), tuple: ("(", ")"), set: ("{", "}")}.get(type(container), ("frozenset({", "})"))
    before = start
    for item in container:
        yield _Part(before)
        yield item
        before = ", "
    yield _Part("," + end if isinstance(container, tuple) and len(container) == 1 else end, closes=id(container))


def _leaf_text(value: object) -> str:
    if isinstance(value, (Reference, Pickled)):
        return readable_name(value)
    if isinstance(value, EnumMember):
        return f"{readable_name(value.cls)}.{value.member}"
    if isinstance(value, Enum) and isinstance(value.name, str):
        return f"{readable_name(type(value))}.{value.name}"
    return readable_name(value) if is_sendable(value) or find_reference(value) is not None else repr(value)


def diff(left: object, right: object) -> list[Difference]:
    """List where two tasks, Configs or other values differ, in the order of the first; nothing if they are equal.

    A node that is the same as one met before in one task only is a difference too.
    """
    found: list[Difference] = []
    met: tuple[dict[int, str], dict[int, str]] = ({}, {})
    stack: list[tuple[Trail, object, object]] = [(None, left, right)]
    while stack:
        trail, one, two = stack.pop()
        if isinstance(one, Node) and isinstance(two, Node):
            path = path_of(trail)
            before = (met[0].get(id(one)), met[1].get(id(two)))
            met[0].setdefault(id(one), path)
            met[1].setdefault(id(two), path)
            if before[0] != before[1]:
                found.append(Difference(path, *(Mark(f"same as {b}" if b else "not shared") for b in before)))
            if before != (None, None):
                continue
            if type(one) is not type(two):
                found.append(Difference(path, one, two))
                continue
            if not equal(one.__target__, two.__target__):
                found.append(Difference(path, one.__target__, two.__target__))
        children = _children(one, two, trail)
        if children is not None:
            stack.extend(reversed(children))
        elif one is ABSENT or two is ABSENT or not equal(one, two):
            found.append(Difference(path_of(trail), one, two))
    return found


def _children(left: object, right: object, trail: Trail) -> list[tuple[Trail, object, object]] | None:
    """Pair what two values of one kind hold; None if they are to be compared as wholes."""
    kind = type(left)
    if kind is not type(right):
        return None
    parts = _parts(left), _parts(right)
    if parts[0] is None or parts[1] is None:
        return None
    keys = dict.fromkeys([*parts[0], *parts[1]])
    return [((trail, left, key), parts[0].get(key, ABSENT), parts[1].get(key, ABSENT)) for key in keys]


def _parts(value: object) -> Mapping[object, object] | None:
    if isinstance(value, Node):
        return dict([*settled(value).items(), *enumerate(value.__rest__)])
    if isinstance(value, dict) and type(value) is dict:
        return value
    if type(value) in (list, tuple):
        assert isinstance(value, (list, tuple))
        return dict(enumerate(value))
    if isinstance(value, Task):
        return {field.name: getattr(value, field.name) for field in getattr(type(value), "__attrs_attrs__", ())}
    return None
