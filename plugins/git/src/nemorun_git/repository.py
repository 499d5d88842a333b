"""The one module that runs git(1). It reads only: nothing in the user's repository is written."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from nemorun_core import UsageError

__all__ = ["Entry", "Repository", "Status"]

_SECONDS = 120.0
# Which repository is meant is said by the folder alone; nobody is asked anything, and no index is refreshed.
_DROPPED = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")
_FIXED = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}

LINK = "120000"
PROGRAM = "100755"
SUBMODULE = "160000"


class Entry(NamedTuple):
    """One path of an index or tree: mode and object as git writes them; `skipped`: not in the work tree on purpose."""

    name: str
    mode: str
    object: str
    skipped: bool = False


class Status(NamedTuple):
    """Paths below the top that differ from HEAD, and those that are not tracked and not ignored."""

    changed: tuple[str, ...]
    untracked: tuple[str, ...]


class Repository:
    """A work tree, by its top folder."""

    def __init__(self, top: str) -> None:
        self.top = top

    @classmethod
    def around(cls, folder: str) -> Repository:
        """Return the repository whose work tree holds a folder. Raises UsageError where there is none, or no git."""
        return cls(os.fsdecode(_git(folder, "rev-parse", "--show-toplevel").removesuffix(b"\n")))

    def commit(self, ref: str) -> str | None:
        """Return the commit that a ref names; None for HEAD where nothing was committed yet. Raises UsageError."""
        try:
            return self._text("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
        except UsageError:
            if ref == "HEAD":
                return None
            raise UsageError(f"{self.top} has no commit {ref!r}.", hint="See `git log`, or fetch it.") from None

    def branch(self) -> str:
        """Return the name of the branch that is checked out; empty where none is."""
        with contextlib.suppress(UsageError):
            return self._text("symbolic-ref", "--quiet", "--short", "HEAD")
        return ""

    def remote(self) -> str:
        """Return the address of `origin`, empty where there is none."""
        with contextlib.suppress(UsageError):
            return self._text("remote", "get-url", "origin")
        return ""

    def status(self) -> Status:
        """Return what differs from HEAD (git-status(1), porcelain version 2)."""
        output = self._run("-c", "core.fsmonitor=false", "status", "--porcelain=v2", "-z", "--untracked-files=all")
        changed, untracked = [], []
        records = iter(output.split(b"\0"))
        for record in records:
            kind = record[:1]
            if kind == b"1":
                changed.append(record.split(b" ", 8)[8])
            elif kind == b"u":
                changed.append(record.split(b" ", 10)[10])
            elif kind == b"2":
                changed += [record.split(b" ", 9)[9], next(records)]
            elif kind == b"?":
                untracked.append(record[2:])
        return Status(tuple(map(os.fsdecode, changed)), tuple(map(os.fsdecode, untracked)))

    def index(self) -> list[Entry]:
        """Return what is tracked, as it stands in the index; of a path in conflict, one entry."""
        found = {}
        for record in filter(None, self._run("ls-files", "-z", "--stage", "-t").split(b"\0")):
            facts, _, name = record.partition(b"\t")
            tag, mode, digest, _ = facts.decode().split(" ")
            found[name] = Entry(os.fsdecode(name), mode, digest, tag == "S")
        return list(found.values())

    def tree(self, commit: str) -> list[Entry]:
        """Return what a commit holds. Raises UsageError where a shallow or partial clone lacks it."""
        found = []
        for record in filter(None, self._run("ls-tree", "-r", "-z", "--full-tree", commit).split(b"\0")):
            facts, _, name = record.partition(b"\t")
            mode, _, digest = facts.decode().split(" ")
            found.append(Entry(os.fsdecode(name), mode, digest))
        return found

    def contents(self, objects: Iterable[str]) -> Mapping[str, bytes]:
        """Return the content of blobs, in one process (git-cat-file(1), --batch)."""
        names = list(dict.fromkeys(objects))
        output = (
            self._run("cat-file", "--batch", data="".join(f"{name}\n" for name in names).encode()) if names else b""
        )
        found, place = {}, 0
        for name in names:
            end = output.index(b"\n", place)
            words = output[place:end].split(b" ")
            if words[-1] == b"missing":
                raise UsageError(
                    f"{self.top} lacks the object {name}: it is a partial clone.", hint="Fetch it: git fetch"
                )
            size = int(words[2])
            found[name] = output[end + 1 : end + 1 + size]
            place = end + 2 + size
        return found

    def diff(self) -> str:
        """Return what tracked files differ from HEAD, as text. Compares by a copy of the index, since git-diff(1)
        refreshes the one that it uses."""
        with self._copied_index() as environment:
            arguments = ("-c", "core.fsmonitor=false", "diff", "--no-color", "--no-ext-diff", "--no-textconv", "HEAD")
            return self._run(*arguments, environment=environment).decode("utf-8", "replace")

    @contextlib.contextmanager
    def _copied_index(self) -> Iterator[Mapping[str, str]]:
        index = os.path.join(self.top, self._text("rev-parse", "--git-path", "index"))
        with tempfile.TemporaryDirectory(prefix="nemorun-git-") as folder:
            copied = os.path.join(folder, "index")
            with contextlib.suppress(FileNotFoundError):
                shutil.copy2(index, copied)  # with its time, by which git tells entries that may have changed since
            yield {"GIT_INDEX_FILE": copied}

    def _text(self, *arguments: str) -> str:
        return self._run(*arguments).decode("utf-8", "replace").strip()

    def _run(self, *arguments: str, data: bytes = b"", environment: Mapping[str, str] | None = None) -> bytes:
        return _git(self.top, *arguments, data=data, environment=environment)


def _git(folder: str, *arguments: str, data: bytes = b"", environment: Mapping[str, str] | None = None) -> bytes:
    inherited = {name: value for name, value in os.environ.items() if name not in _DROPPED}
    try:
        done = subprocess.run(
            ["git", "-C", folder, *arguments],
            input=data,
            capture_output=True,
            env={**inherited, **_FIXED, **(environment or {})},
            timeout=_SECONDS,
        )
    except FileNotFoundError:
        raise UsageError("there is no `git` on the PATH.", hint="Install git, or use run.PatternPackager.") from None
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"`git {arguments[0]}` in {folder} did not end within {_SECONDS:g} s.", hint="See why: run it by hand."
        ) from None
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise UsageError(
            f"git cannot read {folder}: {said[0].removeprefix('fatal: ')}.",
            hint="Run this in a git repository, or use run.PatternPackager.",
        )
    return done.stdout
