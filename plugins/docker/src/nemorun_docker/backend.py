"""The backend of a Docker engine: containers whose first process is the shim, followed by the engine's events."""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import attrs

from nemorun_core import (
    UNKNOWN,
    Accepted,
    Answer,
    Backend,
    Document,
    Handle,
    Key,
    Observation,
    Reason,
    ReasonKind,
    Rejected,
    State,
    Stopping,
    Submission,
    TransientError,
    UsageError,
    read_rank,
)
from nemorun_docker.body import container_body, container_name, executor_of, has_own_network, network_body
from nemorun_docker.client import Engine
from nemorun_docker.containers import Container, Containers, Place
from nemorun_docker.endpoint import socket_path
from nemorun_docker.images import Images
from nemorun_docker.job_folder import is_claimed
from nemorun_docker.member import DockerMember, Last
from nemorun_docker.networks import remove_network
from nemorun_docker.placing import Placer, Placing
from nemorun_docker.secret_files import SecretFiles

__all__ = ["DockerBackend"]

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE = 8
_LAST_WORDS = 4
_LOOK_AGAIN_SECONDS, _COMPLETE_AGAIN_SECONDS = 0.02, 1.0
_MOST_LOOKS = 50
_CHECK_SECONDS = 10.0


@attrs.define(eq=False)
class _Job:
    """An attempt that this backend started or adopted.

    Attributes:
        missing: members were not started, because the driver that meant to start them died; `waits` says why they
            still are not.
        looks: how often it was looked for the start record of a container that runs already.
        look_at: when to look again, on the monotonic clock.
    """

    submission: Submission
    members: list[DockerMember]
    stopping: Stopping
    missing: bool = False
    waits: Reason | None = None
    looks: int = 0
    look_at: float | None = None

    @property
    def is_over(self) -> bool:
        return all(member.end for member in self.members)

    @property
    def due(self) -> float | None:
        dues = [due for due in (self.stopping.due, self.look_at) if due is not None]
        return None if self.is_over or not dues else min(dues)


