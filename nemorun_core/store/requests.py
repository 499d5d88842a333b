"""Requests to the driver: small files that it finds, and a pipe that wakes it."""

import contextlib
import json
import os
import time
from typing import NamedTuple

from nemorun_core.errors import StoreError
from nemorun_core.model.records import MalformedRecord
from nemorun_core.store.files import guarded, make_folder, read_text, write_atomically

__all__ = ["Request", "Requests"]

_PIPE = "wake"


class Request(NamedTuple):
    """Somebody asks that jobs be cancelled: their ids, and why, as kind and detail of the reason."""

    jobs: tuple[str, ...]
    kind: str
    detail: str = ""


class Requests:
    """The folder of requests of one experiment."""

    def __init__(self, path: str) -> None:
        self._path = path

    def leave(self, request: Request) -> str:
        """Write a request durably, then wake the driver if there is one; return the request's file.

        Raises:
            StoreError: the disk refused, and nothing was asked.
        """
        make_folder(self._path)
        name = f"{time.time_ns():020d}-{os.urandom(4).hex()}.json"
        path = os.path.join(self._path, name)
        write_atomically(path, json.dumps(request._asdict()).encode("ascii"))
        with contextlib.suppress(OSError):  # no driver reads the pipe: the file stays for the next one
            handle = os.open(os.path.join(self._path, _PIPE), os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(handle, b"!")
            finally:
                os.close(handle)
        return path

    def open_pipe(self) -> tuple[int, int]:
        """Make the pipe that wakes the driver; return its two ends, to read and to write. The caller closes both.

        Where the file system has no named pipes, requests are found only when somebody looks.
        """
        make_folder(self._path)
        pipe = os.path.join(self._path, _PIPE)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkfifo(pipe, 0o600)
            # Open for writing too, so that it never reads as ended when a requester closes its side.
            reading = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
            return reading, os.dup(reading)
        except OSError:
            ends = os.pipe()
            for end in ends:
                os.set_blocking(end, False)
            return ends

    def files(self) -> list[str]:
        """Return the files of the requests that are there, oldest first."""
        try:
            names = sorted(name for name in os.listdir(self._path) if name.endswith(".json"))
        except FileNotFoundError:
            return []
        return [os.path.join(self._path, name) for name in names]

    def read(self, path: str) -> Request | None:
        """Return the request in a file, None if it was settled meanwhile. Raises StoreError where it is none."""
        text = read_text(path)
        try:
            return None if text is None else _parse(text)
        except MalformedRecord as error:
            raise StoreError(f"{path}: {error}.", hint="Remove this file, and ask again.") from None

    def pending(self) -> list[tuple[str, Request]]:
        """Return the requests that are there, oldest first, each with its file. Raises StoreError where one is none."""
        return [(path, request) for path in self.files() if (request := self.read(path)) is not None]

    def settle(self, path: str) -> None:
        """Remove a request whose event is in the journal."""
        with guarded("remove", path), contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _parse(text: str) -> Request:
    try:
        data = json.loads(text)
        return Request(tuple(str(job) for job in data["jobs"]), str(data["kind"]), str(data["detail"]))
    except (ValueError, TypeError, KeyError) as error:
        raise MalformedRecord(f"expected a request, found {text[:80]!r} ({error})") from None
