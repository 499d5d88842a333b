"""`GitArchivePackager`: what git tracks, as it lies in the work tree or as a commit holds it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import attrs

from nemorun_core import Contents, PackagedFile, Packager, UsageError
from nemorun_git.files import excluded, leaves, leaving, lying, matching
from nemorun_git.repository import LINK, PROGRAM, SUBMODULE, Entry, Repository

__all__ = ["GitArchivePackager"]

Policy = Literal["include", "refuse", "ignore"]

_POLICIES = ("include", "refuse", "ignore")
_POINTER = b"version https://git-lfs"
_POINTER_BYTES = 1024
_SHOWN = 5


@attrs.define(kw_only=True)
class GitArchivePackager(Packager):
    """Packs the files of the git repository that the experiment is launched from. Nothing in it is written.

    Tracked files travel as they lie in the work tree, filters and Git LFS included; with `uncommitted="ignore"`, or a
    `ref` that is not checked out, as that commit holds them. Files that git ignores stay here, unless `include_pattern`
    names them.

    Attributes:
        subpath: only this folder of the repository, which becomes the bundle's root.
        ref: the commit, a branch, tag or digest.
        include_submodules: take in submodules that are checked out.
        include_pattern: files to take in that git ignores: a pattern below `subpath`, or a list of them.
        uncommitted: what to do with changes of tracked files that are not committed: take them in, refuse the job, or
            pack what is committed.
        untracked: the same for files that are neither tracked nor ignored.
        exclude: patterns of files that stay here, as `data/**` or `*.ckpt`.
    """

    subpath: str = ""
    ref: str = "HEAD"
    include_submodules: bool = True
    include_pattern: str | list[str] = ""
    uncommitted: Policy = "include"
    untracked: Policy = "include"
    exclude: list[str] = attrs.field(factory=list)

    def collect(self, cwd: str) -> Contents:
        """Look at the repository around `cwd`. Raises UsageError: see the attributes."""
        for name in ("uncommitted", "untracked"):
            if getattr(self, name) not in _POLICIES:
                raise UsageError(
                    f"GitArchivePackager({name}={getattr(self, name)!r}): expected {', '.join(map(repr, _POLICIES))}."
                )
        repository = Repository.around(cwd)
        base = os.path.normpath(os.path.join(repository.top, self.subpath))
        if not os.path.isdir(base) or leaves(os.path.relpath(base, repository.top)):
            raise UsageError(
                f"GitArchivePackager(subpath={self.subpath!r}): {repository.top} has no such folder.",
                hint="Name a folder of the repository, relative to its top.",
            )
        look = _Look(self, os.path.relpath(base, repository.top))
        commit = repository.commit(self.ref)
        if commit == repository.commit("HEAD") and self.uncommitted != "ignore":
            look.work_tree(repository, "")
        else:
            look.commit(repository, commit, "")
        look.extra(base)
        if not look.files:
            raise UsageError(
                f"GitArchivePackager found nothing to pack in {base}.", hint="Commit something, or name another folder."
            )
        return Contents(list(look.files.values()), [("", base)], look.left_out())


class _Look:
    """One look at a repository and its submodules. Names are relative to the folder that is packed."""

    def __init__(self, packager: GitArchivePackager, subpath: str) -> None:
        self._packager = packager
        self._prefix = "" if subpath == "." else f"{subpath}/"
        self.files: dict[str, PackagedFile] = {}
        self._left: list[str] = []
        self._by_pattern = 0

    def left_out(self) -> list[str]:
        """Return a line for each thing that stays here."""
        return [*self._left, *([f"{self._by_pattern} files by exclude"] if self._by_pattern else [])]

    def work_tree(self, repository: Repository, place: str) -> None:
        """Take in what is tracked as it lies there, then what is not tracked."""
        index, status = repository.index(), repository.status()
        modules = {entry.name for entry in index if entry.mode == SUBMODULE}
        changed = [name for name in status.changed if name not in modules and self._within(place + name)]
        if changed and self._packager.uncommitted == "refuse":
            raise self._refused(repository, "uncommitted changes", "commit or stash them", changed)
        skipped = [entry for entry in index if entry.skipped and self._within(place + entry.name)]
        self._objects(repository, skipped, place)
        for entry in index:
            if entry.mode == SUBMODULE:
                self._submodule(repository, entry, place, lambda inner, where, _: self.work_tree(inner, where))
            elif not entry.skipped:
                self._lying(repository, entry.name, place)
        self._untracked(repository, status.untracked, place)

    def commit(self, repository: Repository, commit: str | None, place: str) -> None:
        """Take in what a commit holds, and say what of the work tree is not in it."""
        status = repository.status()
        changed = [name for name in status.changed if self._within(place + name)]
        if changed and self._packager.uncommitted == "refuse":
            raise self._refused(repository, "uncommitted changes", "commit or stash them", changed)
        self._left += [f"{self._name(place + name)} (uncommitted changes)" for name in changed]
        tree = repository.tree(commit) if commit else []
        self._objects(repository, [entry for entry in tree if entry.mode != SUBMODULE], place)
        for entry in tree:
            if entry.mode == SUBMODULE:
                self._submodule(repository, entry, place, self.commit)
        self._untracked(repository, status.untracked, place)

    def extra(self, base: str) -> None:
        """Take in what `include_pattern` names."""
        given = self._packager.include_pattern
        for pattern in [given] if isinstance(given, str) else given:
            for name in matching(base, pattern) if pattern else ():
                self._add(lying(os.path.join(base, name), name))

    def _untracked(self, repository: Repository, names: Sequence[str], place: str) -> None:
        names = [name for name in names if self._within(place + name)]
        if names and self._packager.untracked == "refuse":
            raise self._refused(repository, "untracked files", "add them, or have git ignore them", names)
        for name in names:
            if name.endswith("/"):
                self._left.append(f"{self._name(place + name)} (a repository of its own)")
            elif self._packager.untracked == "ignore":
                self._left.append(f"{self._name(place + name)} (untracked)")
            else:
                self._lying(repository, name, place)

    def _submodule(
        self, repository: Repository, entry: Entry, place: str, take: Callable[[Repository, str, str], None]
    ) -> None:
        where = f"{place}{entry.name}/"
        if not (self._within(where) or self._prefix.startswith(where)):
            return
        folder = os.path.join(repository.top, entry.name)
        if not self._packager.include_submodules:
            self._left.append(f"{self._name(where)} (a submodule)")
        elif not os.path.exists(os.path.join(folder, ".git")):
            self._left.append(f"{self._name(where)} (a submodule that is not checked out: git submodule update --init)")
        elif take == self.commit:
            self.commit(Repository(folder), entry.object, where)
        else:
            take(Repository(folder), where, entry.object)

    def _lying(self, repository: Repository, name: str, place: str) -> None:
        """Take in a file of the work tree; one that was removed there is no part of it."""
        if self._within(place + name):
            self._add(lying(os.path.join(repository.top, name), self._name(place + name)))

    def _objects(self, repository: Repository, entries: Iterable[Entry], place: str) -> None:
        """Take in what git has stored."""
        entries = [entry for entry in entries if self._within(place + entry.name)]
        contents = repository.contents(entry.object for entry in entries)
        for entry in entries:
            name, content = self._name(place + entry.name), contents[entry.object]
            if entry.mode == LINK:
                self._add(PackagedFile(name, link=os.fsdecode(content)))
            else:
                self._add(PackagedFile(name, content=content, executable=entry.mode == PROGRAM))

    def _add(self, file: PackagedFile | None) -> None:
        if file is None:
            return
        if excluded(file.name, self._packager.exclude):
            self._by_pattern += 1
        elif line := leaving(file):
            self._left.append(line)
        else:
            if _is_pointer(file):
                self._left.append(f"{file.name} (its content is not here, only its Git LFS pointer: git lfs pull)")
            self.files[file.name] = file

    def _within(self, name: str) -> bool:
        return name.startswith(self._prefix)

    def _name(self, name: str) -> str:
        return name[len(self._prefix) :]

    def _refused(self, repository: Repository, what: str, way: str, names: Sequence[str]) -> UsageError:
        listed = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        field = "uncommitted" if "uncommitted" in what else "untracked"
        return UsageError(
            f"{repository.top} has {what}, which {field}='refuse' does not allow: {listed}.",
            hint=f"{way[0].upper()}{way[1:]}, or use {field}='include'.",
        )


def _is_pointer(file: PackagedFile) -> bool:
    """Whether a file is what Git LFS puts in place of its content (git-lfs, docs/spec.md: under 1,024 bytes)."""
    if file.content is not None:
        return file.content.startswith(_POINTER) and len(file.content) < _POINTER_BYTES
    if file.link is not None or not 100 < os.stat(file.source).st_size < _POINTER_BYTES:
        return False
    try:
        with open(file.source, "rb") as stream:
            return stream.read(len(_POINTER)) == _POINTER
    except OSError:
        return False
