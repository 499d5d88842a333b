"""`RemoteFiles`: the files of jobs below one folder of a cluster's file system, moved by tar(1)."""

from __future__ import annotations

import contextlib
import fnmatch
import io
import json
import os
import shlex
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, NamedTuple

import attrs

from nemorun_core import Bundle, Key, Submission, TransientError
from nemorun_core.model.records import OUTCOME_PADDING
from nemorun_slurm.commands import Commands
from nemorun_slurm.files import Files, members_files, outcomes, write_whole
from nemorun_slurm.script import Layout

__all__ = ["RemoteFiles", "matches"]

_SEND_SECONDS = 600.0
_PIECE_BYTES = 1 << 16
# Reads a line a folder: `r` for its records, `s` for the sizes of its streams alone. Writes the records as a tar file,
# then a line a stream: what a program printed before an outcome that was read is counted.
_REFRESH = """cd JOB_DIR || exit 1
asked=$(cat)
printf '%s\\n' "$asked" | while IFS=' ' read -r what folder; do
    for file in "$folder"/*.start* "$folder"/*.outcome*; do
        [ "$what" = s ] || [ ! -f "$file" ] || printf '%s\\0' "$file"
    done
done | tar -c -f - --null -T - || exit
echo =
printf '%s\\n' "$asked" | while IFS=' ' read -r what folder; do
    for file in "$folder"/*.out* "$folder"/*.err* "$folder"/*.batch; do
        case ${file##*/} in *.outcome*) ;; *) [ ! -f "$file" ] || printf '%s\\0' "$file" ;; esac
    done
done | xargs -0 -r stat -L -c '%s %n' --"""


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
        after = tuple(edge._replace(folder=self._folder(edge.key, edge.folder)) for edge in job.after)
        return attrs.evolve(job, members=members, after=after)

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
        return Layout(folder=self._folder(job.key, job.folder), support=f"{self._job_dir}/{job.key.nonce}/support")

    def _folder(self, key: Key, folder: str) -> str:
        return f"{self._job_dir}/{key.nonce}/{os.path.basename(folder)}"

    def secrets(self, job: Submission) -> str:
        return f"{self._job_dir}/secrets/{job.key.slug(128)}"

    def tasks(self, job: Submission, name: str) -> str:
        return f"{self._job_dir}/{job.key.nonce}/batches/{name}.tasks"

    def send_tasks(self, path: str, text: str) -> None:
        self._send([_Entry(os.path.relpath(path, self._job_dir), text.encode("utf-8", "surrogateescape"))])

    def send(self, jobs: Sequence[tuple[Submission, str | None]]) -> None:
        entries: list[_Entry] = []
        for job, secrets in jobs:
            with contextlib.suppress(FileExistsError):
                os.mkdir(job.folder, 0o700)
            entries.extend(self._experiment(job))
            folder = os.path.relpath(self.layout(job).folder, self._job_dir)
            entries.extend(_Entry(f"{folder}/{name}", content) for name, content in members_files(self.localised(job)))
            for base, suffix in outcomes(job):
                entries.append(_Entry(f"{folder}/{os.path.basename(base)}.outcome{suffix}", OUTCOME_PADDING))
            if secrets is not None:
                name = os.path.relpath(self.secrets(job), self._job_dir)
                entries.append(_Entry(name, secrets.encode("utf-8", "surrogateescape")))
            for bundle in filter(None, job.bundles):
                self._send_bundle(bundle)
        self._send(entries)
        self._sent.update(job.key.nonce for job, _ in jobs)

    def _send(self, entries: Sequence[_Entry]) -> None:
        text = f"umask 077; mkdir -p {shlex.quote(self._job_dir)} && cd {shlex.quote(self._job_dir)} && " + (
            "tar -x --skip-old-files -f -"
        )
        self._run(text, _pack(entries))

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
        records, _, listing = found.rpartition(b"=\n")
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
                        write_whole(path, stream.read(), 0o600)
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

    def _remove(self, paths: Sequence[str]) -> None:
        self._run("exec xargs -0 rm -f --", b"\0".join(map(os.fsencode, paths)))

    def _run(self, text: str, stdin: bytes = b"", stdout: IO[bytes] | None = None) -> bytes:
        argv = ["sh", "-c", text]
        return self._check(self._commands.run(argv, stdin=stdin, stdout=stdout, timeout_seconds=_SEND_SECONDS))

    def _check(self, result: tuple[int, bytes, str]) -> bytes:
        returncode, out, error = result
        if returncode != 0:
            last = error.splitlines()[-1] if error else f"exit code {returncode}"
            raise TransientError(f"files below {self._job_dir} could not be moved: {last}")
        return out


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


def _pack(entries: Sequence[_Entry]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            facts = tarfile.TarInfo(entry.name)
            facts.size, facts.mode = len(entry.content), entry.mode
            tar.addfile(facts, io.BytesIO(entry.content))
    return packed.getvalue()
