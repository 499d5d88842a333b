"""`Files`: where jobs' files are for the cluster, how they get there, and how records, logs and outputs come back."""

from __future__ import annotations

import abc
import contextlib
import fnmatch
import io
import json
import os
import shlex
import shutil
import tarfile
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import IO, NamedTuple

import attrs

from nemorun_core import (
    Bundle,
    Submission,
    TransientError,
    base_path,
    pad_outcome,
    rank_suffix,
)
from nemorun_core.model.records import OUTCOME_PADDING
from nemorun_slurm.commands import Commands
from nemorun_slurm.script import Layout
from nemorun_slurm.tunnel import LocalTunnel, SSHTunnel, Tunnel

__all__ = ["Files", "LocalFiles", "RemoteFiles", "files_of", "matches"]

_SEND_SECONDS = 600.0
_PIECE_BYTES = 1 << 16
# Reads a line a folder: `r` for its records, `s` for the sizes of its streams alone. Writes a line a stream, then the
# records as a tar file.
_REFRESH = """cd JOB_DIR || exit 1
names=
while IFS=' ' read -r what folder; do
    for file in "$folder"/*.out* "$folder"/*.err* "$folder"/*.batch; do
        case $file in *.outcome*) ;; *) [ ! -f "$file" ] || names="$names $file" ;; esac
    done
    [ "$what" = s ] || list="$list $folder"
done
[ -z "$names" ] || stat -L -c '%s %n' $names
echo =
for folder in $list; do
    for file in "$folder"/*.start* "$folder"/*.outcome*; do
        [ ! -f "$file" ] || printf '%s\\0' "$file"
    done
done | tar -c -f - --null -T -"""


def files_of(tunnel: Tunnel, commands: Commands) -> Files:
    """Return what moves files for a tunnel."""
    if isinstance(tunnel, SSHTunnel):
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

    @abc.abstractmethod
    def forget_secrets(self, jobs: Collection[Submission]) -> None:
        """Remove the secrets of jobs that are final. Raises TransientError."""


def _outcomes(job: Submission) -> Iterator[tuple[str, str]]:
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

    def send(self, jobs: Sequence[tuple[Submission, str | None]]) -> None:
        for job, secrets in jobs:
            with contextlib.suppress(FileExistsError):
                os.mkdir(job.folder, 0o700)
            for name, content in _members_files(job):
                _write(os.path.join(job.folder, name), content, 0o600)
            for base, suffix in _outcomes(job):
                pad_outcome(base, suffix)
            if secrets is not None:
                os.makedirs(self._secrets_dir, 0o700, exist_ok=True)
                _write(self.secrets(job), secrets.encode("utf-8", "surrogateescape"), 0o600)

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

    def forget_secrets(self, jobs: Collection[Submission]) -> None:
        for job in jobs:
            with contextlib.suppress(OSError):
                os.unlink(self.secrets(job))


class _Entry(NamedTuple):
    name: str
    content: bytes
    mode: int = 0o600


