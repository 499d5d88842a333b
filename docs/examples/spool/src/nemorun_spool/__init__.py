"""`SpoolExecutor`: runs jobs on this machine (Linux), and writes each down in a spool folder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence

import attrs

import nemorun_core as run

__all__ = ["SpoolExecutor"]


@attrs.define(kw_only=True)
class SpoolExecutor(run.Executor):
    """Runs jobs on this machine, and writes them down in `folder`, the absolute path of a folder that is there."""

    folder: str

    def capabilities(self) -> run.Capabilities:
        return run.Capabilities(runs_on_this_machine=True, shares_files=True, poll_interval_seconds=0.2)

    def connection(self) -> str:
        return self.folder

    def backend(self) -> run.Backend:
        return SpoolBackend(self.folder)

    def check(self) -> None:
        super().check()
        if not os.path.isabs(self.folder):
            raise run.UsageError(f"SpoolExecutor(folder={self.folder!r}): expected an absolute path.")


@contextlib.contextmanager
def spool_answers() -> Iterator[None]:
    """Say of an error of the disk that it tells nothing of any job (E3)."""
    try:
        yield
    except OSError as error:
        raise run.TransientError(f"the spool does not answer: {error}") from error


class SpoolBackend(run.Backend):
    """A connection to a spool, which holds one file a job, with its full key.

    All else is read from the job's own folder, where the shim writes, and from the table of processes.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.jobs: dict[run.Handle, run.Submission] = {}  # those that this connection knows

    def render(self, job: run.Submission) -> Sequence[run.Document]:
        declared = {name: str(value) for name, value in job.members[0].environment.items()}  # a Secret hides itself
        text = json.dumps({"key": str(job.key), "argv": shim_of(job), "environment": declared}, indent=1)
        return [run.Document(f"{job.key.slug()}.job", text)]

    def submit(self, jobs: Sequence[run.Submission]) -> Iterator[tuple[run.Key, run.Answer]]:
        return ((job.key, self.offer(job)) for job in jobs)

    @spool_answers()
    def offer(self, job: run.Submission) -> run.Answer:
        [(name, text)] = self.render(job)
        with tempfile.NamedTemporaryFile("w", dir=self.folder) as stream, contextlib.suppress(FileExistsError):
            stream.write(text)
            stream.flush()
            os.link(stream.name, os.path.join(self.folder, name))  # the whole text, and only if the name is free
        if not self.holds(job):
            return run.Rejected(run.Reason(run.ReasonKind.REJECTED, f"the spool has a {name} of another key"))
        try:
            if not run.read_rank(base_of(job), "").claimed:
                start(job)
        except BlockingIOError as error:  # too many processes, which passes
            return run.Deferred(run.Reason(run.ReasonKind.LIMIT, str(error)))
        except (OSError, ValueError, run.UsageError) as error:  # too long, a NUL character, a secret that is missing
            return run.Rejected(run.Reason(run.ReasonKind.REJECTED, str(error)))
        self.jobs[job.key.slug()] = job
        return run.Accepted(job.key.slug())

    @spool_answers()
    def find(self, jobs: Collection[run.Submission]) -> Mapping[run.Key, run.Handle]:
        os.listdir(self.folder)  # is the spool there?
        found, running = {}, processes()
        for job in jobs:
            if run.read_rank(base_of(job), "").claimed or str(job.key) in running:
                found[job.key] = job.key.slug()
                self.jobs[job.key.slug()] = job
        return found

    @spool_answers()
    def poll(self, handles: Collection[run.Handle]) -> Mapping[run.Handle, run.Observation]:
        held, running = os.listdir(self.folder), processes()  # two looks, however many jobs there are (E12)
        return {handle: self.look(self.jobs.get(handle), held, running) for handle in handles}

    def look(self, job: run.Submission | None, held: list[str], running: dict[str, list[int]]) -> run.Observation:
        base, pids = (base_of(job), running.get(str(job.key), [])) if job else ("", [])
        witness = run.read_rank(base, "")  # later than the processes: a shim that was not there has written its last
        if job is None or not (witness.outcome or f"{job.key.slug()}.job" in held):
            return run.UNKNOWN
        cancelled = os.path.exists(f"{base}.cancel")
        overdue = cancelled and time.time() - os.path.getmtime(f"{base}.cancel") >= job.executors[0].grace_seconds
        orphaned = not witness.outcome and witness.start and witness.start.pid not in pids
        if overdue or orphaned:
            send(job, pids, signal.SIGKILL)
        if not pids and not witness.claimed:  # its shim was stopped before it began: nobody shall start it now (E2)
            open(f"{base}.start", "x").close()
        started = run.iso_time(os.path.getmtime(f"{base}.start")) if os.path.exists(f"{base}.start") else None
        if pids and (cancelled or not witness.outcome):
            state = run.State.RUNNING if witness.claimed else run.State.PENDING
            return run.Observation(members=(run.MemberObservation(state=state, started=started),))
        ended = run.iso_time(os.path.getmtime(f"{base}.outcome")) if witness.outcome else None
        member = run.ended_member([witness.outcome], started=started, ended=ended, host=run.hostname())
        return run.Observation(members=(member,))

    @spool_answers()
    def cancel(self, handles: Collection[run.Handle]) -> None:
        running = processes()
        for handle, seen in self.poll(handles).items():
            if seen.members and not seen.members[0].state.is_final:
                with contextlib.suppress(FileExistsError):  # it was told before
                    open(f"{base_of(self.jobs[handle])}.cancel", "x").close()
                    send(self.jobs[handle], running.get(str(self.jobs[handle].key), []), signal.SIGTERM)

    @spool_answers()
    def release(self, handles: Collection[run.Handle]) -> None:
        for handle in self.jobs.keys() & handles:
            if self.holds(self.jobs[handle]):
                os.unlink(os.path.join(self.folder, f"{handle}.job"))

    def holds(self, job: run.Submission) -> bool:
        """Whether the spool's file of the job's name carries its full key; a name alone is no title (E14)."""
        path = os.path.join(self.folder, f"{job.key.slug()}.job")
        with contextlib.suppress(FileNotFoundError), open(path) as stream:
            return bool(json.load(stream)["key"] == str(job.key))
        return False


