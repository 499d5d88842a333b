"""The backend of this machine: one shim a rank, watched by the kernel's own handles on processes."""

from __future__ import annotations

import _socket
import contextlib
import errno
import os
import shlex
import signal
import time
from collections.abc import Collection, Iterator, Mapping, Sequence

import attrs

from nemorun_core import (
    UNKNOWN,
    Accepted,
    Answer,
    Backend,
    Deferred,
    Document,
    Handle,
    Key,
    Observation,
    Reason,
    ReasonKind,
    Rejected,
    Secret,
    Stopping,
    Submission,
    UsageError,
    base_path,
    boot_id,
    hostname,
    pad_outcome,
    rank_suffix,
    shim_argv,
)
from nemorun_local.executor import LocalExecutor
from nemorun_local.limits import room
from nemorun_local.member import LocalMember, Rank
from nemorun_local.processes import (
    belonging,
    check_sizes,
    end_all,
    head_port,
    inheritable_files,
    send,
    shell,
    shim_of,
    spawn,
)
from nemorun_local.watch import Watch

__all__ = ["LocalBackend"]

_CLAIM_SECONDS = 5.0
_HOST = "127.0.0.1"


@attrs.define(eq=False)
class _Job:
    """An attempt that this backend started or adopted.

    Attributes:
        stopping: what it is to be sent and when, on the monotonic clock.
        missing: ranks were not started, because the driver that meant to start them died.
    """

    submission: Submission
    members: list[LocalMember]
    stopping: Stopping
    missing: bool = False

    @property
    def alive(self) -> list[Rank]:
        return [rank for member in self.members for rank in member.ranks if rank.pid and rank.ended is None]


