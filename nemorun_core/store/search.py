"""Finding an experiment by what people type: an id, a title, or the beginning of an id."""

from __future__ import annotations

import json
import os
import shlex

from nemorun_core.errors import UsageError
from nemorun_core.model.key import folder_name
from nemorun_core.store.layout import Folder, Home

__all__ = ["find"]


def find(home: Home, reference: str) -> tuple[str, Folder]:
    """Return id and folder of the experiment that `reference` means: an id, a title (its newest), or a unique prefix.

    Raises:
        UsageError: none or several are meant; says which.
    """
    try:
        return reference, home.find(reference)
    except UsageError as error:
        unknown = error
    if newest := _newest(os.path.join(home.path, folder_name(reference, 100)), reference):
        return newest
    meant = sorted((id, folder) for id, folder in home.folders() if reference and id.startswith(reference))
    if len(meant) == 1:
        return meant[0]
    if meant:
        listed = ", ".join(id for id, _ in meant[:5]) + (", …" if len(meant) > 5 else "")
        raise UsageError(
            f"{reference!r} begins the ids of {len(meant)} experiments: {listed}.", hint="Type more of the id."
        )
    words = [id for id, _ in home.folders() if reference in id.split(" ")[:-1] or reference == id.rpartition(" ")[2]]
    if words:
        raise UsageError(unknown.message, hint=f"An id with spaces needs quotes: {shlex.quote(words[0])}")
    raise unknown


def _newest(parent: str, title: str) -> tuple[str, Folder] | None:
    """Return the newest experiment of a title, all of which stand in one folder; None if there is none."""
    wanted, found = f'"title":{json.dumps(title)},', []
    for id in os.listdir(parent) if os.path.isdir(parent) else ():
        folder = Folder(os.path.join(parent, id))
        try:
            with open(folder.definition, encoding="ascii", errors="replace") as stream:
                head = stream.read(4096)
        except OSError:
            continue
        if wanted in head:
            found.append((head.partition('"created":"')[2][:24], id, folder))
    return max(found, key=lambda entry: entry[:2])[1:] if found else None
