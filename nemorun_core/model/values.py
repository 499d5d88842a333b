"""Argument values as JSON: flat, exact, readable, and read back without importing or running anything.

A record is `{"nodes": [...], "root": value}`. Nodes stand after those that they hold, and are referred to by their
place: `{"$": "node", "id": 3}`. Every other value that JSON lacks is an object with the tag `$`. `pickles`, if there,
tells which digests are referred to, and the version of Python that can load each.
"""

from __future__ import annotations

import base64
import json
import math
import sys
from enum import Enum

import attrs

from nemorun_core.errors import UsageError
from nemorun_core.model.arguments import by_position, settled
from nemorun_core.model.decoding import PATHS
from nemorun_core.model.graph import (
    CONTAINERS,
    MAXIMUM_NESTING,
    Copier,
    Node,
    Trail,
    nesting_error,
    path_of,
    post_order,
)
from nemorun_core.model.refusal import refusal
from nemorun_core.model.target import (
    EnumMember,
    Pickled,
    Reference,
    find_reference,
    is_sendable,
    job_name,
    member_key,
)

__all__ = ["Encoded", "encode", "encode_plain", "equal"]

_PATH_NAMES: dict[type, str] = {type(PATHS["Path"]()): "Path", **{cls: name for name, cls in PATHS.items()}}
_INTEGER_BITS = 14_000  # about 4,200 digits: Python refuses to read more than 4,300 from text


@attrs.frozen
class Encoded:
    """A value as JSON, and the pickles that the JSON refers to by their digest."""

    record: dict[str, object]
    objects: dict[str, bytes]


def encode(value: object) -> Encoded:
    """Write a value, and all that it holds, as JSON.

    Raises:
        UsageError: something in it cannot be written and read back equal, holds itself, or lacks a required argument;
            with its path and what to do.
    """
    encoder = _Encoder()
    record = encoder.run(value, None)
    return Encoded(record, encoder.pickle_objects(record))


def encode_plain(value: object, name: str) -> object:
    """Write a value that holds neither Config nor functions sent by value; `name` starts its path."""
    encoder = _Encoder()
    record = encoder.run(value, (None, None, name))
    if record["nodes"] or encoder.sent:
        raise UsageError(f"$.{name} holds a Config or a function, and must be plain data", hint="Write it as text.")
    return record["root"]


def equal(left: object, right: object) -> bool:
    """Compare two values as their records would compare: exact types, NaN equals NaN, the same nodes shared.

    Raises:
        UsageError: one holds itself.
    """
    strangers: list[object] = []
    texts: list[str] = []
    encoders = (_Encoder(strangers), _Encoder(strangers))
    for encoder, value in zip(encoders, (left, right)):  # noqa: B905  # two and two
        texts.append(json.dumps(encoder.run(value, None), sort_keys=True))
    if texts[0] == texts[1]:
        return True
    if not any(a.sent and b.pickles for a, b in (encoders, encoders[::-1])):
        return False
    try:  # one was sent by value and read back, the other not yet
        return json.dumps(encode(left).record, sort_keys=True) == json.dumps(encode(right).record, sort_keys=True)
    except UsageError:
        return False


