"""A correct executor with a scheduler of its own, small enough that one can see that it is right; liars are made of it.

The scheduler is a folder: one record a job, named by the key's slug and created exclusively, and real processes. So it
outlives connections and the process that submitted. Files in the folder break it: `down`, `lose`, `late`, `full`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from nemorun_core import (
    UNKNOWN,
    Accepted,
    Answer,
    Backend,
    Capabilities,
    Deferred,
    Document,
    Executor,
    Handle,
    Key,
    MemberObservation,
    Observation,
    Reason,
    ReasonKind,
    Rejected,
    Secret,
    State,
    Submission,
    TransientError,
    UsageError,
    base_path,
    ended_member,
    hostname,
    iso_time,
    pad_outcome,
    process_started,
    read_rank,
    shim_argv,
)

__all__ = ["BACKENDS", "QUERIES", "Cluster", "MemoryBackend", "MemoryExecutor"]

Entry = dict[str, Any]
"""What the scheduler has written down of a job."""
QUERIES: Counter[str] = Counter()
"""How many queries each scheduler of this process has had."""
LATE: dict[str, list[tuple[str, dict[str, object], list[dict[str, str]]]]] = {}
BACKENDS: dict[str, type[MemoryBackend]] = {}
"""The backends by their executor's `lie`; the correct one's is ''."""


@attrs.define(kw_only=True)
class MemoryExecutor(Executor):
    """Runs jobs on the scheduler in `directory`.

    Attributes:
        lie: which backend; '' is the correct one.
        groups, waits, shares: capabilities, each of which may be missing.
    """

    directory: str
    lie: str = ""
    groups: bool = True
    waits: bool = True
    shares: bool = True

    def capabilities(self) -> Capabilities:
        return Capabilities(
            runs_on_this_machine=True,
            shares_files=self.shares,
            group="atomic" if self.groups else None,
            wait=self.waits,
            separate_stderr=True,
            poll_interval_seconds=0.01,
        )

    def connection(self) -> Hashable:
        return (self.directory, self.lie, self.groups, self.waits, self.shares)

    def backend(self) -> Backend:
        if self.lie not in BACKENDS:  # in another process
            importlib.import_module(".liars", __package__)
        return BACKENDS[self.lie](self)

    def check(self) -> None:
        super().check()
        if not self.directory:
            raise UsageError("MemoryExecutor(directory=''): expected a folder.")


def spawn(argv: Sequence[str], environment: Mapping[str, str], *, new_session: bool = True) -> int:
    null: list[tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
    ]
    return os.posix_spawnp(argv[0], argv, environment, file_actions=null, setsid=new_session)


class Cluster:
    """The scheduler. Each public method is one query, and raises TransientError while the scheduler is down."""

    def __init__(self, directory: str) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(exist_ok=True)

    def ask(self) -> None:
        QUERIES[str(self.directory)] += 1
        if (self.directory / "down").exists():
            raise TransientError("the scheduler does not answer")

    def create(self, name: str, spec: dict[str, object], environments: list[dict[str, str]]) -> bool:
        """Take a job and start it; False if there is one of that name."""
        self.ask()
        if (self.directory / "late").exists():
            LATE.setdefault(str(self.directory), []).append((name, spec, environments))
            raise TransientError("the scheduler took too long to answer")
        created = self.start(name, spec, environments)
        if (self.directory / "lose").exists():
            raise TransientError("the answer got lost")
        return created

    def start(self, name: str, spec: dict[str, object], environments: list[dict[str, str]]) -> bool:
        try:
            handle = os.open(self._path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return False
        os.close(handle)
        self._run(name, spec, environments, incarnation=0)
        return True

    def _run(self, name: str, spec: dict[str, object], environments: list[dict[str, str]], *, incarnation: int) -> None:
        pids = []
        where = str(spec["where"])
        os.makedirs(where, mode=0o700, exist_ok=True)
        attempt = Key.parse(str(spec["key"])).attempt
        for index, argv in enumerate(spec["shims"]):  # type: ignore[arg-type]
            base = base_path(where, attempt, incarnation, index)
            pad_outcome(base, "")
            shim = [base if word == base_path(where, attempt, 0, index) else word for word in argv]
            pids.append(spawn(["sh", *shim], {**os.environ, **environments[index]}))
        self.write(name, {**spec, "pids": pids, "incarnation": incarnation, "stopped": None})

    def requeue(self, name: str) -> None:
        """Stop a job and start it once more, as after a preemption."""
        entry = self.entries()[name]
        for pid in entry["pids"]:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        pairs = dict(line.decode().partition("=")[::2] for line in environment if line)
        os.unlink(self._path(name))
        for pid in entry["pids"]:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self._run(name, entry, [pairs] * len(entry["pids"]), incarnation=entry["incarnation"] + 1)

    def entries(self) -> dict[str, Entry]:
        """Return all jobs by name."""
        self.ask()
        return {path.name[:-4]: entry for path in self.directory.glob("*.job") if (entry := self._read(path))}

    def write(self, name: str, entry: dict[str, object]) -> None:
        path = self._path(name)
        temporary = f"{path}.{os.getpid()}.{threading.get_ident()}"
        Path(temporary).write_text(json.dumps(entry))
        os.replace(temporary, path)

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(name))

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.job"

    @staticmethod
    def _read(path: Path) -> Entry | None:
        for _ in range(1000):
            try:
                text = path.read_text()
            except FileNotFoundError:
                return None
            if text:
                return dict(json.loads(text))
            time.sleep(0.005)  # it is being started
        return None


class MemoryBackend(Backend):
    """The correct backend. What liars change is in methods of its own."""

    def __init__(self, executor: MemoryExecutor) -> None:
        self.executor = executor
        self.cluster = Cluster(executor.directory)
        self.jobs: dict[Handle, Submission] = {}
        self.last: dict[Handle, Observation] = {}
        self.ends: dict[Handle, Observation] = {}
        self.woken = threading.Event()

    def __init_subclass__(cls) -> None:
        BACKENDS[cls.__name__] = cls

    # Submitting.

    def name(self, key: Key) -> str:
        return key.slug()

    def where(self, job: Submission) -> str:
        return job.folder if self.executor.shares else str(self.cluster.directory / "spool" / self.name(job.key))

    def spec(self, job: Submission) -> dict[str, object]:
        """Return what the scheduler is given, but for the environment's secrets."""
        return {
            "key": str(job.key),
            "where": self.where(job),
            "grace": max(executor.grace_seconds for executor in job.executors),
            "environments": [self.declared(job, index) for index in range(len(job.members))],
            "shims": [self.argv(job, index) for index in range(len(job.members))],
        }

    def argv(self, job: Submission, index: int) -> list[str]:
        member = job.members[index]
        base = base_path(self.where(job), job.key.attempt, 0, index)
        apart = job.executors[index].separate_stderr
        shim = os.path.join(job.support, "shim.sh")
        return shim_argv(shim, base, "", member.cwd, self.program(job, index), separate_stderr=apart)

    def program(self, job: Submission, index: int) -> Sequence[str]:
        return job.members[index].argv

    def declared(self, job: Submission, index: int) -> dict[str, str]:
        return {name: str(value) for name, value in job.members[index].environment.items()}

    def environment(self, job: Submission, index: int) -> dict[str, str]:
        """Return the variables of a program, secrets and all. Raises UsageError."""
        revealed = {
            name: value.reveal() if isinstance(value, Secret) else value
            for name, value in job.members[index].environment.items()
        }
        hosts = {f"NEMORUN_MEMBER_{number}_HOST": "127.0.0.1" for number in range(len(job.members))}
        meeting = {"NEMORUN_HEAD_HOST": "127.0.0.1", "NEMORUN_HEAD_PORT": str(self.port(job))}
        return {**revealed, **hosts, **meeting, "NEMORUN_KEY": str(job.key)}

    def port(self, job: Submission) -> int:
        return 20000 + hash(str(job.key)) % 10000

    def render(self, job: Submission) -> Sequence[Document]:
        return [Document("job.json", json.dumps(self.spec(job), indent=1, ensure_ascii=False))]

    def submit(self, jobs: Sequence[Submission]) -> Iterator[tuple[Key, Answer]]:
        for job in jobs:
            yield job.key, self.offer(job)

    def offer(self, job: Submission) -> Answer:
        try:
            environments = [self.environment(job, index) for index in range(len(job.members))]
            for index, member in enumerate(job.members):
                if any("\0" in text for text in (*member.argv, *environments[index].values())):
                    raise UsageError("a NUL character in an argument or in the environment")
        except UsageError as error:
            return Rejected(Reason(ReasonKind.REJECTED, str(error)))
        if self.full():
            return Deferred(Reason(ReasonKind.LIMIT, "the scheduler is full"))
        self.write_files(job)
        return self.create(job, environments)

    def full(self) -> bool:
        return (self.cluster.directory / "full").exists()

    def write_files(self, job: Submission) -> None:
        os.makedirs(job.folder, mode=0o700, exist_ok=True)
        for member in job.members:
            for name, content in member.files.items():
                Path(job.folder, name).write_bytes(content)

    def create(self, job: Submission, environments: list[dict[str, str]]) -> Answer:
        name = self.name(job.key)
        spec = self.spec(job)
        if not self.cluster.create(name, spec, environments):
            entry = self.cluster.entries().get(name)
            if entry and entry["key"] != str(job.key):
                return Rejected(Reason(ReasonKind.REJECTED, f"the name {name} is taken by {entry['key']}"))
        return Accepted(self.know(job))

    def know(self, job: Submission) -> Handle:
        handle = self.name(job.key)
        self.jobs[handle] = job
        return handle

    def find(self, jobs: Collection[Submission]) -> Mapping[Key, Handle]:
        entries = self.cluster.entries()
        return {job.key: self.know(job) for job in jobs if self.is_there(job, entries)}

    def is_there(self, job: Submission, entries: Mapping[str, Entry]) -> bool:
        entry = entries.get(self.name(job.key))
        if entry is not None:
            return bool(entry["key"] == str(job.key))
        return self.executor.shares and self.witness(job.folder, job, 0, 0).claimed

    # Looking.

    def poll(self, handles: Collection[Handle]) -> Mapping[Handle, Observation]:
        entries = self.cluster.entries()
        return {handle: self.look(handle, entries.get(handle)) for handle in handles}

    def look(self, handle: Handle, entry: Entry | None) -> Observation:
        job = self.jobs.get(handle)
        if handle in self.ends:
            return self.ends[handle]
        if job is None:
            return UNKNOWN
        if entry is None or entry["key"] != str(job.key):
            entry = None
        self.last[handle] = seen = self.observe(job, entry)
        if seen.members and all(member.state.is_final for member in seen.members):
            self.ends[handle] = seen
        return seen

    def observe(self, job: Submission, entry: Entry | None) -> Observation:
        if entry is None:
            members = [self.recorded(job, index) for index in range(len(job.members))] if self.executor.shares else []
            found = [member for member in members if member]
            return Observation(members=tuple(found)) if len(found) == len(job.members) else UNKNOWN
        if entry["stopped"]:
            self.press(job, entry)
        incarnation = entry["incarnation"]
        return Observation(
            members=tuple(self.member(job, entry, index) for index in range(len(job.members))),
            incarnation=incarnation,
        )

    def witness(self, where: str, job: Submission, incarnation: int, index: int):
        return read_rank(base_path(where, job.key.attempt, incarnation, index), "")

    def recorded(self, job: Submission, index: int) -> MemberObservation | None:
        witness = self.witness(job.folder, job, 0, index)
        return self.ended(witness) if witness.outcome else None

    def member(self, job: Submission, entry: Entry, index: int) -> MemberObservation:
        where, incarnation = entry["where"], entry["incarnation"]
        alive = self.lives(entry["pids"][index])
        witness = self.witness(where, job, incarnation, index)
        if witness.outcome or not alive:
            return self.ended(witness)
        if not witness.claimed:
            return MemberObservation(state=State.PENDING)
        return MemberObservation(state=State.RUNNING, started=iso_time(witness.started or 0.0), host=hostname())

    def ended(self, witness) -> MemberObservation:
        started = iso_time(witness.started) if witness.started else None
        ended = iso_time(max(witness.ended, witness.started or 0.0)) if witness.ended else None
        return ended_member([witness.outcome], started=started, ended=ended, host=hostname())

    def lives(self, pid: int) -> bool:
        with contextlib.suppress(OSError):
            os.waitpid(pid, os.WNOHANG)
        return process_started(pid) is not None

    # Stopping.

    def cancel(self, handles: Collection[Handle]) -> None:
        self.stop(handles, grace=None)

    def kill(self, handles: Collection[Handle]) -> None:
        self.stop(handles, grace=0.0)

    def stop(self, handles: Collection[Handle], grace: float | None) -> None:
        entries = self.cluster.entries()
        for handle in handles:
            entry = entries.get(handle)
            if self.may_stop(handle, entry):
                self.stop_one(handle, entry, grace)

    def may_stop(self, handle: Handle, entry: Entry | None) -> bool:
        job = self.jobs.get(handle)
        if job is None or entry is None or entry["key"] != str(job.key):
            return False
        return any(not member.state.is_final for member in self.observe(job, entry).members)

    def stop_one(self, handle: Handle, entry: Entry, grace: float | None) -> None:
        if entry["stopped"] and grace is None:
            return
        polite = not entry["stopped"]
        now = time.time()
        entry["stopped"] = {"at": now, "kill_at": now + (entry["grace"] if grace is None else grace), "again": False}
        self.cluster.write(handle, entry)
        if polite:
            self.send(entry, signal.SIGTERM)
        self.press(self.jobs[handle], entry)

    def press(self, job: Submission, entry: Entry) -> None:
        """Do what is due of a cancel: the second polite signal, or the kill."""
        stopped, now = entry["stopped"], time.time()
        if now >= stopped["kill_at"]:
            self.send(entry, signal.SIGKILL)
        elif now >= stopped["at"] + 1.0 and not stopped["again"]:
            stopped["again"] = True
            self.cluster.write(self.name(job.key), entry)
            self.send(entry, signal.SIGTERM)

    def send(self, entry: Entry, number: int) -> None:
        """Send a signal to every process that carries the key; KILL spares the shims, which tell how it ended."""
        told: set[int] = set()
        while found := [pid for pid in self.carrying(entry["key"]) if pid not in told]:  # one may fork while we look
            told.update(found)
            shims = [pid for pid in entry["pids"] if pid in found]
            programs = [pid for pid in found if pid not in shims]
            for pid in programs if number == signal.SIGKILL else [*shims, *programs]:
                with contextlib.suppress(OSError):
                    os.kill(pid, number)

    def carrying(self, key: str) -> Iterator[int]:
        mark = f"NEMORUN_KEY={key}".encode()
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (path / "environ").read_bytes().split(b"\0"):
                    yield int(path.name)

    def release(self, handles: Collection[Handle]) -> None:
        entries = self.cluster.entries()
        for handle in handles:
            job = self.jobs.get(handle)
            if job is not None and handle in entries and entries[handle]["key"] == str(job.key):
                self.cluster.remove(handle)

    # Logs and waiting.

    def read_log(self, handle: Handle, member: int, stream: str, offset: int, limit: int, incarnation: int) -> bytes:
        job = self.jobs[handle]
        base = base_path(self.where(job), job.key.attempt, incarnation, member)
        try:
            with open(f"{base}.{stream}", "rb") as log:
                log.seek(offset)
                return log.read(limit)
        except FileNotFoundError:
            return b""

    def wait(self, handles: Collection[Handle], timeout_seconds: float) -> Collection[Handle]:
        deadline = time.monotonic() + timeout_seconds
        open_ones = [handle for handle in handles if handle not in self.ends]
        while True:
            changed = [handle for handle in open_ones if self.changed(handle)]
            if changed or self.woken.is_set() or time.monotonic() >= deadline:
                self.woken.clear()
                return changed
            self.woken.wait(min(0.01, max(0.0, deadline - time.monotonic())))

    def changed(self, handle: Handle) -> bool:
        job = self.jobs.get(handle)
        if job is None:
            return False
        # Watching files costs the scheduler nothing; a cancel has to be looked after.
        entry = self.cluster._read(self.cluster._path(handle))
        if entry is None or entry["stopped"]:
            return True
        if handle not in self.last or self.last[handle].incarnation != entry["incarnation"]:
            return True
        return any(
            not self.lives(entry["pids"][index])
            or (witness := self.witness(entry["where"], job, entry["incarnation"], index)).outcome
            or (witness.claimed and seen.state is State.PENDING)
            for index, seen in enumerate(self.last[handle].members)
        )

    def wake(self) -> None:
        self.woken.set()


BACKENDS[""] = MemoryBackend
