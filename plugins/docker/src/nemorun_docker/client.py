"""`Engine`: requests to a Docker engine on its unix socket. docs/decisions/0005-docker-client.md says why it is ours.

Each request has a connection of its own and is sent as HTTP/1.0, so that the answer ends where the connection does: no
answer can be taken for another's, and a stream of events is lines.
"""

from __future__ import annotations

import json
import socket
import string
from collections.abc import Mapping
from typing import Any, NamedTuple

from nemorun_core import TransientError, UsageError

__all__ = ["Answer", "Engine"]

_OLDEST = (1, 41)
_CHUNK = 1 << 16
_PLAIN = frozenset((string.ascii_letters + string.digits + "-._~/:").encode())
_NONE: Mapping[str, str] = {}
_SECONDS = 120.0  # an engine that starts fifty containers takes its time for each


class Answer(NamedTuple):
    """What the engine said: the status of HTTP, the headers in lower case, and the JSON of the body."""

    status: int
    headers: Mapping[str, str]
    value: Any

    @property
    def message(self) -> str:
        """The engine's words, where it refused."""
        found = self.value.get("message") if isinstance(self.value, dict) else None
        return str(found or self.value or f"status {self.status}").strip()

    @property
    def is_refusal(self) -> bool:
        return self.status >= 400


class Engine:
    """One engine. Used from any number of threads."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._prefix = ""

    def request(
        self, method: str, path: str, body: object = None, *, seconds: float = _SECONDS, **query: object
    ) -> Answer:
        """Send one request of the Engine API, its version agreed before, and return the answer, also a refusal.

        Args:
            query: values that are not text are sent as JSON.

        Raises:
            TransientError: the engine did not answer, or not to the end; what was asked for may have happened.
            UsageError: there is no Docker engine that this version can speak to.
        """
        return self._send(method, self._versioned(path, query), body, seconds)

    def stream(self, method: str, path: str, *, headers: Mapping[str, str] = _NONE, **query: object) -> socket.socket:
        """Open a stream of lines; what is returned is non-blocking, and begins with the answer's headers.

        Args:
            headers: further ones of the request.

        Raises:
            TransientError, UsageError: as `request`.
        """
        text = _text(method, self._versioned(path, query), b"", headers)
        connection = self._connect(_SECONDS)
        try:
            connection.sendall(text)
            connection.setblocking(False)
        except OSError as error:
            connection.close()
            raise self._silent(error) from error
        return connection

    def ping(self, seconds: float) -> None:
        """Ask whether the engine answers. Raises TransientError."""
        self._send("GET", "/_ping", None, seconds)

    def _versioned(self, path: str, query: Mapping[str, object]) -> str:
        if not self._prefix:
            self._prefix = self._agree()
        texts = {name: one if isinstance(one, str) else json.dumps(one) for name, one in query.items()}
        asked = "&".join(f"{name}={_quoted(one)}" for name, one in texts.items())
        return f"{self._prefix}{_quoted(path)}{'?' if asked else ''}{asked}"

    def _agree(self) -> str:
        """Take the engine's own version of the API: newer ones refuse old ones, and what is asked here stays."""
        headers = self._send("GET", "/_ping", None, _SECONDS).headers
        if "libpod-api-version" in headers or "libpod" in headers.get("server", "").lower():
            raise UsageError(
                f"{self.path} is Podman's socket, and DockerExecutor needs a Docker engine.",
                hint="Unset DOCKER_HOST, or name the socket of a Docker engine.",
            )
        found = headers.get("api-version", "")
        try:
            major, minor = map(int, found.split("."))
        except ValueError:
            raise TransientError(f"{self.path} says no version of the Docker Engine API, but {found!r}.") from None
        if (major, minor) < _OLDEST:
            raise UsageError(
                f"the Docker engine at {self.path} has API {found}; DockerExecutor needs 1.41 or later.",
                hint="Upgrade it to Docker 20.10 or later.",
            )
        return f"/v{found}"

    def _connect(self, seconds: float) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(seconds)
        try:
            connection.connect(self.path)
        except OSError as error:
            connection.close()
            if isinstance(error, PermissionError):
                raise UsageError(
                    f"this user may not speak to the Docker engine at {self.path}.",
                    hint="Add it to the engine's group: sudo usermod -aG docker $USER; then log in again.",
                ) from None
            raise self._silent(error) from error
        return connection

    def _send(self, method: str, path: str, body: object, seconds: float) -> Answer:
        content = b"" if body is None else json.dumps(body).encode()
        with self._connect(seconds) as connection:
            try:
                connection.sendall(_text(method, path, content))
                received = bytearray()
                while piece := connection.recv(_CHUNK):
                    received += piece
            except OSError as error:
                raise self._silent(error) from error
        return self._read(bytes(received))

    def _read(self, received: bytes) -> Answer:
        head, found, content = received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if not found or len(words) < 2 or not words[1].isdecimal():
            raise self._silent("it hung up")
        pairs = (line.partition(":") for line in lines[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        if len(content) < int(headers.get("content-length", "0")):
            raise self._silent("it hung up in the middle of an answer")
        status = int(words[1])
        if status == 503:
            raise self._silent(content.decode("utf-8", "replace").strip())
        if "json" not in headers.get("content-type", ""):
            return Answer(status, headers, content.decode("utf-8", "replace"))
        try:
            return Answer(status, headers, json.loads(content) if content else None)
        except ValueError:
            raise self._silent("it hung up in the middle of an answer") from None

    def _silent(self, cause: object) -> TransientError:
        return TransientError(f"the Docker engine at {self.path} does not answer: {cause}")


def _quoted(text: str) -> str:
    """Return text as it stands in a URL (RFC 3986, 2.1). `urllib.parse` does that too, and takes 6 ms to be loaded."""
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))


def _text(method: str, path: str, content: bytes, headers: Mapping[str, str] = _NONE) -> bytes:
    head = [
        f"{method} {path} HTTP/1.0",
        "Host: docker",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*head, "", ""]).encode() + content