class LocalBackend(Backend):
    """Starts shims and watches them. One thread calls it, but for `wake`."""

    def __init__(self, max_parallel: int | None = None) -> None:
        self._max_parallel = max_parallel
        self._jobs: dict[Handle, _Job] = {}
        self._by_key: dict[Key, Handle] = {}
        self._running: set[Handle] = set()
        self._timed: set[Handle] = set()
        self._owners: dict[int, Handle] = {}
        self._noticed: set[Handle] = set()  # ends that `poll` saw of jobs it was not asked about
        self._watch = Watch()
        self._shell = shell()
        self._place = f"host={hostname()} boot={boot_id()}"

    def close(self) -> None:
        """Stop watching; jobs go on."""
        for job in self._jobs.values():
            for rank in job.alive:
                self._watch.forget(rank.pid)
        self._watch.close()

    def check(self) -> str:
        """Say how many further ranks this machine takes."""
        free, _ = room()
        return f"{hostname()}, room for {free} more ranks"

    def render(self, job: Submission) -> Sequence[Document]:
        """Return, for each rank, the declared environment and the shim's command, then the files written for it.

        A port that is chosen at the start stands as 0, and a secret as its reference.
        """
        documents = []
        for index, member in enumerate(job.members):
            for rank in range(job.executors[index].ranks()):
                declared = {**member.environment, **_ranks(job, index, rank, port=0), "NEMORUN_KEY": str(job.key)}
                environment = [f"{name}={shlex.quote(str(value))}" for name, value in declared.items()]
                command = " ".join(map(shlex.quote, self._argv(job, index, rank)))
                documents.append(Document(f"member {index}, rank {rank}", "\n".join([*environment, command])))
            for name, content in member.files.items():
                path = os.path.join(job.folder, name)
                documents.append(Document(path, content.decode("utf-8", "backslashreplace")))
        return documents

    def submit(self, jobs: Sequence[Submission]) -> Iterator[tuple[Key, Answer]]:
        """Start jobs until the machine's limits, or `max_parallel`, are reached."""
        inherited = _Inherited()
        free, limit = room()
        for job in jobs:
            needed = sum(executor.ranks() for executor in job.executors)
            if self._max_parallel is not None and len(self._running) >= self._max_parallel:
                yield job.key, Deferred(Reason(ReasonKind.LIMIT, f"max_parallel={self._max_parallel} jobs are running"))
                continue
            if needed > free and self._running:
                yield job.key, Deferred(Reason(ReasonKind.LIMIT, limit))
                continue
            free -= needed
            yield job.key, self._start(job, inherited)

    def _start(self, job: Submission, inherited: _Inherited) -> Answer:
        members = [LocalMember(job, index) for index in range(len(job.members))]
        started: list[Rank] = []
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(job.folder, 0o700)
            for name, content in (file for member in job.members for file in member.files.items()):
                _write(os.path.join(job.folder, name), content)
            port = _free_port()
            # All that can be refused is refused before the first program runs.
            starts = [
                (rank, *self._call(job, index, rank, port, inherited))
                for index, member in enumerate(members)
                for rank in member.ranks
            ]
            for rank, _, _ in starts:
                pad_outcome(rank.base, rank.suffix)
            for rank, argv, environment in starts:
                self._spawn(rank, argv, environment, inherited)
                started.append(rank)
        except (OSError, UsageError, ValueError) as error:
            self._undo(job, members, started)
            return _refusal(error)
        return Accepted(self._keep(job, members))

    def _call(
        self, job: Submission, index: int, rank: Rank, port: int, inherited: _Inherited
    ) -> tuple[list[str], dict[str, str]]:
        """Return a rank's arguments and environment. Raises UsageError, ValueError, OSError: too much."""
        argv = self._argv(job, index, rank.number)
        declared = {**_declared(job, index), **_ranks(job, index, rank.number, port)}
        check_sizes(argv, declared, inherited.bytes)
        return argv, {**inherited.environment, **declared}

    def _spawn(self, rank: Rank, argv: list[str], environment: Mapping[str, str], inherited: _Inherited) -> None:
        rank.pid = spawn(argv, environment, inherited.files)
        rank.started = time.time()
        self._watch.add(rank.pid)

    def _undo(self, job: Submission, members: Sequence[LocalMember], started: Sequence[Rank]) -> None:
        """Take back a job of which only a part could be started: its programs end, and it leaves no records."""
        for rank in started:
            rank.kill_shim()
            self._watch.forget(rank.pid)
            os.waitpid(rank.pid, 0)
        if started:
            end_all(_mark(job.key), [])
        for rank in (rank for member in members for rank in member.ranks):
            rank.remove_records()

    def _keep(self, job: Submission, members: list[LocalMember]) -> Handle:
        handle = job.key.slug()
        begun = max((rank.started for member in members for rank in member.ranks), default=0.0)
        age = time.time() - begun if begun else 0.0
        kept = _Job(job, members, Stopping.of(job.executors, time.monotonic() - age))
        if kept.stopping.due is not None:
            self._timed.add(handle)
        kept.missing = any(not rank.pid and rank.ended is None for member in members for rank in member.ranks)
        self._jobs[handle] = kept
        self._by_key[job.key] = handle
        self._running.add(handle)
        self._owners.update((rank.pid, handle) for rank in kept.alive)
        return handle

    def _argv(self, job: Submission, index: int, rank: int) -> list[str]:
        member = job.members[index]
        executor = job.executors[index]
        base = base_path(job.folder, job.key.attempt, 0, index)
        shim = os.path.join(job.support, "shim.sh")
        return [
            *self._shell,
            *shim_argv(
                shim,
                base,
                rank_suffix(rank),
                member.cwd,
                member.argv,
                separate_stderr=executor.separate_stderr,
                place=self._place,
            ),
        ]

    def find(self, jobs: Collection[Submission]) -> Mapping[Key, Handle]:
        """Adopt the jobs of which any rank has a start record, or whose shim is on its way to write one.

        A driver that died while it started a job may have started a part of it: `poll` starts the rest.
        """
        unknown = [job for job in jobs if job.key not in self._by_key]
        alive = belonging([((), _mark(job.key)) for job in unknown]) if unknown else []
        for job, pids in zip(unknown, alive, strict=True):
            members = [LocalMember(job, index) for index in range(len(job.members))]
            ranks = [rank for member in members for rank in member.ranks]
            if not _claimed(ranks, pids):
                continue
            for rank in ranks:
                if rank.pid and rank.ended is None and not self._watch.add(rank.pid):
                    rank.finish(None)
            if any(rank.was_killed for rank in ranks):
                # A shim is gone without an outcome: what is left of its session ends too.
                end_all(_mark(job.key), [rank.pid for rank in ranks if rank.ended is None])
            self._keep(job, members)
        return {job.key: self._by_key[job.key] for job in jobs if job.key in self._by_key}

    def _complete(self, handle: Handle, job: _Job) -> None:
        """Start the ranks that a driver did not come to start."""
        submission = job.submission
        inherited = _Inherited()
        port = next((found for rank in job.alive if (found := head_port(rank.pid))), None) or _free_port()
        for index, member in enumerate(job.members):
            for rank in member.ranks:
                if not rank.pid and rank.ended is None:
                    try:
                        argv, environment = self._call(submission, index, rank, port, inherited)
                        pad_outcome(rank.base, rank.suffix)
                        self._spawn(rank, argv, environment, inherited)
                        self._owners[rank.pid] = handle
                    except (OSError, UsageError, ValueError) as error:
                        if getattr(error, "errno", None) in (errno.EROFS, errno.EACCES):
                            return  # a folder that this process may only read
                        rank.give_up(Reason(ReasonKind.REJECTED, str(error)))
        job.missing = False

    def poll(self, handles: Collection[Handle]) -> Mapping[Handle, Observation]:
        """Look at the processes and records of these jobs; asks no scheduler, since the kernel is it."""
        self._noticed.update(self._owners[pid] for pid in self._watch.wait(0) if pid in self._owners)
        self._noticed.difference_update(handles)
        return {
            handle: self._look(handle, self._jobs[handle]) if handle in self._jobs else UNKNOWN for handle in handles
        }

    def _look(self, handle: Handle, job: _Job) -> Observation:
        if job.missing:
            self._complete(handle, job)
        for rank in job.alive:
            if self._watch.has_ended(rank.pid):
                self._end(handle, job, rank)
        if job.alive:
            self._stop([job])
        timed_out = job.stopping.expired
        observation = Observation(members=tuple(member.observe(timed_out=timed_out) for member in job.members))
        if not job.alive:
            self._running.discard(handle)
            self._timed.discard(handle)
        return observation

    def _end(self, handle: Handle, job: _Job, rank: Rank) -> None:
        """Take in the end of one shim. What its program left running is killed, as any scheduler would."""
        pid = rank.pid
        del self._owners[pid]
        if rank.finish(self._watch.reap(pid)):
            if job.stopping.begun and not job.alive:
                end_all(_mark(job.submission.key), [])
            elif rank.was_killed or rank.has_leftovers():
                end_all(None, [], session=pid)
        elif self._watch.add(rank.pid):
            self._owners[rank.pid] = handle
        else:
            rank.finish(None)

    @staticmethod
    def _stop(jobs: Collection[_Job]) -> None:
        """Send what is due to each of them."""
        moment = time.monotonic()
        signals = [(job, job.stopping.next(moment)) for job in jobs]
        for name, number in (("TERM", signal.SIGTERM), ("KILL", signal.SIGKILL)):
            _signal([(job.submission.key, job.alive) for job, due in signals if due == name], number)

    def cancel(self, handles: Collection[Handle]) -> None:
        """Send TERM to every process of these jobs, again after 1 s, and KILL after the grace."""
        jobs = {handle: self._jobs[handle] for handle in handles if handle in self._jobs}
        for job in jobs.values():
            if job.missing:
                _abandon(job)
        alive = {handle: job for handle, job in jobs.items() if job.alive}
        for job in alive.values():
            job.stopping.begin(time.monotonic())
        self._stop(alive.values())
        self._timed.update(alive)

    def kill(self, handles: Collection[Handle]) -> None:
        """Send KILL to every process of these jobs."""
        jobs = {handle: self._jobs[handle] for handle in handles if handle in self._jobs}
        alive = {handle: job for handle, job in jobs.items() if job.alive}
        for job in alive.values():
            job.stopping.hurry(time.monotonic())
        self._stop(alive.values())
        self._timed.update(alive)

    def wait(self, handles: Collection[Handle], timeout_seconds: float) -> Collection[Handle]:
        """Block until a shim ends, a time-out or a grace is over, or `wake`."""
        if self._noticed:
            timeout_seconds = 0
        moment = time.monotonic()
        dues = [due for handle in self._timed if (due := self._jobs[handle].stopping.due) is not None]
        ended = self._watch.wait(min([timeout_seconds, *(max(0.0, due - moment) for due in dues)]))
        changed = {self._owners[pid] for pid in ended if pid in self._owners} | self._noticed
        self._noticed.clear()
        moment = time.monotonic()
        changed.update(handle for handle in self._timed if (self._jobs[handle].stopping.due or moment + 1) <= moment)
        return changed

    def wake(self) -> None:
        """End a `wait` early."""
        self._watch.wake()

    def release(self, handles: Collection[Handle]) -> None:
        """Forget finished jobs; their records stay."""
        for handle in handles:
            job = self._jobs.pop(handle, None)
            if job is not None:
                del self._by_key[job.submission.key]
                self._running.discard(handle)
                self._timed.discard(handle)
                self._noticed.discard(handle)