class _Encoder:
    """One walk over one graph, from the root downwards; nodes get their numbers at the end.

    Args:
        strangers: None to refuse what has no JSON; else a list in which such values are looked up and numbered.
    """

    def __init__(self, strangers: list[object] | None = None) -> None:
        self._strangers = strangers
        self._root: object = None
        self._copier = Copier(deep=False)
        self._references: dict[int, dict[str, object]] = {}
        self._pending: list[tuple[Node, Trail]] = []
        self._edges: list[tuple[Node, Trail]] = []
        self.sent: list[tuple[dict[str, object], object]] = []
        self.pickles: dict[str, tuple[int, int]] = {}

    def run(self, value: object, trail: Trail) -> dict[str, object]:
        self._root = value
        root = self._value(value, trail)
        roots, held, entries = self._edges, {}, {}
        while self._pending:
            node, where = self._pending.pop()
            self._edges = []
            entries[id(node)] = self._node(node, where)
            held[id(node)] = (node, self._edges)  # the node is kept, so that its id stays its own
        order = post_order(roots, lambda node, _: held[id(node)][1])
        for number, node in enumerate(order):
            self._references[id(node)]["id"] = number
        return {"nodes": [entries[id(node)] for node in order], "root": root}

    def pickle_objects(self, record: dict[str, object]) -> dict[str, bytes]:
        """Pickle all that is sent by value in one piece, so that it shares its globals there as it does here."""
        objects: dict[str, bytes] = {}
        if self.sent:
            import hashlib

            items = list({id(item): item for _, item in self.sent}.values())
            data = _pickle(items)
            digest = hashlib.sha256(data).hexdigest()
            objects[digest] = data
            self.pickles[digest] = sys.version_info[:2]
            places = {id(item): place for place, item in enumerate(items)}
            for entry, item in self.sent:
                entry.update(pickle=digest, item=places[id(item)], name=job_name(item))
        versions = sorted(set(self.pickles.values()))
        if len(versions) > 1:
            shown = " and ".join(f"{major}.{minor}" for major, minor in versions)
            raise UsageError(f"functions are sent by value from Python {shown}", hint="Use one version of Python.")
        if self.pickles:
            record["pickles"] = {digest: list(python) for digest, python in self.pickles.items()}
        return objects

    def _node(self, node: Node, trail: Trail) -> dict[str, object]:
        arguments = settled(node)
        entry: dict[str, object] = {"kind": node.__kind__, "target": self._target(node.__target__, {})}
        if self._strangers is None:
            is_called = node is self._root or node.__kind__ == "config"
            positional = by_position(node, arguments, trail, is_called=is_called)
            if positional:
                entry["positional"] = positional
        # Values are visited in the order of their names, so that numbers do not depend on the order of arguments.
        written = {_name(name, trail): self._value(arguments[name], (trail, node, name)) for name in sorted(arguments)}
        entry["kwargs"] = {name: written[name] for name in arguments}
        if node.__rest__:
            entry["args"] = [self._value(item, (trail, node, index)) for index, item in enumerate(node.__rest__)]
        return entry

    def _value(self, value: object, trail: Trail, depth: int = 0) -> object:
        kind = type(value)
        if value is None or kind is bool:
            return value
        if isinstance(value, str) and kind is str:
            return value if value.isascii() else _text(value)
        if isinstance(value, float) and kind is float:
            return value if math.isfinite(value) else {"$": "float", "value": repr(value)}
        if isinstance(value, int) and kind is int:
            if value.bit_length() > _INTEGER_BITS:
                raise UsageError(
                    f"{path_of(trail)} is an integer of {value.bit_length()} bits; at most {_INTEGER_BITS} can be "
                    "written",
                    hint="Write it as bytes: value.to_bytes(…).",
                )
            return value
        if isinstance(value, Node):
            return self._reference(value, trail)
        if kind in CONTAINERS:
            if depth >= MAXIMUM_NESTING:
                raise nesting_error(trail)
            return self._container(value, trail, depth + 1)
        if isinstance(value, bytes) and kind is bytes:
            return {"$": "bytes", "base64": base64.b64encode(value).decode()}
        if isinstance(value, complex) and kind is complex:
            return {"$": "complex", "real": self._value(value.real, trail), "imag": self._value(value.imag, trail)}
        if kind in _PATH_NAMES:
            return {"$": "path", "type": _PATH_NAMES[kind], "path": _text(str(value))}
        if isinstance(value, EnumMember):
            return {"$": "enum", "class": self._target(value.cls, {}), "member": value.member}
        if isinstance(value, Enum):
            return {"$": "enum", "class": self._target(kind, {}), "member": member_key(value)}
        if isinstance(value, (Reference, Pickled)) or find_reference(value) is not None or is_sendable(value):
            return self._target(value, {"$": "object"})
        adopted = self._copier.copy(value, trail)  # an instance that was put into a container after it was given
        return self._reference(adopted, trail) if isinstance(adopted, Node) else self._stranger(value, trail)

    def _container(self, value: object, trail: Trail, depth: int) -> object:
        if isinstance(value, dict):
            if all(type(key) is str and (key.isascii() or _text(key) is key) for key in value) and "$" not in value:
                written = {key: self._value(value[key], (trail, value, key), depth) for key in sorted(value)}
                return {key: written[key] for key in value}
            keys = [(self._value(key, (trail, value, key), depth), key) for key in value]
            by_text = sorted(keys, key=lambda pair: json.dumps(pair[0], sort_keys=True))
            items = {key: [data, self._value(value[key], (trail, value, key), depth)] for data, key in by_text}
            ordered = map(items.get, value) if self._strangers is None else items.values()
            return {"$": "dict", "items": list(ordered)}
        assert isinstance(value, (list, tuple, set, frozenset))
        data = [self._value(item, (trail, value, index), depth) for index, item in enumerate(value)]
        if isinstance(value, list):
            return data
        if isinstance(value, (set, frozenset)):
            data.sort(key=lambda item: json.dumps(item, sort_keys=True))
        return {"$": type(value).__name__, "items": data}

    def _reference(self, node: Node, trail: Trail) -> dict[str, object]:
        self._edges.append((node, trail))
        reference = self._references.get(id(node))
        if reference is None:
            reference = self._references[id(node)] = {"$": "node"}
            self._pending.append((node, trail))
        return reference

    def _target(self, target: object, entry: dict[str, object]) -> dict[str, object]:
        reference = target if isinstance(target, Reference) else find_reference(target)
        if isinstance(target, Pickled):
            self.pickles[target.digest] = target.python
            entry.update(pickle=target.digest, item=target.item, name=target.name)
        elif reference is not None:
            entry["ref"] = reference.name
        else:
            self.sent.append((entry, target))  # its pickle is made when all are known
            if self._strangers is not None:
                entry["sent"] = self._number(target)
        return entry

    def _stranger(self, value: object, trail: Trail) -> object:
        if self._strangers is None:
            raise refusal(value, trail)
        return {"$": "stranger", "number": self._number(value)}

    def _number(self, value: object) -> int:
        assert self._strangers is not None
        for number, other in enumerate(self._strangers):
            if other is value or (type(other) is type(value) and _same(other, value)):
                return number
        self._strangers.append(value)
        return len(self._strangers) - 1


def _same(left: object, right: object) -> bool:
    try:
        return bool(left == right)
    except Exception:  # arrays, and whatever else says no
        return False


def _text(value: str) -> object:
    try:
        value.encode()
        return value
    except UnicodeEncodeError:  # lone surrogates: two of them side by side would be read back as one character
        return {"$": "str", "base64": base64.b64encode(value.encode("utf-8", "surrogatepass")).decode()}


def _name(name: str, trail: Trail) -> str:
    if _text(name) is not name:
        raise UsageError(f"{path_of(trail)} has an argument named {name!r}", hint="Use a name without surrogates.")
    return name


def _pickle(items: list[object]) -> bytes:
    import cloudpickle  # type: ignore[import-untyped]  # it has no stubs

    try:
        data: bytes = cloudpickle.dumps(items)
    except Exception as error:  # whatever a __reduce__ raises
        names = ", ".join(job_name(item) for item in items)
        raise UsageError(
            f"{names} cannot be sent by value: {type(error).__name__}: {error}",
            hint="Move it into a module that can be imported where the task runs, or pass what it uses as arguments.",
        ) from error
    return data
