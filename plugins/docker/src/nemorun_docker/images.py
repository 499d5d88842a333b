"""Images: whether one is here, who its programs run as, and which are on their way."""

from __future__ import annotations

import threading

from nemorun_core import Deferred, Reason, ReasonKind, Rejected
from nemorun_docker.client import Engine
from nemorun_docker.executor import DockerExecutor
from nemorun_docker.pulls import Pull

__all__ = ["Images"]

_MOMENT_SECONDS = 0.5


class Images:
    """What one driver knows of an engine's images; each is asked about, and pulled, once. Used from several threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._users: dict[tuple[str, str], str] = {}
        self._pulls: dict[str, Pull] = {}
        self._lock = threading.Lock()

    def user(self, executor: DockerExecutor) -> str | Rejected | Deferred:
        """Return the user that an image names, "" for root; or why it cannot be had, or that it is being pulled.

        Raises:
            TransientError: the engine did not answer.
        """
        known = (executor.container_image, executor.pull)
        with self._lock:
            found = self._users[known] if known in self._users else self._have(*known)
            if isinstance(found, str):
                self._users[known] = found
            return found

    def forget(self, executor: DockerExecutor) -> None:
        """Look again next time: the image was removed meanwhile."""
        self._users.pop((executor.container_image, executor.pull), None)

    def forget_failures(self) -> None:
        """Pull again next time what could not be pulled: all who waited for it know."""
        with self._lock:
            self._pulls = {image: pull for image, pull in self._pulls.items() if not pull.why}

    def close(self) -> None:
        """Give up the pulls."""
        for pull in self._pulls.values():
            pull.close()
        self._pulls.clear()

    def _have(self, image: str, when: str) -> str | Rejected | Deferred:
        pull = self._pulls.get(image) if when != "never" else None
        if pull is None:
            found = self._look(image) if when != "always" else None
            if found is not None:
                return found
            if when == "never":
                hint = f"docker pull {image}, or pull='missing'"
                return _missing(f"{image} is not on this machine, and pull='never': {hint}")
            # Whether it is the newest is said in a moment, and small images are here: nobody else waits for long.
            moment = 0.0 if self._pulls else _MOMENT_SECONDS
            pull = self._pulls[image] = Pull(self._engine, image)
            pull.has_ended(moment)
        if pull.has_ended():
            if pull.why:
                return _missing(f"{image} cannot be pulled: {pull.why}")
            del self._pulls[image]
            found = self._look(image) if pull.is_complete else None
            if found is not None:
                return found
        return Deferred(Reason(ReasonKind.WAITING, f"pulling image {image}"))

    def _look(self, image: str) -> str | None:
        answer = self._engine.request("GET", f"/images/{image}/json")
        return None if answer.is_refusal else str((answer.value.get("Config") or {}).get("User") or "")


def _missing(why: str) -> Rejected:
    return Rejected(Reason(ReasonKind.IMAGE, " ".join(why.split())))
