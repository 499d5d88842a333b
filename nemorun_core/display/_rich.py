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
_NARROW = 60

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


def elapsed(job: Job, now: float, *, short: bool = False) -> str:
    """Return how long a job has run, or ran, as h:mm:ss, or `short` in its largest unit; '' before its start."""
    if not job.started:
        return ""
    end = _seconds(job.ended) if job.ended else now
    seconds = max(0, int(end - _seconds(job.started)))
    if short:
        size, unit = next(
            (size, unit)
            for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
            if seconds >= size or size == 1
        )
        return f"{seconds // size}{unit}"
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _seconds(moment: str) -> float:
    import calendar

    return calendar.timegm(time.strptime(moment[:19], "%Y-%m-%dT%H:%M:%S")) + float(moment[19:23])


def status_table(graph: Graph, *, width: int, height: int, now: float) -> RenderableType:
    """Return the jobs as a table that fits: those that matter first, the others as counts by state and reason."""
    jobs = list(graph.jobs.values())
    shown, below = jobs, None
    if len(jobs) > height - 2:
        text = f"{len(jobs)} jobs: {_summary(jobs)}"
        below = Text(text, style="bold")
        order = {state: place for place, state in enumerate(_FIRST_SHOWN)}
        rows = max(1, height - 3 - len(text) // width)
        shown = sorted(jobs, key=lambda job: (order.get(job.state, len(order)), job.index))[:rows]
        shown.sort(key=lambda job: job.index)
    narrow = width < _NARROW
    spent = [elapsed(job, now, short=narrow) for job in shown]
    # What rich would shrink evenly is given its place here: states and times whole, the rest shared by id and reason.
    states = max([len("State"), *(len(job.state.value) for job in shown)])
    times = max([len("Time"), *map(len, spent)])
    room = max(8, width - states - times - 6)
    reasons = max((len(str(job.reason or "")) for job in shown), default=0)
    names = max(3, min(max((len(job.id) for job in shown), default=0), max(room - reasons, room * 2 // 5)))
    table = Table(box=None, pad_edge=False, expand=False, padding=(0, 2, 0, 0))
    table.add_column("Job", overflow="ellipsis", no_wrap=True, width=names)
    table.add_column("State", no_wrap=True, width=states)
    table.add_column("Time", justify="right", no_wrap=True, width=times)
    table.add_column("Reason", overflow="ellipsis", no_wrap=True, width=max(1, min(room - names, max(reasons, 6))))
    for job, time_ in zip(shown, spent, strict=True):
        state = Text(job.state.value, style=_STYLES[job.state])
        table.add_row(Text(job.id), state, time_, Text(str(job.reason or ""), style="dim"))
    return Group(table, below) if below else table


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
            live.update(_fitted(now, console), refresh=True)
            if is_over(now):
                return
            time.sleep(_REDRAW_SECONDS)


def _fitted(graph: Graph, console: Console) -> RenderableType:
    return status_table(graph, width=console.size.width, height=console.size.height - 1, now=time.time())


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
        return _fitted(self._graph(), self._console)
