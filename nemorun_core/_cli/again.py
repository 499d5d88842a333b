"""`nemorun experiment resume` and `rerun`, and how every command drives an experiment in the foreground."""

from __future__ import annotations

import attrs
import click

from nemorun_core._cli.grammar import Command, base_dir_option
from nemorun_core._cli.lookup import experiment_argument, find, job_argument, open_session, say
from nemorun_core.errors import UsageError
from nemorun_core.experiment.facade import Experiment
from nemorun_core.model.state import State

__all__ = ["Spoken", "rerun", "resume", "start"]


class Spoken(Experiment):
    """An experiment whose words go to standard error."""

    def _say(self, text: str) -> None:
        say(text)

    def resume(self, *, detach: bool, take_over: bool) -> None:
        """Drive on what another process left, here until the block is left, or in a process of its own."""
        session = self._running_session("resume")
        if detach:
            from nemorun_core.engine.supervisor import detach as start_supervisor

            session.check_resumable(take_over=take_over)
            start_supervisor(session.folder, take_over=take_over)
            return
        from nemorun_core.display.console import Console

        engine = session.take_up(take_over=take_over)
        self._told = False
        self._console = Console(session, list(engine.graph.jobs.values()), tail_all=False, quiet=False)
        engine.tell = self._console.tell
        engine.start()
        self._console.start()


def start(experiment: Spoken, *, detach: bool, sequential: bool = False) -> int:
    """Run an experiment to its end, or hand it over and print its id; return the exit code."""
    with experiment:
        experiment.run(detach=detach, sequential=sequential, tail_logs=not detach)
    if detach:
        click.echo(experiment.id)
        return 0
    return 0 if experiment.wait(0) else 1


@click.command(cls=Command)
@experiment_argument()
@click.option("--detach", "-d", is_flag=True, help="Leave the driving to a process of its own, and return.")
@click.option("--take-over", is_flag=True, help="Also from a driver that lives or cannot be judged; it will stop.")
@base_dir_option
def resume(id: str, detach: bool, take_over: bool, base_dir: str | None) -> int:
    """Go on with an experiment whose driver has gone. The exit code is 1 if a job did not succeed."""
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
        chosen = {name for name in chosen if graph.jobs[name].state is not State.SUCCEEDED}
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
