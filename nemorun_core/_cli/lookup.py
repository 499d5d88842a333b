"""Finding experiments and jobs by what people type, and completing it for the shell."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nemorun_core.errors import UsageError

if TYPE_CHECKING:
    from nemorun_core.experiment.session import Session
    from nemorun_core.store.layout import Folder, Home

__all__ = ["emit", "experiment_argument", "find", "home_of", "job_argument", "open_session", "say", "warn_orphaned"]

F = TypeVar("F", bound=Callable[..., Any])


def emit(value: object) -> None:
    """Print a value as one line of JSON."""
    click.echo(json.dumps(value))


def say(text: str) -> None:
    """Print words for people: on standard error, so that standard output holds data alone."""
    click.echo(text, err=True)


def home_of(base_dir: str | None) -> Home:
    """Return the home that a command was given. Raises UsageError for a `--base-dir` that is not there."""
    from nemorun_core.store.layout import Home

    return Home.locate(base_dir)


def find(reference: str, base_dir: str | None) -> tuple[str, Folder]:
    """Return id and folder of the experiment that `reference` means: an id, a title (its newest), or a unique prefix.

    Raises:
        UsageError: none or several are meant; says which.
    """
    from nemorun_core.model.key import folder_name

    home = home_of(base_dir)
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
    raise unknown


def _newest(parent: str, title: str) -> tuple[str, Folder] | None:
    """Return the newest experiment of a title, all of which stand in one folder; None if there is none."""
    from nemorun_core.store.layout import Folder

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


def open_session(reference: str, base_dir: str | None) -> Session:
    """Return the experiment that `reference` means, to be asked. Raises UsageError, StoreError."""
    from nemorun_core.experiment.session import Session
    from nemorun_core.registry import default_registry

    folder = find(reference, base_dir)[1]
    return Session(folder.read_definition(), folder, default_registry())


def warn_orphaned(session: Session, base_dir: str | None) -> None:
    """Say how to go on where work is left and nobody drives."""
    if session.is_orphaned(session.graph()):
        from nemorun_core.display.text import shell_command

        command = shell_command("resume", session.definition.id, base_dir)
        say(f"Work is left and no process drives it. Go on with: {command}")


def experiment_argument(*, many: bool = False, required: bool = True, name: str = "id") -> Callable[[F], F]:
    """Add the argument that names an experiment, or several."""
    return click.argument(
        "ids" if many else name,
        metavar=f"[{name.upper()}]..." if many and not required else f"{name.upper()}..." if many else name.upper(),
        nargs=-1 if many else 1,
        required=required,
        shell_complete=_complete_ids,
    )


def job_argument(*, many: bool = False) -> Callable[[F], F]:
    """Add the argument that names jobs of the experiment `id`."""
    return click.argument(
        "jobs" if many else "job",
        metavar="[JOB]..." if many else "[JOB]",
        nargs=-1 if many else 1,
        required=False,
        shell_complete=_complete_jobs,
    )


def _complete_ids(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    try:
        ids = sorted(id for id, _ in home_of(ctx.params.get("base_dir")).folders())
    except Exception:  # nothing may be printed between the user's keys
        return []
    return [_typed(id) for id in ids if id.startswith(incomplete)]


def _complete_jobs(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    try:
        folder = find(str(ctx.params["id"]), ctx.params.get("base_dir"))[1]
        with open(folder.definition, encoding="ascii") as stream:
            jobs = [str(job["id"]) for job in json.load(stream)["jobs"]]
    except Exception:  # nothing may be printed between the user's keys
        return []
    return [_typed(job) for job in jobs if job.startswith(incomplete)]


def _typed(word: str) -> str:
    """Return a word as it is typed: bash takes completions as they are, zsh and fish quote them."""
    return shlex.quote(word) if os.environ.get("_NEMORUN_COMPLETE", "").startswith("bash") else word
