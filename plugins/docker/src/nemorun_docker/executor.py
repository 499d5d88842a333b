"""`DockerExecutor`: run in containers of a Docker engine on this machine."""

from __future__ import annotations

import os
import shlex
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import attrs

from nemorun_core import Backend, Capabilities, Executor, UsageError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["DockerExecutor"]

_CAPABILITIES = Capabilities(
    runs_on_this_machine=True,
    shares_files=True,
    own_image=True,
    group="atomic",
    wait=True,
    timeout=True,
    separate_stderr=True,
    release=True,
)
_WITHOUT_NAMES = ("none", "bridge", "default")


def _text(value: object) -> str | None:
    """Return a number as text, and leave the rest for `check` to judge."""
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value  # type: ignore[return-value]


def _gpus(value: object) -> str | None:
    if isinstance(value, (list, tuple)):
        return "device=" + ",".join(map(str, value))
    return _text(value)


def _words(value: str | Sequence[str] | None) -> list[str] | None:
    if value is None:
        return None
    return shlex.split(value) if isinstance(value, str) else list(value)


def _volumes(values: Sequence[str]) -> list[str]:
    """Make paths of this machine absolute, here and now: a driver elsewhere has another folder."""
    return [_absolute(value) if isinstance(value, str) else value for value in values]


def _absolute(volume: str) -> str:
    source, colon, rest = volume.partition(":")
    return os.path.abspath(os.path.expanduser(source)) + colon + rest if source[:1] in (".", "~", "/") else volume


@attrs.define(kw_only=True)
class DockerExecutor(Executor):
    """Runs each member as a container of the Docker engine of `DOCKER_HOST`, the current context, or this machine.

    Names and values are those of the engine's API (1.41 and later) and of docker-run(1). The program runs under a POSIX
    shell, /bin/sh, which the image has to have; it sees the job's folder and the volumes, and the declared environment.

    Attributes:
        container_image: the image, as `docker run` takes it.
        volumes: "SOURCE:TARGET[:OPTIONS]" each: a path of this machine, or the name of a volume.
        network: a network's name, "host", "bridge" or "none"; None: the default bridge, and for a group one of its own.
        gpus, num_gpus: "all", a number, or "device=0,1" (or a list of devices); `num_gpus` takes a number alone.
        cpus: how many processors' time it may use, as 1.5.
        memory, shm_size: bytes, or text as "512m", "2g".
        ulimits: "NAME=SOFT[:HARD]" each.
        ipc_mode: "host", "private", "shareable", "none" or "container:NAME".
        privileged: with all rights of the engine on this machine.
        user: "USER[:GROUP]" of the program; None: the image's.
        entrypoint: words to be put before the task's command. The image's own ENTRYPOINT is not run.
        runtime: the OCI runtime, as "nvidia".
        healthcheck: `test`, `interval`, `timeout`, `retries`, `start_period` as in docker-py: nanoseconds.
        pull: when the image is pulled: where it is "missing", "always" (once a run), or "never".
        keep: which containers are left when their jobs are final: "none", those of "failed" jobs, or "all".
        additional_kwargs: further options of `docker.containers.create`; those known are named by the error for others.
    """

    container_image: str
    volumes: list[str] = attrs.field(factory=list, converter=_volumes)
    network: str | None = None
    gpus: str | None = attrs.field(default=None, converter=_gpus)
    num_gpus: int | None = None
    cpus: float | None = None
    memory: str | None = attrs.field(default=None, converter=_text)
    shm_size: str | None = attrs.field(default=None, converter=_text)
    ulimits: list[str] = attrs.field(factory=list)
    ipc_mode: str | None = None
    privileged: bool = False
    user: str | None = attrs.field(default=None, converter=_text)
    entrypoint: list[str] | None = attrs.field(default=None, converter=_words)
    runtime: str | None = None
    healthcheck: dict[str, Any] = attrs.field(factory=dict)
    pull: Literal["missing", "always", "never"] = "missing"
    keep: Literal["none", "failed", "all"] = "none"
    additional_kwargs: dict[str, Any] = attrs.field(factory=dict)

    def capabilities(self) -> Capabilities:
        """Return what the engine can do for a job. Groups need a network on which members have names."""
        if self.network in _WITHOUT_NAMES or str(self.network).startswith("container:"):
            return attrs.evolve(_CAPABILITIES, group=None)
        return _CAPABILITIES

    def connection(self) -> Hashable:
        """Return the identity of the engine: there is one for a process."""
        return "docker"

    @classmethod
    def sample(cls) -> Self:
        """Return one of no image."""
        return cls(container_image="none")

    def backend(self) -> Backend:
        """Open the backend."""
        from nemorun_docker.backend import DockerBackend

        return DockerBackend()

    def check(self) -> None:
        """Refuse what the engine cannot honour, as far as it can be told without asking it. Raises UsageError."""
        super().check()
        from nemorun_docker.endpoint import socket_path
        from nemorun_docker.options import host_config, visible

        image = self.container_image
        if not isinstance(image, str) or not image or image[0] == "-" or image.split() != [image]:
            raise UsageError(f"DockerExecutor(container_image={image!r}): expected an image, as 'python:3.12'.")
        for name, known in (("pull", ("missing", "always", "never")), ("keep", ("none", "failed", "all"))):
            if getattr(self, name) not in known:
                found = getattr(self, name)
                raise UsageError(f"DockerExecutor({name}={found!r}): expected {', '.join(map(repr, known))}.")
        host_config(self)
        socket_path()
        if self.outputs and not self.packager and not visible(os.getcwd(), self.volumes):
            raise UsageError(
                "DockerExecutor(outputs=...): the job runs in a folder of the image, which ends with its container.",
                hint="Ship the code with a packager, or show this folder to it: volumes=[f'.:{os.getcwd()}'].",
            )
