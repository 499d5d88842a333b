"""Values that are JSON as they stand: written and read without the converter, whose import costs more than they do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import attrs

__all__ = ["plain_copy", "read_plainly", "written_plainly"]

T = TypeVar("T")

_SCALARS = frozenset({bool, float, int, str, type(None)})
_EMPTY: dict[type, object] = {dict: {}, frozenset: [], list: [], set: [], tuple: []}
_KINDS: dict[str, type] = {kind.__name__: kind for kind in (bool, int, str)} | {"list[str]": list}
_MISSING = object()


def written_plainly(value: object) -> dict[str, object] | None:
    """Return what the converter writes for an attrs value whose fields are their defaults or stand for themselves; None
    for any other."""
    cls = type(value)
    if not attrs.has(cls):
        return None
    written: dict[str, object] = {}
    for field in attrs.fields(cls):
        here, default = getattr(value, field.name), _default(field)
        if type(here) is type(default) and here == default and (plain := _plain(default)) is not _MISSING:
            written[field.name] = plain
        elif _stands_for_itself(here, field):
            written[field.name] = here.copy() if isinstance(here, list) else here
        else:
            return None
    return written


def read_plainly(fields: Mapping[str, object], cls: type[T]) -> T | None:
    """Return the value that was written as these fields, plainly; None where the converter has to look."""
    kind: type = cls
    if not attrs.has(kind) or len(fields) != len(attrs.fields(kind)):
        return None
    given: dict[str, object] = {}
    for field in attrs.fields(kind):
        found, plain = fields.get(field.name, _MISSING), _plain(_default(field))
        if plain is not _MISSING and type(found) is type(plain) and found == plain:
            continue
        if not _stands_for_itself(found, field):
            return None
        given[field.name] = found
    try:
        return cls(**given)
    except Exception:  # whatever a class says to it, the converter finds it too, and says where
        return None


def plain_copy(value: object) -> object:
    """Return a scalar, or a copy of a list of texts or a dict of texts; None for anything else."""
    if type(value) in _SCALARS:
        return value
    if type(value) is list and all(type(item) is str for item in value):
        return list(value)
    if type(value) is dict and all(type(text) is str for pair in value.items() for text in pair):
        return dict(value)
    return None


def _stands_for_itself(value: object, field: attrs.Attribute[object]) -> bool:
    """Whether a value is exactly of its field's type, and that is one that JSON has too."""
    if not field.init or field.alias != field.name:
        return False
    # As it is written in the source, or as it is printed once something has resolved it.
    text = field.type.__name__ if type(field.type) is type else str(field.type)
    text = text.removeprefix("typing.").removesuffix(" | None")
    if text.startswith("Literal["):
        return type(value) is str and repr(value) in text
    return type(value) is _KINDS.get(text) and (not isinstance(value, list) or all(type(item) is str for item in value))


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
