"""A file system of a few kilobytes, for what happens when a disk is full."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["SmallDisk", "small_disk"]


class SmallDisk:
    """A mounted tmpfs. `fill` leaves not a byte, `free` gives the space back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        with open(self._filler, "ab", buffering=0) as stream:
            for size in (4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        stream.write(b"x" * size)

    def free(self) -> None:
        os.unlink(self._filler)


@contextlib.contextmanager
def small_disk(path: Path, *, size: str = "256k", options: str = "") -> Iterator[SmallDisk]:
    """Mount a small file system at `path`; skips the test where this process may not."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700{options}", "tmpfs", str(path)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount a small file system")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", str(path)], check=True)
