"""`SpoolExecutor`: runs jobs on this machine (Linux), and writes each down in a spool folder."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import attrs

import nemorun_core as run

__all__ = ["SpoolExecutor"]


@attrs.define(kw_only=True)
class SpoolExecutor(run.Executor):
    """Runs jobs on this machine, and writes them down in `folder`: the whole path of a folder that is there."""

    folder: str = attrs.field(validator=attrs.validators.matches_re("/.*"))

    def capabilities(self) -> run.Capabilities:
        return run.Capabilities(runs_on_this_machine=True, shares_files=True, release=True, poll_interval_seconds=0.2)

    def connection(self) -> str:
        return self.folder

    def backend(self) -> run.Backend:
        return SpoolBackend(self.folder)


@contextlib.contextmanager
def spool_answers() -> Iterator[None]:
    """Say of an error of the disk that it tells nothing of any job (E3)."""
    try:
        yield
    except OSError as error:
        raise run.TransientError(f"the spool does not answer: {error}") from error


class SpoolBackend(run.Backend):
    """A connection to a spool, which holds one file a job: what was submitted, with its full key.

    How a job is doing stands in its own folder, where the shim writes, and in the table of processes.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.jobs: dict[run.Handle, run.Submission] = {}

    def render(self, job: run.Submission) -> Sequence[run.Document]:
        content = {"key": str(job.key), "argv": shim_of(job), "environment": dict(job.members[0].environment)}
        return [run.Document(f"{job.key.slug()}.job", json.dumps(content, indent=1, default=str))]  # str hides secrets

    def submit(self, jobs: Sequence[run.Submission]) -> Iterator[tuple[run.Key, run.Answer]]:
        return ((job.key, self.offer(job.key.slug(), job)) for job in jobs)

    @spool_answers()
    def offer(self, handle: run.Handle, job: run.Submission) -> run.Answer:
        self.jobs[handle] = job
        with tempfile.NamedTemporaryFile("w", dir=self.folder) as stream, contextlib.suppress(FileExistsError):
            print(self.render(job)[0].text, end="", file=stream, flush=True)
            os.link(stream.name, Path(self.folder, f"{handle}.job"))  # the whole at once, and only if the name is free
        if not self.holds(handle):
            return run.Rejected(run.Reason(run.ReasonKind.REJECTED, f"the spool has a {handle} of another key"))
        try:
            if not run.read_rank(base_of(job), "").claimed and not os.path.exists(f"{base_of(job)}.cancel"):
                start(job)
        except OSError as error:  # too many processes, or a full disk, which may pass
            return run.Deferred(run.Reason(run.ReasonKind.LIMIT, str(error)))
        except (ValueError, run.UsageError) as error:  # a NUL character, a secret that is missing
            return run.Rejected(run.Reason(run.ReasonKind.REJECTED, str(error)))
        return run.Accepted(handle)

    def find(self, jobs: Collection[run.Submission]) -> Mapping[run.Key, run.Handle]:
        self.jobs.update((job.key.slug(), job) for job in jobs)
        seen = self.poll([job.key.slug() for job in jobs])
        return {self.jobs[handle].key: handle for handle in seen if seen[handle].members}

    @spool_answers()
    def poll(self, handles: Collection[run.Handle]) -> Mapping[run.Handle, run.Observation]:
        _, running = os.listdir(self.folder), processes()  # two looks, however many jobs there are (E3, E12)
        return {handle: look(self.jobs[handle], running) if handle in self.jobs else run.UNKNOWN for handle in handles}

    @spool_answers()
    def cancel(self, handles: Collection[run.Handle]) -> None:
        for handle, seen in self.poll(handles).items():
            if seen.members and not seen.members[0].state.is_final:
                with contextlib.suppress(FileExistsError):  # told before: once is enough
                    Path(f"{base_of(self.jobs[handle])}.cancel").touch(exist_ok=False)
                    send(processes().get(str(self.jobs[handle].key), []), signal.SIGTERM)

    def release(self, handles: Collection[run.Handle]) -> None:
        for handle in filter(self.holds, handles):
            Path(self.folder, f"{handle}.job").unlink(missing_ok=True)

    def holds(self, handle: run.Handle) -> bool:
        """Whether the spool's file of that name carries the full key of a job of ours: a name is no title (E14)."""
        file, job = Path(self.folder, f"{handle}.job"), self.jobs.get(handle)
        return job is not None and file.exists() and bool(json.loads(file.read_text())["key"] == str(job.key))


def base_of(job: run.Submission) -> str:
    return run.base_path(job.folder, job.key.attempt, 0, 0)


def shim_of(job: run.Submission) -> list[str]:
    return ["sh", *run.shim_argv(f"{job.support}/shim.sh", base_of(job), "", job.members[0].cwd, job.members[0].argv)]


def start(job: run.Submission) -> None:
    """Start the job's shim in a session of its own. Of several, one claims the start and the others do nothing (E2)."""
    member, environment, null = job.members[0], {**os.environ, MARK: str(job.key)}, subprocess.DEVNULL
    for name, value in member.environment.items():
        environment[name] = value.reveal() if isinstance(value, run.Secret) else value
    os.makedirs(job.folder, mode=0o700, exist_ok=True)
    for name, content in member.files.items():
        Path(job.folder, name).write_bytes(content)
    run.pad_outcome(base_of(job), "")
    shim = subprocess.Popen(shim_of(job), env=environment, start_new_session=True, stdin=null, stdout=null, stderr=null)
    threading.Thread(target=shim.wait, daemon=True).start()  # so that it leaves no zombie


MARK = "NEMORUN_SPOOL_KEY"  # a variable that all processes of a job inherit


def processes() -> dict[str, list[int]]:
    """Return the processes of each key, by their mark or by that of the shim that leads their session; oldest first."""
    found: dict[str, list[int]] = {}
    for pid in sorted(map(int, filter(str.isdigit, os.listdir("/proc")))):
        with contextlib.suppress(ProcessLookupError):
            found.setdefault(key_of(pid) or key_of(os.getsid(pid)), []).append(pid)
    return found


def key_of(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as stream:  # ended, or somebody else's
        return dict(line.partition("=")[::2] for line in os.fsdecode(stream.read()).split("\0")).get(MARK, "")
    return ""


def look(job: run.Submission, running: Mapping[str, list[int]]) -> run.Observation:
    """Say how a job is doing, from its records and the processes of a moment before."""
    base, pids = base_of(job), running.get(str(job.key), [])
    witness = run.read_rank(base, "")  # read last: a shim that was no process any more has written what it ever will
    cancelled = os.path.exists(f"{base}.cancel")
    if not (pids or witness.claimed or cancelled):
        return run.UNKNOWN
    overdue = cancelled and time.time() - os.path.getmtime(f"{base}.cancel") >= job.executors[0].grace_seconds
    if overdue or (witness.start and not witness.outcome and witness.start.pid not in pids):
        send(pids, signal.SIGKILL)  # also what is left of a job whose shim was killed
    started = run.iso_time(os.path.getmtime(f"{base}.start")) if witness.claimed else None
    if pids and (cancelled or not witness.outcome):
        member = run.MemberObservation(state=run.State.RUNNING if started else run.State.PENDING, started=started)
    else:
        ended = run.iso_time(os.path.getmtime(f"{base}.outcome")) if witness.outcome else None
        member = run.ended_member([witness.outcome], started=started, ended=ended, host=run.hostname())
    return run.Observation(members=(member,))


def send(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
