"""The definition of an experiment, as `run` freezes it in experiment.json: written once, never changed."""

from __future__ import annotations

from typing import Literal

import attrs

from nemorun_core.errors import UsageError
from nemorun_core.model.key import Key, folder_name
from nemorun_core.model.state import Condition, Until

__all__ = [
    "JOB_FOLDER_LIMIT",
    "SCHEMA",
    "Bundled",
    "Change",
    "Definition",
    "Edge",
    "Given",
    "JobDefinition",
    "Kinded",
    "after_any",
    "after_failure",
    "check_name",
    "job_folder",
]

SCHEMA = 1
JOB_FOLDER_LIMIT = 200
_RESERVED = frozenset(
    {
        "batches",
        "bundles",
        "experiment.json",
        "journal.jsonl",
        "lock",
        "objects",
        "requests",
        "summary.json",
        "supervisor.log",
        "support",
    }
)

JsonObject = dict[str, object]


def job_folder(job_id: str) -> str:
    """Return the name of a job's folder inside the experiment's."""
    return folder_name(job_id, JOB_FOLDER_LIMIT, reserved=_RESERVED)


@attrs.frozen
class Edge:
    """A dependency on another job of the same experiment."""

    upstream: str
    condition: Condition = Condition.SUCCESS


def after_any(job_id: str) -> Edge:
    """Depend on the end of a job, however it ends, also if it is SKIPPED."""
    return Edge(job_id, Condition.ANY)


def after_failure(job_id: str) -> Edge:
    """Depend on a job that ends FAILED, LOST or CANCELLED; the dependant is SKIPPED if it succeeds."""
    return Edge(job_id, Condition.FAILURE)


@attrs.frozen(kw_only=True)
class Kinded:
    """A task, executor or plugin as a record: what class it is, who brought that class, and its fields.

    Attributes:
        kind: the entry point's name, or `module:qualname` of a class without one.
        distribution: `name version` of who registered it; empty for a class without an entry point.
        fields: what the class wrote; nothing of it is imported or run when the record is read.
    """

    kind: str
    distribution: str = ""
    fields: JsonObject


@attrs.frozen(kw_only=True)
class Change:
    """What one plugin or hook changed of a job: lines as `diff` prints them."""

    by: str
    lines: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Given:
    """Tasks and executors as they were given to `add`, where plugins or hooks changed them."""

    tasks: tuple[Kinded, ...]
    executors: tuple[Kinded, ...]


@attrs.frozen(kw_only=True)
class Bundled:
    """What travels with some members, as it was when the experiment was run.

    Attributes:
        digest: names the content.
        packager: the class that collected it.
        source: the folder of the launching machine that it was collected from.
        folders: folders of the bundle that are imported from, relative, first to last; "" is its root.
        replaces: folders of the launcher's import path that these stand for.
        files: how many it holds, with `size_bytes` in all.
        left_out: what it does not hold, and somebody may expect in it.
    """

    digest: str
    packager: str
    source: str
    folders: tuple[str, ...]
    replaces: tuple[str, ...]
    files: int
    size_bytes: int
    left_out: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class JobDefinition:
    """One `add`, ready to run.

    Attributes:
        id: unique in the experiment, and the job's name.
        folder: name of the job's folder inside the experiment's.
        group: whether a list was given to `add`; a group may have one member.
        tasks: one a member, after plugins and hooks.
        executors: indices into `Definition.executors`, one a member.
        edges: dependencies, in the order given.
        given: what was given to `add`, where that differs; None: as in `tasks` and `executors`.
        plugins: as values, in order.
        bundles: digest of what travels, one a member, "" for nothing; empty where nothing travels with any.
    """

    id: str
    folder: str
    group: bool
    tasks: tuple[Kinded, ...]
    executors: tuple[int, ...]
    edges: tuple[Edge, ...] = ()
    until: Until = Until.ALL
    tail_logs: bool = False
    given: Given | None = None
    plugins: tuple[Kinded, ...] = ()
    changes: tuple[Change, ...] = ()
    bundles: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Definition:
    """An experiment as it was when it was run.

    Attributes:
        nonce: 64 random bits in hexadecimal, the first part of every key.
        created: ISO 8601 UTC.
        executors: each different executor once.
        bundles: each once.
        cwd: the folder the experiment was run from; programs start there unless the executor says otherwise.
        python_path: the launcher's own import path, absolute, without its interpreter's folders.
        provenance: facts about who ran this, on what, with which versions; no secrets.
    """

    schema: Literal[1] = 1
    id: str
    title: str
    nonce: str
    created: str
    cwd: str
    python_path: tuple[str, ...] = ()
    jobs: tuple[JobDefinition, ...]
    executors: tuple[Kinded, ...]
    bundles: tuple[Bundled, ...] = ()
    sequential: bool = False
    direct: bool = False
    provenance: dict[str, object] = attrs.field(factory=dict)

    def to_json(self) -> JsonObject:
        """Return what `structure` reads back equal. Each job is written once, so this is plain code and no converter's.

        `title` and `created` stand before the jobs: a catalog reads no further.
        """
        fields: JsonObject = {field.name: getattr(self, field.name) for field in attrs.fields(Definition)}
        fields["jobs"] = [_job_json(job) for job in self.jobs]
        fields["executors"] = [_kinded_json(executor) for executor in self.executors]
        fields["bundles"] = [attrs.asdict(bundle) for bundle in self.bundles]
        return fields

    def key(self, job: str, attempt: int) -> Key:
        """Return the name under which an attempt is found again on any backend."""
        return Key(self.nonce, job, attempt)


def _kinded_json(kinded: Kinded) -> JsonObject:
    return {"kind": kinded.kind, "distribution": kinded.distribution, "fields": kinded.fields}


def _job_json(job: JobDefinition) -> JsonObject:
    fields: JsonObject = {
        "id": job.id,
        "folder": job.folder,
        "group": job.group,
        "tasks": [_kinded_json(task) for task in job.tasks],
        "executors": job.executors,
        "until": job.until.value,
        "tail_logs": job.tail_logs,
    }
    if job.edges:
        fields["edges"] = [{"upstream": edge.upstream, "condition": edge.condition.value} for edge in job.edges]
    if job.given:
        fields["given"] = {
            "tasks": [_kinded_json(task) for task in job.given.tasks],
            "executors": [_kinded_json(executor) for executor in job.given.executors],
        }
    if job.plugins:
        fields["plugins"] = [_kinded_json(plugin) for plugin in job.plugins]
    if job.changes:
        fields["changes"] = [{"by": change.by, "lines": change.lines} for change in job.changes]
    if job.bundles:
        fields["bundles"] = job.bundles
    return fields


def check_name(name: object, what: str) -> str:
    """Return a title or name that can stand on one line of a terminal.

    Raises:
        UsageError: it is no text, empty, or holds control characters.
    """
    if not isinstance(name, str) or not name.strip():
        raise UsageError(
            f"{what}: expected a non-empty string, found {name!r}.", hint="Give it a short, readable name."
        )
    if len(name) > 1000:
        raise UsageError(f"{what}: {len(name)} characters are too many.", hint="Use at most 1000.")
    if not name.isprintable():
        raise UsageError(f"{what} {name!r} holds characters that cannot be printed.", hint="Keep it on one line.")
    return name
