"""`Experiment`: define jobs, run them, and know what became of them."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal, overload

from nemorun_core.contracts.executor import Executor
from nemorun_core.contracts.host import now
from nemorun_core.contracts.plugin import Plugin
from nemorun_core.engine.submission import Builder, write_support
from nemorun_core.errors import ExperimentFailed, UsageError
from nemorun_core.experiment.draft import Draft, DraftJob
from nemorun_core.experiment.provenance import collect, import_path
from nemorun_core.experiment.session import Session
from nemorun_core.experiment.status import JobStatus, status_text
from nemorun_core.model.definition import Definition, Edge, check_name
from nemorun_core.model.state import State
from nemorun_core.model.task import Task
from nemorun_core.registry import Registry, default_registry
from nemorun_core.store.layout import Folder, Home

if TYPE_CHECKING:
    from typing_extensions import Self

    from nemorun_core.experiment.foreground import Foreground

__all__ = ["Experiment"]

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_SHORT_LEVELS = {"WARN": "WARNING", "FATAL": "CRITICAL"}  # as in Python's logging


class Experiment:
    """A group of jobs that are defined, run and managed together. A context manager that may be entered again.

    Args:
        title: what people call it; experiments of one title are kept together, each with an id of its own.
        executor: for jobs that name none; None: the installed executor called `local`.
        id: instead of `<title>_<seconds>`; must not be taken.
        log_level: how much of nemorun's own words is printed: "INFO" progress and the farewell, "WARNING" less.
        base_dir: folder of the records, instead of `$NEMORUN_HOME` or `~/.nemo_run`.

    Raises:
        UsageError: a title or level that cannot be.
    """

    def __init__(
        self,
        title: str,
        executor: Executor | str | None = None,
        *,
        id: str | None = None,
        log_level: str = "INFO",
        base_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self._title = check_name(title, "title")
        level = _SHORT_LEVELS.get(str(log_level).upper(), str(log_level).upper())
        if level not in _LEVELS:
            raise UsageError(f"log_level={log_level!r}: expected one of {', '.join(_LEVELS)}.")
        self._executor = executor
        self._wanted_id = check_name(id, "id") if id is not None else None
        self._quiet = _LEVELS.index(level) > 1
        self._registry: Registry = default_registry()
        self._base_dir = base_dir
        self._home = Home.locate(base_dir)
        self._id: str | None = None
        self._folder: Folder | None = None
        self._claimed = False
        self._nonce = os.urandom(8).hex()
        self._draft = Draft(self._registry, self._title, lambda: self.id)
        self._session: Session | None = None
        self._foreground: Foreground | None = None
        self._entered = False
        self._check = False
        self._told = False

    # What was run before.

    @classmethod
    def from_id(cls, id: str, base_dir: str | os.PathLike[str] | None = None) -> Experiment:
        """Return the experiment of this id, from this or any other process.

        Raises:
            UsageError: there is none; StoreError: its records cannot be read.
        """
        home = Home.locate(base_dir)
        folder = home.find(id)
        definition = folder.read_definition()
        experiment = cls(definition.title, base_dir=base_dir)
        experiment._id, experiment._folder, experiment._told = id, folder, True
        experiment._session = Session(definition, folder, experiment._registry)
        return experiment

    @classmethod
    def from_title(cls, title: str, base_dir: str | os.PathLike[str] | None = None) -> Experiment:
        """Return the newest experiment of this title, by creation. Raises UsageError if there is none."""
        found = Home.locate(base_dir).summaries(title)
        if not found:
            raise UsageError(
                f"there is no experiment with the title {title!r} in {Home.locate(base_dir).path}.",
                hint="`nemorun experiment list` shows what is there.",
            )
        return cls.from_id(found[-1].id, base_dir)

    @classmethod
    def catalog(cls, title: str = "", base_dir: str | os.PathLike[str] | None = None) -> list[str]:
        """Return the ids of the experiments that were run, oldest first; of one title, where it is given."""
        return [summary.id for summary in Home.locate(base_dir).summaries(title or None)]

    # What it is.

    @property
    def id(self) -> str:
        """The unique id; claimed on disk when it is first needed. Raises StoreError if the disk refuses."""
        if self._id is None:
            self._id, self._folder = self._home.claim(self._title, self._wanted_id)
            self._claimed = True
            atexit.register(self._home.unclaim, self._folder)
        return self._id

    @property
    def title(self) -> str:
        """The title as given."""
        return self._title

    @property
    def jobs(self) -> list[str]:
        """The ids of the jobs, in the order of `add`."""
        if self._session is not None:
            return [job.id for job in self._session.definition.jobs]
        return list(self._draft.jobs)

    @property
    def tasks(self) -> list[Task]:
        """The tasks as given, one a member, in the order of `add`. They may be edited until the experiment is run."""
        if self._session is not None:
            return [task for job in self._given_jobs(resolved=False) for task in job.tasks]
        self._draft.stale = True
        return [task for job in self._draft.jobs.values() for task in job.tasks]

    # Defining and running.

    def __enter__(self) -> Self:
        if self._entered:
            raise UsageError(f"experiment {self._title!r} is entered already.", hint="Make another Experiment to nest.")
        self._entered = True
        return self

    def add(
        self,
        task: Task | Sequence[Task],
        executor: Executor | str | Sequence[Executor | str] | None = None,
        name: str = "",
        *,
        plugins: Sequence[Plugin] | None = None,
        tail_logs: bool = False,
        dependencies: Iterable[str | Edge] | None = None,
        until: str = "all",
    ) -> str:
        """Add a job: one task, or a list of tasks that run together as a group. Return its id.

        Task, executor and plugins are copied.

        Args:
            executor: for all members, or a list with one a member, of one scheduler; also by name.
            name: becomes the id, with `_1`, `_2` where it is taken; by default made of the first task.
            plugins: applied in order, after installed hooks.
            tail_logs: show this job's output while the experiment runs.
            dependencies: ids that `add` returned (all must succeed), `run.after_any(id)`, `run.after_failure(id)`.
            until: a group ends with "all" its members, the "first" to end, or its "leader", member 0.

        Raises:
            UsageError: something does not fit; nothing was added.
        """
        self._must_be_open("add")
        job = self._draft.add(
            task,
            executor,
            default_executor=self._executor,
            name=name,
            plugins=plugins,
            tail_logs=tail_logs,
            dependencies=dependencies,
            until=until,
        )
        for note in self._draft.shipping.notes:
            self._say(f"[nemorun] {job}: {note}")
        self._draft.shipping.notes.clear()
        return job

    def run(
        self,
        *,
        sequential: bool = False,
        detach: bool = False,
        tail_logs: bool = False,
        direct: bool = False,
        check: bool = False,
    ) -> None:
        """Freeze the jobs and start them, each as soon as its own dependencies allow. Leaving the block waits.

        Args:
            sequential: one after another in the order of `add`, stopping at the first failure.
            detach: leave the driving to a process of its own and return; this process may end.
            tail_logs: show the output of all jobs.
            direct: one after another in this process; a task's exception is raised after it is recorded.
            check: raise `ExperimentFailed` on leaving if a job did not succeed.

        Raises:
            UsageError: the jobs cannot run like this; StoreError: the disk refused. Nothing was started.
        """
        self._must_be_open("run")
        definition = self._freeze(sequential=sequential, detach=detach, direct=direct)
        if not self._claimed:  # a dry run gave the id back
            try:
                self._home.claim(self._title, self.id)
            except UsageError:  # and another process took it
                self._id, self._draft.stale = None, True
                definition = self._freeze(sequential=sequential, detach=detach, direct=direct)
            self._claimed = True
        folder = self._folder
        assert folder is not None
        write_support(folder, self._draft.objects)
        self._draft.shipping.write(self._home, folder)
        folder.write_definition(definition)
        self._check, self._told = check, False
        self._session = Session(definition, folder, self._registry)
        if direct:
            from nemorun_core.engine.direct import run_directly

            run_directly(
                definition, folder, self._registry, {job.id: job.tasks[0] for job in self._draft.jobs.values()}
            )
        elif detach:
            self._detach()
        else:
            self._drive(tail_logs=tail_logs)

    def resume(self, *, detach: bool = False, take_over: bool = False) -> None:
        """Go on driving an experiment whose driver has gone: adopt what runs, finish the graph.

        Inside `with exp:` leaving the block waits, as after `run`; outside, this call does.

        Args:
            detach: leave the driving to a process of its own and return.
            take_over: also from a driver that lives or cannot be judged; that one stops by itself.

        Raises:
            UsageError: another process drives it, what its jobs need is not installed, or a secret's source is missing.
        """
        session = self._running_session("resume")
        if session.drives:
            raise UsageError(f"{self.id} is driven by this process already.")
        session.check_resumable(take_over=take_over)
        session.check_startable()
        if detach:
            self._detach(take_over=take_over)
        elif self._entered:
            self._drive(tail_logs=False, take_over=take_over)
            self._told = False
        else:
            with self:
                self.resume(take_over=take_over)

    def _detach(self, *, take_over: bool = False) -> None:
        from nemorun_core.engine.supervisor import detach

        detach(self._running_session("detach").folder, take_over=take_over)
        self._say(f"Experiment {self.id} goes on by itself. Follow it: {self._command('status')}")
        self._told = True

    def _freeze(self, *, sequential: bool, detach: bool, direct: bool) -> Definition:
        jobs = list(self._draft.jobs.values())
        if not jobs:
            raise UsageError("run: no job was added.", hint="exp.add(run.Script(inline='echo hello'))")
        if sequential and any(job.edges for job in jobs):
            raise UsageError(
                "run(sequential=True) orders all jobs, and some have dependencies.", hint="Leave out one of the two."
            )
        if direct and detach:
            raise UsageError("direct runs in this process, which detach leaves.", hint="Leave out one of the two.")
        if direct and any(job.group for job in jobs):
            raise UsageError("direct runs no groups.", hint="Add the tasks one by one, or leave direct out.")
        for job in jobs if direct else ():
            for name in ("launcher", "packager"):
                if getattr(job.prepared_executors[0] if job.prepared_executors else job.executors[0], name):
                    raise UsageError(
                        f"direct runs in this process, without the {name} of job {job.id!r}.",
                        hint="Leave out one of the two.",
                    )
        cwd = os.getcwd()
        definition = self._draft.freeze(
            experiment_id=self.id,
            nonce=self._nonce,
            created=now(),
            cwd=cwd,
            python_path=import_path(),
            sequential=sequential,
            direct=direct,
            provenance=collect(self._registry, {"id": self.id, "title": self._title, "cwd": cwd}),
        )
        if detach:
            for kinded in definition.executors:
                if kinded.kind.startswith("__main__:"):
                    raise UsageError(
                        f"run(detach=True): {kinded.kind.partition(':')[2]} is defined in this script, and another "
                        "process could not load it.",
                        hint="Move it into a module that can be imported.",
                    )
        return definition

    def _drive(self, *, tail_logs: bool, take_over: bool = False) -> None:
        from nemorun_core.experiment.foreground import Foreground

        self._foreground = Foreground(
            self._running_session("run"),
            say=self._say,
            command=self._command,
            tail_logs=tail_logs,
            quiet=self._quiet,
            take_over=take_over,
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered = False
        session = self._session
        if session is None:
            return
        foreground, self._foreground = self._foreground, None
        if foreground is not None:
            if error is None:
                foreground.wait()
            elif session.drives:
                foreground.interrupt()
            foreground.close()
        if error is not None or self._told:
            return
        self._told = True
        if foreground is not None and (broke := foreground.error()):
            raise broke
        self._farewell()
        if self._check:
            self._raise_failures()

    # Afterwards, from here and from anywhere.

    @overload
    def status(self, return_dict: Literal[True]) -> dict[str, JobStatus]: ...
    @overload
    def status(self, return_dict: Literal[False] = False) -> None: ...
    def status(self, return_dict: bool = False) -> dict[str, JobStatus] | None:
        """Print the status of every job; with `return_dict` return it instead.

        The dict maps job id to `{"state", "reason", "exit_code", "executor", "handle", "local_dir", "attempt",
        "started", "ended", "members": [the same per member]}`: states as strings, times ISO 8601 UTC or None.
        """
        session = self._running_session("status")
        status = session.status()
        if return_dict:
            return status
        print(status_text(self.id, status))
        if session.is_orphaned(session.graph()):
            print(f"\nWork is left and no process drives it. Go on with: {self._command('resume')}")
        return None

    def logs(
        self,
        job: str | int,
        *,
        follow: bool = False,
        member: int | None = None,
        stream: str | None = None,
        tail: int | None = None,
        regex: str | None = None,
    ) -> None:
        """Print the log of a job.

        Args:
            job: its id, or its number in the order of `add`.
            follow: go on until the job has ended.
            member: of one member only; by default of all, each line prefixed.
            stream: "out", "err" (with `separate_stderr`), "out.3" for rank 3.
            tail: only the last so many lines.
            regex: only lines in which this is found.

        Raises:
            UsageError: there is no such job or member.
        """
        session = self._running_session("logs")
        session.show_logs([session.job_id(job)], following=follow, member=member, stream=stream, tail=tail, regex=regex)

    def sync(self, job: str | int, to: str | os.PathLike[str] | None = None) -> None:
        """Bring the `outputs` that a job's executor declares, from where each member ran.

        Args:
            to: the folder to put them in, as `<to>/<job>/<file>`, of a group `<to>/<job>/<member>/<file>`; by default
                one of the experiment's id in the current folder.

        Raises:
            UsageError: there is no such job, or it declares none. TransientError: its scheduler does not answer.
        """
        session = self._running_session("sync")
        for brought in session.sync([session.job_id(job)], to):
            self._say(brought.text())

    def cancel(self, job: str | int) -> None:
        """Cancel a job, here or from another process; one that has ended is left alone. Raises UsageError."""
        session = self._running_session("cancel")
        session.cancel([session.job_id(job)])

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until all jobs have ended; return whether all succeeded. After a time-out, False."""
        return self._running_session("wait").wait(timeout_seconds)

    def dryrun(self, *, verify: bool = False) -> None:
        """Print exactly what would be submitted, job by job. Nothing is started, and nothing is left on disk.

        What goes out in one call of the scheduler is printed with the first of its jobs. Jobs that wait for others are
        printed as each goes out by itself.

        Args:
            verify: ask the schedulers, too, whether they would take the jobs, and print what each said.

        Raises:
            UsageError: a job would be refused. TransientError: a scheduler did not answer. Both only with `verify`.
        """
        from nemorun_core.experiment import rehearsal

        try:
            frozen = self._session.definition if self._session else None
            definition = frozen or self._freeze(sequential=False, detach=False, direct=False)
            assert self._folder is not None
            builder = Builder(definition, self._folder, self._registry)
            rehearsal.show(definition, builder)
            if verify:
                rehearsal.verify(definition, builder)
        finally:
            if self._session is None and self._folder is not None:
                self._home.unclaim(self._folder)
                self._claimed = False

    def reset(self) -> Self:
        """Make a fresh, not yet run experiment of what was given to `add`, with a new id; return it, itself.

        Dependencies and plugins are kept, tasks may be edited (`exp.tasks[0].args = [...]`).
        """
        session = self._running_session("reset")
        if session.drives:
            raise UsageError(f"{self.id} still runs.", hint="Wait for it, or cancel its jobs.")
        jobs = self._given_jobs(resolved=True)
        self._id = self._folder = self._session = self._wanted_id = None
        self._nonce = os.urandom(8).hex()
        self._draft = Draft(self._registry, self._title, lambda: self.id)
        self._draft.restore(jobs)
        return self

    # Helpers.

    def _given_jobs(self, *, resolved: bool) -> list[DraftJob]:
        from nemorun_core.experiment.restore import given_jobs

        assert self._session is not None
        return given_jobs(self._session.definition, self._session.folder, self._registry, resolved=resolved)

    def _must_be_open(self, what: str) -> None:
        if not self._entered:
            raise UsageError(
                f"{what}: the experiment {self._title!r} is not entered.", hint="with exp:  # add and run in this block"
            )
        if self._session is not None:
            raise UsageError(
                f"{what}: {self.id} was run already.", hint="exp.reset() makes a fresh one of the same jobs."
            )

    def _running_session(self, what: str) -> Session:
        if self._session is None:
            raise UsageError(f"{what}: the experiment {self._title!r} was not run yet.", hint="Call exp.run() first.")
        return self._session

    def _say(self, text: str) -> None:
        if not self._quiet:
            print(text, flush=True)

    def _command(self, name: str) -> str:
        from nemorun_core.display.text import shell_command

        return shell_command(name, self.id, self._base_dir)

    def _farewell(self) -> None:
        from nemorun_core.display.text import farewell

        self._say(farewell(self.id, self.jobs, self._base_dir))

    def _raise_failures(self) -> None:
        session = self._running_session("check")
        failures = {
            job.id: f"{job.state}" + (f": {job.reason}" if job.reason else "")
            for job in session.graph().jobs.values()
            if job.state is not State.SUCCEEDED
        }
        if not failures:
            return
        lines = [f"{len(failures)} of {len(self.jobs)} jobs of {self.id} did not succeed."]
        for name, reason in failures.items():
            lines.append(f"  {name}: {reason}")
            if not reason.startswith("SKIPPED"):
                lines += [f"    | {line}" for line in session.last_lines(name).splitlines()]
        raise ExperimentFailed(
            "\n".join(lines), experiment_id=self.id, failures=failures, hint=f"See {self._command('logs')} JOB"
        )
