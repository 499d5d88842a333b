"""`nemorun experiment show`, `diff` and `delete`: what was run, what differs, and how it goes away."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import time
from typing import TYPE_CHECKING

import click

from nemorun_core._cli.grammar import Command, base_dir_option, json_option
from nemorun_core._cli.lookup import emit, experiment_argument, home_of, open_session, say
from nemorun_core.errors import StoreError, UsageError

if TYPE_CHECKING:
    from nemorun_core.experiment.session import Session
    from nemorun_core.model.definition import JobDefinition, Kinded

__all__ = ["check_quiet", "delete", "diff", "show"]


@click.command(cls=Command)
@experiment_argument()
@json_option
@base_dir_option
def show(id: str, as_json: bool, base_dir: str | None) -> None:
    """Show what was run: jobs, changes by plugins, provenance.

    JSON: `{"id", "title", "created", "cwd", "sequential", "direct", "provenance": {name: value}, "jobs": [{"id",
    "group", "until", "dependencies": [{"job", "condition"}], "tasks", "executors", "plugins": [each {"kind",
    "distribution", "fields"}], "changes": [{"by", "lines"}]}]}`.
    """
    session = open_session(id, base_dir)
    definition = session.definition
    if as_json:
        heads = {name: getattr(definition, name) for name in ("id", "title", "created", "cwd", "sequential", "direct")}
        jobs = [_job_record(session, job) for job in definition.jobs]
        emit({**heads, "provenance": definition.provenance, "jobs": jobs})
        return
    click.echo(
        f"{definition.id}\n  title: {definition.title}\n  created: {definition.created}\n  cwd: {definition.cwd}"
    )
    for number, job in enumerate(definition.jobs):
        after = ", ".join(f"{edge.upstream} ({edge.condition.value})" for edge in job.edges)
        click.echo(f"\nJob {number}: {job.id}{f', after {after}' if after else ''}")
        for what, kindeds in _parts(session, job).items():
            for kinded in kindeds:
                click.echo(f"  {what}: {_readable(session, what, kinded)}")
        for change in job.changes:
            click.echo(f"  changed by {change.by}:")
            for line in change.lines:
                click.echo(f"    {line}")
    click.echo("\nProvenance")
    for name, value in definition.provenance.items():
        click.echo(f"  {name}: {value}")


def _parts(session: Session, job: JobDefinition) -> dict[str, list[Kinded]]:
    executors = list(dict.fromkeys(job.executors))
    return {
        "task": list(job.tasks),
        "executor": [session.definition.executors[index] for index in executors],
        "plugin": list(job.plugins),
    }


def _job_record(session: Session, job: JobDefinition) -> dict[str, object]:
    import attrs

    return {
        "id": job.id,
        "group": job.group,
        "until": job.until.value,
        "dependencies": [{"job": edge.upstream, "condition": edge.condition.value} for edge in job.edges],
        "tasks": [attrs.asdict(task) for task in job.tasks],
        "executors": [attrs.asdict(session.definition.executors[index]) for index in job.executors],
        "plugins": [attrs.asdict(plugin) for plugin in job.plugins],
        "changes": [{"by": change.by, "lines": list(change.lines)} for change in job.changes],
    }


def _read(session: Session, what: str, kinded: Kinded) -> object:
    """Return what a record says. Tasks of the core are read; no plugin is imported, so none has to be installed."""
    if what == "task" and kinded.kind in ("script", "partial"):
        return session.registry.read_task(kinded)
    return {"kind": kinded.kind, **kinded.fields}


def _readable(session: Session, what: str, kinded: Kinded) -> str:
    value = _read(session, what, kinded)
    if not isinstance(value, dict):
        return repr(value)
    import attrs

    from nemorun_core.contracts.executor import Executor

    usual = {name: field.default for name, field in attrs.fields_dict(Executor).items()}
    given = [
        f"{name}={field!r}"
        for name, field in kinded.fields.items()
        if field not in (None, [], {}) and not (what == "executor" and name in usual and field == usual[name])
    ]
    return f"{kinded.kind}[{','.join(given)}]" if given else kinded.kind


@click.command(cls=Command)
@experiment_argument(name="a")
@experiment_argument(name="b")
@json_option
@base_dir_option
def diff(a: str, b: str, as_json: bool, base_dir: str | None) -> None:
    """Show where two experiments differ.

    Jobs, tasks, executors, plugins, dependencies and provenance are compared. The exit code is 0 either way.

    JSON: `{"a", "b", "differences": [{"where", "path", "a", "b"}]}`; `a` and `b` inside are texts, null where absent.
    """
    from nemorun_core.model.show import ABSENT, shown
    from nemorun_core.model.show import diff as compare

    one, two = open_session(a, base_dir), open_session(b, base_dir)
    found: list[dict[str, str | None]] = []

    def note(where: str, left: object, right: object) -> None:
        for difference in compare(left, right):
            sides = [None if side is ABSENT else shown(side) for side in (difference.left, difference.right)]
            found.append({"where": where, "path": difference.path, "a": sides[0], "b": sides[1]})

    jobs = [{job.id: job for job in session.definition.jobs} for session in (one, two)]
    for name in dict.fromkeys([*jobs[0], *jobs[1]]):
        left, right = jobs[0].get(name), jobs[1].get(name)
        if left is None or right is None:
            missing = {"a": None if left is None else "present", "b": None if right is None else "present"}
            found.append({"where": f"job {name}", "path": "$", **missing})
            continue
        sides = _parts(one, left), _parts(two, right)
        for what in sides[0]:
            values = [
                [_read(session, what, kinded) for kinded in side[what]]
                for session, side in ((one, sides[0]), (two, sides[1]))
            ]
            for index in range(max(map(len, values))):
                pair = [side[index] if index < len(side) else ABSENT for side in values]
                note(f"job {name} {what}{f' {index}' if max(map(len, values)) > 1 else ''}", *pair)
        note(f"job {name} dependencies", *([str(edge) for edge in job.edges] for job in (left, right)))
    note("provenance", one.definition.provenance, two.definition.provenance)
    if as_json:
        emit({"a": one.definition.id, "b": two.definition.id, "differences": found})
        return
    for entry in found:
        click.echo(f"{entry['where']} {entry['path']}: {entry['a'] or '<absent>'} -> {entry['b'] or '<absent>'}")
    if not found:
        say(f"{one.definition.id} and {two.definition.id} are the same.")


@click.command(cls=Command)
@experiment_argument(many=True, required=False)
@click.option("--older-than", metavar="AGE", help="All that were created longer ago: 30d, 12h, 2w.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@base_dir_option
def delete(ids: tuple[str, ...], older_than: str | None, yes: bool, base_dir: str | None) -> None:
    """Delete experiments with their records and logs.

    What still runs is refused. Prints the ids that were deleted. With --older-than it asks before, on a terminal, and
    passes over what runs.
    """
    from nemorun_core.contracts.host import iso_time

    if bool(ids) == bool(older_than):
        raise UsageError("name the experiments to delete, or give --older-than.", hint="nemorun experiment list")
    if older_than:
        limit = iso_time(time.time() - _age(older_than))
        ids = tuple(one.id for one in home_of(base_dir).summaries() if one.created < limit)
        if not ids:
            say(f"No experiment is older than {older_than}.")
        elif not yes and sys.stdin.isatty():
            click.confirm(f"Delete {len(ids)} experiments created before {limit}?", abort=True, err=True)
    for session in [open_session(reference, base_dir) for reference in ids] if not older_than else ():
        check_quiet(session, "deleted")
    for reference in ids:
        session = open_session(reference, base_dir)
        try:
            check_quiet(session, "deleted")
        except UsageError as error:
            say(f"Kept: {error.message}")
            continue
        _remove(session)
        click.echo(session.definition.id)


def _age(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if match is None:
        raise UsageError(f"--older-than {text}: expected a number and one of s, m, h, d, w.", hint="--older-than 30d")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[match[2]]


def check_quiet(session: Session, what: str) -> None:
    """Refuse to touch an experiment that is driven, or has jobs that may run. Raises UsageError."""
    busy = [job.id for job in session.graph().jobs.values() if job.intended and not job.state.is_final]
    if busy or session.driver():
        name, which = session.definition.id, ", ".join(busy[:5])
        raise UsageError(
            f"{name} still runs{f' ({which})' if busy else ''}: it cannot be {what}.",
            hint=f"nemorun experiment cancel {name} --all && nemorun experiment wait {name}",
        )


def _remove(session: Session) -> None:
    """Remove the folder, its definition first, so that an interrupt leaves no half of an experiment in the list."""
    from nemorun_core.store.files import guarded
    from nemorun_core.store.lock import Lock

    folder, lock = session.folder, Lock(session.folder.lock)
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