class RemoteFiles(Files):
    """Everything is below `job_dir` of the cluster's file system, and comes and goes by tar(1) over one connection.

    Below it: `<nonce>/<job>` is a job's folder; `<nonce>/support` and `<nonce>/objects` are an experiment's;
    `bundles/<digest>` is sent once for all experiments; `secrets` holds a file a job that is not final.
    """

    def __init__(self, job_dir: str, commands: Commands) -> None:
        self._job_dir = job_dir.rstrip("/") or "/"
        self._commands = commands
        self._sent: set[str] = set()
        # How much each stream had at the last look, by folder and name; and what was read last, which is read again.
        self._sizes: dict[str, dict[str, int]] = {}
        self._piece: tuple[str, int, bytes] = ("", 0, b"")

    def localised(self, job: Submission) -> Submission:
        paths = self._paths(job)
        members = tuple(
            attrs.evolve(
                member,
                argv=tuple(_replaced(argument, paths) for argument in member.argv),
                cwd=_replaced(member.cwd, paths),
                environment={
                    name: _replaced(value, paths) if isinstance(value, str) else value
                    for name, value in member.environment.items()
                },
                files={name: _replaced_within(content, paths) for name, content in member.files.items()},
            )
            for member in job.members
        )
        return attrs.evolve(job, members=members)

    def _paths(self, job: Submission) -> list[tuple[str, str]]:
        """Return paths of this machine with those of the cluster, the longest first."""
        ours = f"{self._job_dir}/{job.key.nonce}"
        paths = {
            job.folder: self.layout(job).folder,
            job.support: f"{ours}/support",
            os.path.join(os.path.dirname(job.support), "objects"): f"{ours}/objects",
        }
        for bundle in filter(None, job.bundles):
            paths[bundle.path.removesuffix(".tar")] = self._bundle_root(bundle)
        return sorted(paths.items(), key=lambda pair: -len(pair[0]))

    def _bundle_root(self, bundle: Bundle) -> str:
        return f"{self._job_dir}/bundles/{bundle.digest}"

    def layout(self, job: Submission) -> Layout:
        experiment = f"{self._job_dir}/{job.key.nonce}"
        return Layout(folder=f"{experiment}/{os.path.basename(job.folder)}", support=f"{experiment}/support")

    def secrets(self, job: Submission) -> str:
        return f"{self._job_dir}/secrets/{job.key.slug(128)}"

    def send(self, jobs: Sequence[tuple[Submission, str | None]]) -> None:
        entries: list[_Entry] = []
        for job, secrets in jobs:
            with contextlib.suppress(FileExistsError):
                os.mkdir(job.folder, 0o700)
            entries.extend(self._experiment(job))
            folder = os.path.relpath(self.layout(job).folder, self._job_dir)
            entries.extend(_Entry(f"{folder}/{name}", content) for name, content in _members_files(self.localised(job)))
            for base, suffix in _outcomes(job):
                entries.append(_Entry(f"{folder}/{os.path.basename(base)}.outcome{suffix}", OUTCOME_PADDING))
            if secrets is not None:
                name = os.path.relpath(self.secrets(job), self._job_dir)
                entries.append(_Entry(name, secrets.encode("utf-8", "surrogateescape")))
            for bundle in filter(None, job.bundles):
                self._send_bundle(bundle)
        packed = _pack(entries)
        text = f"umask 077; mkdir -p {shlex.quote(self._job_dir)} && cd {shlex.quote(self._job_dir)} && " + (
            "tar -x --skip-old-files -f -"
        )
        self._run(text, packed)
        self._sent.update(job.key.nonce for job, _ in jobs)

    def _experiment(self, job: Submission) -> Iterator[_Entry]:
        """Yield what all jobs of an experiment need, once a connection."""
        if job.key.nonce in self._sent:
            return
        self._sent.add(job.key.nonce)
        objects = os.path.join(os.path.dirname(job.support), "objects")
        for name, folder in (("support", job.support), ("objects", objects)):
            for place, _, files in os.walk(folder):
                for file in files:
                    path = os.path.join(place, file)
                    with open(path, "rb") as stream:
                        yield _Entry(f"{job.key.nonce}/{name}/{os.path.relpath(path, folder)}", stream.read())

    def _send_bundle(self, bundle: Bundle) -> None:
        """Send a bundle that is not there; its folder gets its name when it is whole."""
        if bundle.digest in self._sent:
            return
        root = shlex.quote(self._bundle_root(bundle))
        there = self._commands.run(["test", "-d", self._bundle_root(bundle)])
        if there.returncode != 0:
            with open(bundle.path, "rb") as stream:
                text = (
                    f"umask 077; mkdir -p {shlex.quote(self._job_dir)}/bundles && n={root}.$$ && mkdir $n && "
                    f"tar -x -f - -C $n && {{ mv -T $n {root} 2>/dev/null || rm -rf $n; }} && test -d {root}"
                )
                self._check(self._commands.run(["sh", "-c", text], stdin=stream, timeout_seconds=_SEND_SECONDS))
        self._sent.add(bundle.digest)

    def refresh(self, jobs: Sequence[Submission], running_on: Sequence[Submission] = ()) -> None:
        if not jobs and not running_on:
            return
        folders = {os.path.relpath(self.layout(job).folder, self._job_dir): job for job in jobs}
        others = [os.path.relpath(self.layout(job).folder, self._job_dir) for job in running_on]
        asked = [f"r {folder}" for folder in folders] + [f"s {folder}" for folder in others]
        text = _REFRESH.replace("JOB_DIR", shlex.quote(self._job_dir))
        found = self._run(text, "".join(f"{line}\n" for line in asked).encode("utf-8", "surrogateescape"))
        listing, _, records = found.partition(b"=\n")
        self._sizes.update({folder: {} for folder in (*folders, *others)})
        for line in listing.decode("utf-8", "surrogateescape").splitlines():
            size, _, path = line.partition(" ")
            folder, name = os.path.split(path)
            self._sizes[folder][name] = int(size)
        self._unpack(records, folders)

    def _unpack(self, records: bytes, folders: Mapping[str, Submission]) -> None:
        """Write records into the jobs' folders here, with the times they have on the cluster."""
        try:
            with tarfile.open(fileobj=io.BytesIO(records), mode="r:") as tar:
                for entry in tar:
                    stream = tar.extractfile(entry) if entry.isfile() else None
                    folder, name = os.path.split(entry.name)
                    if stream is not None and folder in folders:
                        path = os.path.join(folders[folder].folder, name)
                        _write(path, stream.read(), 0o600)
                        os.utime(path, (entry.mtime, entry.mtime))
        except tarfile.TarError as error:
            raise TransientError(f"the records of {len(folders)} jobs came back torn: {error}.") from None
        except OSError as error:
            raise TransientError(f"{error.filename} cannot be written: {error.strerror}.") from None

    def read(self, job: Submission, name: str, offset: int, limit: int) -> bytes:
        path = f"{self.layout(job).folder}/{name}"
        sizes = self._sizes.get(os.path.relpath(os.path.dirname(path), self._job_dir))
        if sizes is not None and sizes.get(name, 0) <= offset:
            return b""
        last, begin, content = self._piece
        if not (last == path and begin <= offset and offset + limit <= begin + len(content)):
            # `tail -c +N` counts from 1; head ends it with a SIGPIPE that nobody hears of.
            most, quoted = max(limit, _PIECE_BYTES), shlex.quote(path)
            text = f"[ -f {quoted} ] || exit 0; tail -c +{offset + 1} {quoted} | head -c {most}"
            begin, content = offset, self._run(text)
            self._piece = (path, begin, content)
        return content[offset - begin : offset - begin + limit]

    def fetch(self, cwd: str, patterns: Sequence[str], to: str) -> None:
        there = f"cd {shlex.quote(cwd)} && "
        listed = self._run(there + "exec find . ! -type d -print0").decode("utf-8", "surrogateescape")
        names = [name.removeprefix("./") for name in listed.split("\0") if name]
        wanted = [name for name in names if any(matches(pattern, name) for pattern in patterns)]
        if not wanted:
            return
        asked = "\0".join(wanted).encode("utf-8", "surrogateescape")
        with tempfile.TemporaryFile() as packed:
            self._run(there + "exec tar -c -h -f - --null --verbatim-files-from -T -", asked, stdout=packed)
            packed.seek(0)
            try:
                with tarfile.open(fileobj=packed, mode="r:") as tar:
                    for entry in tar:
                        _extract(tar, entry, to)
            except tarfile.TarError as error:
                raise TransientError(f"the outputs of {cwd} came back torn: {error}.") from None

    def forget_secrets(self, jobs: Collection[Submission]) -> None:
        if jobs:
            self._run("exec xargs -0 rm -f --", b"\0".join(os.fsencode(self.secrets(job)) for job in jobs))

    def _run(self, text: str, stdin: bytes = b"", stdout: IO[bytes] | None = None) -> bytes:
        argv = ["sh", "-c", text]
        return self._check(self._commands.run(argv, stdin=stdin, stdout=stdout, timeout_seconds=_SEND_SECONDS))

    def _check(self, result: tuple[int, bytes, str]) -> bytes:
        returncode, out, error = result
        if returncode != 0:
            last = error.splitlines()[-1] if error else f"exit code {returncode}"
            raise TransientError(f"files below {self._job_dir} could not be moved: {last}")
        return out


