"""Secrets at rest: files in memory, one a member, that its shell reads before the program starts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

from nemorun_core import Secret, UsageError

__all__ = ["SecretFiles", "assignments"]


def assignments(values: Mapping[str, str]) -> bytes:
    """Return a shell's text that exports these variables (POSIX sh, 2.2.2: nothing is special in single quotes)."""
    quoted = {name: value.replace("'", "'\\''") for name, value in values.items()}
    return "".join(f"export {name}='{value}'\n" for name, value in quoted.items()).encode("utf-8", "surrogateescape")


class SecretFiles:
    """Files under a folder of this user's alone, on a file system in memory: XDG_RUNTIME_DIR, else /dev/shm."""

    def __init__(self) -> None:
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        above = [runtime] if os.access(runtime, os.W_OK) else []
        # A driver before may not have had XDG_RUNTIME_DIR, as under cron(8): what it left is removed all the same.
        self._folders = [os.path.join(place, f"nemorun-docker-{os.geteuid()}") for place in (*above, "/dev/shm")]
        self.folder = self._folders[0]

    def path(self, name: str) -> str:
        """Return where the secrets of a container stand; the same for every driver of this user and session."""
        return os.path.join(self.folder, name)

    def write(self, name: str, environment: Mapping[str, str | Secret]) -> None:
        """Write the secrets of one container.

        Raises:
            UsageError: a secret's source is missing here, holds a NUL, or the folder is somebody else's.
            OSError: there is no room.
        """
        values = {key: value.reveal() for key, value in environment.items() if isinstance(value, Secret)}
        if not values:
            return
        for key, value in values.items():
            if "\0" in value:
                raise UsageError(f"the secret {environment[key]} holds a NUL character, which no program can be given.")
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.folder, 0o700)
        facts = os.lstat(self.folder)
        if facts.st_uid != os.geteuid() or facts.st_mode & 0o077 or os.path.islink(self.folder):
            raise UsageError(
                f"{self.folder} is not this user's alone, and no place for a secret.",
                hint="Remove it, or chmod 700 it.",
            )
        temporary = f"{self.path(name)}.{os.getpid()}.tmp"
        # Nobody else gets through the folder; inside the container any user may have to read it.
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), "wb") as stream:
            os.fchmod(stream.fileno(), 0o644)
            stream.write(assignments(values))
        os.replace(temporary, self.path(name))

    def remove(self, name: str) -> None:
        """Remove the secrets of one container; fine where there are none. A running container keeps what it has."""
        for folder in self._folders:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))
