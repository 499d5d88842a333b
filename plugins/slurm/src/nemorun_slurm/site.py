"""`Site`: which cluster the jobs of an experiment are on, and whether it is the one that answers here."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Collection, Hashable

from nemorun_core import Submission, TransientError, UsageError
from nemorun_slurm.files import write_whole

__all__ = ["Site"]

_SHARED_SECONDS = 15.0  # how old an answer may be, to be shared by many processes that only look
_NAME = re.compile(r"^ClusterName\s*=\s*(\S+)", re.MULTILINE)
_NO_CLUSTER = "Could not establish a configuration source"
_VERSION = re.compile(r"^SLURM_VERSION\s*=\s*(\S+)", re.MULTILINE)
_STORAGE = re.compile(r"^AccountingStorageType\s*=\s*(\S+)", re.MULTILINE)


class Site:
    """Knows a cluster by its name, which stands beside the records of an experiment from its first submission on.

    SLURM_CONF may lead elsewhere the next time, where other jobs have the same numbers, and where nobody knows ours.

    Args:
        config: returns what the cluster says of its configuration, asked at a moment or later: `Queue.config`.
        connection: names what the executor says of its cluster; jobs of another connection may be on another one.
        identity: names how Slurm's commands find theirs, at this moment.
    """

    def __init__(self, config: Callable[[float], str], connection: Hashable, identity: Callable[[], Hashable]) -> None:
        self._config = config
        self._identity = identity
        self._file = f"slurm-{hashlib.sha256(repr(connection).encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
        self._names: dict[Hashable, str] = {}
        self._right: set[tuple[Hashable, str]] = set()

    def check(self, jobs: Collection[Submission]) -> None:
        """See that the cluster which answers here is the jobs' own, where they have one.

        Raises:
            TransientError: it is another one, and what it says means nothing; or it does not answer.
        """
        self._check(jobs, time.time() - _SHARED_SECONDS)

    def _check(self, jobs: Collection[Submission], newer_than: float) -> None:
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
            if theirs and theirs != (here := self._name(newer_than)):
                raise TransientError(
                    f"the experiment's jobs are on Slurm's cluster {theirs!r}, and {here!r} answers here.",
                    hint=f"Set SLURM_CONF to that of {theirs!r}, and take the experiment up again.",
                )
            self._right.add((self._identity(), support))

    def settle(self, jobs: Collection[Submission]) -> None:
        """Write down that the jobs go to the cluster which answers here, before the first of them does.

        Raises:
            TransientError: as `check`. OSError: the disk refused.
        """
        now = time.time()
        self._check(jobs, now)
        for support in {job.support for job in jobs}:
            if (self._identity(), support) not in self._right:
                write_whole(self._record(support), f"{self._name(now)}\n".encode(), 0o600)
                self._right.add((self._identity(), support))

    def described(self) -> str:
        """Return the cluster's version and name, and whether it keeps accounts, which tell of jobs that are long over.

        Raises:
            UsageError: Slurm's commands are not here, or know of no cluster. TransientError: it does not answer.
        """
        try:
            text = self._config(time.time())
        except TransientError as error:
            if _NO_CLUSTER not in error.message:
                raise
            raise UsageError(error.message, hint="Set SLURM_CONF, or run this where Slurm is set up.") from None
        version, storage = _VERSION.search(text), _STORAGE.search(text)
        accounts = "with" if storage and not storage[1].endswith(("none", "(null)")) else "without"
        return f"Slurm {version[1] if version else ''}, cluster {self._name(0)!r}, {accounts} accounting"

    def _name(self, newer_than: float) -> str:
        identity = self._identity()
        if identity not in self._names:
            text = self._config(newer_than)
            found = _NAME.search(text)
            if found is None:
                raise TransientError(f"expected a ClusterName from scontrol show config, found {text[-200:]!r}.")
            self._names[identity] = found[1]
        return self._names[identity]

    def _record(self, support: str) -> str:
        return os.path.join(support, f"{self._file}.cluster")
