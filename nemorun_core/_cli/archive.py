"""`nemorun experiment export` and `import`: an experiment as one tar, to keep or to send."""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
from typing import IO

import click

from nemorun_core._cli.grammar import Command, base_dir_option
from nemorun_core._cli.lookup import experiment_argument, home_of, open_session
from nemorun_core.errors import StoreError, UsageError

__all__ = ["export", "import_"]

# What belongs to the processes that drove it, and not to what it was.
_LEFT_OUT = ("lock", "requests")


@click.command(cls=Command)
@experiment_argument()
@click.option("--output", "-o", metavar="FILE", help="Where to; '-' is standard output. By default ID.tar.")
@base_dir_option
def export(id: str, output: str | None, base_dir: str | None) -> None:
    """Write an experiment with its logs into one tar.

    Prints the file's name. What still runs is refused.
    """
    from nemorun_core._cli.records import check_quiet
    from nemorun_core.store.files import guarded

    session = open_session(id, base_dir)
    check_quiet(session, "exported")
    path = session.folder.path
    if output == "-":
        _write(sys.stdout.buffer, path)
        return
    target = output or f"{session.definition.id}.tar"
    temporary = f"{target}.{os.getpid()}.tmp"
    with guarded("write", target):
        try:
            with open(temporary, "xb") as stream:
                _write(stream, path)
            os.replace(temporary, target)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
    click.echo(target)


def _write(stream: IO[bytes], path: str) -> None:
    name = os.path.basename(path)

    def chosen(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        parts = entry.name.split("/")
        if len(parts) == 2 and parts[1] in _LEFT_OUT:
            return None
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry if entry.isreg() or entry.isdir() else None

    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        archive.add(path, arcname=name, filter=chosen)


@click.command("import", cls=Command)
@click.argument("file", type=click.Path())
@base_dir_option
def import_(file: str, base_dir: str | None) -> None:
    """Read back what `export` wrote; print the id.

    FILE may be '-', standard input.
    """
    from nemorun_core.model.key import folder_name
    from nemorun_core.store.files import guarded, make_folder
    from nemorun_core.store.layout import Folder

    home = home_of(base_dir)
    arriving = f"{home.path}.arriving-{os.getpid()}"  # beside the experiments, so that it is none yet
    if file != "-" and not os.path.isfile(file):
        raise UsageError(f"there is no file {file!r}.", hint="nemorun experiment export ID writes one.")
    make_folder(arriving)
    try:
        with guarded("read", file), open(0 if file == "-" else file, "rb", closefd=file != "-") as stream:
            name = _extract(stream, arriving, file)
        definition = Folder(os.path.join(arriving, name)).read_definition()
        if definition.id != name:
            raise StoreError(
                f"{file}: the folder {name!r} holds the experiment {definition.id!r}.", hint="Export it anew."
            )
        if any(id == name for id, _ in home.folders()):
            raise UsageError(f"{name} is here already.", hint=f"nemorun experiment delete {name}")
        parent = os.path.join(home.path, folder_name(definition.title, 100))
        make_folder(parent)
        with guarded("write", parent):
            os.rename(os.path.join(arriving, name), os.path.join(parent, name))
    finally:
        shutil.rmtree(arriving, ignore_errors=True)
    click.echo(name)


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
