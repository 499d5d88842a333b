"""Why a value cannot travel with a task, and what to write in its place."""

from __future__ import annotations

import types

from nemorun_core.errors import UsageError
from nemorun_core.model.graph import Trail, path_of
from nemorun_core.model.target import readable_name

__all__ = ["refusal"]

_PLAIN = (bool, int, float, complex, str, bytes, tuple, list, dict, set, frozenset)


def refusal(value: object, trail: Trail) -> UsageError:
    """Make the error for a value that cannot be written to JSON and read back equal."""
    kind = readable_name(type(value))
    message = f"{path_of(trail)} is a {kind}, which cannot be written to JSON and read back equal"
    return UsageError(message, hint=_hint(value))


def _hint(value: object) -> str:
    cls = type(value)
    name = readable_name(cls)
    if hasattr(value, "func") and hasattr(value, "keywords"):
        return "Use run.Partial(function, …) in its place."
    if isinstance(value, types.MethodType):
        return "Pass the function, and the object it belongs to as run.Config(cls, …)."
    if isinstance(value, types.ModuleType):
        return "Import the module within the function instead."
    if isinstance(value, (bytearray, memoryview)):
        return "Wrap it: bytes(x)."
    if hasattr(value, "fileno") or hasattr(value, "readline"):
        return "Pass the file's path, and open it within the function."
    if isinstance(value, range) or hasattr(value, "__next__"):
        return "Wrap it: list(x)."
    if cls.__module__.partition(".")[0] == "numpy" and getattr(value, "shape", None) == () and hasattr(value, "item"):
        return f"Wrap it: {type(value.item()).__name__}(x)."
    if hasattr(value, "shape"):
        return "Wrap it: x.tolist(), or write it to a file and pass the path."
    for plain in _PLAIN:
        if isinstance(value, plain):
            fields = " or describe it: run.Config(…)" if hasattr(value, "_fields") else ""
            return f"Wrap it: {plain.__name__}(x){fields}."
    return f"Describe it, and it is built where the task runs: run.Config({name}, …)."
