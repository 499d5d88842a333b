"""How a command drives an experiment in the foreground, or hands it over. Imported only by commands that do."""

from __future__ import annotations

import click

from nemorun_core._cli.lookup import say
from nemorun_core.experiment.facade import Experiment

__all__ = ["Spoken", "start"]


class Spoken(Experiment):
    """An experiment whose words go to standard error."""

    def _say(self, text: str) -> None:
        say(text)


def start(experiment: Spoken, *, detach: bool, sequential: bool = False) -> int:
    """Run an experiment to its end, or hand it over and print its id; return the exit code."""
    with experiment:
        experiment.run(detach=detach, sequential=sequential, tail_logs=not detach)
    if detach:
        click.echo(experiment.id)
        return 0
    return 0 if experiment.wait(0) else 1