def base_of(job: run.Submission) -> str:
    return run.base_path(job.folder, job.key.attempt, 0, 0)


def shim_of(job: run.Submission) -> list[str]:
    shim, member = os.path.join(job.support, "shim.sh"), job.members[0]
    return ["sh", *run.shim_argv(shim, base_of(job), "", member.cwd, member.argv)]


MARK = "NEMORUN_SPOOL_KEY"  # a variable that all processes of a job inherit


def start(job: run.Submission) -> None:
    """Start the job's shim in a session of its own. Of several, one claims the start and the others do nothing (E2)."""
    [member] = job.members
    declared = {name: v.reveal() if isinstance(v, run.Secret) else v for name, v in member.environment.items()}
    os.makedirs(job.folder, mode=0o700, exist_ok=True)
    for name, content in member.files.items():
        with open(os.path.join(job.folder, name), "wb") as stream:
            stream.write(content)
    run.pad_outcome(base_of(job), "")
    environment, null = {**os.environ, **declared, MARK: str(job.key)}, subprocess.DEVNULL
    shim = subprocess.Popen(shim_of(job), env=environment, start_new_session=True, stdin=null, stdout=null, stderr=null)
    threading.Thread(target=shim.wait, daemon=True).start()  # so that it leaves no zombie


def processes() -> dict[str, list[int]]:
    """Return the processes of each key: those with its mark, and others of the session that its shim leads."""
    found: dict[str, list[int]] = {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(ProcessLookupError):
            found.setdefault(key_of(pid) or key_of(os.getsid(pid)), []).append(pid)
    return found


def key_of(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as stream:  # OSError: ended, or not ours
        return dict(os.fsdecode(line).partition("=")[::2] for line in stream.read().split(b"\0")).get(MARK, "")
    return ""


def send(job: run.Submission, pids: list[int], number: int) -> None:
    """Send a signal to a job's processes. The shim hears the polite one first, and outlives a kill to tell of it."""
    start = run.read_rank(base_of(job), "").start
    shim = start.pid if start else 0
    for pid in sorted(pids, key=lambda pid: pid != shim):
        if pid != shim or number != signal.SIGKILL:
            with contextlib.suppress(OSError):
                os.kill(pid, number)
