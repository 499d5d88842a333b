"""The live table of `status -f` fits every terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from nemorun_core.display._rich import status_table
from nemorun_core.engine.state import Graph
from nemorun_core.model.definition import Definition, JobDefinition
from nemorun_core.model.state import Reason, ReasonKind, State

LONG = "a-job-with-a-name-that-is-longer-than-a-narrow-terminal-is-wide"


def graph(count: int) -> Graph:
    """Return a graph in which the first job runs, the second has failed, and the others have succeeded."""
    names = [LONG, *(f"job{number}" for number in range(1, count))]
    jobs = tuple(JobDefinition(id=name, folder=name, group=False, tasks=(), executors=()) for name in names)
    made = Graph(
        Definition(
            id="x_1", title="x", nonce="0" * 16, created="2026-01-01T00:00:00.000Z", cwd="/", jobs=jobs, executors=()
        )
    )
    for job in made.jobs.values():
        job.state, job.started, job.ended = State.SUCCEEDED, "2026-01-01T00:00:00.000Z", "2026-01-01T01:02:03.000Z"
    made.jobs[LONG].state, made.jobs[LONG].ended = State.RUNNING, None
    made.jobs["job1"].state, made.jobs["job1"].reason = State.FAILED, Reason(ReasonKind.EXIT_CODE, "3")
    return made


def drawn(made: Graph, width: int, height: int) -> list[str]:
    stream = io.StringIO()
    console = Console(file=stream, width=width, height=height)
    console.print(status_table(made, width=width, height=height, now=1767229200.0))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("count", [2, 20, 5000])
@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_is_wider_and_the_table_not_higher_than_the_terminal(width, count):
    lines = drawn(graph(count), width, 24)
    assert max(map(len, lines)) <= width
    assert len(lines) <= 24


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_states_reasons_and_times_are_whole_at_every_width(width):
    lines = drawn(graph(5000), width, 24)
    [failed] = [line for line in lines if line.startswith("job1 ")]
    assert failed.split()[1:] == ["FAILED", "1h" if width < 60 else "1:02:03", "exit", "code", "3"]
    [running] = [line for line in lines if " RUNNING " in line]
    assert running.startswith(LONG if width == 200 else LONG[:7])


def test_what_does_not_fit_is_counted_by_state_and_reason():
    text = " ".join(drawn(graph(5000), 80, 24))
    assert "5000 jobs: 1 RUNNING, 1 FAILED (1 exit code), 4998 SUCCEEDED" in text


def test_what_fits_is_shown_without_a_summary():
    assert len(drawn(graph(5), 80, 24)) == 6


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_long_reason_takes_no_room_from_states_and_times(width):
    made = graph(5)
    made.jobs["job2"].state = State.SKIPPED
    made.jobs["job2"].reason = Reason(
        ReasonKind.DEPENDENCY, f"{LONG!r} FAILED: exit code 3, and some more words to read"
    )
    lines = drawn(made, width, 24)
    assert max(map(len, lines)) <= width
    [skipped] = [line for line in lines if line.startswith("job2 ")]
    assert skipped.split()[1:4] == ["SKIPPED", "1h" if width < 60 else "1:02:03", "dependency:"]
