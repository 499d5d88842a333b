"""What travels with the jobs of one experiment: looked at when they are added, packed when they are run."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from nemorun_core.contracts.executor import Executor
from nemorun_core.contracts.packager import Contents, PackagedFile, Packager
from nemorun_core.errors import Defect, NemorunError, UsageError
from nemorun_core.model.definition import Bundled, Kinded
from nemorun_core.model.task import Script, Task
from nemorun_core.store.bundles import digest_of, write_bundle
from nemorun_core.store.layout import Folder, Home

__all__ = ["Shipping"]

_SHOWN = 5


class _Shipment(NamedTuple):
    packager: Packager
    contents: Contents
    files: dict[str, PackagedFile]


class Shipping:
    """Asks each different packager once, and again when what it found is to be frozen."""

    def __init__(self) -> None:
        self._looked: list[_Shipment] = []
        self._packed: list[tuple[Packager, Bundled | None, Sequence[PackagedFile]]] = []
        self.notes: list[str] = []

    def check(self, job: str, task: Task, record: Kinded, executor: Executor) -> None:
        """Refuse a task whose files would not be there where it runs; note what its packager leaves out.

        Raises:
            UsageError: with what is missing, and what would bring it.
        """
        packager = executor.packager
        shared = executor.capabilities().shares_python
        if not isinstance(packager, Packager):
            if not shared:
                self._check_modules(job, record, None, shared)
            return
        shipment = self._look(packager)
        if not shipment.contents.files:
            return
        self._check_modules(job, record, shipment, shared)
        path = task.path if isinstance(task, Script) and not task.m else None
        if path is not None and not os.path.isabs(path) and os.path.normpath(path) not in shipment.files:
            near = _name_in(shipment.contents, os.path.abspath(path))
            raise UsageError(
                f"job {job!r} runs {path!r} in the root of its bundle, which does not hold it.",
                hint=f"Use {near!r}." if near in shipment.files else f"Have it packed: {_described(packager)}",
            )

    def freeze(self, executor: Executor, python_path: Sequence[str]) -> str:
        """Return the digest of what travels with a member, "" for nothing. Reads everything, writes nothing."""
        packager = executor.packager
        if not isinstance(packager, Packager):
            return ""
        for known, bundled, _ in self._packed:
            if known == packager:
                return bundled.digest if bundled else ""
        contents = _collect(packager)
        bundled = None
        if contents.files:
            digest, size = digest_of(contents.files)
            folders = _folders(contents, python_path)
            bundled = Bundled(
                digest=digest,
                packager=type(packager).__name__,
                source=next((folder for _, folder in contents.roots), ""),
                folders=tuple(dict.fromkeys(folders.values())) if "" in folders.values() else ("", *folders.values()),
                replaces=tuple(folders),
                files=len(contents.files),
                size_bytes=size,
                left_out=tuple(contents.left_out),
            )
        self._packed.append((packager, bundled, contents.files))
        return bundled.digest if bundled else ""

    def bundles(self) -> tuple[Bundled, ...]:
        """Return what was frozen, each content once."""
        return tuple({bundled.digest: bundled for _, bundled, _ in self._packed if bundled}.values())

    def write(self, home: Home, folder: Folder) -> None:
        """Write what was frozen. Raises StoreError; UsageError where files changed meanwhile."""
        for _, bundled, files in self._packed:
            if bundled:
                write_bundle(files, bundled.digest, home.bundles, folder.bundles)

    def reset(self) -> None:
        """Forget what was frozen: files may have changed."""
        self._packed.clear()
        self._looked.clear()

    def _look(self, packager: Packager) -> _Shipment:
        for shipment in self._looked:
            if shipment.packager == packager:
                return shipment
        contents = _collect(packager)
        if contents.left_out:
            listed = ", ".join(contents.left_out[:_SHOWN])
            more = f" and {len(contents.left_out) - _SHOWN} more" if len(contents.left_out) > _SHOWN else ""
            self.notes.append(f"{type(packager).__name__} leaves out: {listed}{more}")
        shipment = _Shipment(packager, contents, {file.name: file for file in contents.files})
        self._looked.append(shipment)
        return shipment

    def _check_modules(self, job: str, record: Kinded, shipment: _Shipment | None, shared: bool) -> None:
        missing, older = [], []
        for module in sorted(set(_modules(record.fields))):
            file = _file_of(module)
            name = _name_in(shipment.contents, file) if shipment and file else None
            if file is None:
                continue
            if shipment and name in shipment.files:
                if not _is_same(shipment.files[name], file):
                    older.append(f"{module} ({file})")
            elif not (name is None if shared else _is_installed(file)):  # shared: what lies elsewhere is imported there
                missing.append(f"{module} ({file})")
        if older:
            raise UsageError(
                f"job {job!r} imports {', '.join(older)}, and its bundle holds another version than the one here.",
                hint="Commit what changed, or have it packed as it is.",
            )
        if not missing:
            return
        which = "its bundle does not hold" if shipment else "no distribution installs"
        raise UsageError(
            f"job {job!r} imports what {which}: {', '.join(missing)}. It would not be there, or be another.",
            hint="Ship it: packager=run.GitArchivePackager() or run.PatternPackager(include_pattern='*.py', "
            "relative_path='.'); with packager=run.Packager() you say that it is there.",
        )


def _collect(packager: Packager) -> Contents:
    try:
        return packager.collect(os.getcwd())
    except NemorunError:
        raise
    except Exception as error:  # whatever a plugin raises is the plugin's
        raise Defect(
            f"{type(packager).__name__}.collect failed: {type(error).__name__}: {error}.",
            hint="Report it to its author, or choose another packager.",
        ) from error


def _described(packager: Packager) -> str:
    return f"see what {type(packager).__name__} takes in."


def _folders(contents: Contents, python_path: Sequence[str]) -> dict[str, str]:
    """Return, for each folder that the launcher imports from and that the bundle holds, its name there."""
    held = {"", *(os.path.dirname(file.name) for file in contents.files)}
    split = [name.split("/") for name in held]
    parents = {"/".join(parts[:depth]) for parts in split for depth in range(len(parts) + 1)}
    names = {entry: _name_in(contents, entry) for entry in python_path}
    return {entry: name for entry, name in names.items() if name is not None and name in parents}


def _name_in(contents: Contents, path: str) -> str | None:
    """Return a path's name in the bundle, as it would be there; None for what the bundle stands for nowhere."""
    for place, folder in contents.roots:
        name = os.path.relpath(os.path.realpath(path), os.path.realpath(folder))
        if name.split("/")[0] != "..":
            return "/".join(part for part in (place, name) if part not in ("", "."))
    return None


