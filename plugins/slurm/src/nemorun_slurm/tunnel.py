"""`Tunnel`: how the commands of a cluster are reached. Plain values; `open` brings the half that runs commands."""

from __future__ import annotations

import abc
from collections.abc import Hashable
from typing import TYPE_CHECKING, ClassVar

import attrs

from nemorun_core import UsageError

if TYPE_CHECKING:
    from nemorun_slurm.commands import Commands

__all__ = ["LocalTunnel", "SSHTunnel", "Tunnel"]


@attrs.frozen(kw_only=True)
class Tunnel(abc.ABC):
    """Base of all tunnels: a value that names a cluster and says how its commands are run."""

    contract: ClassVar[int] = 1

    @property
    @abc.abstractmethod
    def shares_files(self) -> bool:
        """Whether jobs see the files of this machine under the same paths."""

    @abc.abstractmethod
    def open(self) -> Commands:
        """Return what runs commands. No input or output before its first command."""

    def connection(self) -> Hashable:
        """Return the identity of the connection: equal values share one."""
        return (type(self).__name__, *attrs.astuple(self))

    def check(self) -> None:
        """Refuse values that no connection can be made of. Raises UsageError."""
        return None


@attrs.frozen(kw_only=True)
class LocalTunnel(Tunnel):
    """The commands of this machine, a login node that shares its file system with the cluster.

    Which cluster that is, is said by this process's environment (`SLURM_CONF`, else the site's own files).

    Attributes:
        secrets_dir: a folder on a file system that the compute nodes share, made with mode 0700 where it is missing; a
            job that has secrets has a file in it until it is final.
    """

    secrets_dir: str = "~/.nemorun/secrets"

    @property
    def shares_files(self) -> bool:
        return True

    def open(self) -> Commands:
        from nemorun_slurm.commands import LocalCommands

        return LocalCommands()


@attrs.frozen(kw_only=True)
class SSHTunnel(Tunnel):
    """A login node that is reached by the system's own ssh(1), so that `~/.ssh/config` holds as the user wrote it.

    Nothing is ever asked at a terminal: where a second factor is needed, open a shared connection first (`ssh -fN host`
    with `ControlMaster auto` in `~/.ssh/config`), and it is used.

    Attributes:
        host: a name of `~/.ssh/config`, or of the network.
        job_dir: an absolute folder of the cluster's shared file system, made with mode 0700 where it is missing; all
            that goes there goes below it.
        user: the user's name there; None: as ssh decides.
        port: None: as ssh decides.
        identity: path of a private key on this machine; None: as ssh decides.
        pre_command: text of a POSIX shell that is run before each command, such as `. /etc/profile.d/slurm.sh`.
        options: more options of ssh(1), as they stand on a command line.
    """

    host: str
    job_dir: str
    user: str | None = None
    port: int | None = None
    identity: str | None = None
    pre_command: str = ""
    options: tuple[str, ...] = attrs.field(default=(), converter=tuple)

    @property
    def shares_files(self) -> bool:
        return False

    def open(self) -> Commands:
        from nemorun_slurm.commands import SSHCommands

        return SSHCommands(self)

    def check(self) -> None:
        """Refuse a host, folder or port that can be none. Raises UsageError."""
        if not self.host or self.host.startswith("-") or any(character.isspace() for character in self.host):
            raise UsageError(f"SSHTunnel(host={self.host!r}): expected the name of a host.")
        if self.user is not None and (not self.user or self.user.startswith("-")):
            raise UsageError(f"SSHTunnel(user={self.user!r}): expected a user's name.")
        if not self.job_dir.startswith("/") or "\n" in self.job_dir or "\0" in self.job_dir:
            raise UsageError(
                f"SSHTunnel(job_dir={self.job_dir!r}): expected an absolute path.",
                hint="Name a folder that login node and compute nodes share: job_dir='/home/me/nemorun'",
            )
        if self.port is not None and not 0 < self.port < 65536:
            raise UsageError(f"SSHTunnel(port={self.port!r}): expected a port, 1 to 65535.")
        if "\0" in self.pre_command:
            raise UsageError("SSHTunnel(pre_command=...): expected text without NUL characters.")
