"""The truth without a driver: adopt what runs, poll it, carry out requests, and never submit."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator

from nemorun_core.contracts.backend import Backend, Submission
from nemorun_core.contracts.executor import connection_of
from nemorun_core.contracts.host import now
from nemorun_core.engine.events import Observed, Submitted
from nemorun_core.engine.loop import Engine, View, read_view
from nemorun_core.engine.submission import Builder
from nemorun_core.errors import StoreError, TransientError, UsageError
from nemorun_core.model.definition import Definition
from nemorun_core.registry import Registry
from nemorun_core.store.layout import Folder
from nemorun_core.store.lock import Lock, driver_of
from nemorun_core.store.requests import Requests

__all__ = ["cancel_beside", "driver_lives", "look"]

_MARGIN_SECONDS = 10.0


def driver_lives(folder: Folder) -> bool:
    """Whether a process on this machine drives the experiment, or one elsewhere may."""
    driver = driver_of(folder.lock)
    if driver is None or driver.ended:
        return False
    return driver.is_alive_here() if driver.is_here else True


def look(definition: Definition, folder: Folder, registry: Registry) -> View:
    """Return the state of an experiment as it is now.

    While a driver lives, that is what the journal says. Without one, what may still run is looked for, and what became
    of it is written down, where this process may write; requests are carried out.

    Raises:
        StoreError: the folder cannot be read.
        UsageError: a plugin that is needed to look is not installed.
    """
    view = read_view(definition, folder)
    waiting = any(job.intended for job in view.graph.resume()) or bool(view.graph.remains())
    if not waiting and not (view.graph.open and Requests(folder.requests).files()):
        return view
    if driver_lives(folder):
        return view
    lock = Lock(folder.lock, settles=True)
    try:
        if not lock.acquire():
            return view
    except StoreError:  # a folder that this process may only read
        _peek(view, definition, folder, registry)
        return view
    engine = Engine(definition, folder, registry, lock, submits=False)
    engine.start()
    engine.wait()
    if engine.error is not None and not isinstance(engine.error, (StoreError, UsageError)):
        raise engine.error
    with contextlib.suppress(StoreError):
        view = read_view(definition, folder)
    return view


def _peek(view: View, definition: Definition, folder: Folder, registry: Registry) -> None:
    """Fold into a view what backends see now, and write nothing; of one that does not answer, the journal's word."""
    with contextlib.suppress(UsageError):
        for submissions in list(_in_doubt(view, Builder(definition, folder, registry), None)):
            with contextlib.suppress(TransientError), submissions[0].executors[0].backend() as backend:
                keys = {handle: key for key, handle in backend.find(submissions).items()}
                for handle, observed in backend.poll(list(keys)).items():
                    key = keys[handle]
                    if observed.members:
                        seen = Observed(key.job, key.attempt, observed.incarnation, observed.members, observed.reason)
                        for event in (Submitted(key.job, key.attempt, handle), seen):
                            view.graph.step(event, now())


def _in_doubt(view: View, builder: Builder, jobs: Collection[str] | None) -> Iterator[list[Submission]]:
    """Yield the submissions of the jobs, all or these, that may be on a scheduler: a list a connection."""
    by_connection: dict[object, list[Submission]] = {}
    for job in view.graph.resume():
        if job.intended and (jobs is None or job.id in jobs):
            executor = builder.executor(job.definition)
            made = builder.build(job.definition, job.attempt)
            by_connection.setdefault(connection_of(executor), []).append(made)
    yield from by_connection.values()


def cancel_beside(definition: Definition, folder: Folder, registry: Registry, jobs: Collection[str]) -> None:
    """Cancel at the backend itself, beside a driver that does not answer; it writes nothing but what jobs write.

    Waits until they have ended, at most their grace and ten seconds more.

    Raises:
        TransientError: a scheduler did not answer; UsageError: a plugin that is needed is not installed.
    """
    view = read_view(definition, folder)
    for submissions in _in_doubt(view, Builder(definition, folder, registry), jobs):
        grace = max(executor.grace_seconds for job in submissions for executor in job.executors)
        with submissions[0].executors[0].backend() as backend:
            handles = set(backend.find(submissions).values())
            backend.cancel(handles)
            _await_end(backend, handles, grace + _MARGIN_SECONDS)


def _await_end(backend: Backend, handles: set[str], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while handles and time.monotonic() < deadline:
        for handle, seen in backend.poll(handles).items():
            if all(member.state.is_final for member in seen.members):
                handles = handles - {handle}
        time.sleep(0.05)