def _members_files(job: Submission) -> Iterator[tuple[str, bytes]]:
    for member in job.members:
        yield from member.files.items()


def _replaced(text: str, paths: Sequence[tuple[str, str]]) -> str:
    """Return a text that is one of these paths, or lies below it, with the cluster's in its place."""
    for ours, theirs in paths:
        if text == ours or text.startswith(ours + "/"):
            return theirs + text[len(ours) :]
    return text


def _replaced_within(content: bytes, paths: Sequence[tuple[str, str]]) -> bytes:
    """Return a file's content with the cluster's paths, as they are and as JSON writes them."""
    for ours, theirs in paths:
        for old, new in ((ours, theirs), (json.dumps(ours)[1:-1], json.dumps(theirs)[1:-1])):
            content = content.replace(old.encode("utf-8", "surrogateescape"), new.encode("utf-8", "surrogateescape"))
    return content


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern as of `glob` (`**` for any depth, no hidden files) means a file or a folder that it is in."""
    return _matches(pattern.rstrip("/").split("/"), name.split("/"))


def _matches(parts: Sequence[str], names: Sequence[str]) -> bool:
    if not parts:
        return True
    if parts[0] == "**" and _matches(parts[1:], names):
        return True
    if not names or (names[0].startswith(".") and not parts[0].startswith(".")):
        return False
    if parts[0] == "**":
        return _matches(parts, names[1:])
    return fnmatch.fnmatchcase(names[0], parts[0]) and _matches(parts[1:], names[1:])


def _extract(tar: tarfile.TarFile, entry: tarfile.TarInfo, to: str) -> None:
    """Write a file of a tar below a folder, and nothing that would leave it. Raises OSError."""
    stream = tar.extractfile(entry) if entry.isfile() else None
    target = os.path.normpath(os.path.join(to, entry.name))
    if stream is None or not target.startswith(os.path.normpath(to) + os.sep):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    new = f"{target}.{os.getpid()}.new"
    with open(new, "wb") as written:
        shutil.copyfileobj(stream, written)
    os.chmod(new, entry.mode & 0o777)
    os.replace(new, target)


def _write(path: str, content: bytes, mode: int) -> None:
    """Write a file whole, or leave the one that is there."""
    new = f"{path}.{os.getpid()}.new"
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(handle, "wb") as stream:
        stream.write(content)
    os.replace(new, path)


def _pack(entries: Sequence[_Entry]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            facts = tarfile.TarInfo(entry.name)
            facts.size, facts.mode = len(entry.content), entry.mode
            tar.addfile(facts, io.BytesIO(entry.content))
    return packed.getvalue()
