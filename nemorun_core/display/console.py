"""What the foreground shows while an experiment runs: job output, a live table on a terminal, or plain lines."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from nemorun_core.display.logs import Source, follow
from nemorun_core.engine.output import binary
from nemorun_core.engine.state import Graph, Job

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Console", "Shown"]

_MANY_JOBS = 20
_POLL_SECONDS = 0.05
_LONGEST_POLL_SECONDS = 0.5


class Shown(Protocol):
    """What the console shows: an experiment driven by this process."""

    def graph(self) -> Graph:
        """Return the state now."""
        ...

    def sources(self, job: Job, colour: Callable[[str, int], bytes] | None) -> list[Source]:
        """Return the streams of a job."""
        ...


class Console:
    """Shows one run until `close`.

    Args:
        tail_all: show the output of all jobs; else of those that were added with `tail_logs`.
        quiet: no words of ours: no table, no lines about states.
    """

    def __init__(self, shown: Shown, jobs: Sequence[Job], *, tail_all: bool, quiet: bool) -> None:
        self._shown = shown
        self._tailed = [job for job in jobs if tail_all or job.definition.tail_logs]
        self._many = len(jobs) > _MANY_JOBS
        self._total = len(jobs)
        self._quiet = quiet
        self._done = 0
        self._closing = threading.Event()
        self._news = threading.Event()
        self._thread: threading.Thread | None = None
        self._live = None if quiet or self._tailed or not _is_terminal() else _live_table(shown, self._closing)
        self._known: dict[str, Source] = {}
        self._pause = _POLL_SECONDS

    def start(self) -> None:
        """Begin to show."""
        if self._tailed:
            self._thread = threading.Thread(target=self._tail, name="nemorun output", daemon=True)
            self._thread.start()
        if self._live is not None:
            self._live.start()

    def tell(self, jobs: Sequence[Job]) -> None:
        """Take in changes; called on the engine's thread."""
        self._news.set()
        if self._quiet or self._live is not None:
            return
        lines = []
        for job in jobs:
            self._done += job.state.is_final
            if self._many and (not job.state.is_final or job.state.value == "SUCCEEDED"):
                continue
            reason = f" ({job.reason})" if job.reason else ""
            lines.append(f"[nemorun] {job.id}: {job.state}{reason}\n")
        if self._many and self._done == self._total:
            lines.append(f"[nemorun] {self._total} jobs have ended\n")
        if lines:
            sys.stderr.write("".join(lines))
            sys.stderr.flush()

    def warn(self, text: str) -> None:
        """Say what people should know; also where they asked for few words."""
        sys.stderr.write(f"[nemorun] {text}\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Show what is left, then stop. May be called again."""
        self._closing.set()
        self._news.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _tail(self) -> None:
        write = binary(sys.stdout)
        before = self._offsets()

        def rest() -> None:
            nonlocal before
            after = self._offsets()
            self._pause = _POLL_SECONDS if after != before else min(2 * self._pause, _LONGEST_POLL_SECONDS)
            before = after
            if self._news.wait(self._pause):
                self._news.clear()
                self._pause = _POLL_SECONDS

        with contextlib.suppress(BrokenPipeError):  # nobody reads any more; the experiment goes on
            follow(self._sources, write, finished=self._closing.is_set, rest=rest)

    def _offsets(self) -> int:
        return sum(source.offset for source in self._known.values())

    def _sources(self) -> list[Source]:
        colour = prefixes(sys.stdout)
        found = []
        for job in self._tailed:
            if job.handle is not None:
                for source in self._shown.sources(job, colour):
                    found.append(self._known.setdefault(source.path, source))
        return found


_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)


def prefixes(stream: object) -> Callable[[str, int], bytes]:
    """Return what makes a line's prefix of a label and a number: coloured on a terminal, unless NO_COLOR is set."""
    isatty = getattr(stream, "isatty", None)
    coloured = bool(isatty and isatty()) and not os.environ.get("NO_COLOR")

    def make(label: str, number: int) -> bytes:
        text = f"{label} | "
        return (f"\x1b[{_COLOURS[number % len(_COLOURS)]}m{text}\x1b[0m" if coloured else text).encode()

    return make


def _is_terminal() -> bool:
    try:
        return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):
        return False


def _live_table(shown: Shown, closing: threading.Event) -> LiveTable:
    from nemorun_core.display._rich import LiveTable

    return LiveTable(shown.graph)


if TYPE_CHECKING:
    from nemorun_core.display._rich import LiveTable
