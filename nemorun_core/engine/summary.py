"""How each job stands, as one row of plain values; and these rows kept in a file where a large experiment has ended."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nemorun_core.contracts.observation import MemberObservation
from nemorun_core.engine.state import Graph, Job
from nemorun_core.model.definition import Definition
from nemorun_core.model.garbage import uncollected
from nemorun_core.model.state import State
from nemorun_core.store.files import write_atomically
from nemorun_core.store.layout import Folder

__all__ = ["MemberRow", "Row", "Summary", "overall_state", "read_summary", "rows_of", "write_summary"]

_LEAST_JOBS = 1000  # below that, folding the journal takes no time

# Class names of the executors whose records hold only a kind; others are shown by their kind.
_CLASS_NAMES = {
    "docker": "DockerExecutor",
    "kubernetes": "KubernetesExecutor",
    "local": "LocalExecutor",
    "slurm": "SlurmExecutor",
}


class MemberRow(NamedTuple):
    """One member, or a job as a whole: what `status` says of it that differs from its neighbours."""

    state: str
    reason: str | None
    exit_code: int | None
    executor: str
    started: str | None
    ended: str | None


class Row(NamedTuple):
    """One job: `folder` is its folder's name, `members` is empty where its one member is as the job."""

    id: str
    folder: str
    handle: str | None
    attempt: int
    whole: MemberRow
    members: Sequence[MemberRow]


class Summary(NamedTuple):
    """An experiment that has ended."""

    id: str
    title: str
    created: str
    state: str
    rows: Sequence[Row]


def rows_of(definition: Definition, graph: Graph) -> list[Row]:
    """Return how each job stands, in the order of `add`."""
    kinds = [executor.kind for executor in definition.executors]
    names = [_CLASS_NAMES.get(kind) or kind.rpartition(":")[2].rpartition(".")[2] for kind in kinds]
    return [_row(job, [names[index] for index in job.definition.executors]) for job in graph.jobs.values()]


def _row(job: Job, executors: Sequence[str]) -> Row:
    reason = str(job.reason) if job.reason else None
    whole = MemberRow(job.state.value, reason, job.exit_code, executors[0], job.started, job.ended)
    seen = job.members or tuple(MemberObservation(state=job.state, reason=job.reason) for _ in executors)
    members = [
        MemberRow(
            member.state.value,
            str(member.reason) if member.reason else None,
            member.exit_code,
            executor,
            member.started,
            member.ended,
        )
        for member, executor in zip(seen, executors, strict=True)
    ]
    return Row(job.id, job.definition.folder, job.handle, job.attempt, whole, () if members == [whole] else members)


def overall_state(graph: Graph) -> str:
    """Return one word for the whole: RUNNING while anything is open and was started, else the worst end of a job."""
    states = {job.state for job in graph.jobs.values()}
    if graph.open:
        return "UNSUBMITTED" if states == {State.UNSUBMITTED} else "RUNNING"
    for state in (State.LOST, State.FAILED, State.CANCELLED, State.SKIPPED):
        if state in states:
            return str(state)
    return "SUCCEEDED"


def write_summary(definition: Definition, folder: Folder, graph: Graph) -> None:
    """Keep the rows of a large experiment that has ended and whose journal is complete. Not synced: it can be folded
    again. Raises StoreError."""
    if graph.open or len(graph.jobs) < _LEAST_JOBS:
        return
    content = {
        "schema": 1,
        "id": definition.id,
        "title": definition.title,
        "created": definition.created,
        "state": overall_state(graph),
        "journal": _identity(folder),
        "jobs": rows_of(definition, graph),
    }
    write_atomically(folder.summary, json.dumps(content, separators=(",", ":")).encode("ascii"), sync=False)


def read_summary(folder: Folder) -> Summary | None:
    """Return what was kept; None where nothing was, or where the journal is not the one that it was made of."""
    try:
        with uncollected(), open(folder.summary, encoding="ascii") as stream:
            content = json.load(stream)
        if not isinstance(content, Mapping) or content["schema"] != 1 or content["journal"] != _identity(folder):
            return None
        with uncollected():
            rows = [
                Row(id, name, handle, attempt, MemberRow(*whole), [MemberRow(*member) for member in members])
                for id, name, handle, attempt, whole, members in content["jobs"]
            ]
        return Summary(content["id"], content["title"], content["created"], content["state"], rows)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _identity(folder: Folder) -> list[int]:
    facts = os.stat(folder.journal)
    return [facts.st_size, facts.st_mtime_ns]
