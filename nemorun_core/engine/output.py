"""Bytes to a stream of text, as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

__all__ = ["binary"]


def binary(stream: object) -> Callable[[bytes], None]:
    """Return what writes bytes to a text stream: straight to its buffer, or decoded where it has none (a notebook)."""
    buffer: BinaryIO | None = getattr(stream, "buffer", None)
    if buffer is None:
        import codecs

        decode = codecs.getincrementaldecoder("utf-8")("replace").decode

        def write_text(data: bytes) -> None:
            stream.write(decode(data))  # type: ignore[attr-defined]

        return write_text

    def write_bytes(data: bytes) -> None:
        stream.flush()  # type: ignore[attr-defined]
        buffer.write(data)
        buffer.flush()

    return write_bytes
