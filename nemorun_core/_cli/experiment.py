"""`nemorun experiment`: what runs and what ran. Looking, following, cancelling and waiting stand here."""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import click

from nemorun_core._cli.grammar import Command, Group, base_dir_option, json_option
from nemorun_core._cli.lookup import (
    emit,
    experiment_argument,
    find,
    home_of,
    job_argument,
    open_session,
    say,
    warn_orphaned,
)
from nemorun_core.errors import UsageError

if TYPE_CHECKING:
    from nemorun_core.engine.state import Graph
    from nemorun_core.experiment.session import Session

__all__ = ["cancel", "experiment", "list_", "logs", "status", "wait"]

_TIME_OUT = 124
_MANY = 10
_PAGED = 100


@click.group(
    cls=Group,
    path="experiment",
    commands_of={
        "list": "experiment:list_",
        "status": "experiment:status",
        "logs": "experiment:logs",
        "cancel": "experiment:cancel",
        "wait": "experiment:wait",
        "resume": "again:resume",
        "rerun": "again:rerun",
        "show": "records:show",
        "sync": "records:sync",
        "diff": "records:diff",
        "delete": "records:delete",
        "export": "archive:export",
        "import": "archive:import_",
    },
)
def experiment() -> None:
    """Look at experiments, and act on them.

    ID is an experiment's id, the beginning of one, or a title, which means its newest. JOB is a job's id or its number.
    """


@click.command("list", cls=Command)
@click.argument("title", required=False, default=None)
@click.option("--limit", "-n", type=click.IntRange(min=1), metavar="N", help="Only the newest N.")
@json_option
@base_dir_option
def list_(title: str | None, limit: int | None, as_json: bool, base_dir: str | None) -> None:
    """List experiments, newest first: id, time, title.

    JSON: `[{"id", "title", "created", "folder"}]`.
    """
    home = home_of(base_dir)
    found = home.summaries(title)[::-1][:limit]
    if as_json:
        emit([{"id": one.id, "title": one.title, "created": one.created, "folder": one.folder.path} for one in found])
        return
    if not found:
        say(f"There is no experiment{f' with the title {title!r}' if title else ''} in {home.path} yet.")
        return
    width = max(len(one.id) for one in found)
    room = os.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for one in found:
        line = f"{one.id:{width}}  {one.created[:19].replace('T', ' ')}Z"
        if room < len(line) + 10:
            line = one.id  # an id that is cut off is of no use
        elif one.title != one.id.rpartition("_")[0]:
            line += f"  {one.title}"[: room - len(line)]
        click.echo(line)


@click.command(cls=Command)
@experiment_argument(many=True)
@click.option("--follow", "-f", is_flag=True, help="Go on until all jobs have ended; a live table on a terminal.")
@json_option
@base_dir_option
def status(ids: tuple[str, ...], follow: bool, as_json: bool, base_dir: str | None) -> None:
    """Show the state of every job.

    JSON, one line an experiment: `{"id", "title", "state", "created", "driver", "jobs": [{"id", "state", "reason",
    "exit_code", "executor", "handle", "local_dir", "attempt", "started", "ended", "members": [the same per
    member]}]}`. `driver` is `{"host", "pid"}`, or null where no process drives the experiment.
    """
    from nemorun_core.engine.summary import overall_state, read_summary
    from nemorun_core.experiment.status import status_of, status_text

    for number, reference in enumerate(ids):
        folder = find(reference, base_dir)[1]
        ended = read_summary(folder)
        if ended is not None:  # of a large one: everything is known without its journal and its definition
            facts = {"id": ended.id, "title": ended.title, "state": ended.state, "created": ended.created}
            jobs, driver, session = status_of(folder, ended.rows), None, None
        else:
            session = open_session(reference, base_dir)
            if follow and not as_json and sys.stdout.isatty():
                from nemorun_core.display._rich import follow_table

                follow_table(session.graph, is_over=partial(_is_over, session))
            elif follow:
                session.wait()
            graph, definition = session.graph(), session.definition
            facts = {
                "id": definition.id,
                "title": definition.title,
                "state": overall_state(graph),
                "created": definition.created,
            }
            jobs, driver = session.status(graph), session.driver()
        if as_json:
            emit({**facts, "driver": driver, "jobs": [{"id": id, **job} for id, job in jobs.items()]})
        elif not (session and follow and sys.stdout.isatty()):
            text = ("\n" if number else "") + status_text(facts["id"], jobs)
            (click.echo_via_pager if len(jobs) > _PAGED and sys.stdout.isatty() else click.echo)(text)
        if session:
            warn_orphaned(session, base_dir)


