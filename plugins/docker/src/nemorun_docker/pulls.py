"""`Pull`: an image on its way from its registry."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time

from nemorun_docker.client import Engine

__all__ = ["Pull"]

_CHUNK = 1 << 16


class Pull:
    """One request for an image (Engine API, ImageCreate), which the engine gives up when its connection is closed.

    What the engine tells of its progress is read when somebody asks; it waits where nobody does.

    Attributes:
        is_complete: the image is here. Where that is False at the end, and `why` is "", the engine was cut off.
        why: the words of the engine, or of a helper for credentials, that the pull ended with.

    Raises:
        TransientError, UsageError: as `Engine.request`.
    """

    def __init__(self, engine: Engine, image: str) -> None:
        from docker import auth  # type: ignore[import-untyped]
        from docker.errors import DockerException  # type: ignore[import-untyped]
        from docker.utils import parse_repository_tag  # type: ignore[import-untyped]

        self.is_complete, self.why = False, ""
        self._stream: socket.socket | None = None
        self._unread = b""
        repository, tag = parse_repository_tag(image)
        try:
            registry, _ = auth.resolve_repository_name(repository)
            credentials = auth.load_config().resolve_authconfig(registry)
        except DockerException as error:
            self.why = str(error)
            return
        headers = {"X-Registry-Auth": auth.encode_header(credentials).decode()} if credentials else {}
        self._stream = engine.stream(
            "POST", "/images/create", headers=headers, fromImage=repository, tag=tag or "latest"
        )

    def has_ended(self, seconds: float = 0.0) -> bool:
        """Whether it is over, one way or another.

        Args:
            seconds: how long its end is waited for.
        """
        deadline = time.monotonic() + seconds
        while self._stream is not None:
            if not select.select([self._stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
                break
            piece = b""
            with contextlib.suppress(OSError):  # it was cut off
                piece = self._stream.recv(_CHUNK)
            self._unread += piece or b"\n"
            *lines, self._unread = self._unread.split(b"\n")
            for line in lines:
                self._take(line)
            if not piece:
                self.close()
        return self._stream is None

    def _take(self, line: bytes) -> None:
        """Take in a line of the answer: one of its head, which is no JSON, a message of progress, or a refusal."""
        with contextlib.suppress(ValueError):
            said = json.loads(line)
            if isinstance(said, dict):
                self.why = str(said.get("error") or said.get("message") or "") or self.why
                # The last word of a pull, once the image has its name.
                self.is_complete = self.is_complete or str(said.get("status", "")).startswith("Status: ")

    def close(self) -> None:
        """Give up what is not here yet. May be called again."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
