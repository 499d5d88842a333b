"""`Call`: one call of sbatch and the numbers that Slurm gave it; `Batches`: those of arrays, written down before."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, cast

import attrs

from nemorun_core import Key, Submission, TransientError, slug
from nemorun_slurm.executor import SlurmExecutor
from nemorun_slurm.files import batches_folder, write_whole
from nemorun_slurm.quoting import comment
from nemorun_slurm.script import KEY_MARK, LONGEST_NAME, job_name

__all__ = ["Batches", "Call", "Place", "array_of", "name_of"]


@attrs.define(eq=False)
class Call:
    """One call of sbatch, which makes one job of Slurm, or one array of them. After a lost answer it may be made again.

    Attributes:
        name: of the job or array in Slurm.
        mark: the line of its script that says whose it is.
        record: path of the file on this machine that holds the ids, a line each.
        ids: numbers of jobs or arrays that are surely of this call: by sbatch's own answer, or since their script has
            the mark.
    """

    name: str
    mark: str
    record: str
    ids: set[str] = attrs.field(factory=set)

    @classmethod
    def single(cls, job: Submission) -> Call:
        """Return the call that gives a job to Slurm by itself."""
        mark = comment(f"{KEY_MARK} {job.key}")
        return cls(name_of(job), mark, os.path.join(job.folder, f"{job.key.attempt}.slurm"))

    def remember(self, number: str) -> None:
        """Write down that a number is of this call; on a full disk the script says so again."""
        if number in self.ids:
            return
        self.ids.add(number)
        with contextlib.suppress(OSError), open(self.record, "a", encoding="utf-8") as stream:
            stream.write(f"{number} {self.mark}\n")

    def recall(self) -> None:
        """Read the numbers that were written down. Raises TransientError."""
        try:
            with open(self.record, encoding="utf-8") as stream:
                pairs = [line.rstrip("\n").partition(" ") for line in stream if line.endswith("\n")]
        except FileNotFoundError:
            return
        except OSError as error:
            raise TransientError(f"{error.filename} cannot be read: {error.strerror}.") from None
        self.ids.update(number for number, _, mark in pairs if mark == self.mark)


class Place(NamedTuple):
    """Where an attempt is to be looked for in Slurm: what a call made, or one task of it where that is an array."""

    call: Call
    task: str = ""

    @property
    def ids(self) -> Iterator[str]:
        """By which commands of Slurm take it."""
        return (f"{number}_{self.task}" if self.task else number for number in self.call.ids)


def name_of(job: Submission) -> str:
    """Return the name of an attempt that goes out by itself."""
    return job_name(job.key, cast("SlurmExecutor", job.executors[0]).job_name_prefix)


def array_of(jobs: Sequence[Submission]) -> tuple[Call, str]:
    """Return the call that gives jobs of an experiment to Slurm as one array, in this order, and its map's text."""
    keys = json.dumps([str(job.key) for job in jobs], indent=0)
    prefix = cast("SlurmExecutor", jobs[0].executors[0]).job_name_prefix
    readable = f"{jobs[0].key.job}.and-{len(jobs) - 1}-more"
    name = prefix + slug(keys, LONGEST_NAME - len(prefix), readable=readable)
    mark = comment(f"{KEY_MARK} {jobs[0].key.nonce}/{hashlib.sha256(keys.encode('ascii')).hexdigest()}")
    return Call(name, mark, os.path.join(batches_folder(jobs[0]), f"{name}.slurm")), keys


class Batches:
    """The arrays of the experiments that a connection drives, and which keys went out in each.

    A map says that its array may be there, and not that it is: its keys may have gone out in another way since.
    """

    def __init__(self) -> None:
        self._calls: dict[str, tuple[Call, Sequence[Key]]] = {}  # by the path of the map
        self._places: dict[Key, list[Place]] = {}

    def places(self, key: Key) -> Sequence[Place]:
        """Return the tasks of arrays that a key may be, in the order of their maps."""
        return self._places.get(key, ())

    def read(self, jobs: Iterable[Submission]) -> None:
        """Take up the maps in these jobs' experiments, those of earlier drivers as well.

        Raises:
            TransientError: the disk did not answer, or a map is not readable.
        """
        for folder in sorted({batches_folder(job) for job in jobs}):
            try:
                names = os.listdir(folder)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise TransientError(f"{error.filename} cannot be read: {error.strerror}.") from None
            for path in sorted(os.path.join(folder, name) for name in names if name.endswith(".json")):
                if path not in self._calls:
                    self._read(path)

    def write(self, jobs: Sequence[Submission]) -> tuple[Call, bool]:
        """Write down, durably, that these jobs may go out as one array; return its call, and whether that is new.

        Raises:
            OSError: the disk refused.
        """
        call, text = array_of(jobs)
        path = _map_of(call)
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        write_whole(path, text.encode("ascii"), 0o600, sync=True)
        is_new = path not in self._calls
        if is_new:
            self._take_up(path, call, [job.key for job in jobs])
        return self._calls[path][0], is_new

    def forget(self, call: Call) -> None:
        """Remove the map of an array that Slurm has surely never taken."""
        _, keys = self._calls.pop(_map_of(call))
        for key in keys:
            self._places[key] = [place for place in self._places[key] if place.call is not call]
        with contextlib.suppress(OSError):
            os.unlink(_map_of(call))

    def _read(self, path: str) -> None:
        try:
            with open(path, "rb") as stream:
                content = stream.read()
            keys = [Key.parse(str(text)) for text in json.loads(content)]
            nonce = keys[0].nonce
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise TransientError(
                f"{path} cannot be read: {error}.", hint="Restore it from a copy: it says which jobs one array is."
            ) from None
        base = path.removesuffix(".json")
        mark = comment(f"{KEY_MARK} {nonce}/{hashlib.sha256(content).hexdigest()}")
        call = Call(os.path.basename(base), mark, f"{base}.slurm")
        call.recall()
        self._take_up(path, call, keys)

    def _take_up(self, path: str, call: Call, keys: Sequence[Key]) -> None:
        self._calls[path] = (call, keys)
        for task, key in enumerate(keys):
            self._places.setdefault(key, []).append(Place(call, str(task)))


def _map_of(call: Call) -> str:
    return call.record.removesuffix(".slurm") + ".json"
