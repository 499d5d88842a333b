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
    host, said, hint = _host()
    if not host.startswith("unix:///"):
        raise UsageError(
            f"{said} names the Docker engine {host!r}; DockerExecutor reaches engines of this machine only, unix:///PATH.",
            hint=hint,
        )
    return host.removeprefix("unix://")


def _host() -> tuple[str, str, str]:
    """Return the engine's address, what says so, and how to have another."""
    if host := os.environ.get("DOCKER_HOST"):
        return host, "DOCKER_HOST", "Unset DOCKER_HOST, or name a socket: export DOCKER_HOST=" + _DEFAULT
    folder = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    context = os.environ.get("DOCKER_CONTEXT")
    if not context:
        try:
            with open(os.path.join(folder, "config.json"), encoding="utf-8") as stream:
                context = json.load(stream).get("currentContext")
        except (OSError, ValueError, AttributeError):
            context = None
    if not context or context == "default":
        return _DEFAULT, "the default", ""
    hint = "Name one of this machine: export DOCKER_CONTEXT=default"
    return _context(folder, context), f"the Docker context {context!r}", hint


def _context(folder: str, name: str) -> str:
    """Return the address in a context, as docker-context(1) keeps it."""
    import hashlib

    path = os.path.join(folder, "contexts", "meta", hashlib.sha256(name.encode()).hexdigest(), "meta.json")
    try:
        with open(path, encoding="utf-8") as stream:
            return str(json.load(stream)["Endpoints"]["docker"]["Host"])
    except FileNotFoundError:
        raise UsageError(
            f"there is no Docker context {name!r} in {folder}.", hint="Choose one: docker context ls"
        ) from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UsageError(f"the Docker context {name!r} cannot be read: {path}: {error!r}.") from None
