"""Files that are whole or not there, and errors of the disk that say what to do."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from nemorun_core.errors import StoreError

__all__ = ["guarded", "make_folder", "read_text", "sync_folder", "write_atomically"]

_HINTS = {
    errno.ENOSPC: "Free some disk space, then try again.",
    errno.EDQUOT: "The disk quota is used up: free some space, then try again.",
    errno.EACCES: "Check who owns the folder, or choose another one with NEMORUN_HOME or base_dir.",
    errno.EPERM: "Check who owns the folder, or choose another one with NEMORUN_HOME or base_dir.",
    errno.EROFS: "The file system is read-only: choose another folder with NEMORUN_HOME or base_dir.",
    errno.ENOENT: "It was removed, or never there: `nemorun experiment list` shows what is.",
    errno.ENOTDIR: "A file stands where a folder is expected: choose another one with NEMORUN_HOME or base_dir.",
    errno.EEXIST: "A file stands where a folder is expected: choose another one with NEMORUN_HOME or base_dir.",
}


@contextlib.contextmanager
def guarded(doing: str, path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an OSError of the block into a `StoreError`: "cannot <doing> <path>: <cause>"."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot {doing} {os.fspath(path)}: {error.strerror or error}.", hint=_HINTS.get(error.errno or 0, "")
        ) from error


def make_folder(path: str) -> None:
    """Make a folder, owner-only, and what is missing above it. Fine if it is there."""
    with guarded("make the folder", path):
        os.makedirs(path, mode=0o700, exist_ok=True)


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: str, content: bytes, *, sync: bool = True, mode: int = 0o600) -> None:
    """Write a file so that readers see all of it or what was there before; by default also after a power cut.

    Raises:
        StoreError: the disk refused; what was there before is untouched.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    with guarded("write", path):
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
            try:
                with open(handle, "wb", closefd=False) as stream:
                    stream.write(content)
                if sync:
                    os.fsync(handle)
            finally:
                os.close(handle)
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        if sync:
            sync_folder(os.path.dirname(path))


def read_text(path: str) -> str | None:
    """Return a small record's text, None where there is no such file. Rubbish bytes become replacement characters."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(
            f"cannot read {path}: {error.strerror or error}.", hint=_HINTS.get(error.errno or 0, "")
        ) from error
