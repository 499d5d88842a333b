"""The one cattrs converter: how values become JSON and are read back. Imported late, since cattrs is heavy."""

from __future__ import annotations

import pathlib
import sys
import typing

import cattrs
from cattrs.strategies import configure_union_passthrough

from nemorun_core.errors import UsageError
from nemorun_core.model.definition import Edge
from nemorun_core.model.records import MalformedRecord
from nemorun_core.model.secret import Secret
from nemorun_core.model.state import Condition

__all__ = ["converter", "structure"]

T = typing.TypeVar("T")


def _text_or_secret(value: object, _: object) -> str | Secret:
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and set(value) == {"secret", "name"} and value["secret"] in ("env", "file"):
        return Secret(value["secret"], str(value["name"]))
    raise ValueError(f"expected text or a secret, found {value!r}")


def _json_object(value: object, _: object) -> object:
    if isinstance(value, dict):
        return value
    raise ValueError(f"expected an object, found {type(value).__name__}")


def _edge(value: object, _: object) -> Edge:
    """Read an edge by hand: large experiments have hundreds of thousands."""
    if isinstance(value, dict) and value.keys() <= {"upstream", "condition"} and type(value.get("upstream")) is str:
        return Edge(sys.intern(value["upstream"]), Condition(value.get("condition", Condition.SUCCESS)))
    raise ValueError(f"expected an edge, found {value!r}")


def _exactly(kind: type) -> typing.Callable[[object, type], object]:
    def check(value: object, wanted: type) -> object:
        if wanted is not kind:  # an enum whose members are also `kind`s
            return wanted(value)
        if type(value) is kind or (kind is float and type(value) is int):
            return value
        raise ValueError(f"expected {kind.__name__}, found {value!r}")

    return check


def _make() -> cattrs.Converter:
    made = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    union = str | Secret
    configure_union_passthrough(str | bool | int | float | None, made)
    made.register_structure_hook_func(lambda kind: kind == union, _text_or_secret)
    made.register_structure_hook(Edge, _edge)
    made.register_unstructure_hook(Secret, lambda secret: {"secret": secret.source, "name": secret.name})
    for kind in (str, int, float, bool):
        made.register_structure_hook(kind, _exactly(kind))
    # What is JSON already passes through untouched, both ways.
    made.register_structure_hook_func(lambda kind: kind is object, lambda value, _: value)
    made.register_structure_hook_func(lambda kind: kind == dict[str, object], _json_object)
    made.register_unstructure_hook_func(lambda kind: kind == dict[str, object], lambda value: value)
    made.register_unstructure_hook(pathlib.PurePath, str)
    made.register_unstructure_hook(frozenset, lambda items: sorted(made.unstructure(item) for item in items))
    made.register_unstructure_hook_func(
        lambda kind: getattr(kind, "__origin__", None) is frozenset,
        lambda items: sorted(made.unstructure(item) for item in items),
    )
    return made


converter = _make()


def structure(data: object, kind: type[T], by: cattrs.Converter = converter) -> T:
    """Read `data`, as JSON gave it, as a `kind`.

    Raises:
        MalformedRecord: it does not fit; the text names each place, what was expected and what was found.
    """
    try:
        return by.structure(data, kind)
    except cattrs.BaseValidationError as error:
        raise MalformedRecord("; ".join(cattrs.transform_error(error))) from None
    except (ValueError, TypeError, KeyError, UsageError) as error:
        raise MalformedRecord(f"{error} @ $") from None
