"""`Kit`: makes submissions of small shell scripts and drives one backend by hand, as the engine does."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

import nemorun_core
from nemorun_core import (
    Accepted,
    After,
    Answer,
    Backend,
    Capabilities,
    Condition,
    Executor,
    Handle,
    Key,
    Member,
    MemberObservation,
    Observation,
    Rejected,
    Secret,
    State,
    Submission,
    TransientError,
    UsageError,
    base_path,
)

__all__ = ["MARK", "Kit", "offered", "wait_until"]

MARK = "DEVKIT_RUN"
_TICK_SECONDS = 0.005
_CLEAN_UP_SECONDS = 5.0
_CHUNK = 1 << 20


def offered(value: object, name: str) -> None:
    """Skip the test where an optional fixture is not given."""
    if value is None:
        pytest.skip(f"not offered: {name}")


def wait_until(condition: Callable[[], object], what: str, seconds: float) -> None:
    """Wait for a condition; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {seconds:g} s"
        time.sleep(_TICK_SECONDS)


class Kit:
    """One test's jobs on one executor. Ends what still runs when it is closed.

    Attributes:
        folder: of this test; job folders are made in it.
        backend: the connection in use; `reopen` makes another.
        seconds: how long anything is waited for.
    """

    def __init__(self, executor: Executor, folder: Path, shared: Path | None, seconds: float) -> None:
        self.executor = executor
        self.able: Capabilities = executor.capabilities()
        self.folder = folder
        self.seconds = seconds
        self.nonce = secrets.token_hex(8)  # unique in the world, as in a real experiment
        self.mark = secrets.token_hex(8)
        self._shared = shared
        self._numbers = itertools.count()
        self._jobs: dict[Handle, Submission] = {}
        self._incarnations: dict[Handle, int] = {}
        self._support = folder / "support"
        self._support.mkdir()
        engine = Path(nemorun_core.__file__).parent / "engine"
        for path in (*engine.glob("*.sh"), engine / "runner.py"):
            (self._support / path.name).write_bytes(path.read_bytes())
        self._backends = [executor.backend()]
        self._backends[0].__enter__()

    @property
    def backend(self) -> Backend:
        return self._backends[-1]

    @property
    def shared(self) -> Path:
        """The folder that programs see under the same path; the test is skipped where there is none."""
        offered(self._shared, "shared_folder")
        assert self._shared is not None
        return self._shared

    # Making jobs.

    def options(self, **fields: object) -> Executor:
        """Return the executor with other values in some fields."""
        executor = self.executor.clone()
        for name, value in fields.items():
            setattr(executor, name, value)
        return executor

    def make(
        self,
        *programs: str | Sequence[str],
        name: str = "",
        cwd: str | os.PathLike[str] | None = None,
        environment: Mapping[str, str | Secret] | None = None,
        executor: Executor | None = None,
        attempt: int = 0,
        nonce: str = "",
        after: Sequence[After] = (),
    ) -> Submission:
        """Return a submission with a member for each program: the text of a shell script, or arguments as they are."""
        name = name or f"job{next(self._numbers)}"
        nonce = nonce or self.nonce
        argvs = [("sh", "-c", program) if isinstance(program, str) else tuple(program) for program in programs]
        members = tuple(
            Member(
                argv=argv,
                environment={
                    "NEMORUN_EXPERIMENT_ID": "laws_1",
                    "NEMORUN_JOB": name,
                    "NEMORUN_ATTEMPT": str(attempt),
                    "NEMORUN_MEMBER": str(index),
                    **(environment or {}),
                    MARK: self.mark,
                },
                cwd=os.fspath(cwd if cwd is not None else self._shared or "/"),
            )
            for index, argv in enumerate(argvs)
        )
        folder = self.folder / nonce / nemorun_core.slug(name)
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        return Submission(
            key=Key(nonce, name, attempt),
            members=members,
            executors=(executor or self.executor,) * len(argvs),
            folder=str(folder),
            support=str(self._support),
            after=tuple(after),
        )

    def edge(self, handle: Handle, condition: Condition) -> After:
        """Return an edge to a job of one rank a member, for the scheduler to keep."""
        job = self._jobs[handle]
        return After(job.key, condition, handle, job.folder, tuple(one.ranks() for one in job.executors))

    def gate(self, name: str = "stop") -> str:
        """Return a command that waits, for a minute at most, until `open_gate` is called."""
        path = self.shared / name
        return f"n=0; while ! [ -e '{path}' ] && [ $n -lt 6000 ]; do n=$((n + 1)); sleep 0.01; done"

    def open_gate(self, name: str = "stop") -> None:
        (self.shared / name).touch()

    def lasting(self) -> str:
        """Return a program to be asked about by `unhurt`: says "up", then runs on until it is."""
        return f"echo up; {self.gate() if self._shared else 'sleep 60'}; exit 4"

    # Driving them.

    def answers(self, jobs: Sequence[Submission]) -> dict[Key, Answer]:
        """Submit jobs in one call; each must be answered once, under its key."""
        found: dict[Key, Answer] = {}
        by_key = {job.key: job for job in jobs}
        for key, answer in self.backend.submit(jobs):
            assert key in by_key, f"{key} was not offered"
            found[key] = answer
            if isinstance(answer, Accepted):
                self._jobs[answer.handle] = by_key[key]
        return found

    def answer(self, job: Submission) -> Answer:
        """Submit one job."""
        found = self.answers([job])
        assert list(found) == [job.key], f"submit answered for {list(found)}, not for {job.key}"
        return found[job.key]

    def take(self, job: Submission) -> Handle:
        """Submit one job that must be taken."""
        answer = self.answer(job)
        assert isinstance(answer, Accepted), f"the job was not taken: {answer}"
        return answer.handle

    def start(
        self,
        *programs: str | Sequence[str],
        name: str = "",
        cwd: str | os.PathLike[str] | None = None,
        environment: Mapping[str, str | Secret] | None = None,
        executor: Executor | None = None,
    ) -> Handle:
        """Make a job and submit it."""
        return self.take(self.make(*programs, name=name, cwd=cwd, environment=environment, executor=executor))

    def refusal(self, job: Submission) -> str:
        """Submit a job that must be refused; return why."""
        try:
            answer = self.answer(job)
        except UsageError as error:
            return str(error)
        assert isinstance(answer, Rejected), f"expected that the job is refused, and it was answered {answer}"
        return answer.reason.detail

    def find(self, *jobs: Submission) -> Mapping[Key, Handle]:
        """Ask for jobs, and know them from here on."""
        found = self.backend.find(jobs)
        for job in jobs:
            if job.key in found:
                self._jobs[found[job.key]] = job
        return found

    def adopt(self, job: Submission) -> Handle:
        """Look for a job with a new connection; it must be there."""
        if self._backends:
            self.leave()
        self.enter()
        found = self.find(job)
        assert job.key in found, f"a new connection does not find {job.key}"
        return found[job.key]

    def reopen(self) -> None:
        """Drop the connection, as a driver that ends does, and open another."""
        self.leave()
        self.enter()

    def leave(self) -> None:
        """Drop the connection; until `enter`, nobody looks after the jobs."""
        self._backends.pop().close()

    def enter(self) -> None:
        """Open a connection."""
        self._backends.append(self.executor.backend())
        self.backend.__enter__()

    def another(self) -> Backend:
        """Open one more connection beside; it is closed with the kit."""
        backend = self.executor.backend()
        backend.__enter__()
        self._backends.insert(0, backend)
        return backend

    # Looking.

    def poll(self, handle: Handle, backend: Backend | None = None) -> Observation:
        """Ask once, as the engine does: where there is `wait`, it comes first. There must be an answer."""
        asked = backend or self.backend
        if self.able.wait and handle in self._jobs:
            asked.wait([handle], 0.0)
        found = asked.poll([handle])
        assert handle in found, "poll left out a handle that it was asked for"
        seen = found[handle]
        self._incarnations[handle] = seen.incarnation
        return seen

    def watch(self, handle: Handle) -> Iterator[Observation]:
        """Yield what each poll sees until the job is over, as often as it can be asked."""
        deadline = time.monotonic() + self.seconds
        while True:
            try:
                seen = self.poll(handle)
            except TransientError:
                seen = nemorun_core.UNKNOWN
            yield seen
            if seen.is_over:
                return
            assert time.monotonic() < deadline, f"{handle} did not end within {self.seconds:g} s: {seen}"
            time.sleep(_TICK_SECONDS if self.able.wait else min(self.able.poll_interval_seconds, 1.0))

    def end(self, handle: Handle) -> Observation:
        """Wait until a job is over, and return what was seen then."""
        return list(self.watch(handle))[-1]

    def member(self, handle: Handle) -> MemberObservation:
        """Wait until a job of one member is over."""
        seen = self.end(handle)
        assert len(seen.members) == 1, f"a job of one member has {len(seen.members)}"
        return seen.members[0]

    def run(self, program: str | Sequence[str], *, executor: Executor | None = None) -> MemberObservation:
        """Run a job of one member to its end."""
        return self.member(self.start(program, executor=executor))

    def log(self, handle: Handle, member: int = 0, stream: str = "out") -> bytes:
        """Read a stream as it is now: the file in the job's folder, or what `read_log` gives."""
        job = self._jobs[handle]
        if self.able.shares_files:
            base = base_path(job.folder, job.key.attempt, self._incarnations.get(handle, 0), member)
            try:
                return Path(f"{base}.{stream}").read_bytes()
            except FileNotFoundError:
                return b""
        return self.read(handle, member, stream, _CHUNK)

    def read(self, handle: Handle, member: int, stream: str, limit: int) -> bytes:
        """Read a stream from its begin in pieces of at most `limit` bytes."""
        found, number = bytearray(), self._incarnations.get(handle, 0)
        deadline = time.monotonic() + self.seconds
        while data := self.backend.read_log(handle, member, stream, len(found), limit, number):
            assert len(data) <= limit, f"read_log gave {len(data)} bytes where {limit} were asked for"
            assert time.monotonic() < deadline, "read_log gives data without end"
            found += data
        return bytes(found)

    def output(self, program: str | Sequence[str], *, cwd: str | os.PathLike[str] | None = None) -> bytes:
        """Run a job of one member that must succeed, and return its log."""
        handle = self.start(program, cwd=cwd)
        member = self.member(handle)
        assert member.exit_code == 0, f"{member}, log {self.log(handle)!r}"
        return self.log(handle)

    def shows(self, handle: Handle, text: bytes = b"up\n", member: int = 0) -> None:
        """Wait until a job's log holds a text."""
        wait_until(lambda: text in self._live_log(handle, member), f"{text!r} in the log", self.seconds)

    def _live_log(self, handle: Handle, member: int) -> bytes:
        if not self.able.wait:
            self.poll(handle)  # a backend may have to look before there is a log to read
        return self.log(handle, member)

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a condition."""
        wait_until(condition, what, self.seconds)

    def lines(self, name: str) -> list[str]:
        """Return the lines of a file in the shared folder; none where it is not there."""
        path = self.shared / name
        return path.read_text().splitlines() if path.exists() else []

    def unhurt(self, handle: Handle) -> None:
        """Check that a `lasting` program runs, and that no signal has reached it: it still ends as it wants to."""
        self.end(self.start("exit 0"))
        assert self.poll(handle).members[0].state is State.RUNNING, "a job that nobody named does not run any more"
        if self._shared:
            self.open_gate()
            assert self.member(handle).exit_code == 4, "a job that nobody named was stopped"

    def settle(self) -> None:
        """Wait until whatever was submitted has had its chance to run: a further job ends after it, and on this machine
        no process of the test is left."""
        self.end(self.start("exit 0"))
        if self.able.runs_on_this_machine:
            self.until(lambda: not self.processes(), "the end of all programs")

    # Ending.

    def close(self) -> None:
        """End what still runs, whatever the backend is worth, and leave no process on this machine."""
        with contextlib.suppress(Exception):
            self._end_politely()
        for backend in self._backends:
            with contextlib.suppress(Exception):
                backend.close()
        if self.able.runs_on_this_machine:
            deadline = time.monotonic() + _CLEAN_UP_SECONDS
            while (left := self.processes()) and time.monotonic() < deadline:
                for pid in left:
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(_TICK_SECONDS)

    def _end_politely(self) -> None:
        seen = self.backend.poll(list(self._jobs))
        still = [handle for handle in self._jobs if seen[handle].members and not seen[handle].is_over]
        if not still:
            return
        self.backend.kill(still)
        deadline = time.monotonic() + min(self.seconds / 2, _CLEAN_UP_SECONDS)
        while not all(self.poll(handle).is_over for handle in still) and time.monotonic() < deadline:
            time.sleep(_TICK_SECONDS)

    def processes(self) -> list[int]:
        """Return the processes of this test's programs on this machine, from proc(5)."""
        wanted = f"{MARK}={self.mark}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended meanwhile, or is somebody else's
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found
