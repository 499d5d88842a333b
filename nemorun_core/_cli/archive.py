"""`nemorun experiment export` and `import`: an experiment as one tar, to keep or to send."""

from __future__ import annotations

import os
import sys

import click

from nemorun_core._cli.grammar import Command, base_dir_option
from nemorun_core._cli.lookup import experiment_argument, home_of, open_session
from nemorun_core.errors import UsageError

__all__ = ["export", "import_"]


@click.command(cls=Command)
@experiment_argument()
@click.option("--output", "-o", metavar="FILE", help="Where to; '-' is standard output. By default ID.tar.")
@base_dir_option
def export(id: str, output: str | None, base_dir: str | None) -> None:
    """Write an experiment with its logs into one tar.

    Prints the file's name. What still runs is refused.
    """
    from nemorun_core.store.archive import pack
    from nemorun_core.store.files import guarded

    session = open_session(id, base_dir)
    session.check_quiet("exported")
    if output == "-":
        pack(session.folder, sys.stdout.buffer)
        return
    target = output or f"{session.definition.id}.tar"
    temporary = f"{target}.{os.getpid()}.tmp"
    with guarded("write", target):
        try:
            with open(temporary, "xb") as stream:
                pack(session.folder, stream)
            os.replace(temporary, target)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
    click.echo(target)


@click.command("import", cls=Command)
@click.argument("file", type=click.Path())
@base_dir_option
def import_(file: str, base_dir: str | None) -> None:
    """Read back what `export` wrote; print the id.

    FILE may be '-', standard input.
    """
    from nemorun_core.store.archive import unpack
    from nemorun_core.store.files import guarded

    if file != "-" and not os.path.isfile(file):
        raise UsageError(f"there is no file {file!r}.", hint="nemorun experiment export ID writes one.")
    with guarded("read", file), open(0 if file == "-" else file, "rb", closefd=file != "-") as stream:
        click.echo(unpack(stream, home_of(base_dir), file))
