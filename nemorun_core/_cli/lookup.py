"""Finding experiments and jobs by what people type, and completing it for the shell."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

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
    """Return id and folder of the experiment that is meant. Raises UsageError where that is none or several."""
    from nemorun_core.store import search

    return search.find(home_of(base_dir), reference)


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
