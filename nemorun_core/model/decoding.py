"""Reading argument values from JSON, without importing or running anything that the JSON names."""

from __future__ import annotations

import base64
import math
import pathlib
from collections.abc import Mapping
from typing import TypeVar

from nemorun_core.model.graph import MAXIMUM_NESTING, Node, Trail, new_node, path_of
from nemorun_core.model.records import MalformedRecord, malformed
from nemorun_core.model.target import EnumMember, Pickled, Reference

__all__ = ["PATHS", "decode"]

PATHS = {"Path": pathlib.Path, "PurePosixPath": pathlib.PurePosixPath, "PureWindowsPath": pathlib.PureWindowsPath}

K = TypeVar("K")


def decode(record: Mapping[str, object]) -> object:
    """Read a value from the record that `encode` wrote. Functions and classes stay names: nothing is imported.

    Raises:
        MalformedRecord: it is not what `encode` writes.
    """
    return _Decoder(record).run()


class _Decoder:
    def __init__(self, record: Mapping[str, object]) -> None:
        self._record = record
        self._nodes: list[Node] = []

    def run(self) -> object:
        from nemorun_core.model.buildable import Config, Partial  # which are made of what this module holds

        kinds = {cls.__kind__: cls for cls in (Config, Partial)}
        entries = self._get(self._record, "nodes", list, None)
        for index, entry in enumerate(entries):
            trail: Trail = ((None, None, "nodes"), entries, index)
            kind = entry.get("kind") if isinstance(entry, dict) else None
            if not isinstance(kind, str) or kind not in kinds:
                raise _malformed(trail, f"a node of kind {' or '.join(kinds)}", entry)
            positional = self._get(entry, "positional", list, trail, [])
            target = self._target(self._get(entry, "target", dict, trail), (trail, None, "target"))
            node = new_node(kinds[kind], target, tuple(positional))
            arguments = self._get(entry, "kwargs", dict, trail)
            if not all(type(name) is str and name in arguments for name in positional):
                raise _malformed((trail, None, "positional"), "names of arguments", positional)
            for name, data in arguments.items():
                node.__arguments__[name] = self.value(data, ((trail, None, "kwargs"), arguments, name))
            rest = self._get(entry, "args", list, trail, [])
            node.__rest__.extend(self.value(d, ((trail, None, "args"), rest, i)) for i, d in enumerate(rest))
            self._nodes.append(node)
        return self.value(self._record.get("root"), (None, None, "root"))

    def value(self, data: object, trail: Trail, depth: int = 0) -> object:
        if data is None or type(data) in (bool, int, float, str):
            return data
        if depth > MAXIMUM_NESTING:
            raise _malformed(trail, f"at most {MAXIMUM_NESTING} levels", "more")
        below = depth + 1
        if isinstance(data, list):
            return [self.value(item, (trail, data, index), below) for index, item in enumerate(data)]
        if not isinstance(data, dict):
            raise _malformed(trail, "a JSON value", data)
        if "$" not in data:
            return {key: self.value(item, (trail, data, key), below) for key, item in data.items()}
        tag = data["$"]
        try:
            if tag == "node":
                number = data["id"]
                if type(number) is not int or not 0 <= number < len(self._nodes):
                    raise ValueError(f"{number!r} is no earlier node")
                return self._nodes[number]
            return self._tagged(tag, data, trail, below)
        except MalformedRecord:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise _malformed(trail, f"a value with a known tag ({type(error).__name__}: {error})", data) from error

    def _tagged(self, tag: object, data: dict[str, object], trail: Trail, depth: int) -> object:
        if tag in ("tuple", "set", "frozenset"):
            items = self._get(data, "items", list, trail)
            values = (self.value(item, (trail, items, index), depth) for index, item in enumerate(items))
            return tuple(values) if tag == "tuple" else set(values) if tag == "set" else frozenset(values)
        if tag == "dict":
            pairs = self._get(data, "items", list, trail)
            keys = [self.value(key, (trail, pairs, index), depth) for index, (key, _) in enumerate(pairs)]
            return {key: self.value(pair[1], (trail, pairs, key), depth) for key, pair in zip(keys, pairs, strict=True)}
        if tag == "float":
            return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[self._get(data, "value", str, trail)]
        if tag == "complex":
            real, imag = self.value(data["real"], trail), self.value(data["imag"], trail)
            if isinstance(real, float) and isinstance(imag, float):
                return complex(real, imag)
        if tag == "bytes":
            return base64.b64decode(self._get(data, "base64", str, trail), validate=True)
        if tag == "str":
            content = base64.b64decode(self._get(data, "base64", str, trail), validate=True)
            return content.decode("utf-8", "surrogatepass")
        if tag == "path":
            text = self.value(data["path"], trail)
            if isinstance(text, str):
                return PATHS[self._get(data, "type", str, trail)](text)
        if tag == "enum":
            member = data["member"]
            if isinstance(member, (str, int)):
                return EnumMember(self._target(self._get(data, "class", dict, trail), trail), member)
        if tag == "object":
            return self._target(data, trail)
        raise ValueError(f"unknown tag {tag!r}")

    def _target(self, data: dict[str, object], trail: Trail) -> Reference | Pickled:
        name = data.get("ref")
        if isinstance(name, str) and all(name.partition(":")):
            return Reference(name)
        pickles = self._record.get("pickles")
        match data:
            case {"pickle": str(digest), "item": int(item), "name": str(name)} if isinstance(pickles, dict):
                python = pickles.get(digest)
                is_digest = len(digest) == 64 and set(digest) <= set("0123456789abcdef")  # it names a file
                if is_digest and isinstance(python, list) and [type(number) for number in python] == [int, int]:
                    return Pickled(digest=digest, item=item, name=name, python=(python[0], python[1]))
        raise _malformed(trail, "the name or the pickle of a function or class", data)

    @staticmethod
    def _get(data: Mapping[str, object], key: str, kind: type[K], trail: Trail, default: K | None = None) -> K:
        value = data.get(key, default)
        if not isinstance(value, kind):
            raise _malformed((trail, None, key), f"a {kind.__name__}", value)
        return value


def _malformed(trail: Trail, expected: str, found: object) -> MalformedRecord:
    return malformed(path_of(trail), expected, found)
