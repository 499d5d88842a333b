"""The engine's containers that are ours: one list, and the stream of events since.

The state is what `GET /containers/json` and `GET /events` say (Engine API 1.41). The stream is opened before the list
is asked for, and replays the last seconds: the list may lag behind an event by some milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import re
import select
import socket
import time
from collections.abc import Collection
from typing import Any

import attrs

from nemorun_core import TransientError
from nemorun_docker.body import KEY, MEMBER, NONCE
from nemorun_docker.client import Engine

__all__ = ["Container", "Containers", "Place"]

Place = tuple[str, int]
"""The full key of a job, and the number of a member."""

_REPLAYED_SECONDS = 5.0
_AGAIN_SECONDS = 50.0
_LIST_SECONDS = 120.0
_PATIENCE_SECONDS = 10.0
_CHUNK = 1 << 16
_EXITED = re.compile(r"Exited \((\d+)\)")
_OPEN = ("created", "running", "paused", "restarting")


@attrs.define
class Container:
    """One container of ours, as the engine told of it.

    Attributes:
        is_created: it was never started.
        is_gone: the engine does not have it any more.
        exit_code: of its first process, once it has ended; None where that was not told.
    """

    id: str
    is_created: bool = False
    has_ended: bool = False
    is_gone: bool = False
    exit_code: int | None = None


class Containers:
    """What is known of our containers. One thread uses it, but for `fileno`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._found: dict[Place, Container] = {}
        self._nonces: set[str] = set()
        self._stream: socket.socket | None = None
        self._unread = b""
        self._headed = False
        self._listed = time.monotonic()

    def get(self, place: Place) -> Container | None:
        """Return what is known of a member's container."""
        return self._found.get(place)

    def put(self, place: Place, container: Container) -> None:
        """Take in a container that this process has just made or looked at."""
        self._found[place] = container

    def forget(self, place: Place) -> None:
        """Forget a container that was removed."""
        self._found.pop(place, None)

    @property
    def stream(self) -> socket.socket | None:
        """What becomes readable when there is news; None while there is no stream."""
        return self._stream

    def watch(self, nonces: Collection[str]) -> None:
        """Know of the containers of these experiments from here on; those made before are known by `look`."""
        self._nonces.update(nonces)

    def connect(self) -> None:
        """Have a stream of events, and know all that happened before it was there.

        Raises:
            TransientError, UsageError: as `Engine.request`.
        """
        if self._stream is None:
            self._open()
            if self._found:
                self.look()

    def look(self, seconds: float = _LIST_SECONDS) -> set[Place]:
        """Ask for all containers, in one query, and return whose state is another. Raises as `Engine.request`."""
        if self._stream is None:
            self._open()
        before = {place: attrs.evolve(container) for place, container in self._found.items()}
        label = f"{NONCE}={next(iter(self._nonces))}" if len(self._nonces) == 1 else NONCE
        filters = {"label": [label]}
        answer = self._engine.request("GET", "/containers/json", seconds=seconds, all="true", filters=filters)
        if answer.is_refusal:
            raise TransientError(f"the Docker engine does not list its containers: {answer.message}")
        self._listed = time.monotonic()
        listed = {_place(entry["Labels"]): entry for entry in answer.value}
        for place, entry in listed.items():
            if place is not None and self._is_watched(place):
                self._take(place, entry)
        for place, container in self._found.items():
            if place not in listed:
                container.is_gone = True
        return {place for place, container in self._found.items() if before.get(place) != container}

    def news(self) -> set[Place]:
        """Take in the events that have arrived, and return whose they are. Does not wait.

        Raises:
            TransientError: the stream has ended; `connect` opens another.
        """
        changed: set[Place] = set()
        while self._stream is not None:
            try:
                piece = self._stream.recv(_CHUNK)
            except BlockingIOError:
                return changed
            except OSError as error:
                piece, cause = b"", str(error)
            else:
                cause = "it hung up"
            if not piece:
                self.close()
                raise TransientError(f"the Docker engine at {self._engine.path} tells no more events: {cause}")
            self._unread += piece
            self._read(changed)
        return changed

    def look_again(self) -> set[Place]:
        """Ask for all containers where that was long ago, and return whose state is another; drop the stream if the
        engine does not answer. It tells no event to those who do not listen, as a driver that was stopped."""
        if self._stream is not None and time.monotonic() - self._listed > _AGAIN_SECONDS:
            try:
                return self.look(_PATIENCE_SECONDS)
            except TransientError:
                self.close()
        return set()

    def close(self) -> None:
        """End the stream. May be called again."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _open(self) -> None:
        filters = {"type": ["container"], "label": [NONCE], "event": ["start", "die", "destroy"]}
        since = f"{time.time() - _REPLAYED_SECONDS:.0f}"
        stream = self._engine.stream("GET", "/events", since=since, filters=filters)
        self._unread, self._headed = b"", False
        # Its headers say that it watches: what happens from here on is told.
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not self._headed and select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
            with contextlib.suppress(OSError):
                piece = stream.recv(_CHUNK)
                if not piece:
                    break
                self._unread += piece
                self._read(set())
        if not self._headed:
            stream.close()
            raise TransientError(f"the Docker engine at {self._engine.path} does not tell its events")
        self._stream = stream

    def _read(self, changed: set[Place]) -> None:
        """Take in what was received: the headers, then one event a line."""
        if not self._headed:
            head, found, rest = self._unread.partition(b"\r\n\r\n")
            if not found or b" 200 " not in head.partition(b"\r\n")[0]:
                return
            self._unread, self._headed = rest, True
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError, KeyError):
                event = json.loads(line)
                place = _place(event["Actor"]["Attributes"])
                if place is not None and self._is_watched(place):
                    self._happened(place, event["Actor"]["ID"], event)
                    changed.add(place)

    def _is_watched(self, place: Place) -> bool:
        return place[0].partition("/")[0] in self._nonces

    def _happened(self, place: Place, identity: str, event: dict[str, Any]) -> None:
        known = self._found.get(place)
        if event["Action"] == "destroy":
            if known is not None and known.id == identity:
                known.is_gone = True
            return
        if known is None:  # a container whose start is refused tells neither of a start nor of an end
            known = self._found[place] = Container(identity)
        if known.id == identity:
            known.is_created = False
            if event["Action"] == "die" and not known.has_ended:
                known.has_ended, known.exit_code = True, int(event["Actor"]["Attributes"]["exitCode"])

    def _take(self, place: Place, entry: dict[str, Any]) -> None:
        """Take in one entry of the list; a start or an end that was told before is not taken back by a list
        that lags."""
        known = self._found.get(place)
        if known is None or known.id != entry["Id"]:
            known = self._found[place] = Container(entry["Id"], is_created=True)
        known.is_created = known.is_created and entry["State"] == "created"
        known.is_gone = False
        if entry["State"] not in _OPEN and not known.has_ended:
            said = _EXITED.match(entry["Status"])
            known.has_ended, known.exit_code = True, int(said[1]) if said else None


def _place(labels: dict[str, str]) -> Place | None:
    member = labels.get(MEMBER, "")
    return (labels[KEY], int(member)) if KEY in labels and member.isdecimal() else None
