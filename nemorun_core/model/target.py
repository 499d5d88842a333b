"""What a task calls: how functions and classes are named, found again, or sent by value."""

from __future__ import annotations

import sys
import types
from enum import Enum, Flag

import attrs

from nemorun_core.errors import UsageError

__all__ = [
    "EnumMember",
    "Pickled",
    "Reference",
    "Unresolved",
    "find_reference",
    "import_reference",
    "is_sendable",
    "job_name",
    "member_key",
    "readable_name",
]

_LAUNCHING_SCRIPT = ("__main__", "__mp_main__")


@attrs.frozen
class Reference:
    """A function or class by the name under which it is imported, `module:qualname`. Not imported yet."""

    name: str


@attrs.frozen(kw_only=True)
class Pickled:
    """A function or class that was sent by value. Not loaded yet.

    Attributes:
        digest: SHA-256, in hexadecimal, of the pickle that holds it: a list of objects.
        item: its place in that list, from 0.
        name: what people call it.
        python: major and minor version that can load it.
    """

    digest: str
    item: int
    name: str
    python: tuple[int, int]


@attrs.frozen
class EnumMember:
    """A member of an enum whose class is not imported yet: its name, or the number of a combination of flags."""

    cls: Reference | Pickled
    member: str | int


Unresolved = (Reference, Pickled, EnumMember)


def find_reference(target: object) -> Reference | None:
    """Name a function, class or class method so that importing that name gives the same object; None if nothing does.

    What `__main__` defines has no such name: the launching script is never started again.
    """
    owner = getattr(target, "__self__", None)
    if isinstance(owner, type):
        name = getattr(target, "__name__", "")
        owner_reference = find_reference(owner)
        if owner_reference is None or getattr(owner, name, None) != target:
            return None
        return Reference(f"{owner_reference.name}.{name}")
    module, qualname = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str) or module in _LAUNCHING_SCRIPT:
        return None
    found: object = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return Reference(f"{module}:{qualname}") if found is target else None


def is_sendable(target: object) -> bool:
    """Whether a target without an importable name can be sent by value."""
    if isinstance(target, types.MethodType):
        return isinstance(target.__self__, type)
    return isinstance(target, (types.FunctionType, type)) and not isinstance(target, types.GenericAlias)


def import_reference(reference: Reference) -> object:
    """Import what a reference names.

    Raises:
        UsageError: the module cannot be imported, or it holds no such name.
    """
    import importlib

    module, _, qualname = reference.name.partition(":")
    try:
        found: object = importlib.import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"{reference.name} cannot be imported by {sys.executable}: {error}",
            hint=f"Install the package that holds {module}, or add its folder to PYTHONPATH.",
        ) from error
    return found


def member_key(member: Enum) -> str | int:
    """Tell one member from the others of its class: its name, or the number of a combination of flags."""
    name: str | None = member.name  # None for a combination of flags, before Python 3.11
    if name is not None and type(member).__members__.get(name) is member:
        return name
    if isinstance(member, Flag) and isinstance(member.value, int):
        return member.value
    raise UsageError(f"{member!r} is no named member of {type(member).__qualname__}", hint="Use a named member.")


def readable_name(target: object) -> str:
    """Say `module.qualname` as in a program: without `builtins` and `__main__`."""
    if isinstance(target, Reference):
        module, _, qualname = target.name.partition(":")
    elif isinstance(target, Pickled):
        return target.name
    else:
        module, qualname = getattr(target, "__module__", None) or "", _qualname(target)
    qualname = qualname.replace("<locals>.", "").replace("<lambda>", "lambda")
    return qualname if module in ("", "builtins", *_LAUNCHING_SCRIPT) else f"{module}.{qualname}"


def job_name(target: object) -> str:
    """Give a job its default name: as `readable_name`, with the launching script's own name for what it defines."""
    name = readable_name(target)
    if getattr(target, "__module__", None) not in _LAUNCHING_SCRIPT or isinstance(target, Unresolved):
        return name
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if isinstance(file, str):
        stem = file.replace("\\", "/").rpartition("/")[2].rpartition(".")[0]
    else:
        stem = "notebook" if "IPython" in sys.modules else "main"
    return f"{stem}.{name}" if stem else name


def _qualname(target: object) -> str:
    owner = getattr(target, "__self__", None)
    name = getattr(target, "__qualname__", None) or repr(target)
    return f"{owner.__qualname__}.{getattr(target, '__name__', name)}" if isinstance(owner, type) else str(name)
