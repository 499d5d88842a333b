"""Files below a folder: their names, patterns of these, and how one lies there."""

from __future__ import annotations

import fnmatch
import glob
import os
import stat
from collections.abc import Sequence

from nemorun_core import PackagedFile

__all__ = ["excluded", "leaves", "leaving", "lying", "matching"]

_NEVER = frozenset({".git", "__pycache__"})


def leaves(name: str) -> bool:
    """Whether a relative path leads out of the folder that it is relative to; an absolute one always does."""
    return os.path.isabs(name) or os.path.normpath(name).split("/")[0] == ".."


def leaving(file: PackagedFile) -> str:
    """Return the line that says of a link that it leads out of the bundle; "" for anything that may travel."""
    if file.link is None or not leaves(os.path.join(os.path.dirname(file.name), file.link)):
        return ""
    return f"{file.name} (a link that leaves it: {file.link})"


def excluded(name: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern matches the name, or that of a folder above it; `*` matches `/` too, as in `data/*`."""
    parts = name.split("/")
    above = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
    return any(
        fnmatch.fnmatchcase(one, pattern.rstrip("/").removeprefix("./").removesuffix("/**"))
        or fnmatch.fnmatchcase(os.path.basename(one), pattern)
        for pattern in patterns
        for one in above
    )


def matching(base: str, pattern: str) -> list[str]:
    """Return the files and links below a folder that match a pattern (`**` for any depth), sorted; of a folder that
    matches, all that it holds, without git's own and Python's compiled files."""
    found: set[str] = set()
    for match in glob.iglob(pattern, root_dir=base, recursive=True):
        path = os.path.join(base, match)
        name = os.path.relpath(path, base)
        if os.path.islink(path) or os.path.isfile(path):
            found.add(name)
            continue
        for folder, folders, files in os.walk(path):
            inside = os.path.relpath(folder, base)
            links = [one for one in folders if os.path.islink(os.path.join(folder, one))]
            folders[:] = [one for one in folders if one not in _NEVER and one not in links]
            found.update(os.path.normpath(os.path.join(inside, one)) for one in (*files, *links))
    return sorted(name for name in found if not _NEVER.intersection(name.split("/")))


def lying(path: str, name: str) -> PackagedFile | None:
    """Return a file or link as it lies on disk, by its name in a bundle; None where it is gone, or is neither."""
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISLNK(mode):
        return PackagedFile(name, link=os.readlink(path))
    return PackagedFile(name, path, executable=bool(mode & 0o100)) if stat.S_ISREG(mode) else None