def _is_over(session: Session, graph: Graph) -> bool:
    return not graph.open or session.is_orphaned(graph)


@click.command(cls=Command)
@experiment_argument()
@job_argument()
@click.option("--follow", "-f", is_flag=True, help="Go on until the jobs have ended.")
@click.option("--tail", "-n", type=click.IntRange(min=0), metavar="N", help="Only the last N lines of each stream.")
@click.option("--member", type=int, metavar="M", help="Only this member of a group, counted from 0.")
@click.option("--stream", metavar="S", help="Only this stream: out, err, out.3 for rank 3.")
@click.option("--regex", metavar="R", help="Only lines in which this is found.")
@base_dir_option
def logs(
    id: str,
    job: str | None,
    follow: bool,
    tail: int | None,
    member: int | None,
    stream: str | None,
    regex: str | None,
    base_dir: str | None,
) -> None:
    """Print the log of a job, or of all.

    Where several streams are shown, each line begins with whose it is.
    """
    session = open_session(id, base_dir)
    chosen = [session.job_id(job)] if job is not None else list(session.graph().jobs)
    session.show_logs(
        chosen, following=follow, member=member, stream=stream, tail=tail, regex=regex, prefixed=job is None
    )
    for name in chosen if job is not None else ():
        one = session.graph().jobs[name]
        if one.started is None:
            say(f"{name} was never started: {one.state}{f' ({one.reason})' if one.reason else ''}.")
    warn_orphaned(session, base_dir)


@click.command(cls=Command)
@experiment_argument()
@job_argument(many=True)
@click.option("--all", "everything", is_flag=True, help="All jobs of the experiment.")
@base_dir_option
def cancel(id: str, jobs: tuple[str, ...], everything: bool, base_dir: str | None) -> None:
    """Cancel jobs; what has ended is left alone."""
    session = open_session(id, base_dir)
    if bool(jobs) == everything:
        raise UsageError(
            f"name the jobs of {session.definition.id} to cancel, or all: not {'both' if jobs else 'nothing'}.",
            hint=f"nemorun experiment cancel {session.definition.id} --all",
        )
    graph = session.graph()
    chosen = [session.job_id(job) for job in jobs] or list(graph.jobs)
    running = [name for name in chosen if not graph.jobs[name].state.is_final]
    for name in chosen if not everything else ():
        if name not in running:
            say(f"{name} has ended already: {graph.jobs[name].state}.")
    if running:
        session.cancel(running)
        say(f"Cancelling {', '.join(running) if len(running) <= 5 else f'{len(running)} jobs'}.")
    elif everything:
        say(f"Every job of {session.definition.id} has ended already.")


@click.command(cls=Command)
@experiment_argument(many=True)
@click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="S", help="Give up after S seconds, with exit code 124."
)
@base_dir_option
def wait(ids: tuple[str, ...], timeout: float | None, base_dir: str | None) -> int:
    """Wait until all jobs have ended.

    The exit code is 1 if one did not succeed, 124 after a time-out.
    """
    from nemorun_core.engine.summary import overall_state

    deadline = None if timeout is None else time.monotonic() + timeout
    code = 0
    for session in [open_session(reference, base_dir) for reference in ids]:
        succeeded = session.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        graph = session.graph()
        if graph.open:
            say(f"{session.definition.id}: {graph.open} of {len(graph.jobs)} jobs have not ended after {timeout:g} s.")
            return _TIME_OUT
        say(f"{session.definition.id}: {overall_state(graph)}")
        if not succeeded:
            code = 1
            others = [job for job in graph.jobs.values() if job.state.value != "SUCCEEDED"]
            for job in others[:_MANY]:
                say(f"  {job.id}: {job.state}{f' ({job.reason})' if job.reason else ''}")
            if len(others) > _MANY:
                say(f"  and {len(others) - _MANY} more")
    return code
