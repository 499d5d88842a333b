"""Which engine: `DOCKER_HOST`, else the current context, else this machine's own (docker(1))."""

from __future__ import annotations

import json
import os

from nemorun_core import UsageError

__all__ = ["socket_path"]

_DEFAULT = "unix:///var/run/docker.sock"


def socket_path() -> str:
    """Return the path of the engine's socket.

    Raises:
        UsageError: the engine is on another machine, which this version does not reach; or the context is unknown.
    """
    host, said = _host()
    if not host.startswith("unix:///"):
        raise UsageError(
            f"{said} names the Docker engine {host!r}; DockerExecutor reaches engines of this machine only, unix:///PATH.",
            hint="Unset DOCKER_HOST, or name a socket: export DOCKER_HOST=" + _DEFAULT,
        )
    return host.removeprefix("unix://")


def _host() -> tuple[str, str]:
    """Return the engine's address, and what says so."""
    if host := os.environ.get("DOCKER_HOST"):
        return host, "DOCKER_HOST"
    folder = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    context = os.environ.get("DOCKER_CONTEXT")
    if not context:
        try:
            with open(os.path.join(folder, "config.json"), encoding="utf-8") as stream:
                context = json.load(stream).get("currentContext")
        except (OSError, ValueError, AttributeError):
            context = None
    if not context or context == "default":
        return _DEFAULT, "the default"
    from docker.context import ContextAPI  # type: ignore[import-untyped]
    from docker.errors import DockerException  # type: ignore[import-untyped]

    try:
        found = ContextAPI.get_context(context)
    except DockerException as error:
        raise UsageError(f"the Docker context {context!r} cannot be read: {error}.") from None
    if found is None:
        raise UsageError(f"there is no Docker context {context!r}.", hint="Choose one: docker context ls")
    return str(found.Host), f"the Docker context {context!r}"
