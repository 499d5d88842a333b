"""Which entry points of ours are installed: what importlib-metadata would find, for a tenth of the time of its import.

Folders of the import path are read here, as it reads them; all else, such as zip files and finders of others, by it.
"""

import os
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from importlib_metadata import EntryPoint

__all__ = ["Point", "points"]

_OURS = "nemorun."
_KNOWN_FINDERS = ("_frozen_importlib_external", "importlib_metadata")


class Point(NamedTuple):
    """One entry point of a group of ours, and the distribution (`name version`) that brings it."""

    group: str
    name: str
    value: str
    distribution: str


def points() -> list[Point]:
    """Return those that are installed; of a distribution that stands twice on the import path, the first's."""
    if _is_plain():
        return list(_read())
    from importlib_metadata import entry_points

    return [
        Point(one.group, one.name, one.value, _distribution(one))
        for one in entry_points()
        if one.group.startswith(_OURS)
    ]


def _is_plain() -> bool:
    """Whether everything installed stands in folders of the import path."""
    finders = (finder for finder in sys.meta_path if hasattr(finder, "find_distributions"))
    if any(getattr(finder, "__module__", "") not in _KNOWN_FINDERS for finder in finders):
        return False
    return not any(os.path.isfile(entry) or entry.endswith(".egg") for entry in _path())


def _path() -> list[str]:
    return [entry for entry in sys.path if isinstance(entry, str)]  # anything else is passed over by imports as well


def _read() -> Iterator[Point]:
    seen: set[str] = set()
    for entry in _path():
        try:
            names = os.listdir(entry or ".")
        except OSError:
            continue
        for name in names:
            stem, _, kind = name.lower().rpartition(".")
            if kind not in ("dist-info", "egg-info"):
                continue
            normal = re.sub(r"[-_.]+", "-", stem.partition("-")[0])
            if normal not in seen:
                seen.add(normal)
                yield from _points_of(os.path.join(entry, name))


def _points_of(folder: str) -> Iterator[Point]:
    text = _text(os.path.join(folder, "entry_points.txt"))
    if f"[{_OURS}" not in text:
        return
    head = _text(os.path.join(folder, "METADATA")) or _text(os.path.join(folder, "PKG-INFO"))
    group, distribution = "", _named(head)
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            group = line.strip("[]")
        elif group.startswith(_OURS) and line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield Point(group, name.strip(), value.strip(), distribution)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except (OSError, ValueError):  # it has none, or none that can be read
        return ""


def _distribution(point: "EntryPoint") -> str:
    # Read here: `Distribution.name` loads the whole parser of e-mails for these two lines.
    return _named((point.dist.read_text("METADATA") or point.dist.read_text("PKG-INFO") or "") if point.dist else "")


def _named(metadata: str) -> str:
    head, _, _ = metadata.partition("\n\n")
    fields = dict(line.split(": ", 1) for line in head.splitlines() if line.startswith(("Name: ", "Version: ")))
    return f"{fields.get('Name', 'unknown')} {fields.get('Version', '0')}"
