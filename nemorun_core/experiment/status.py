"""What `status` returns and prints, made of the graph."""

from __future__ import annotations

from nemorun_core.contracts.observation import MemberObservation
from nemorun_core.engine.state import Graph, Job
from nemorun_core.model.definition import Definition
from nemorun_core.model.state import State
from nemorun_core.store.layout import Folder

__all__ = ["JobStatus", "overall_state", "status_of", "status_text"]

JobStatus = dict[str, object]

# Class names of the executors whose records hold only a kind; others are shown by their kind.
_CLASS_NAMES = {
    "docker": "DockerExecutor",
    "kubernetes": "KubernetesExecutor",
    "local": "LocalExecutor",
    "slurm": "SlurmExecutor",
}


def status_of(definition: Definition, folder: Folder, graph: Graph) -> dict[str, JobStatus]:
    """Return, for each job in the order of `add`, its status as plain values: strings, numbers, lists and None."""
    return {job.id: _job(definition, folder, job) for job in graph.jobs.values()}


def overall_state(graph: Graph) -> str:
    """Return one word for the whole: RUNNING while anything is open and was started, else the worst end of a job."""
    states = {job.state for job in graph.jobs.values()}
    if graph.open:
        return "UNSUBMITTED" if states == {State.UNSUBMITTED} else "RUNNING"
    for state in (State.LOST, State.FAILED, State.CANCELLED, State.SKIPPED):
        if state in states:
            return str(state)
    return "SUCCEEDED"


def status_text(experiment_id: str, status: dict[str, JobStatus]) -> str:
    """Return the status as the guide shows it, with the reason where there is one."""
    lines = [f"Experiment Status for {experiment_id}"]
    for number, (name, job) in enumerate(status.items()):
        lines += ["", f"Task {number}: {name}", f"- Status: {job['state']}"]
        if job["reason"]:
            lines.append(f"- Reason: {job['reason']}")
        lines += [
            f"- Executor: {job['executor']}",
            f"- Job id: {job['handle'] or '-'}",
            f"- Local Directory: {job['local_dir']}",
        ]
    return "\n".join(lines)


def _job(definition: Definition, folder: Folder, job: Job) -> JobStatus:
    kinds = [definition.executors[index].kind for index in job.definition.executors]
    names = [_CLASS_NAMES.get(kind) or kind.rpartition(":")[2].rpartition(".")[2] for kind in kinds]
    common: JobStatus = {
        "executor": names[0],
        "handle": job.handle,
        "local_dir": folder.job(job.definition),
        "attempt": job.attempt,
    }
    seen = job.members or tuple(MemberObservation(state=job.state, reason=job.reason) for _ in names)
    members = [
        {
            "state": member.state.value,
            "reason": str(member.reason) if member.reason else None,
            "exit_code": member.exit_code,
            **common,
            "executor": name,
            "started": member.started,
            "ended": member.ended,
        }
        for member, name in zip(seen, names, strict=True)
    ]
    return {
        "state": job.state.value,
        "reason": str(job.reason) if job.reason else None,
        "exit_code": job.exit_code,
        **common,
        "started": job.started,
        "ended": job.ended,
        "members": members,
    }
