"""The driver: holds the lock, folds events into the graph, writes them down, and tells the workers what to do."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence

from nemorun_core.contracts.backend import Submission
from nemorun_core.contracts.executor import connection_of
from nemorun_core.contracts.host import hostname, now
from nemorun_core.contracts.plugin import Event as PublicEvent
from nemorun_core.engine.backing_off import pause_seconds
from nemorun_core.engine.events import Asked, Driven, Event, Intended, Warned, dump, load
from nemorun_core.engine.kept_edges import KeptEdges
from nemorun_core.engine.state import Act, Action, Graph, Job
from nemorun_core.engine.submission import Builder
from nemorun_core.engine.summary import write_summary
from nemorun_core.engine.worker import Worker
from nemorun_core.errors import StoreError
from nemorun_core.model.definition import Definition
from nemorun_core.model.garbage import uncollected
from nemorun_core.model.records import MalformedRecord
from nemorun_core.model.state import Reason, ReasonKind
from nemorun_core.registry import Registry
from nemorun_core.store.journal import JournalReader, JournalWriter
from nemorun_core.store.layout import Folder
from nemorun_core.store.lock import HEARTBEAT_SECONDS, Lock, Overtaken
from nemorun_core.store.requests import Request, Requests

__all__ = ["Engine", "View", "read_view"]

_DISK_SECONDS = 1.0


class View:
    """What the journal says, folded; `advance` reads what was added since."""

    def __init__(self, definition: Definition, folder: Folder) -> None:
        self.graph = Graph(definition)
        self.warnings: list[str] = []
        self._reader = JournalReader(folder.journal)

    def advance(self) -> list[Job]:
        """Fold in what was added, and return the jobs that it touched, in the order of the changes.

        Raises:
            StoreError: a line is corrupt, with file and line number.
        """
        with uncollected():
            return self._advance()

    def _advance(self) -> list[Job]:
        touched: dict[str, Job] = {}
        for line in self._reader.lines():
            try:
                event, moment, _ = load(line)
                for act, job in self.graph.step(event, moment):
                    if act is Act.TELL:
                        touched[job.id] = job
            except (MalformedRecord, KeyError, ValueError) as error:
                raise self._reader.corrupt(str(error)) from None
            if isinstance(event, Warned):
                self.warnings.append(event.text)
        return list(touched.values())


def read_view(definition: Definition, folder: Folder) -> View:
    """Fold an experiment's journal as it is now. Raises StoreError."""
    view = View(definition, folder)
    view.advance()
    return view


