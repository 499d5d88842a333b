"""A job's folder, made ready for a container whose programs may run as another user, and given back afterwards."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from nemorun_core import Submission, base_path, pad_outcome

__all__ = ["is_claimed", "prepare", "reclaim", "remove_records", "show"]

_RECORDS = ("start", "outcome", "out", "err")


def prepare(job: Submission, index: int, *, foreign: bool, separate_stderr: bool) -> None:
    """Make the folder, write a member's files, and create what the shim will write, so that it belongs to us.

    Args:
        foreign: the container's user is neither root nor this one: it may write into the folder, which nobody else
            gets to, since the experiment's folder is closed.

    Raises:
        OSError: the disk refused.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(job.folder, 0o700)
    for name, content in job.members[index].files.items():
        path = os.path.join(job.folder, name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            stream.write(content)
        if foreign:
            os.chmod(path, 0o644)
    base = base_path(job.folder, job.key.attempt, 0, index)
    pad_outcome(base, "")
    for name in ("out", "err") if separate_stderr else ("out",):
        os.close(os.open(f"{base}.{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    if foreign:
        os.chmod(job.folder, 0o777)
        for name in _RECORDS[1:]:
            with contextlib.suppress(FileNotFoundError):
                os.chmod(f"{base}.{name}", 0o666)


def show(folders: Iterable[str]) -> None:
    """Let any user read what is below these folders, as far as they get to them. Raises OSError."""
    for folder in folders:
        for place, _, names in os.walk(folder):
            for path in (place, *(os.path.join(place, name) for name in names)):
                if not os.path.islink(path):
                    mode = os.stat(path).st_mode
                    os.chmod(path, mode | 0o444 | (0o111 if mode & 0o100 else 0))


def is_claimed(job: Submission, index: int) -> bool:
    """Whether a member's program was started."""
    return os.path.exists(f"{base_path(job.folder, job.key.attempt, 0, index)}.start")


def reclaim(base: str) -> None:
    """Make records that the container's user created ours, by a copy that takes their place."""
    for name in _RECORDS:
        path = f"{base}.{name}"
        with contextlib.suppress(OSError):  # gone, or not to be read: it stays as it is
            if os.stat(path).st_uid == os.geteuid():
                continue
            with open(path, "rb") as stream:
                content = stream.read()
            with open(os.open(f"{path}.mine", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
                stream.write(content)
            os.replace(f"{path}.mine", path)


def remove_records(job: Submission, index: int) -> None:
    """Undo a start that is taken back."""
    for name in _RECORDS:
        with contextlib.suppress(OSError):
            os.unlink(f"{base_path(job.folder, job.key.attempt, 0, index)}.{name}")
