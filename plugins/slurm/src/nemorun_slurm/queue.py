"""`Queue`: what squeue and sacct say of a user's jobs on one cluster, asked once for all processes of this machine."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from nemorun_core import TransientError
from nemorun_slurm.commands import Commands
from nemorun_slurm.parse import SACCT_FORMAT, SQUEUE_FORMAT, QueueRow, parse_sacct, parse_squeue, split_squeue

__all__ = ["Queue", "Snapshot"]

_QUERY_SECONDS = 60.0
_WANTED_SECONDS = 600.0
_TICK_SECONDS = 0.01
_CLOCK = {"TZ": "UTC", "LC_ALL": "C", "SLURM_TIME_FORMAT": "standard"}
_ARGUMENTS = {"sacct": SACCT_FORMAT, "scontrol": ("show", "config"), "squeue": SQUEUE_FORMAT}
_NO_ACCOUNTING = "accounting storage is disabled"


class Snapshot:
    """One answer of squeue: all jobs that slurmctld still knows, finished ones as well; each is read when it is asked
    for. `asked` is when the question was sent, in POSIX seconds of this machine: what was submitted later may be
    missing.
    """

    def __init__(self, asked: float, text: str) -> None:
        self.asked = asked
        self._records = split_squeue(text)
        self._read: dict[str, dict[str, list[QueueRow]]] = {}

    def rows(self, name: str, task: str = "") -> Sequence[QueueRow]:
        """Return those of a job's or an array's name; of an array, of one task. Raises TransientError."""
        if name not in self._read:
            found = self._read[name] = {}
            for row in parse_squeue("\n".join(self._records.get(name, ()))):
                found.setdefault(row.task, []).append(row)
        return self._read[name].get(task, ())


class _Answer(NamedTuple):
    """What was said, and when the question was sent and answered; `ids` are those asked for, and until when."""

    asked: float
    answered: float
    error: str
    text: str
    ids: Mapping[str, float]

    def will_do(self, newer_than: float, called: float, ids: Collection[str]) -> bool:
        """Whether it answers who called then: an error is one for those alone who were waiting for it."""
        since = self.answered >= called if self.error and _NO_ACCOUNTING not in self.error else self.asked >= newer_than
        return since and self.asked <= time.time() and self.ids.keys() >= set(ids)


class Queue:
    """Answers out of a file that all processes of this user on this machine share, and asks where that is too old.

    While one asks, the others wait for its answer. A failed question is an answer too: it fails all who waited for it.

    Args:
        identity: names the cluster and how it is reached, at this moment; whoever has an equal one shares the answers.
    """

    def __init__(self, commands: Commands, identity: Callable[[], object]) -> None:
        self._commands = commands
        self._identity = identity
        self._folder = ""
        self._private: tempfile.TemporaryDirectory[str] | None = None
        self._parsed = ("", Snapshot(0.0, ""))

    def close(self) -> None:
        """Remove what only this process used. May be called again."""
        if self._private is not None:
            self._private.cleanup()
            self._private, self._folder = None, ""

    def jobs(self, newer_than: float) -> Snapshot:
        """Return what squeue says, by a question that was sent at `newer_than` or later.

        Raises:
            TransientError: slurmctld did not answer.
        """
        of, snapshot = self._parsed
        path = self._path("squeue")
        if of != path or not newer_than <= snapshot.asked <= time.time():
            answer = self._shared("squeue", newer_than, None)
            snapshot = Snapshot(answer.asked, answer.text)
            self._parsed = (path, snapshot)
        return snapshot

    def ended(self, ids: Collection[str], newer_than: float) -> Sequence[QueueRow] | None:
        """Return what sacct says of jobs that squeue does not show any more; None where nothing is accounted.

        Raises:
            TransientError: slurmdbd did not answer.
        """
        answer = self._shared("sacct", newer_than, ids)
        return None if _NO_ACCOUNTING in answer.error else parse_sacct(answer.text)

    def config(self, newer_than: float) -> str:
        """Return what `scontrol show config` says.

        Raises:
            TransientError: slurmctld did not answer.
        """
        return self._shared("scontrol", newer_than, None).text

    def _shared(self, command: str, newer_than: float, ids: Collection[str] | None) -> _Answer:
        """Return the shared answer where it will do, else ask and share what was said."""
        called, path = time.time(), self._path(command)
        with _locked(path):
            known = _read(path)
            if known is None or not known.will_do(newer_than, called, ids or ()):
                known = self._ask(command, known, ids)
                _write(path, known)
        if known.error and _NO_ACCOUNTING not in known.error:
            raise TransientError(known.error)
        return known

    def _ask(self, command: str, known: _Answer | None, ids: Collection[str] | None) -> _Answer:
        asked = time.time()
        wanted: dict[str, float] = {}
        argv = [command, *_ARGUMENTS[command]]
        if ids is not None:
            wanted = {name: until for name, until in (known.ids if known else {}).items() if until > asked}
            wanted.update(dict.fromkeys(ids, asked + _WANTED_SECONDS))
            argv += ["--jobs", ",".join(sorted(wanted))]
        try:
            result = self._commands.run(argv, environment=_CLOCK, timeout_seconds=_QUERY_SECONDS)
        except TransientError as error:
            return _Answer(asked, time.time(), error.message, "", wanted)
        if result.returncode != 0:
            said = result.error.splitlines()[-1] if result.error else "it gave no reason"
            said = f"{command} failed with exit code {result.returncode}: {said}"
            return _Answer(asked, time.time(), said, "", wanted)
        return _Answer(asked, time.time(), "", result.out.decode("utf-8", "replace"), wanted)

    def _path(self, command: str) -> str:
        digest = hashlib.sha256(repr(self._identity()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return os.path.join(self._place(), f"slurm-{digest}.{command}")

    def _place(self) -> str:
        """Return a folder of this user on this machine: a private one where somebody else has its name."""
        if not self._folder:
            folder = os.path.join(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir(), f"nemorun-{os.getuid()}")
            with contextlib.suppress(OSError):
                os.mkdir(folder, 0o700)
            try:
                facts = os.lstat(folder)
                ours = facts.st_uid == os.getuid() and facts.st_mode & 0o170077 == 0o040000
            except OSError:
                ours = False
            if not ours:
                self._private = tempfile.TemporaryDirectory(prefix="nemorun-")
                folder = self._private.name
            self._folder = folder
        return self._folder


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Hold the file of one command's answers: what asks the scheduler holds it until it has the answer."""
    deadline = time.monotonic() + 2 * _QUERY_SECONDS
    try:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise TransientError(f"{error.filename} cannot be written: {error.strerror}.") from None
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TransientError(f"another process holds {path}.lock and does not answer.") from None
                time.sleep(_TICK_SECONDS)
        yield
    finally:
        os.close(lock)


def _read(path: str) -> _Answer | None:
    """Read what was shared; None where there is nothing, or nothing whole."""
    try:
        with open(path, encoding="utf-8") as stream:
            head = json.loads(stream.readline())
            times = float(head["asked"]), float(head["answered"])
            return _Answer(*times, str(head["error"]), stream.read(), dict(head["ids"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: str, answer: _Answer) -> None:
    """Share an answer; on a full disk it is this process's alone."""
    with contextlib.suppress(OSError):
        with open(f"{path}.new", "w", encoding="utf-8") as stream:
            head = {**answer._asdict(), "ids": dict(answer.ids)}
            stream.write(json.dumps({name: head[name] for name in head if name != "text"}) + "\n" + answer.text)
        os.replace(f"{path}.new", path)
