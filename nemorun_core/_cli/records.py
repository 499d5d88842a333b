"""`nemorun experiment show`, `diff` and `delete`: what was run, what differs, and how it goes away."""

from __future__ import annotations

import re
import sys
import time
from typing import TYPE_CHECKING

import click

from nemorun_core._cli.grammar import Command, base_dir_option, json_option
from nemorun_core._cli.lookup import emit, experiment_argument, find, home_of, job_argument, open_session, say
from nemorun_core.errors import UsageError

if TYPE_CHECKING:
    from nemorun_core.model.definition import Kinded

__all__ = ["delete", "diff", "show", "sync"]


@click.command(cls=Command)
@experiment_argument()
@json_option
@base_dir_option
def show(id: str, as_json: bool, base_dir: str | None) -> None:
    """Show what was run: jobs, changes by plugins, provenance.

    JSON: `{"id", "title", "created", "cwd", "sequential", "direct", "provenance": {name: value}, "jobs": [{"id",
    "group", "until", "dependencies": [{"job", "condition"}], "tasks", "executors", "plugins": [each {"kind",
    "distribution", "fields"}], "bundles": [a digest a member], "changes": [{"by", "lines"}]}], "bundles": [{"digest",
    "packager", "source", "folders", "replaces", "files", "size_bytes", "left_out"}]}`.
    """
    from nemorun_core.experiment.compare import job_record, parts

    definition = find(id, base_dir)[1].read_definition()
    if as_json:
        import attrs

        heads = {name: getattr(definition, name) for name in ("id", "title", "created", "cwd", "sequential", "direct")}
        jobs = [job_record(definition, job) for job in definition.jobs]
        bundles = [attrs.asdict(bundle) for bundle in definition.bundles]
        emit({**heads, "provenance": definition.provenance, "jobs": jobs, "bundles": bundles})
        return
    click.echo(
        f"{definition.id}\n  title: {definition.title}\n  created: {definition.created}\n  cwd: {definition.cwd}"
    )
    for number, job in enumerate(definition.jobs):
        after = ", ".join(f"{edge.upstream} ({edge.condition.value})" for edge in job.edges)
        click.echo(f"\nJob {number}: {job.id}{f', after {after}' if after else ''}")
        for what, kindeds in parts(definition, job).items():
            for kinded in kindeds:
                click.echo(f"  {what}: {_readable(what, kinded)}")
        if job.bundles:
            click.echo(f"  bundle: {', '.join(digest[:13] or 'none' for digest in job.bundles)}")
        for change in job.changes:
            click.echo(f"  changed by {change.by}:")
            for line in change.lines:
                click.echo(f"    {line}")
    for bundle in definition.bundles:
        click.echo(f"\nBundle {bundle.digest[:13]}, by {bundle.packager} of {bundle.source}")
        click.echo(f"  {bundle.files} files, {bundle.size_bytes} bytes")
        for line in bundle.left_out:
            click.echo(f"  left out: {line}")
    click.echo("\nProvenance")
    for name, value in definition.provenance.items():
        click.echo(f"  {name}: {value}")


def _readable(what: str, kinded: Kinded) -> str:
    from nemorun_core.experiment.compare import read
    from nemorun_core.registry import default_registry

    value = read(default_registry(), kinded)
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
    from nemorun_core.experiment.compare import differences
    from nemorun_core.registry import default_registry

    one, two = (find(reference, base_dir)[1].read_definition() for reference in (a, b))
    found = differences(one, two, default_registry())
    if as_json:
        emit({"a": one.id, "b": two.id, "differences": found})
        return
    for entry in found:
        click.echo(f"{entry['where']} {entry['path']}: {entry['a'] or '<absent>'} -> {entry['b'] or '<absent>'}")
    if not found:
        say(f"{one.id} and {two.id} are the same.")


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
    from nemorun_core.store.archive import remove

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
        session.check_quiet("deleted")
    for reference in ids:
        session = open_session(reference, base_dir)
        try:
            session.check_quiet("deleted")
        except UsageError as error:
            say(f"Kept: {error.message}")
            continue
        remove(session.folder)
        click.echo(session.definition.id)


def _age(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if match is None:
        raise UsageError(f"--older-than {text}: expected a number and one of s, m, h, d, w.", hint="--older-than 30d")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[match[2]]


@click.command(cls=Command)
@experiment_argument()
@job_argument(many=True)
@click.option("--to", type=click.Path(file_okay=False), metavar="DIR", help="Where to; by default a folder of the id.")
@json_option
@base_dir_option
def sync(id: str, jobs: tuple[str, ...], to: str | None, as_json: bool, base_dir: str | None) -> None:
    """Bring the outputs that jobs declare.

    Of all jobs that declare some, where none is named. They come to DIR/JOB/FILE, of groups to DIR/JOB/MEMBER/FILE.

    JSON: `[{"job", "member", "to", "files": [names below "to"]}]`.
    """
    session = open_session(id, base_dir)
    chosen = [session.job_id(job) for job in jobs] or session.with_outputs()
    if not chosen:
        raise UsageError(
            f"no job of {session.definition.id} declares outputs.", hint="Say which: outputs=['results/*.json']."
        )
    brought = []
    for one in session.sync(chosen, to):
        brought.append(one._asdict())
        say(one.text())
    if as_json:
        emit(brought)
