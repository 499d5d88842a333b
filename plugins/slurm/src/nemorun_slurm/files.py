"""`Files`: where jobs' files are for the cluster, how they get there, and how records, logs and outputs come back."""

from __future__ import annotations

import abc
import contextlib
import os
from collections.abc import Collection, Iterator, Sequence

from nemorun_core import (
    Secret,
    Submission,
    TransientError,
    base_path,
    edges_text,
    pad_outcome,
    rank_suffix,
)
from nemorun_slurm.commands import Commands
from nemorun_slurm.script import Layout
from nemorun_slurm.tunnel import LocalTunnel, SSHTunnel, Tunnel

__all__ = [
    "Files",
    "LocalFiles",
    "batches_folder",
    "files_of",
    "members_files",
    "outcomes",
    "sources_of_secrets",
    "write_whole",
]


def files_of(tunnel: Tunnel, commands: Commands) -> Files:
    """Return what moves files for a tunnel."""
    if isinstance(tunnel, SSHTunnel):
        from nemorun_slurm.remote import RemoteFiles

        return RemoteFiles(tunnel.job_dir, commands)
    secrets = tunnel.secrets_dir if isinstance(tunnel, LocalTunnel) else LocalTunnel().secrets_dir
    return LocalFiles(os.path.expanduser(secrets))


class Files(abc.ABC):
    """Moves the files of jobs. Names of records are those of `base_path`, wherever they are."""

    @abc.abstractmethod
    def localised(self, job: Submission) -> Submission:
        """Return the job with the paths of the cluster in place of this machine's."""

    @abc.abstractmethod
    def layout(self, job: Submission) -> Layout:
        """Return where the job's files are for the cluster."""

    @abc.abstractmethod
    def secrets(self, job: Submission) -> str:
        """Return where the job's secrets are for the cluster while it is not final."""

    @abc.abstractmethod
    def tasks(self, job: Submission, name: str) -> str:
        """Return where the text of an array's tasks is for the cluster, of which the job is one."""

    @abc.abstractmethod
    def send_tasks(self, path: str, text: str) -> None:
        """Have the text of an array's tasks there. Raises what `send` does."""

    def forget_tasks(self, path: str) -> None:
        """Remove the text of the tasks of an array that was not taken. Raises TransientError."""
        self._remove([path])

    @abc.abstractmethod
    def send(self, jobs: Sequence[tuple[Submission, str | None]]) -> None:
        """Have everything there that these jobs need before they are submitted; the text is their secrets' file.

        What is there already stays as it is, of another driver that races.

        Raises:
            OSError: this machine's disk refused. TransientError: the cluster did not answer, or its disk refused.
        """

    @abc.abstractmethod
    def refresh(self, jobs: Sequence[Submission], running_on: Sequence[Submission] = ()) -> None:
        """Have the records that the jobs' shims wrote so far in the jobs' folders here; of those that `running_on`
        names, of which no new ones are expected, only learn how much they have printed.

        Raises:
            TransientError: the cluster did not answer.
        """

    @abc.abstractmethod
    def read(self, job: Submission, name: str, offset: int, limit: int) -> bytes:
        """Return a part of a file of the job's folder, b"" where there is none. Raises TransientError."""

    @abc.abstractmethod
    def fetch(self, cwd: str, patterns: Sequence[str], to: str) -> None:
        """Copy the files below a folder of the cluster that match any pattern below one here. Raises TransientError."""

    def forget_secrets(self, jobs: Collection[Submission]) -> None:
        """Remove the secrets of jobs that are final, or were never taken. Raises TransientError."""
        paths = [self.secrets(job) for job in jobs if sources_of_secrets(job) is not None]
        if paths:
            self._remove(paths)

    @abc.abstractmethod
    def _remove(self, paths: Sequence[str]) -> None:
        """Remove files of the cluster; one that is not there is no error."""


def batches_folder(job: Submission) -> str:
    """Return the folder on this machine that says which jobs of an experiment went out in one call."""
    return os.path.join(os.path.dirname(job.folder), "batches")


def outcomes(job: Submission) -> Iterator[tuple[str, str]]:
    """Yield base and suffix of each rank's records of the first incarnation."""
    for index, executor in enumerate(job.executors):
        for rank in range(executor.ranks()):
            yield base_path(job.folder, job.key.attempt, 0, index), rank_suffix(rank)


class LocalFiles(Files):
    """Everything is in the job's own folder, which the cluster sees under the same path."""

    def __init__(self, secrets_dir: str) -> None:
        self._secrets_dir = secrets_dir

    def localised(self, job: Submission) -> Submission:
        return job

    def layout(self, job: Submission) -> Layout:
        return Layout(folder=job.folder, support=job.support)

    def secrets(self, job: Submission) -> str:
        return os.path.join(self._secrets_dir, job.key.slug(128))

    def tasks(self, job: Submission, name: str) -> str:
        return os.path.join(batches_folder(job), f"{name}.tasks")

    def send_tasks(self, path: str, text: str) -> None:
        write_whole(path, text.encode("utf-8", "surrogateescape"), 0o600)

    def send(self, jobs: Sequence[tuple[Submission, str | None]]) -> None:
        for job, secrets in jobs:
            with contextlib.suppress(FileExistsError):
                os.mkdir(job.folder, 0o700)
            for name, content in members_files(job):
                write_whole(os.path.join(job.folder, name), content, 0o600)
            for base, suffix in outcomes(job):
                pad_outcome(base, suffix)
            if secrets is not None:
                os.makedirs(self._secrets_dir, 0o700, exist_ok=True)
                write_whole(self.secrets(job), secrets.encode("utf-8", "surrogateescape"), 0o600)

    def refresh(self, jobs: Sequence[Submission], running_on: Sequence[Submission] = ()) -> None:
        for job in jobs:  # a network file system tells of new files when the folder is looked at
            with contextlib.suppress(OSError):
                os.stat(job.folder)

    def read(self, job: Submission, name: str, offset: int, limit: int) -> bytes:
        try:
            with open(os.path.join(job.folder, name), "rb") as stream:
                stream.seek(offset)
                return stream.read(limit)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise TransientError(f"{error.filename} cannot be read: {error.strerror}.") from None

    def fetch(self, cwd: str, patterns: Sequence[str], to: str) -> None:
        raise NotImplementedError("files are shared")

    def _remove(self, paths: Sequence[str]) -> None:
        for path in paths:
            with contextlib.suppress(OSError):
                os.unlink(path)


def members_files(job: Submission) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file that belongs into the job's folder."""
    if job.after:
        yield f"{job.key.attempt}.after", edges_text(job.after).encode("utf-8", "surrogateescape")
    for member in job.members:
        yield from member.files.items()


def write_whole(path: str, content: bytes, mode: int, *, sync: bool = False) -> None:
    """Write a file whole, or leave the one that is there; with `sync`, also after a power cut."""
    new = f"{path}.{os.getpid()}.new"
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(handle, "wb") as stream:
        stream.write(content)
        if sync:
            stream.flush()
            os.fsync(handle)
    os.replace(new, path)
    if sync:
        folder = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def sources_of_secrets(job: Submission) -> list[str] | None:
    """Return the variables of this process that a job's secrets come from; None where it has no secrets."""
    secrets = [value for member in job.members for value in member.environment.values() if isinstance(value, Secret)]
    return [secret.name for secret in secrets if secret.source == "env"] if secrets else None
