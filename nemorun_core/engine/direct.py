"""Run jobs one after another in this process, with the same records as any other run."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping

from nemorun_core.contracts.host import hostname, now
from nemorun_core.contracts.observation import MemberObservation
from nemorun_core.contracts.witness import base_path
from nemorun_core.engine.events import Asked, Driven, Event, Intended, Observed, Submitted, dump
from nemorun_core.engine.output import binary
from nemorun_core.engine.state import Act, Graph, Job
from nemorun_core.engine.submission import Builder
from nemorun_core.errors import StoreError
from nemorun_core.model.buildable import Partial
from nemorun_core.model.definition import Definition
from nemorun_core.model.secret import Secret
from nemorun_core.model.state import Reason, ReasonKind, State, exit_reason
from nemorun_core.model.task import Task
from nemorun_core.registry import Registry
from nemorun_core.store.files import make_folder
from nemorun_core.store.journal import JournalWriter
from nemorun_core.store.layout import Folder
from nemorun_core.store.lock import Lock

__all__ = ["run_directly"]


def run_directly(definition: Definition, folder: Folder, registry: Registry, tasks: Mapping[str, Task]) -> None:
    """Run each job when its dependencies are final, in the order of `add`.

    Args:
        tasks: for each job id the task itself, whose functions need not be imported again.

    Raises:
        Exception: what a task raised, after it was recorded; jobs not run by then are CANCELLED or SKIPPED.
        StoreError: the disk refused.
    """
    lock = Lock(folder.lock)
    if not lock.acquire():
        raise StoreError(f"{folder.path} is driven by another process.")
    journal = JournalWriter(folder.journal)
    graph = Graph(definition)
    builder = Builder(definition, folder, registry)

    def record(event: Event) -> list[Job]:
        moment = now()
        journal.append(dump(event, moment, lock.epoch))
        actions = graph.step(event, moment)
        journal.flush()
        return [job for act, job in actions if act is Act.SUBMIT]

    try:
        record(Driven(hostname(), os.getpid()))
        ready = [job for _, job in graph.begin()]
        while ready:
            job = min(ready, key=lambda one: one.index)
            ready.remove(job)
            record(Intended(((job.id, job.attempt),)))
            record(Submitted(job.id, job.attempt, definition.key(job.id, job.attempt).slug()))
            started = now()
            record(_observed(job, MemberObservation(state=State.RUNNING, started=started, host=hostname())))
            end, error = _run(builder, folder, job, tasks[job.id])
            ready += record(
                _observed(job, MemberObservation(**end, started=started, ended=now(), host=hostname()))  # type: ignore[arg-type]
            )
            if error is not None:
                left = tuple(one.id for one in graph.jobs.values() if not one.state.is_final)
                record(Asked(left, Reason(ReasonKind.INTERRUPT, f"{job.id!r} raised {type(error).__name__}")))
                raise error
    finally:
        journal.close()
        lock.release()


def _observed(job: Job, member: MemberObservation) -> Observed:
    return Observed(job.id, job.attempt, 0, (member,))


def _run(builder: Builder, folder: Folder, job: Job, task: Task) -> tuple[dict[str, object], BaseException | None]:
    """Run one task; return its end as fields of an observation, and the exception of a Python task."""
    submission = builder.build(job.definition, job.attempt)
    member = submission.members[0]
    make_folder(submission.folder)
    environment = {
        name: value.reveal() if isinstance(value, Secret) else value for name, value in member.environment.items()
    }
    log_path = f"{base_path(submission.folder, job.attempt, 0, 0)}.out"
    with open(log_path, "wb", buffering=0) as log:
        if not isinstance(task, Partial):
            code = _run_program(member.argv, {**os.environ, **environment}, log)
            reason = exit_reason(code)
            return {"state": State.FAILED if reason else State.SUCCEEDED, "exit_code": code, "reason": reason}, None
        with _environment(environment), _copied_output(log):
            try:
                task.call()
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
                reason = exit_reason(code)
                return {"state": State.FAILED if reason else State.SUCCEEDED, "exit_code": code, "reason": reason}, None
            except BaseException as error:
                import traceback

                sys.stderr.write("".join(traceback.format_exception(error)))
                reason = Reason(ReasonKind.EXIT_CODE, f"1: {type(error).__name__}: {error}".splitlines()[0])
                return {"state": State.FAILED, "exit_code": 1, "reason": reason}, error
    return {"state": State.SUCCEEDED, "exit_code": 0}, None


def _run_program(argv: tuple[str, ...], environment: Mapping[str, str], log: io.FileIO) -> int:
    """Run a program, its output copied to the log as it comes; return its exit code as a shell reports it."""
    write = binary(sys.stdout)
    try:
        process = subprocess.Popen(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except OSError as error:
        message = f"{argv[0]}: {error.strerror}\n".encode()
        log.write(message)
        write(message)
        return 127 if isinstance(error, FileNotFoundError) else 126
    with process:
        assert process.stdout is not None
        while data := os.read(process.stdout.fileno(), 1 << 16):
            log.write(data)
            write(data)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


@contextlib.contextmanager
def _environment(declared: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(declared)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class _Copied(io.TextIOBase):
    """A text stream that passes everything on, and copies it to a log."""

    def __init__(self, stream: io.TextIOBase, log: io.FileIO) -> None:
        self._stream = stream
        self._log = log

    def write(self, text: str) -> int:
        self._log.write(text.encode("utf-8", "backslashreplace"))
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", "utf-8")


@contextlib.contextmanager
def _copied_output(log: io.FileIO) -> Iterator[None]:
    with (
        contextlib.redirect_stdout(_Copied(sys.stdout, log)),  # type: ignore[arg-type]
        contextlib.redirect_stderr(_Copied(sys.stderr, log)),  # type: ignore[arg-type]
    ):
        yield
