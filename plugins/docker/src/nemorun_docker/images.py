"""Images: whether one is here, who its programs run as, and how one is pulled."""

from __future__ import annotations

from nemorun_core import Reason, ReasonKind, Rejected
from nemorun_docker.client import Engine
from nemorun_docker.executor import DockerExecutor

__all__ = ["Images"]


class Images:
    """What one driver knows of an engine's images; each is asked about, and pulled, once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._users: dict[tuple[str, str], str] = {}

    def user(self, executor: DockerExecutor) -> str | Rejected:
        """Have the image here, and return the user that it names, "" for root; or why it cannot be had.

        Raises:
            TransientError: the engine did not answer.
        """
        known = (executor.container_image, executor.pull)
        if known not in self._users:
            found = None if executor.pull == "always" else self._look(executor.container_image)
            if found is None and executor.pull != "never":
                if why := self._pull(executor.container_image):
                    return _missing(why)
                found = self._look(executor.container_image)
            if found is None:
                hint = f"docker pull {executor.container_image}, or pull='missing'"
                return _missing(f"{executor.container_image} is not on this machine, and pull='never': {hint}")
            self._users[known] = found
        return self._users[known]

    def forget(self, executor: DockerExecutor) -> None:
        """Look again next time: the image was removed meanwhile."""
        self._users.pop((executor.container_image, executor.pull), None)

    def _look(self, image: str) -> str | None:
        answer = self._engine.request("GET", f"/images/{image}/json")
        return None if answer.is_refusal else str((answer.value.get("Config") or {}).get("User") or "")

    def _pull(self, image: str) -> str:
        """Pull an image with the credentials of `docker login`; return why that failed, "" if it did not."""
        from docker import DockerClient  # type: ignore[import-untyped]
        from docker.errors import DockerException  # type: ignore[import-untyped]
        from requests.exceptions import RequestException

        try:
            client = DockerClient(base_url=f"unix://{self._engine.path}", version="auto", timeout=3600)
            try:
                client.images.pull(image)
            finally:
                client.close()
        except (DockerException, RequestException, ValueError) as error:
            return f"{image} cannot be pulled: {getattr(error, 'explanation', None) or error}"
        return ""


def _missing(why: str) -> Rejected:
    return Rejected(Reason(ReasonKind.IMAGE, " ".join(why.split())))
