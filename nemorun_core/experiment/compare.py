"""What an experiment was made of, read without importing any plugin, and where two experiments differ."""

from __future__ import annotations

from nemorun_core.model.definition import Definition, JobDefinition, Kinded
from nemorun_core.model.show import ABSENT, diff, shown
from nemorun_core.registry import Registry

__all__ = ["differences", "job_record", "parts", "read"]

Difference = dict[str, str | None]


def parts(definition: Definition, job: JobDefinition) -> dict[str, list[Kinded]]:
    """Return the records of a job by what they are: "task" one a member, "executor" each once, "plugin" in order."""
    return {
        "task": list(job.tasks),
        "executor": [definition.executors[index] for index in dict.fromkeys(job.executors)],
        "plugin": list(job.plugins),
    }


def job_record(definition: Definition, job: JobDefinition) -> dict[str, object]:
    """Return a job as `nemorun experiment show --json` prints it."""
    return {
        "id": job.id,
        "group": job.group,
        "until": job.until.value,
        "dependencies": [{"job": edge.upstream, "condition": edge.condition.value} for edge in job.edges],
        "tasks": [_plain(task) for task in job.tasks],
        "executors": [_plain(definition.executors[index]) for index in job.executors],
        "plugins": [_plain(plugin) for plugin in job.plugins],
        "bundles": list(job.bundles),
        "changes": [{"by": change.by, "lines": list(change.lines)} for change in job.changes],
    }


def _plain(kinded: Kinded) -> dict[str, object]:
    return {"kind": kinded.kind, "distribution": kinded.distribution, "fields": kinded.fields}


def read(registry: Registry, kinded: Kinded) -> object:
    """Return the task of a record of the core's; of any other record its fields, so that no plugin has to be there."""
    if not kinded.distribution and kinded.kind in ("script", "partial"):
        return registry.read_task(kinded)
    return {"kind": kinded.kind, **kinded.fields}


def differences(one: Definition, two: Definition, registry: Registry) -> list[Difference]:
    """List where two experiments differ: `where`, `path`, and both sides as text, None where one has nothing."""
    found: list[Difference] = []

    def note(where: str, left: object, right: object) -> None:
        for difference in diff(left, right):
            sides = [None if side is ABSENT else shown(side) for side in (difference.left, difference.right)]
            found.append({"where": where, "path": difference.path, "a": sides[0], "b": sides[1]})

    jobs = [{job.id: job for job in definition.jobs} for definition in (one, two)]
    for name in dict.fromkeys([*jobs[0], *jobs[1]]):
        left, right = jobs[0].get(name), jobs[1].get(name)
        if left is None or right is None:
            here = {"a": "present" if left else None, "b": "present" if right else None}
            found.append({"where": f"job {name}", "path": "$", **here})
            continue
        before, after = parts(one, left), parts(two, right)
        for what in before:
            values = [[read(registry, kinded) for kinded in side[what]] for side in (before, after)]
            count = max(map(len, values))
            for index in range(count):
                pair = [side[index] if index < len(side) else ABSENT for side in values]
                note(f"job {name} {what}{f' {index}' if count > 1 else ''}", *pair)
        edges = [[f"{edge.upstream} ({edge.condition.value})" for edge in job.edges] for job in (left, right)]
        note(f"job {name} dependencies", *edges)
    note("provenance", one.provenance, two.provenance)
    return found