class DockerBackend(Backend):
    """Makes containers and follows them. One thread calls it, but for `wake` and `wait`."""

    def __init__(self) -> None:
        self._engine = Engine("")
        self._containers = Containers(self._engine)
        self._secrets = SecretFiles()
        self._images = Images(self._engine)
        self._placer = Placer(self._engine, self._containers, self._images, self._secrets)
        self._jobs: dict[Handle, _Job] = {}
        self._noticed: set[Handle] = set()
        self._waking, self._wake = os.pipe()
        for end in (self._waking, self._wake):
            os.set_blocking(end, False)

    def close(self) -> None:
        """End the stream of events, and pulls that nobody will wait for; jobs go on."""
        self._containers.close()
        self._images.close()
        if self._wake >= 0:
            os.close(self._waking)
            os.close(self._wake)
            self._wake = -1

    def check(self) -> str:
        """Ask the engine for its version."""
        path = socket_path()
        if not os.path.exists(path):  # who submits may wait for it
            raise UsageError(
                f"expected the socket of a Docker engine at {path}, and found none.",
                hint="Install and start Docker on this machine, or say by DOCKER_HOST=unix://... where it is.",
            )
        answer = Engine(path).request("GET", "/version", seconds=_CHECK_SECONDS)
        if answer.is_refusal:
            raise TransientError(f"the Docker engine at {path} does not say its version: {answer.message}")
        return f"Docker Engine {answer.value['Version']} at {path}"

    def render(self, job: Submission) -> Sequence[Document]:
        """Return the body of each request that makes the job, then the files written for it.

        A group's network stands by its name, where the request has its id; a secret as the path of its file.
        """
        documents = []
        network = ""
        if has_own_network(job):
            body = network_body(job.key)
            network = body["Name"]
            documents.append(Document(f"network {network}", _pretty(body)))
        for index, member in enumerate(job.members):
            name = container_name(job.key, index, len(job.members))
            body = container_body(job, index, self._placer.secrets_path(job, index), network)
            documents.append(Document(f"container {name}", _pretty(body)))
            for file, content in member.files.items():
                path = os.path.join(job.folder, file)
                documents.append(Document(path, content.decode("utf-8", "backslashreplace")))
        return documents

    def submit(self, jobs: Sequence[Submission]) -> Iterator[tuple[Key, Answer]]:
        """Make the containers of each job, then start them, several at once.

        A job that is deferred is answered last: those after it that run already must be known.
        """
        self._open(jobs)
        placings: list[Placing] = []
        with _pool(sum(len(job.members) for job in jobs)) as apply:
            for job in jobs:
                known = self._jobs.get(job.key.slug())
                placing = self._placer.place(job, apply) if known is None else Placing(job, Accepted(job.key.slug()))
                placings.append(placing)
                if placing.is_deferred and not placing.waits_for_image:
                    break
            self._images.forget_failures()
            held: list[tuple[Key, Answer]] = []
            for placing in placings:
                answer = placing.answer()
                if isinstance(answer, Accepted):
                    if self._containers.get((str(placing.job.key), 0)) is None:  # another driver's
                        self._containers.look()
                    self._keep(placing.job)
                if placing.is_deferred:
                    held.append((placing.job.key, answer))
                else:
                    yield placing.job.key, answer
            yield from held

    def _open(self, jobs: Collection[Submission]) -> None:
        """Have a stream of events before anything starts, so that no end is missed. Raises TransientError."""
        if not self._engine.path:
            self._engine.path = socket_path()
        self._containers.watch({job.key.nonce for job in jobs})
        self._refresh()

    def _keep(self, job: Submission) -> Handle:
        handle = job.key.slug()
        if handle not in self._jobs:
            members = [
                DockerMember(job, index, container_name(job.key, index, len(job.members)))
                for index in range(len(job.members))
            ]
            kept = self._jobs[handle] = _Job(job, members, Stopping.of(job.executors, time.monotonic() - _age(members)))
            kept.missing = not all(self._was_started(job, index) for index in range(len(members)))
        return handle

    def _is_there(self, job: Submission, index: int) -> bool:
        container = self._containers.get((str(job.key), index))
        return (container is not None and not container.is_gone) or is_claimed(job, index)

    def _was_started(self, job: Submission, index: int) -> bool:
        container = self._containers.get((str(job.key), index))
        return self._is_there(job, index) and (container is None or not container.is_created)

    def find(self, jobs: Collection[Submission]) -> Mapping[Key, Handle]:
        """Adopt the jobs of which any container is there or any member was started, in one query.

        A driver that died while it started a job may have started a part of it, and the engine may still be about to
        start what it was asked for: `poll` starts the rest, which changes nothing for a container that starts already.
        """
        self._open(jobs)
        unknown = [job for job in jobs if job.key.slug() not in self._jobs]
        self._containers.look()
        for job in unknown:
            if any(self._is_there(job, index) for index in range(len(job.members))):
                self._keep(job)
        return {job.key: job.key.slug() for job in jobs if job.key.slug() in self._jobs}

    def poll(self, handles: Collection[Handle]) -> Mapping[Handle, Observation]:
        """Look at the records and containers of these jobs. The open stream of events is the query."""
        self._open([])
        self._noticed.difference_update(handles)
        self._complete([self._jobs[handle] for handle in handles if handle in self._jobs])
        return {
            handle: self._look(self._jobs[handle]) if handle in self._jobs else UNKNOWN
            for handle in dict.fromkeys(handles)
        }

    def _complete(self, jobs: Sequence[_Job]) -> None:
        """Start what drivers before did not come to start. Raises TransientError."""
        moment = time.monotonic()
        missing = [job for job in jobs if job.missing and (job.look_at is None or job.look_at <= moment)]
        with _pool(len(missing)) as apply:
            results = [apply(self._placer.complete, job.submission) for job in missing]
            for job, result in zip(missing, results, strict=True):
                answer = result()
                if answer is None:
                    job.missing = False
                elif isinstance(answer, Rejected):
                    self._abandon(job, answer.reason)
                else:
                    job.waits, job.look_at = answer.reason, moment + _COMPLETE_AGAIN_SECONDS
        self._images.forget_failures()

    def _refresh(self) -> None:
        """Know what the engine knows. Raises TransientError."""
        if self._containers.stream is not None:
            try:
                self._notice(self._containers.news())
            except TransientError:
                self._noticed.update(self._jobs)
        self._containers.connect()

    def _notice(self, places: Collection[Place]) -> None:
        self._noticed.update(Key.parse(key).slug() for key, _ in places)
        self._noticed.intersection_update(self._jobs)

    def _look(self, job: _Job) -> Observation:
        if job.stopping.due is not None and not job.is_over:
            self._act([job])
        seen = []
        for member in job.members:
            container = self._containers.get(member.place)
            one = member.observe(container, self._last, timed_out=job.stopping.expired)
            if one is None:
                return UNKNOWN
            seen.append(one)
            if one.state.is_final:
                self._secrets.remove(member.name)
        if job.missing:
            return Observation(members=tuple(seen), reason=job.waits)
        waits = any(one.state is State.RUNNING and one.started is None for one in seen) and job.looks < _MOST_LOOKS
        job.looks += 1
        job.look_at = time.monotonic() + _LOOK_AGAIN_SECONDS if waits else None
        return Observation(members=tuple(seen))

    def _last(self, container: Container, *, words: bool) -> Last:
        """Ask what the engine knows of a container that ended badly. Raises TransientError."""
        answer = self._engine.request("GET", f"/containers/{container.id}/json")
        if answer.is_refusal:
            return Last()
        return Last(bool(answer.value["State"]["OOMKilled"]), self._words_of(container) if words else "")

    def _words_of(self, container: Container) -> str:
        """Return the last words of a shim, which its program's log does not have. Raises TransientError."""
        path = f"/containers/{container.id}/logs"
        answer = self._engine.request("GET", path, stdout="true", stderr="true", tail=str(_LAST_WORDS))
        said = "" if answer.is_refusal or not isinstance(answer.value, str) else answer.value
        # Each line has eight bytes before it, for its stream and length (ContainerAttach of the Engine API).
        plain = "".join(letter for letter in said if letter.isprintable() or letter == "\n")
        return " ".join(plain.split())

    def cancel(self, handles: Collection[Handle]) -> None:
        """Send TERM to the shims of these jobs, which pass it on, again after 1 s, and KILL after the grace."""
        self._stop(handles, Stopping.begin)

    def kill(self, handles: Collection[Handle]) -> None:
        """End the containers of these jobs at once."""
        self._stop(handles, Stopping.hurry)

    def _stop(self, handles: Collection[Handle], how: Callable[[Stopping, float], None]) -> None:
        self._open([])
        jobs = [self._jobs[handle] for handle in handles if handle in self._jobs]
        for job in jobs:
            if job.missing:
                self._abandon(job, Reason(ReasonKind.INTERRUPT, "never started"))
            if not job.is_over:
                how(job.stopping, time.monotonic())
        self._act([job for job in jobs if not job.is_over])

    def _abandon(self, job: _Job, reason: Reason) -> None:
        """Give up the members that were never started."""
        for index, member in enumerate(job.members):
            if not self._was_started(job.submission, index):
                self._placer.remove(member.place, member.name)
                member.given_up = reason
        job.missing = False

    def _act(self, jobs: Sequence[_Job]) -> None:
        """Send what is due. Raises TransientError; what is due comes again."""
        sent = []
        for job in jobs:
            if (name := job.stopping.next(time.monotonic())) is None:
                continue
            for member in job.members:
                container = self._containers.get(member.place)
                if container is not None and not container.has_ended and not container.is_gone:
                    sent.append((container.id, name))
        with _pool(len(sent)) as apply:
            for done in [apply(self._send, one) for one in sent]:
                done()

    def _send(self, one: tuple[str, str]) -> None:
        container, name = one
        # A refusal says that it does not run any more, or is not there: the events tell which.
        self._engine.request("POST", f"/containers/{container}/kill", signal=name)

    def wait(self, handles: Collection[Handle], timeout_seconds: float) -> Collection[Handle]:
        """Block until an event tells of a job, something is due, or `wake`; once a minute the list is asked for."""
        moment = time.monotonic()
        dues = [due for job in self._jobs.values() if (due := job.due) is not None]
        patience = min([0.0 if self._noticed else timeout_seconds, *(due - moment for due in dues)])
        stream = self._containers.stream
        if stream is None:
            return handles
        with contextlib.suppress(BlockingIOError):
            watched: list[Any] = [stream, self._waking]
            if self._waking in select.select(watched, [], [], max(0.0, patience))[0]:
                os.read(self._waking, 4096)
        try:
            self._notice(self._containers.news() | self._containers.look_again())
        except TransientError:
            return handles
        if self._containers.stream is None:
            return handles
        changed, moment = set(self._noticed), time.monotonic()
        self._noticed.clear()
        changed.update(handle for handle, job in self._jobs.items() if (due := job.due) is not None and due <= moment)
        return changed

    def wake(self) -> None:
        """End a `wait` early, from any thread."""
        with contextlib.suppress(OSError):  # full: it is awake already; or closed
            os.write(self._wake, b".")

    def release(self, handles: Collection[Handle]) -> None:
        """Remove the containers of finished jobs, as their executors say, their networks and their secrets."""
        self._open([])
        jobs = {handle: self._jobs[handle] for handle in handles if handle in self._jobs}
        doomed = [member for job in jobs.values() for member in job.members if not self._is_kept(job)]
        with _pool(len(doomed)) as apply:
            for done in [apply(lambda member: self._placer.remove(member.place, member.name), one) for one in doomed]:
                done()
        for handle, job in jobs.items():
            for member in job.members:
                self._secrets.remove(member.name)
                self._containers.forget(member.place)
            if has_own_network(job.submission):
                remove_network(self._engine, job.submission.key)
            del self._jobs[handle]
            self._noticed.discard(handle)

    def _is_kept(self, job: _Job) -> bool:
        keep = executor_of(job.submission, 0).keep
        if keep == "failed":
            self._look(job)
            return any(member.end is not None and member.end.state is not State.SUCCEEDED for member in job.members)
        return keep == "all"


def _age(members: Sequence[DockerMember]) -> float:
    """Return how many seconds ago the first of these members started; 0 where none has."""
    started = [found for member in members if (found := read_rank(member.base, "").started) is not None]
    return time.time() - min(started) if started else 0.0


Apply = Callable[[Callable[[T], R], T], Callable[[], R]]


@contextlib.contextmanager
def _pool(amount: int) -> Iterator[Callable[[Callable[[T], R], T], Callable[[], R]]]:
    """Give what calls a function, on one of a few threads where there are several calls, and returns its result."""
    if amount < 2:

        def apply(call: Callable[[T], R], argument: T) -> Callable[[], R]:
            result = call(argument)
            return lambda: result

        yield apply
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(amount, _AT_ONCE), "docker") as threads:
        yield lambda call, argument: threads.submit(call, argument).result


def _pretty(body: object) -> str:
    return json.dumps(body, indent=1, ensure_ascii=False)
