"""An experiment's folder as one tar, to keep or to send; and its end."""

from __future__ import annotations

import contextlib
import os
import shutil
import tarfile
from typing import IO

from nemorun_core.errors import StoreError, UsageError
from nemorun_core.model.key import folder_name
from nemorun_core.store.files import guarded, make_folder
from nemorun_core.store.layout import Folder, Home
from nemorun_core.store.lock import Lock

__all__ = ["pack", "remove", "unpack"]

_LEFT_OUT = ("lock", "requests")


def pack(folder: Folder, stream: IO[bytes]) -> None:
    """Write an experiment's folder as one tar, without what belongs to the processes that drove it."""

    def chosen(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        parts = entry.name.split("/")
        if len(parts) == 2 and parts[1] in _LEFT_OUT:
            return None
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry if entry.isreg() or entry.isdir() else None

    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        archive.add(folder.path, arcname=os.path.basename(folder.path), filter=chosen)


def unpack(stream: IO[bytes], home: Home, what: str) -> str:
    """Read what `pack` wrote into a home, and return the experiment's id; all of it or nothing is there afterwards.

    Args:
        what: names the source in errors.

    Raises:
        UsageError: it is no such tar, or the experiment is here already; StoreError: the disk refused.
    """
    arriving = f"{home.path}.arriving-{os.getpid()}"  # beside the experiments, so that it is none yet
    make_folder(arriving)
    try:
        name = _extract(stream, arriving, what)
        definition = Folder(os.path.join(arriving, name)).read_definition()
        if definition.id != name:
            raise StoreError(f"{what}: the folder {name!r} holds {definition.id!r}.", hint="Export it anew.")
        if any(id == name for id, _ in home.folders()):
            raise UsageError(f"{name} is here already.", hint=f"nemorun experiment delete {name}")
        parent = os.path.join(home.path, folder_name(definition.title, 100))
        make_folder(parent)
        with guarded("write", parent):
            os.rename(os.path.join(arriving, name), os.path.join(parent, name))
    finally:
        shutil.rmtree(arriving, ignore_errors=True)
    return name


def _extract(stream: IO[bytes], target: str, file: str) -> str:
    """Extract plain files and folders, all below one folder, and return that folder's name. Nothing else is believed:
    no links, devices, owners or modes, and no name that leads elsewhere."""
    top = ""
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as archive:
            for entry in archive:
                parts = entry.name.split("/")
                top = top or parts[0]
                plain = (entry.isreg() or entry.isdir()) and not {"", ".", ".."} & set(parts) and "\0" not in entry.name
                if not plain or parts[0] != top:
                    raise UsageError(
                        f"{file} is no export of nemorun: it holds {entry.name!r}.", hint="Nothing was imported."
                    )
                path = os.path.join(target, *parts)
                if entry.isdir():
                    os.makedirs(path, mode=0o700, exist_ok=True)
                    continue
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
                content = archive.extractfile(entry)
                assert content is not None
                mode = 0o700 if entry.mode & 0o100 else 0o600
                with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as written:
                    shutil.copyfileobj(content, written)
    except (tarfile.TarError, EOFError, FileExistsError) as error:
        raise UsageError(f"{file} is no export of nemorun: {error}.", hint="Nothing was imported.") from None
    if not top:
        raise UsageError(f"{file} is empty.", hint="Nothing was imported.")
    return top


def remove(folder: Folder) -> None:
    """Delete an experiment: its definition first, so that an interrupt leaves no half of one in the list.

    Raises:
        StoreError: a process drives it, or the disk refused.
    """
    lock = Lock(folder.lock)
    if not lock.acquire():
        raise StoreError(f"{folder.path} is driven by another process.", hint="Wait for it, or cancel its jobs.")
    try:
        with guarded("delete", folder.path):
            os.unlink(folder.definition)
            shutil.rmtree(folder.path)
    finally:
        lock.abandon()
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(folder.path))
