"""`Site`: which cluster the jobs of an experiment are on, and whether it is the one that answers here."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Hashable

from nemorun_core import Submission, TransientError
from nemorun_slurm.commands import Commands
from nemorun_slurm.files import write_whole

__all__ = ["Site"]

_SECONDS = 30.0
_NAME = re.compile(r"^ClusterName\s*=\s*(\S+)", re.MULTILINE)


class Site:
    """Knows a cluster by its name, which stands beside the records of an experiment from its first submission on.

    SLURM_CONF may lead elsewhere the next time, where other jobs have the same numbers, and where nobody knows ours.

    Args:
        connection: names what the executor says of its cluster; jobs of another connection may be on another one.
        identity: names how Slurm's commands find theirs, at this moment.
    """

    def __init__(self, commands: Commands, connection: Hashable, identity: Callable[[], Hashable]) -> None:
        self._commands = commands
        self._identity = identity
        self._file = f"slurm-{hashlib.sha256(repr(connection).encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
        self._names: dict[Hashable, str] = {}
        self._right: set[tuple[Hashable, str]] = set()

    def check(self, jobs: Collection[Submission]) -> None:
        """See that the cluster which answers here is the jobs' own, where they have one.

        Raises:
            TransientError: it is another one, and what it says means nothing; or it does not answer.
        """
        for support in {job.support for job in jobs}:
            if (self._identity(), support) in self._right:
                continue
            try:
                with open(self._record(support), encoding="utf-8") as stream:
                    theirs = stream.read().strip()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise TransientError(f"{error.filename} cannot be read: {error.strerror}.") from None
            if theirs and theirs != self._name():
                raise TransientError(
                    f"the experiment's jobs are on Slurm's cluster {theirs!r}, and {self._name()!r} answers here.",
                    hint=f"Set SLURM_CONF to that of {theirs!r}, and take the experiment up again.",
                )
            self._right.add((self._identity(), support))

    def settle(self, jobs: Collection[Submission]) -> None:
        """Write down that the jobs go to the cluster which answers here, before the first of them does.

        Raises:
            TransientError: as `check`. OSError: the disk refused.
        """
        self.check(jobs)
        for support in {job.support for job in jobs}:
            if (self._identity(), support) not in self._right:
                write_whole(self._record(support), f"{self._name()}\n".encode(), 0o600)
                self._right.add((self._identity(), support))

    def _name(self) -> str:
        identity = self._identity()
        if identity not in self._names:
            result = self._commands.run(["scontrol", "show", "config"], timeout_seconds=_SECONDS)
            found = _NAME.search(result.out.decode("utf-8", "replace"))
            if found is None:
                raise TransientError(
                    f"expected a ClusterName from scontrol show config, found {result.error[-200:]!r}."
                )
            self._names[identity] = found[1]
        return self._names[identity]

    def _record(self, support: str) -> str:
        return os.path.join(support, f"{self._file}.cluster")
