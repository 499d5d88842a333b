"""What is installed, and whether it works: the folder of the records, plugins, and the scheduler of each executor."""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Callable
from typing import TypedDict, TypeVar

import attrs

from nemorun_core.contracts.executor import Executor
from nemorun_core.errors import Defect, NemorunError, StoreError, TransientError, UsageError
from nemorun_core.registry import GROUPS, Found, Registry, default_registry, import_found
from nemorun_core.store.files import guarded, make_folder
from nemorun_core.store.layout import Home
from nemorun_core.store.lock import Lock

__all__ = ["Finding", "described", "findings_of", "installed"]

T = TypeVar("T")
Row = dict[str, str]

_CODES: tuple[tuple[type[NemorunError], int], ...] = ((TransientError, 3), (Defect, 4), (StoreError, 5))


class Finding(TypedDict):
    """What was checked and found; `code` is the exit code that it asks for, 0 where all is well."""

    what: str
    ok: bool
    code: int
    found: str
    next: str


def installed(registry: Registry) -> list[Row]:
    """Return what installed plugins bring, by group and name; nothing is imported."""
    rows = []
    for group in (*GROUPS, "nemorun.hooks", "nemorun.commands"):
        for found in registry.found(group):
            distribution, _, version = found.distribution.partition(" ")
            rows.append(
                {
                    "group": group.removeprefix("nemorun."),
                    "name": found.name,
                    "object": found.value,
                    "distribution": distribution,
                    "version": version,
                }
            )
    return rows


def described(row: Row) -> dict[str, object]:
    """Import what an entry point names, and return its summary and fields. Raises Defect if it is broken."""
    value = import_found(
        Found(name=row["name"], value=row["object"], distribution=f"{row['distribution']} {row['version']}")
    )
    fields = attrs.fields(value) if isinstance(value, type) and attrs.has(value) else ()
    return {
        "summary": (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " "),
        "fields": [
            {"name": field.name, "type": _type_name(field.type), "default": _default(field.default)} for field in fields
        ],
    }


def _type_name(kind: object) -> str:
    text = kind if isinstance(kind, str) else getattr(kind, "__name__", "") if isinstance(kind, type) else str(kind)
    return text.replace("nemorun_core.model.secret.", "") or "object"


def _default(value: object) -> str:
    if value is attrs.NOTHING:
        return ""
    factory = getattr(value, "factory", None)
    return repr(factory()) if factory is not None and not getattr(value, "takes_self", False) else repr(value)


def findings_of(home: Home, registry: Registry) -> list[Finding]:
    """Check everything, and return what was found, good and bad."""
    findings = [_checked("records", _home_found, home.path)]
    rows = installed(registry)
    for row in rows:
        what = f"{row['group']} {row['name']} of {row['distribution']} {row['version']}"
        findings.append(_checked(what, _executor_found if row["group"] == "executors" else _plugin_found, row))
    if not any(row["group"] == "executors" for row in rows):
        findings.append(_finding("executors", 2, "none is installed", "pip install nemorun-local"))
    return findings


def _finding(what: str, code: int, found: str, following: str = "") -> Finding:
    return {"what": what, "ok": code == 0, "code": code, "found": found, "next": following}


def _checked(what: str, check: Callable[[T], str], subject: T) -> Finding:
    try:
        return _finding(what, 0, check(subject))
    except NemorunError as error:
        code = next((number for kind, number in _CODES if isinstance(error, kind)), 2)
        return _finding(what, code, error.message, error.hint)
    except Exception as error:  # a plugin's own failure is a finding
        return _finding(what, 4, f"{type(error).__name__}: {error}", "Report it to the plugin's author.")


def _home_found(path: str) -> str:
    """Write, lock and remove a file where records go; say on what file system that is."""
    make_folder(path)
    with guarded("write into", path), tempfile.TemporaryDirectory(dir=path) as folder:
        lock = Lock(os.path.join(folder, "lock"))
        lock.acquire()
        lock.release()
        free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    return f"{path} can be written and locked, on {_file_system(path)}, {free / 2**30:.1f} GiB free"


def _file_system(path: str) -> str:
    """Return the type of the file system that holds a path, by proc(5)."""
    best, kind = "", "an unknown file system"
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                point, found = line.split()[1:3]
                inside = os.path.realpath(path) == point or os.path.realpath(path).startswith(point.rstrip("/") + "/")
                if inside and len(point) >= len(best):
                    best, kind = point, found
    except OSError:
        pass
    return kind


def _plugin_found(row: Row) -> str:
    described(row)
    return "can be loaded"


def _executor_found(row: Row) -> str:
    cls = default_registry().load("nemorun.executors", row["name"])
    if not issubclass(cls, Executor):
        raise Defect(f"{cls.__qualname__} does not derive from run.Executor.", hint="Report it to its author.")
    try:
        executor = cls.sample()
    except TypeError as error:  # it has fields that must be given
        return f"can be loaded; its scheduler was not asked: {error}"
    executor.check()
    with executor.backend() as backend:
        try:
            answered = backend.check()
        except UsageError as error:  # who has all plugins need not have all schedulers
            return f"can be loaded, and not used from here: {error.line}"
    return f"can be loaded, and its scheduler answers: {answered}" if answered else "can be loaded"