class Engine:
    """Drives one experiment whose lock its maker holds, on a thread of its own.

    Args:
        lock: held; released when the engine ends.
        submits: False to settle only: adopt, poll once for what is known, cancel, never submit.

    Attributes:
        graph: the state; read it from any thread.
        tell: called on the engine's thread after a change was recorded, with the jobs that changed; set before `start`.
        warn: the same for what people should know and what changes no state, such as a full disk.
        ended: set when it has ended and released the lock; `error` says why, where that was not the end of all jobs.
    """

    def __init__(
        self,
        definition: Definition,
        folder: Folder,
        registry: Registry,
        lock: Lock,
        *,
        submits: bool = True,
    ) -> None:
        self._definition = definition
        self._registry = registry
        self._lock = lock
        self._submits = submits
        self.tell: Callable[[Sequence[Job]], None] = lambda jobs: None
        self.warn: Callable[[str], None] = lambda text: None
        self._builder = Builder(definition, folder, registry)
        self._requests = Requests(folder.requests)
        self._folder = folder
        self._workers: dict[Hashable, Worker] = {}
        self._inbox: deque[Event] = deque()
        self._ready: list[Job] = []
        self._told: dict[str, Job] = {}
        self._todo: list[Action] = []
        self._journal: JournalWriter | None = None
        self._reading = self._writing = -1
        self._leaving = False
        self._killing = False
        self._retries: list[tuple[float, Job]] = []
        self._stuck_until, self._stuck_by = 0.0, ""
        self._beaten = time.monotonic()
        self._broken_hooks: set[str] = set()
        self.error: BaseException | None = None
        self.view = View(definition, folder)
        self.graph = self.view.graph
        self._edges = KeptEdges(definition, folder, self.graph, self._builder)
        self.ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"nemorun {definition.id}", daemon=True)

    def start(self) -> None:
        """Start the thread. The definition is on disk by now."""
        self._reading, self._writing = self._requests.open_pipe()
        self._thread.start()

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until the engine has ended; return whether it has."""
        return self.ended.wait(timeout_seconds)

    def leave(self) -> None:
        """End driving, whatever still runs; it goes on, and can be resumed."""
        self._leaving = True
        self._wake()

    def kill(self) -> None:
        """End at once what is being cancelled, without waiting for its grace."""
        self._killing = True
        self._wake()

    def _wake(self, sign: bytes = b".") -> None:
        with contextlib.suppress(OSError):
            os.write(self._writing, sign)

    def _report(self, events: Sequence[Event]) -> None:
        self._inbox.extend(events)
        self._wake()

    # Everything below runs on the engine's own thread.

    def _run(self) -> None:
        try:
            self._begin()
            while not self._leaving and self._unfinished():
                self._turn()
        except Overtaken as error:
            self.error = error
        except BaseException as error:
            self.error = error
        finally:
            self._end()

    def _unfinished(self) -> bool:
        if self._told or self._todo or self._stuck_until or self._inbox:
            return True
        if self._submits:
            return self.graph.open > 0 or bool(self.graph.leaving)
        cancelling = any(job.asked and not job.state.is_final for job in self.graph.jobs.values())
        return cancelling or not all(worker.settled.is_set() for worker in self._workers.values())

    def _begin(self) -> None:
        self.view.advance()
        self._journal = JournalWriter(self._folder.journal)
        if self._submits:
            self._record(Driven(hostname(), os.getpid()))
        doubted: dict[Worker, list[tuple[tuple[str, int], str | None]]] = {}
        for job in self.graph.resume():
            if job.intended:
                doubted.setdefault(self._worker(job), []).append(((job.id, job.attempt), job.handle))
                # What waits for others is only looked for: its edges may have to be handed over anew.
                if job.asked or job.verdict or job.state.is_final or (job.waiting and not job.handle):
                    self._todo.append((Act.CANCEL if job.handle else Act.WITHDRAW, job))
            elif self._submits:
                self._ready.append(job)
        for worker, attempts in doubted.items():
            worker.adopt(attempts)
        for job, attempt, handle in self.graph.remains():
            self._worker(job).clear([((job.id, attempt), handle)])
        self._take_requests()
        self._flush()
        self._dispatch()

    def _turn(self) -> None:
        dues = [due for due, _ in self._retries] + ([self._stuck_until] if self._stuck_until else [])
        patience = max(0.0, min([HEARTBEAT_SECONDS, *(due - time.monotonic() for due in dues)]))
        readable, _, _ = select.select([self._reading], [], [], patience)
        signs = b""
        if readable:
            with contextlib.suppress(BlockingIOError):
                signs = os.read(self._reading, 1 << 16)
        if b"!" in signs or not readable:
            self._take_requests()
        if time.monotonic() - self._beaten >= HEARTBEAT_SECONDS:
            self._beaten = time.monotonic()
            self._lock.beat()
        if self._killing:
            self._killing = False
            for worker in self._workers.values():
                worker.kill()
        while self._inbox:
            event = self._inbox.popleft()
            if self.graph.is_news(event):
                self._record(event)
            self._edges.consider(event)
            if isinstance(event, Warned):
                self.warn(event.text)
        moment = time.monotonic()
        self._ready += [job for due, job in self._retries if due <= moment]
        self._retries = [(due, job) for due, job in self._retries if due > moment]
        self._flush()
        self._ready += self._edges.take()
        self._dispatch()

    def _record(self, event: Event) -> None:
        assert self._journal is not None
        moment = now()
        self._journal.append(dump(event, moment, self._lock.epoch))
        self._todo += self.graph.step(event, moment)

    def _act(self) -> None:
        """Do what follows from events that are written, since the next driver could not tell else why it was done."""
        actions, self._todo = self._todo, []
        cancels: dict[Worker, list[str]] = {}
        withdrawals: dict[Worker, list[tuple[str, int]]] = {}
        releases: dict[Worker, list[tuple[tuple[str, int], str]]] = {}
        for act, job in actions:
            if act is Act.TELL:
                self._told[job.id] = job
            elif act is Act.SUBMIT:
                self._ready.append(job)
            elif act is Act.WITHDRAW:
                withdrawals.setdefault(self._worker(job), []).append((job.id, job.attempt))
            elif act is Act.RETRY:
                self._retries.append((time.monotonic() + pause_seconds(job.attempt), job))
            elif act is Act.RELEASE and job.retired is not None:
                attempt, handle = job.retired
                releases.setdefault(self._worker(job), []).append(((job.id, attempt), handle))
            elif act is Act.CANCEL and job.handle is not None:
                cancels.setdefault(self._worker(job), []).append(job.handle)
        for worker, handles in cancels.items():
            worker.cancel(handles)
        for worker, attempts in withdrawals.items():
            worker.withdraw(attempts)
        for worker, ended in releases.items():
            worker.release(ended)

    def _flush(self, *, sync: bool = False) -> bool:
        """Write what was recorded; a disk that refuses holds up new submissions, and is asked again."""
        assert self._journal is not None
        self._lock.check()
        try:
            self._journal.flush(sync=sync)
        except StoreError as error:
            self._hold(error, "journal")
            return False
        self._go_on("journal")
        self._act()
        if self._told:
            told = list(self._told.values())
            self._told.clear()
            self._observe(told)
            self.tell(told)
        return True

    def _hold(self, error: StoreError, by: str) -> None:
        """Start nothing new for a while, since the disk refused; say so once."""
        if self._stuck_by != by:
            self.warn(f"{error.message} Nothing new is started until it can be; jobs that run go on.")
        self._stuck_until, self._stuck_by = time.monotonic() + _DISK_SECONDS, by

    def _go_on(self, by: str) -> None:
        if self._stuck_by == by:
            self._stuck_until, self._stuck_by = 0.0, ""

    def _dispatch(self) -> None:
        """Submit what is ready, once its intent is durable: one sync for all."""
        ready = [job for job in self._ready if not job.state.is_final and not job.intended]
        if not ready:
            self._go_on("bundle")
        if not ready or self._stuck_until > time.monotonic() or not self._submits:
            return
        try:
            for job in ready:
                if job.definition.bundles:
                    self._builder.unpack(job.definition)
        except StoreError as error:
            self._hold(error, "bundle")
            return
        self._go_on("bundle")
        self._record(Intended(tuple((job.id, job.attempt) for job in ready)))
        if not self._flush(sync=True):
            for job in ready:
                job.intended = False
            return
        self._ready.clear()
        batches: dict[Worker, list[tuple[str, int]]] = {}
        for job in ready:
            batches.setdefault(self._worker(job), []).append((job.id, job.attempt))
        for worker, attempts in batches.items():
            worker.submit(attempts)

    def _worker(self, job: Job) -> Worker:
        executor = self._builder.executor(job.definition)
        connection = connection_of(executor)
        worker = self._workers.get(connection)
        if worker is None:
            worker = Worker(
                executor, self._submission, self._report, self._lock.check, self._edges.of, submits=self._submits
            )
            self._workers[connection] = worker
            worker.start()
        return worker

    def _submission(self, name: str, attempt: int) -> Submission:
        return self._builder.build(self.graph.jobs[name].definition, attempt)

    def _take_requests(self) -> None:
        self._lock.check()  # what was asked since another driver took over is for that one
        for path in self._requests.files():
            try:
                request = self._requests.read(path)
            except StoreError as error:  # rubbish must not stop the driver, nor be read again
                self._record(Warned(error.message))
                request = None
            if request is not None:
                held, self._todo = self._todo, []
                self._record(Asked(tuple(job for job in request.jobs if job in self.graph.jobs), _reason(request)))
                self._act()  # also where the journal cannot be written: the request itself is on disk
                self._todo += held
            if self._flush(sync=True):
                self._requests.settle(path)

    def _observe(self, jobs: Sequence[Job]) -> None:
        for hook in self._registry.hooks("nemorun_event"):
            for job in jobs:
                try:
                    hook.call(event=_public(job, self._definition.id))
                except Exception as error:  # an observer hurts nothing
                    if hook.found.name not in self._broken_hooks:
                        self._broken_hooks.add(hook.found.name)
                        self._inbox.append(
                            Warned(f"nemorun_event of {hook.found.distribution}: {type(error).__name__}: {error}")
                        )

    def _end(self) -> None:
        for worker in self._workers.values():
            worker.stop()
        for worker in self._workers.values():
            worker.join()
        if self._journal is not None:
            try:
                self._write_last()
            except Exception as error:  # of a disk that refuses, the jobs' records know the same
                self.error = self.error or (None if isinstance(error, StoreError) else error)
            self._journal.close()
        self._lock.release()
        reading, writing, self._reading, self._writing = self._reading, self._writing, -1, -1
        for handle in (reading, writing):
            os.close(handle)
        self.ended.set()

    def _write_last(self) -> None:
        """Write what the workers said last, unless this driver was stopped by an error."""
        if self.error is None and self._journal is not None:
            self._lock.check()
            while self._inbox:
                self._record(self._inbox.popleft())
            self._journal.flush()
            write_summary(self._definition, self._folder, self.graph)


def _reason(request: Request) -> Reason:
    try:
        return Reason(ReasonKind(request.kind), request.detail)
    except ValueError:
        return Reason(ReasonKind.BY_USER, request.detail)


def _public(job: Job, experiment_id: str) -> PublicEvent:
    return PublicEvent(
        experiment_id=experiment_id,
        job=job.id,
        state=job.state.value,
        reason=str(job.reason) if job.reason else None,
        attempt=job.attempt,
        time=now(),
    )
