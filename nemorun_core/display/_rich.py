"""The live table. The one module that imports rich."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nemorun_core.engine.state import Graph, Job
from nemorun_core.model.state import State

__all__ = ["LiveTable", "follow_table", "status_table"]

_REDRAW_SECONDS = 1.0

_STYLES = {
    State.UNSUBMITTED: "dim",
    State.PENDING: "yellow",
    State.RUNNING: "cyan",
    State.SUCCEEDED: "green",
    State.FAILED: "bold red",
    State.CANCELLED: "magenta",
    State.SKIPPED: "dim",
    State.LOST: "bold red",
}
_FIRST_SHOWN = (State.RUNNING, State.FAILED, State.LOST, State.PENDING, State.CANCELLED, State.UNSUBMITTED)


def elapsed(job: Job, now: float) -> str:
    """Return how long a job has run, or ran, as h:mm:ss; '' before its start."""
    if not job.started:
        return ""
    end = _seconds(job.ended) if job.ended else now
    seconds = max(0, int(end - _seconds(job.started)))
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _seconds(moment: str) -> float:
    import calendar

    return calendar.timegm(time.strptime(moment[:19], "%Y-%m-%dT%H:%M:%S")) + float(moment[19:23])


def status_table(graph: Graph, *, rows: int, now: float) -> RenderableType:
    """Return the jobs as a table of at most `rows`: those that matter first, the others as one line by state."""
    jobs = list(graph.jobs.values())
    shown = jobs
    if len(jobs) > rows:
        order = {state: place for place, state in enumerate(_FIRST_SHOWN)}
        shown = sorted(jobs, key=lambda job: (order.get(job.state, len(order)), job.index))[: max(0, rows - 1)]
        shown.sort(key=lambda job: job.index)
    table = Table(box=None, pad_edge=False, expand=False)
    table.add_column("Job", overflow="ellipsis", no_wrap=True)
    table.add_column("State", no_wrap=True)
    table.add_column("Elapsed", justify="right", no_wrap=True)
    table.add_column("Reason", overflow="ellipsis", no_wrap=True, ratio=1)
    for job in shown:
        style = _STYLES[job.state]
        table.add_row(
            Text(job.id),
            Text(job.state.value, style=style),
            elapsed(job, now),
            Text(str(job.reason or ""), style="dim"),
        )
    if len(shown) == len(jobs):
        return table
    return Group(table, Text(f"{len(jobs)} jobs: {_summary(jobs)}", style="bold"))


def _summary(jobs: Sequence[Job]) -> str:
    """Count jobs by state, and those of one state by the kind of their reason."""
    states = Counter(job.state for job in jobs)
    kinds = Counter((job.state, job.reason.kind.value) for job in jobs if job.reason)
    parts = []
    for state, count in states.items():
        why = ", ".join(f"{number} {kind}" for (of, kind), number in kinds.most_common(3) if of is state)
        parts.append(f"{count} {state.value}{f' ({why})' if why else ''}")
    return ", ".join(parts)


def follow_table(graph: Callable[[], Graph], *, is_over: Callable[[Graph], bool]) -> None:
    """Show the table on the terminal, redrawn once a second, until `is_over`; its last form stays."""
    console = Console()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            now = graph()
            live.update(status_table(now, rows=max(3, console.size.height - 3), now=time.time()), refresh=True)
            if is_over(now):
                return
            time.sleep(_REDRAW_SECONDS)


class LiveTable:
    """A table that follows the state, redrawn at most four times a second; its last form stays on the screen."""

    def __init__(self, graph: Callable[[], Graph]) -> None:
        self._graph = graph
        self._console = Console()
        self._live = Live(console=self._console, refresh_per_second=4, get_renderable=self._render, transient=False)

    def start(self) -> None:
        """Begin to draw."""
        self._live.start()

    def stop(self) -> None:
        """Draw once more, and leave that on the screen."""
        self._live.stop()

    def _render(self) -> RenderableType:
        return status_table(self._graph(), rows=max(3, self._console.size.height - 3), now=time.time())
