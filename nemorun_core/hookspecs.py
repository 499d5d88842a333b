"""The hooks that an installed package may implement, in a module named in the entry-point group `nemorun.hooks`.

Implementations are called one by one, in the order of their entry-point names; `tryfirst` and `trylast` are the only
priorities. One that raises stops no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from nemorun_core.contracts.plugin import Event, PreparedJob

__all__ = ["hookimpl", "nemorun_event", "nemorun_prepare_job", "nemorun_provenance"]

hookspec = pluggy.HookspecMarker("nemorun")
hookimpl = pluggy.HookimplMarker("nemorun")


@hookspec
def nemorun_prepare_job(job: PreparedJob) -> None:
    """Change task and executor of a job in place.

    Fires in `Experiment.add`, before the job's own `plugins`, once a job. What it changes is recorded under the name of
    its distribution. If it raises, `add` fails and names the distribution and how to switch it off. Since 0.1.
    """


@hookspec
def nemorun_event(event: Event) -> None:
    """Observe that a job's state changed.

    Fires in the driver, on its own thread, after the change is recorded; it holds up the driver while it runs. If it
    raises, that is reported once and hurts nothing. Since 0.1.
    """


@hookspec
def nemorun_provenance(experiment: Mapping[str, str]) -> Mapping[str, str] | None:
    """Return facts to keep in the experiment's definition, such as a commit; never a secret.

    `experiment` holds `id`, `title` and `cwd`. Fires once, in `Experiment.run`. If it raises, a warning is recorded in
    place of the facts. Since 0.1.
    """
