"""`Placer`: makes the containers of a job and starts them, all or none; takes them back where one is refused."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import attrs

from nemorun_core import (
    Accepted,
    Answer,
    Deferred,
    Reason,
    ReasonKind,
    Rejected,
    Secret,
    Submission,
    TransientError,
    UsageError,
)
from nemorun_docker.body import KEY, container_body, container_name, executor_of, has_own_network, mounted_folders
from nemorun_docker.client import Engine
from nemorun_docker.containers import Container, Containers, Place
from nemorun_docker.images import Images
from nemorun_docker.job_folder import is_claimed, prepare, remove_records, show
from nemorun_docker.networks import make_network, remove_network
from nemorun_docker.options import volume
from nemorun_docker.refusals import refusal
from nemorun_docker.secret_files import SecretFiles

__all__ = ["Placer", "Placing"]

Apply = Callable[[Callable[[str], str], str], Callable[[], str]]
_NEVER = "0001-01-01T00:00:00Z"
_PASSING = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT)
_ROOT = ("", "0", "root")


@attrs.define(eq=False)
class Placing:
    """A job on its way: decided, or with starts whose results are still to come."""

    job: Submission
    decided: Answer | None = None
    finish: Callable[[], Answer] | None = None

    @property
    def is_deferred(self) -> bool:
        return isinstance(self.decided, Deferred)

    @property
    def waits_for_image(self) -> bool:
        """Whether it alone is deferred; a limit of the engine puts off those behind it as well."""
        return isinstance(self.decided, Deferred) and self.decided.reason.kind is ReasonKind.WAITING

    def answer(self) -> Answer:
        """Wait for the starts, and say what became of the job. Raises TransientError."""
        if self.decided is None:
            assert self.finish is not None
            self.decided = self.finish()
        return self.decided


class _Refused(Exception):
    """A member cannot be placed; the answer says why."""

    def __init__(self, answer: Rejected | Deferred) -> None:
        super().__init__(answer.reason.detail)
        self.answer = answer


class Placer:
    """Makes, starts and removes containers. What it made it tells `containers`."""

    def __init__(self, engine: Engine, containers: Containers, images: Images, secrets: SecretFiles) -> None:
        self._engine = engine
        self._containers = containers
        self._images = images
        self._secrets = secrets
        self._shown: set[str] = set()

    def secrets_path(self, job: Submission, index: int) -> str:
        """Return where a member's secrets stand; "" where it has none."""
        if not any(isinstance(value, Secret) for value in job.members[index].environment.values()):
            return ""
        return self._secrets.path(container_name(job.key, index, len(job.members)))

    def place(self, job: Submission, apply: Apply) -> Placing:
        """Make the containers of a job and have them started by `apply`. One that was started before is left as it is.

        Raises:
            TransientError: the engine did not answer; the job may be there.
        """
        if all(is_claimed(job, index) for index in range(len(job.members))):
            return Placing(job, Accepted(job.key.slug()))
        try:
            made = self._make(job)
        except _Refused as refused:
            placing = Placing(job, refused.answer)
            if not placing.waits_for_image:  # of which nothing was made
                self.withdraw(job)
            return placing
        except UsageError as error:
            self.withdraw(job)
            return Placing(job, Rejected(Reason(ReasonKind.REJECTED, error.line)))
        starts = [apply(self._start, container.id) for container in made]

        def finish() -> Answer:
            words = next((words for words in [start() for start in starts] if words), "")
            if not words:
                for container in made:
                    container.is_created = False
                return Accepted(job.key.slug())
            self.withdraw(job)
            return refusal(words)

        return Placing(job, finish=finish)

    def complete(self, job: Submission) -> Rejected | Deferred | None:
        """Start the members that a driver did not come to start; return why one cannot be, for good or for now.

        What was made needs nothing but its start. What was not may have to wait for a driver that has its secrets.

        Raises:
            TransientError: the engine did not answer.
        """
        places = [(str(job.key), index) for index in range(len(job.members)) if not is_claimed(job, index)]
        there = [known for place in places if (known := self._containers.get(place)) is not None and not known.is_gone]
        try:
            made = self._make(job) if len(there) < len(places) else [known for known in there if known.is_created]
            for container in made:
                if words := self._start(container.id):
                    return refusal(words)
                container.is_created = False
        except _Refused as refused:
            return refused.answer
        except UsageError as error:
            return Deferred(Reason(ReasonKind.WAITING, error.line))
        return None

    def withdraw(self, job: Submission) -> None:
        """Remove what was made of a job that is not taken, records and all. Raises TransientError."""
        for index in range(len(job.members)):
            place = (str(job.key), index)
            name = container_name(job.key, index, len(job.members))
            if self._containers.get(place) is not None:
                self.remove(place, name)
                self._containers.forget(place)
                remove_records(job, index)
            elif not is_claimed(job, index):
                remove_records(job, index)
            self._secrets.remove(name)
        if has_own_network(job):
            remove_network(self._engine, job.key)

    def remove(self, place: Place, name: str) -> None:
        """Remove a container that carries our key; fine where there is none. Raises TransientError."""
        container = self._containers.get(place)
        if container is not None and not container.is_gone:
            answer = self._engine.request("DELETE", f"/containers/{container.id}", force="true", v="true")
            if answer.is_refusal and answer.status not in (404, 409):
                raise TransientError(f"the Docker engine does not remove the container {name}: {answer.message}")

    def _make(self, job: Submission) -> list[Container]:
        """Make the containers that are not there, and return those to be started, all of them; else `_Refused` or
        UsageError."""
        try:
            bodies = self._bodies(job)
            network = self._network(job)
            made = []
            for index in range(len(job.members)):
                if is_claimed(job, index):
                    continue
                container = self._create(job, index, bodies[index](network))
                if container.is_created:
                    made.append(container)
            return made
        except OSError as error:
            words = f"{error.filename or job.folder}: {error.strerror}"
            if error.errno in _PASSING:
                raise _Refused(Deferred(Reason(ReasonKind.LIMIT, words))) from None
            raise _Refused(Rejected(Reason(ReasonKind.REJECTED, words))) from None

    def _bodies(self, job: Submission) -> list[Callable[[str], dict[str, Any]]]:
        """Refuse all that can be refused before anything is created, and return what makes each member's body."""
        users = []
        waits: Deferred | None = None
        for index in range(len(job.members)):
            executor = executor_of(job, index)
            container_body(job, index, self.secrets_path(job, index), "")
            for entry in map(volume, executor.volumes):
                if entry.is_path and not os.path.exists(entry.source):
                    raise UsageError(f"bad mount: {entry.source} of `volumes` is not on this machine.", hint="Make it.")
            user = self._images.user(executor)
            if isinstance(user, Rejected):
                raise _Refused(user)
            if isinstance(user, Deferred):  # the images of a group are pulled at the same time
                waits = waits or user
            else:
                users.append((user if executor.user is None else executor.user).partition(":")[0])
        if waits is not None:
            raise _Refused(waits)
        for index, user in enumerate(users):
            executor = executor_of(job, index)
            bound = "cap_drop" in executor.additional_kwargs  # then root may have no more rights than others
            foreign = (user not in _ROOT or bound) and user != str(os.geteuid())
            self._secrets.write(container_name(job.key, index, len(job.members)), job.members[index].environment)
            if not is_claimed(job, index):
                prepare(job, index, foreign=foreign, separate_stderr=executor.separate_stderr)
            if foreign:
                folders = {folder for folder, _ in mounted_folders(job, index).items() if folder != job.folder}
                show(folders - self._shown)
                self._shown |= folders
        return [
            lambda network, index=index: container_body(job, index, self.secrets_path(job, index), network)  # type: ignore[misc]
            for index in range(len(job.members))
        ]

    def _network(self, job: Submission) -> str:
        if not has_own_network(job):
            return ""
        network, why = make_network(self._engine, job.key)
        if not network:
            raise _Refused(refusal(why))
        return network

    def _create(self, job: Submission, index: int, body: dict[str, Any]) -> Container:
        place = (str(job.key), index)
        name = container_name(job.key, index, len(job.members))
        answer = self._engine.request("POST", "/containers/create", body, name=name)
        if answer.status == 409:
            return self._existing(place, name)
        if answer.is_refusal:
            if answer.status == 404:
                self._images.forget(executor_of(job, index))
            raise _Refused(refusal(answer.message))
        container = Container(answer.value["Id"], is_created=True)
        self._containers.put(place, container)
        return container

    def _existing(self, place: Place, name: str) -> Container:
        """Take up a container of this name, if it carries our key and was never started."""
        answer = self._engine.request("GET", f"/containers/{name}/json")
        if answer.is_refusal:
            raise TransientError(f"the container {name} is there, and is not: {answer.message}")
        found = answer.value["Config"]["Labels"].get(KEY)
        if found != place[0]:
            raise _Refused(
                Rejected(
                    Reason(ReasonKind.REJECTED, f"the Docker engine has a container {name} of another key ({found})")
                )
            )
        state = answer.value["State"]
        container = Container(
            answer.value["Id"],
            is_created=state["Status"] == "created" and state["StartedAt"] == _NEVER,
            has_ended=state["Status"] in ("exited", "dead"),
            exit_code=state["ExitCode"] if state["Status"] in ("exited", "dead") else None,
        )
        known = self._containers.get(place)
        if known is not None and known.id == container.id and known.has_ended:
            return known
        self._containers.put(place, container)
        return container

    def _start(self, container: str) -> str:
        """Start a container that was never started; return why the engine refused, "" if it did not."""
        answer = self._engine.request("POST", f"/containers/{container}/start")
        if answer.status == 404 and container in answer.message:  # others are those whose network or ipc it shares
            raise TransientError(f"the container {container[:12]} was removed before it was started")
        return answer.message if answer.is_refusal else ""
