"""Reading and following the streams of jobs: whole bytes, no line lost, memory flat."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import attrs

from nemorun_core.contracts.witness import base_path, rank_suffix
from nemorun_core.errors import StoreError, UsageError

__all__ = ["Source", "compiled", "follow", "last_lines", "sources_of"]

# Under malloc's threshold for memory maps: above it each chunk costs a page fault for every page.
_CHUNK = 48 << 10
_TURN_BYTES = 1 << 22
_LONGEST_LINE = 1 << 16


@attrs.define(eq=False)
class Source:
    """One stream of one rank of one member, and how far it was read.

    Attributes:
        prefix: bytes put before each line; empty: the stream is passed on as it is.
        rest: the end of a line that is not whole yet.
    """

    path: str
    prefix: bytes = b""
    offset: int = 0
    rest: bytes = b""

    def chunks(self, most: int | None = None) -> Iterator[bytes]:
        """Yield what was added, chunk by chunk, about `most` bytes at most. Raises StoreError."""
        try:
            with open(self.path, "rb", buffering=0) as stream:
                stream.seek(self.offset)
                end = None if most is None else self.offset + most
                while (end is None or self.offset < end) and (data := stream.read(_CHUNK)):
                    self.offset += len(data)
                    yield data
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"cannot read {self.path}: {error.strerror}.") from error

    def skip_to_last(self, lines: int) -> None:
        """Go to where the last `lines` lines begin."""
        try:
            with open(self.path, "rb") as stream:
                position = stream.seek(0, os.SEEK_END)
                wanted = lines + 1
                first = True
                while position > 0:
                    start = max(0, position - _CHUNK)
                    stream.seek(start)
                    block = stream.read(position - start)
                    if first and not block.endswith(b"\n"):
                        wanted -= 1
                    first = False
                    count = block.count(b"\n")
                    if count >= wanted:
                        cut = len(block)
                        for _ in range(wanted):
                            cut = block.rfind(b"\n", 0, cut)
                        self.offset = start + cut + 1
                        return
                    wanted -= count
                    position = start
        except FileNotFoundError:
            pass
        self.offset = 0


def sources_of(
    folder: str,
    *,
    label: str,
    number: int,
    attempt: int,
    incarnations: int,
    ranks: Sequence[int],
    member: int | None,
    stream: str | None,
    colour: Callable[[str, int], bytes] | None,
) -> list[Source]:
    """Return the streams of a job in order: incarnation, member, rank, `out` before `err`.

    Args:
        number: of the job; with the member's it chooses the colour.
        ranks: how many each member has.
        member: one member only; None: all.
        stream: one stream only, as `out`, `err`, `out.3`; None: all.
        colour: makes the prefix of a label; None: no prefixes.
    """
    chosen: list[Source] = []
    for incarnation in range(incarnations):
        for index, count in enumerate(ranks):
            if member is not None and index != member:
                continue
            base = base_path(folder, attempt, incarnation, index)
            for rank in range(count):
                for name in ("out", "err"):
                    full = f"{name}{rank_suffix(rank)}"
                    if stream is None or stream == full:
                        title = label + (f"/{index}" if len(ranks) > 1 else "") + (f".{rank}" if rank else "")
                        prefix = colour(title, number + index) if colour else b""
                        chosen.append(Source(f"{base}.{full}", prefix))
    return chosen


def follow(
    sources: Callable[[], Sequence[Source]],
    write: Callable[[bytes], None],
    *,
    finished: Callable[[], bool],
    rest: Callable[[], None],
    regex: str | None = None,
) -> None:
    """Write what the sources hold, and what is added to them, until `finished`.

    Args:
        sources: asked each round, since jobs start meanwhile; the same objects for the same streams.
        write: takes whole chunks.
        finished: asked before each round, so that the last round sees all.
        rest: waits until there may be more.
        regex: pass on only the lines in which this is found (Python's `re`, on text).

    Raises:
        UsageError: `regex` is none.
    """
    pattern = compiled(regex)
    while True:
        last = finished()
        busy = False
        for source in sources():
            for data in source.chunks(None if last else _TURN_BYTES):
                busy = True
                write(_dressed(source, data, pattern))
            if last and source.rest:
                line, source.rest = source.rest + b"\n", b""
                write(_dress_lines(source.prefix, line, pattern))
        if last:
            return
        if not busy:
            rest()


def compiled(regex: str | None) -> re.Pattern[bytes] | None:
    """Return the pattern. Raises UsageError where it is none."""
    if regex is None:
        return None
    try:
        return re.compile(regex.encode())
    except re.error as error:
        raise UsageError(f"regex={regex!r}: {error}.", hint="Escape special characters with a backslash.") from None


def last_lines(paths: Iterable[str], lines: int) -> bytes:
    """Return the last lines of the first of these streams that holds any."""
    for path in paths:
        source = Source(path)
        source.skip_to_last(lines)
        kept: deque[bytes] = deque(maxlen=lines)
        for data in source.chunks():
            kept.extend(data.splitlines(keepends=True))
        if kept:
            return b"".join(kept)
    return b""


def _dressed(source: Source, data: bytes, pattern: re.Pattern[bytes] | None) -> bytes:
    if not source.prefix and pattern is None:
        return data
    data = source.rest + data
    end = data.rfind(b"\n") + 1
    source.rest = data[end:]
    if len(source.rest) > _LONGEST_LINE:
        data, source.rest = data + b"\n", b""
        end = len(data)
    return _dress_lines(source.prefix, data[:end], pattern)


def _dress_lines(prefix: bytes, data: bytes, pattern: re.Pattern[bytes] | None) -> bytes:
    if pattern is not None:
        data = b"".join(line + b"\n" for line in data[:-1].split(b"\n") if pattern.search(line))
    if not data or not prefix:
        return data
    dressed = data.replace(b"\n", b"\n" + prefix)  # ends in a prefix too many
    return b"".join((prefix, memoryview(dressed)[: -len(prefix)]))