def _claimed(ranks: Sequence[Rank], pids: Collection[int]) -> bool:
    """Whether any rank was started; waits for each shim that is on its way, until it has claimed its start or is gone.

    A shim is looked for before its claim is: one that is gone by then has claimed already, or never will.
    """
    deadline = time.monotonic() + _CLAIM_SECONDS
    while True:
        coming = [bool(pids and shim_of(pids, rank.base, rank.suffix)) for rank in ranks]
        claims = [rank.adopt(pids) for rank in ranks]
        left = any(alive and not claim for alive, claim in zip(coming, claims, strict=True))
        if not left or time.monotonic() >= deadline:
            return any(claims)
        time.sleep(0.01)


def _abandon(job: _Job) -> None:
    """Give up the ranks that were never started."""
    for member in job.members:
        for rank in member.ranks:
            if not rank.pid:
                rank.give_up(Reason(ReasonKind.INTERRUPT, "never started"))
    job.missing = False


def _signal(jobs: Sequence[tuple[Key, Collection[Rank]]], number: int) -> None:
    """Send a signal to every process of these jobs.

    The shims come first, so that they have noted it when their programs end; KILL spares them, so that they write down
    how it ended.
    """
    if not jobs:
        return
    shims = {rank.pid for _, ranks in jobs for rank in ranks}
    if number != signal.SIGKILL:
        send(shims, number)
    for found in belonging([([rank.pid for rank in ranks], _mark(key)) for key, ranks in jobs]):
        if number == signal.SIGKILL:
            send(found - shims, signal.SIGSTOP)  # what is killed one by one would see the others die, and go on
        send(found - shims, number)
        send(found, signal.SIGCONT)