def _modules(fields: Mapping[str, object]) -> Iterator[str]:
    """Yield the modules whose functions and classes the record of a Partial names."""
    nodes = fields.get("nodes")
    for node in nodes if isinstance(nodes, list) else ():
        for data in (node.get("target"), *_tagged(node)):
            reference = data.get("ref") if isinstance(data, dict) else None
            if isinstance(reference, str):
                yield reference.partition(":")[0]


def _tagged(value: object) -> Iterator[object]:
    """Yield what stands for a function or class anywhere below an argument."""
    if isinstance(value, list):
        for item in value:
            yield from _tagged(item)
    elif isinstance(value, dict):
        if value.get("$") == "object":
            yield value
        if value.get("$") == "enum":
            yield value.get("class")
        for item in value.values():
            yield from _tagged(item)


def _file_of(module: str) -> str | None:
    """Return the file of an imported module of Python's own text; None for builtins, extensions and what is frozen."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return file if isinstance(file, str) and file.endswith(".py") else None


def _is_same(packed: PackagedFile, file: str) -> bool:
    """Whether what is packed is the text that lies here."""
    if packed.content is None:
        return packed.link is not None or os.path.realpath(packed.source) == os.path.realpath(file)
    try:
        with open(file, "rb") as stream:
            return stream.read() == packed.content
    except OSError:
        return False


def _is_installed(file: str) -> bool:
    """Whether a module's file belongs to Python or to an installed distribution; what is installed to be edited lies
    here alone."""
    import sysconfig

    real = os.path.realpath(file)
    return any(real.startswith(os.path.realpath(path) + os.sep) for path in set(sysconfig.get_paths().values()))
