"""Words become typed values: by the signature of a function, and by the fields of a class."""

from __future__ import annotations

import ast
import contextlib
import difflib
import enum
import pathlib
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping

from nemorun_core.errors import UsageError

if typing.TYPE_CHECKING:
    import inspect

    from nemorun_core.model.buildable import Config, Partial

__all__ = ["assign", "lacking", "make", "parse"]

_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_NONE = ("none", "null")


def parse(text: str, kind: object, what: str) -> object:
    """Read `text` as a value of the type `kind`; where that says nothing, as a Python literal, else as text.

    Raises:
        UsageError: it is none; `what` says which argument.
    """
    try:
        return _parse(text, kind)
    except (ValueError, SyntaxError, KeyError, TypeError):
        wanted = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            wanted = f"one of {', '.join(kind.__members__)}"
        elif typing.get_origin(kind) is typing.Literal:
            wanted = f"one of {', '.join(map(str, typing.get_args(kind)))}"
        raise UsageError(
            f"{what}={text}: expected {wanted}, found {text!r}.", hint=f"Write {what}=<{wanted}>."
        ) from None


def _parse(text: str, kind: object) -> object:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is str:
        return text
    if origin in (typing.Union, types.UnionType):
        if type(None) in inner and text.lower() in _NONE:
            return None
        # The narrow types first: any text is a str.
        for one in sorted((one for one in inner if one is not type(None)), key=lambda one: one is str):
            try:
                return _parse(text, one)
            except (ValueError, SyntaxError, KeyError, TypeError):
                continue
        raise ValueError(text)
    if origin is typing.Literal:
        return {str(value): value for value in inner}[text]
    if kind is bool:
        return _WORDS[text.lower()]
    if kind in (int, float):
        return int(text.replace("_", ""), 10) if kind is int else float(text)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind[text] if text in kind.__members__ else kind(text)
    if isinstance(kind, type) and issubclass(kind, pathlib.PurePath):
        return kind(text)
    container = origin or kind
    if container in (list, tuple, set, frozenset):
        items = ast.literal_eval(text) if text[:1] in tuple("[({") else list(_split(text))
        of = inner[0] if inner else None
        return container(_parse(item, of) if isinstance(item, str) else item for item in items)
    if container is dict:
        return dict(ast.literal_eval(text))
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None if text.lower() in _NONE else _WORDS[text] if text in ("true", "false") else text


def _split(text: str) -> Iterator[str]:
    """Split at the commas that stand in no bracket and no quotes."""
    depth, quote, word = 0, "", ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        depth += not quote and ((character in "[({") - (character in "])}"))
        if character == "," and not depth and not quote:
            yield word.strip()
            word = ""
        else:
            word += character
    if word.strip():
        yield word.strip()


def make(text: str, load: Callable[[str], type]) -> object:
    """Make an object of `NAME[field=value,...]`; `load` finds the class of a name.

    Raises:
        UsageError: it cannot be read, or the class has no such field; names the nearest.
    """
    match = re.fullmatch(r"([^\[\]]+)(?:\[(.*)\])?", text, re.DOTALL)
    if match is None:
        raise UsageError(f"{text!r}: expected NAME or NAME[field=value,…].", hint="Quote it: the shell reads brackets.")
    cls = load(match[1])
    kinds = {name: kind for name, kind in hints(cls).items() if name in _parameters(cls)}
    given: dict[str, object] = {}
    for word in _split(match[2] or ""):
        name, equals, value = word.partition("=")
        if not equals or name not in _parameters(cls):
            near = difflib.get_close_matches(name, list(_parameters(cls)), n=1)
            raise UsageError(
                f"{match[1]} has no field {name!r}." if equals else f"{text}: expected field=value, found {word!r}.",
                hint=f"Did you mean {near[0]!r}?" if near else f"See `nemorun plugins show {match[1]}`.",
            )
        given[name] = parse(value, kinds.get(name), name)
    try:
        return cls(**given)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{text}: {error}.", hint=f"See `nemorun plugins show {match[1]}`.") from None


def assign(task: Partial[object], words: typing.Iterable[str]) -> None:
    """Set arguments of a task by `name=value` and `path.to.name=value`.

    Raises:
        UsageError: no such argument, with the nearest name; or a value of another type.
    """
    for word in words:
        path, equals, text = word.partition("=")
        if not equals:
            raise UsageError(f"expected name=value, found {word!r}.", hint="Give every argument of a function by name.")
        *parents, name = path.split(".")
        node: Partial[object] | Config[object] = task
        for step in parents:
            inner = node[step]
            if not hasattr(inner, "__target__"):
                raise UsageError(
                    f"{path}: {step!r} is {inner!r}, which has no {name!r}.", hint=f"Set {step}=… as a whole."
                )
            node = inner
        kind = hints(node.__target__).get(name, _kind_of_default(node, name))
        node[name] = parse(text, kind, path)


def lacking(task: Partial[object]) -> list[str]:
    """Return the names of the arguments that the function needs and was not given."""
    import inspect

    return [
        name
        for name, parameter in _parameters(task.__target__).items()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        and name not in task.__arguments__
    ]


def hints(target: object) -> Mapping[str, object]:
    """Return the types of a target's arguments by name; those that cannot be resolved are left out."""
    found: dict[str, object] = {}
    for holder in (target, target.__init__) if isinstance(target, type) else (target,):  # type: ignore[misc]
        with contextlib.suppress(Exception):  # names that exist for type checkers only
            found = typing.get_type_hints(holder) | found
    return found


def _kind_of_default(node: Partial[object] | Config[object], name: str) -> object:
    try:
        default = node[name]
    except UsageError:
        return None
    return type(default) if type(default) in (bool, int, float, str) else None


def _parameters(target: object) -> Mapping[str, inspect.Parameter]:
    import inspect

    return inspect.signature(target).parameters if callable(target) else {}