def _mark(key: Key) -> bytes:
    return os.fsencode(f"NEMORUN_KEY={key}")


class _Inherited:
    """What programs would inherit from this process: its environment, which they get, and open files, closed."""

    def __init__(self) -> None:
        self.environment = dict(os.environ)
        self.bytes = sum(len(name) + len(value) + 16 for name, value in os.environb.items())
        self.files = inheritable_files()


def _declared(job: Submission, index: int) -> dict[str, str]:
    """Return the declared environment of a member, secrets and all.

    Raises:
        UsageError: a secret's source is missing here.
    """
    declared = {
        name: value.reveal() if isinstance(value, Secret) else value
        for name, value in job.members[index].environment.items()
    }
    return {**declared, "NEMORUN_KEY": str(job.key)}


def _ranks(job: Submission, index: int, rank: int, port: int) -> dict[str, str]:
    executor = job.executors[index]
    assert isinstance(executor, LocalExecutor)
    nodes, per_node = executor.nodes, executor.tasks_per_node()
    hosts = {f"NEMORUN_MEMBER_{number}_HOST": _HOST for number in range(len(job.members))}
    return {
        "NEMORUN_RANK": str(rank),
        "NEMORUN_LOCAL_RANK": str(rank % per_node),
        "NEMORUN_NODE_RANK": str(rank // per_node),
        "NEMORUN_NNODES": str(nodes),
        "NEMORUN_HEAD_HOST": _HOST,
        "NEMORUN_HEAD_PORT": str(port),
        **hosts,
    }


def _free_port() -> int:
    """Return a port that was free a moment ago, for the members' meeting point."""
    # The bare module: `socket` takes two milliseconds of each start of ours to make its enums.
    probe = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    try:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])
    finally:
        probe.close()


def _write(path: str, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        stream.write(content)


def _refusal(error: Exception) -> Answer:
    """Say what a failed start means: a limit of the machine passes, anything else is refused for good."""
    if isinstance(error, UsageError):
        return Rejected(Reason(ReasonKind.REJECTED, error.line))
    if isinstance(error, OSError) and error.errno in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
        return Deferred(Reason(ReasonKind.LIMIT, f"this machine: {error.strerror}"))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Deferred(Reason(ReasonKind.LIMIT, f"the job's folder: {error.strerror}"))
    return Rejected(Reason(ReasonKind.REJECTED, str(error)))
