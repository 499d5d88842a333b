"""`nemorun experiment resume` and `rerun`: going on with what stopped, and doing it again."""

from __future__ import annotations

import click

from nemorun_core._cli.grammar import Command, base_dir_option
from nemorun_core._cli.lookup import experiment_argument, find, job_argument, open_session, say
from nemorun_core.errors import UsageError

__all__ = ["rerun", "resume"]


@click.command(cls=Command)
@experiment_argument()
@click.option("--detach", "-d", is_flag=True, help="Leave the driving to a process of its own, and return.")
@click.option("--take-over", is_flag=True, help="Also from a driver that lives or cannot be judged; it will stop.")
@base_dir_option
def resume(id: str, detach: bool, take_over: bool, base_dir: str | None) -> int:
    """Go on with an experiment whose driver has gone.

    The exit code is 1 if a job did not succeed.
    """
    from nemorun_core._cli.driving import Spoken

    experiment = Spoken.from_id(find(id, base_dir)[0], base_dir)
    assert isinstance(experiment, Spoken)
    with experiment:
        experiment.resume(detach=detach, take_over=take_over)
    if detach:
        click.echo(experiment.id)
        return 0
    return 0 if experiment.wait(0) else 1


@click.command(cls=Command)
@experiment_argument()
@job_argument(many=True)
@click.option("--failed", is_flag=True, help="Only the jobs that did not succeed.")
@click.option("--detach", "-d", is_flag=True, help="Return when it was handed over; prints the id.")
@base_dir_option
def rerun(id: str, jobs: tuple[str, ...], failed: bool, detach: bool, base_dir: str | None) -> int:
    """Run an experiment again, as a new one.

    All of it, the jobs named, or those that did not succeed. Dependencies among the chosen jobs are kept; those on
    other jobs count as fulfilled.
    """
    import attrs

    from nemorun_core._cli.driving import Spoken, start

    experiment_id = find(id, base_dir)[0]
    session = open_session(experiment_id, base_dir)
    chosen = {session.job_id(job) for job in jobs} or {job.id for job in session.definition.jobs}
    graph = session.graph()
    if graph.open:
        raise UsageError(
            f"{experiment_id} has {graph.open} jobs that have not ended.",
            hint=f"nemorun experiment wait {experiment_id}",
        )
    if failed:
        chosen = {name for name in chosen if graph.jobs[name].state.value != "SUCCEEDED"}
    if not chosen:
        say(f"Every job of {experiment_id} has succeeded: nothing to run again.")
        return 0
    experiment = Spoken.from_id(experiment_id, base_dir)
    assert isinstance(experiment, Spoken)
    experiment.reset()
    draft = experiment._draft
    draft.restore(
        attrs.evolve(job, edges=tuple(edge for edge in job.edges if edge.upstream in chosen))
        for job in list(draft.jobs.values())
        if job.id in chosen
    )
    return start(experiment, detach=detach, sequential=session.definition.sequential)
