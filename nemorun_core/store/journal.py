"""The journal: one event a line, appended by the driver alone, readable by anybody at any time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from nemorun_core.errors import StoreError
from nemorun_core.store.files import guarded

__all__ = ["JournalReader", "JournalWriter"]

_CHUNK = 1 << 20


class JournalWriter:
    """Appends lines. Only the holder of the experiment's lock makes one.

    A torn last line, left by a crash, is cut off before the first append. Lines are buffered until `flush`, so that a
    turn of the engine costs one write.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._pending: list[str] = []
        with guarded("open", path):
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                self._cut_torn_line()
            except OSError:
                os.close(self._handle)
                raise

    def append(self, line: str) -> None:
        """Add one line, without its newline, to what the next `flush` writes."""
        self._pending.append(line)

    def flush(self, *, sync: bool = False) -> None:
        """Write what was appended; with `sync` it also survives a power cut.

        Raises:
            StoreError: the disk refused. Nothing is lost: the lines are written by the next `flush` that succeeds.
        """
        with guarded("write", self._path):
            if self._pending:
                data = ("\n".join(self._pending) + "\n").encode("ascii")
                end = os.fstat(self._handle).st_size
                try:
                    written = 0
                    while written < len(data):
                        written += os.write(self._handle, data[written:])
                except OSError:
                    os.ftruncate(self._handle, end)
                    raise
                self._pending.clear()
            if sync:
                os.fdatasync(self._handle)

    def close(self) -> None:
        """Close without writing what was not flushed."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _cut_torn_line(self) -> None:
        size = os.fstat(self._handle).st_size
        end = size
        while end > 0:
            start = max(0, end - _CHUNK)
            newline = os.pread(self._handle, end - start, start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end != size:
            os.ftruncate(self._handle, end)


class JournalReader:
    """Reads lines, from the beginning, and later what was added. Never writes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._offset = 0
        self.line_number = 0

    def lines(self) -> Iterator[str]:
        """Yield the whole lines that were added since the last call; a line still being written waits for the next.

        Raises:
            StoreError: it cannot be read.
        """
        with guarded("read", self._path), contextlib.ExitStack() as stack:
            try:
                stream = stack.enter_context(open(self._path, "rb"))
            except FileNotFoundError:
                return
            stream.seek(self._offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                self.line_number += 1
                yield line.decode("utf-8", "replace").rstrip("\n")

    def corrupt(self, why: str) -> StoreError:
        """Return the error for the line just read."""
        return StoreError(
            f"{self._path}, line {self.line_number}: {why}.",
            hint="The journal was damaged from outside: restore it from a copy. Other experiments are not affected.",
        )
