"""Values that are JSON as they stand: written and read without the converter, whose import costs more than they do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import attrs

__all__ = ["plain_copy", "read_defaults", "written_defaults"]

T = TypeVar("T")

_SCALARS = frozenset({bool, float, int, str, type(None)})
_EMPTY: dict[type, object] = {dict: {}, frozenset: [], list: [], set: [], tuple: []}
_MISSING = object()


def written_defaults(value: object) -> dict[str, object] | None:
    """Return what the converter writes for an attrs value whose fields are all their defaults; None for any other."""
    cls = type(value)
    if not attrs.has(cls):
        return None
    written: dict[str, object] = {}
    for field in attrs.fields(cls):
        here, default = getattr(value, field.name), _default(field)
        if type(here) is not type(default) or here != default or (plain := _plain(default)) is _MISSING:
            return None
        written[field.name] = plain
    return written


def read_defaults(fields: Mapping[str, object], cls: type[T]) -> T | None:
    """Return `cls()` where that is what was written as these fields; None where the converter has to look."""
    kind: type = cls
    if not attrs.has(kind) or len(fields) != len(attrs.fields(kind)):
        return None
    for field in attrs.fields(kind):
        found, plain = fields.get(field.name, _MISSING), _plain(_default(field))
        if plain is _MISSING or type(found) is not type(plain) or found != plain:
            return None
    return cls()


def plain_copy(value: object) -> object:
    """Return a scalar, or a copy of a list of texts or a dict of texts; None for anything else."""
    if type(value) in _SCALARS:
        return value
    if type(value) is list and all(type(item) is str for item in value):
        return list(value)
    if type(value) is dict and all(type(text) is str for pair in value.items() for text in pair):
        return dict(value)
    return None


def _default(field: attrs.Attribute[object]) -> object:
    default = field.default
    factory = getattr(default, "factory", None) if isinstance(default, attrs.Factory) else None  # type: ignore[arg-type]
    if factory is None:
        return default
    return _MISSING if getattr(default, "takes_self", False) else factory()


def _plain(value: object) -> object:
    """Return a default as JSON, a new object each time; `_MISSING` where it is none that stands for itself."""
    if type(value) in _SCALARS:
        return value
    empty = _EMPTY.get(type(value), _MISSING)
    return _MISSING if empty is _MISSING or value else type(empty)()
