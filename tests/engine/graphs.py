"""Small definitions and the events that happen to their jobs, for tests of the fold."""

from __future__ import annotations

from collections.abc import Sequence

from nemorun_core.contracts.observation import MemberObservation
from nemorun_core.engine.events import Event, Intended, Observed, Submitted
from nemorun_core.engine.state import Act, Graph, Job
from nemorun_core.model.definition import Definition, Edge, JobDefinition, Kinded
from nemorun_core.model.state import Reason, ReasonKind, State, Until

__all__ = ["TIME", "define", "ended", "job", "observed", "reach", "running", "snapshot", "starts", "told"]

TIME = "2030-01-01T00:00:00.000Z"
_TASK = Kinded(kind="script", fields={"inline": "true"})


def job(name: str, *edges: Edge | str, members: int = 1, until: str = "all") -> JobDefinition:
    return JobDefinition(
        id=name,
        folder=name,
        group=members > 1,
        tasks=(_TASK,) * members,
        executors=(0,) * members,
        edges=tuple(Edge(edge) if isinstance(edge, str) else edge for edge in edges),
        until=Until(until),
    )


def define(*jobs: JobDefinition) -> Definition:
    return Definition(
        id="x_1",
        title="x",
        nonce="0123456789abcdef",
        created=TIME,
        cwd="/",
        jobs=jobs,
        executors=(Kinded(kind="local", fields={}),),
    )


def running() -> MemberObservation:
    return MemberObservation(state=State.RUNNING, started=TIME)


def ended(code: int = 0, *, signals: Sequence[str] = (), state: State | None = None) -> MemberObservation:
    reason = Reason(ReasonKind.EXIT_CODE, str(code)) if code else None
    state = state or (State.FAILED if code else State.SUCCEEDED)
    return MemberObservation(
        state=state, exit_code=code, reason=reason, signals=tuple(signals), started=TIME, ended=TIME
    )


def observed(name: str, *members: MemberObservation, incarnation: int = 0, attempt: int = 0) -> Observed:
    return Observed(name, attempt, incarnation, members)


def reach(graph: Graph, name: str, *members: MemberObservation) -> list[tuple[Act, Job]]:
    """Submit a job and, where members are given, show them; return what the last event asks for."""
    events: list[Event] = [Intended(((name, 0),)), Submitted(name, 0, f"handle of {name}")]
    if members:
        events.append(observed(name, *members))
    actions: list[tuple[Act, Job]] = []
    for event in events:
        actions = graph.step(event, TIME)
    return actions


def starts(actions: Sequence[tuple[Act, Job]]) -> list[str]:
    return [job.id for act, job in actions if act is Act.SUBMIT]


def told(actions: Sequence[tuple[Act, Job]], wanted: Act) -> list[str]:
    return [job.id for act, job in actions if act is wanted]


def snapshot(graph: Graph) -> dict[str, tuple[object, ...]]:
    """Return all that can be seen of each job."""
    return {
        job.id: (
            job.state,
            job.reason,
            job.exit_code,
            job.attempt,
            job.incarnation,
            job.handle,
            job.members,
            job.started,
            job.ended,
            job.intended,
            job.asked,
            job.verdict,
            job.waiting,
        )
        for job in graph.jobs.values()
    } | {"open": (graph.open,)}
