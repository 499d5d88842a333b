"""`Backend`: one live connection to one scheduler, and what it is given. The laws E1 to E16 stand in `laws`."""

from __future__ import annotations

import abc
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

import attrs

from nemorun_core.contracts.executor import Executor
from nemorun_core.contracts.observation import Answer, Handle, Observation, Rejected
from nemorun_core.model.key import Key
from nemorun_core.model.secret import Secret
from nemorun_core.model.state import Condition

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["After", "Backend", "Bundle", "Document", "Member", "Submission"]


@attrs.frozen(kw_only=True)
class Member:
    """One program to run.

    Attributes:
        argv: program and arguments, never empty, to arrive exactly (E10).
        environment: declared variables, those of the executor, the task and the core together; the task's win.
        cwd: the folder to start in.
        files: name in the job's folder to content, to be there before the program starts.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str | Secret]
    cwd: str
    files: Mapping[str, bytes] = attrs.field(factory=dict)


class Bundle(NamedTuple):
    """The files that travel with a member.

    Attributes:
        digest: SHA-256 of its content, in hexadecimal: its name wherever it goes.
        path: the tar file of it on this machine (pax, uncompressed).
    """

    digest: str
    path: str


class After(NamedTuple):
    """An edge that the scheduler keeps: the job may start once another has ended so.

    Attributes:
        key, handle: of the upstream, which was alive a moment ago.
        folder: the upstream's folder on this machine.
        ranks: how many each of its members has: `edges_text` tells the shim where to look for their records.
    """

    key: Key
    condition: Condition
    handle: Handle
    folder: str
    ranks: tuple[int, ...]


@attrs.frozen(kw_only=True)
class Submission:
    """One attempt of one job, ready to be submitted.

    Attributes:
        key: the name under which it must be found again; written whole into a label, annotation or record.
        members: in order; a single job has one.
        executors: one a member, all of one connection.
        folder: the job's folder on this machine.
        support: the folder on this machine with `shim.sh`, what it reads, and `runner.py`.
        bundles: one a member, None where nothing travels. Where `shares_files` is declared each is unpacked already,
            and the member's `cwd` is its root.
        after: edges that the scheduler has to keep, where `native_edges` is declared; all of them at once, none of an
            upstream that has ended. What the scheduler says is checked again by the shim, where the submitter puts
            `edges_text` into `<attempt>.after` of the job's folder.
    """

    key: Key
    members: tuple[Member, ...]
    executors: tuple[Executor, ...]
    folder: str
    support: str
    bundles: tuple[Bundle | None, ...] = ()
    after: tuple[After, ...] = ()


class Document(NamedTuple):
    """One text that will be submitted, or a faithful picture of the call: `name` says what, `text` is the whole."""

    name: str
    text: str


class Backend(abc.ABC):
    """One live connection to one scheduler, shared by all jobs whose executors name the same connection.

    A context manager; leaving it ends what it owns here (threads, connections), never a job. All calls are
    synchronous and batched. `submit`, `find`, `poll`, `cancel` and `release` never overlap; `wait`, `wake` and
    `read_log` may run beside them on other threads.

    Before any side effect an error is a `UsageError`; "maybe it happened" is a `TransientError`, after which the engine
    calls `find` for every key still in doubt.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027 - a backend that owns nothing has nothing to end
        """End what this connection owns on this machine. May be called again."""

    def check(self) -> str:
        """Ask the scheduler a harmless question, and return a few words on what answered, as "Docker Engine 20.10.24".

        For `nemorun doctor`. By default nothing is asked, and the answer is "".

        Raises:
            UsageError: what is needed is not installed or not set up here, with what to do.
            TransientError: the scheduler did not answer.
        """
        return ""

    @abc.abstractmethod
    def render(self, job: Submission) -> Sequence[Document]:
        """Return exactly what `submit` would submit (E13). Works offline and creates nothing."""

    def render_together(self, jobs: Sequence[Submission]) -> Iterator[tuple[Sequence[Key], Sequence[Document]]]:
        """Return what one `submit` of these jobs would submit where none is there yet: which go out in one call of the
        scheduler, and what it is given. By default each goes by itself. Works offline and creates nothing."""
        for job in jobs:
            yield (job.key,), self.render(job)

    def verify(self, job: Submission) -> str | Rejected:
        """Ask the scheduler whether it would take a job, and create nothing.

        Return a few words on what it answered, as "would start at 2026-11-27T14:00:00Z on n1", or the refusal; "", the
        default, where a scheduler cannot be asked. For `Experiment.dryrun(verify=True)`: the job has no edges in it.

        Raises:
            TransientError: the scheduler did not answer.
        """
        return ""

    @abc.abstractmethod
    def submit(self, jobs: Sequence[Submission]) -> Iterator[tuple[Key, Answer]]:
        """Submit jobs in order, answering for each as soon as it is known.

        Each job is taken whole or refused whole (E1). After a `Deferred` the engine offers no later job of the call.
        It may end before it has answered for all: the others were surely not taken, and are offered again.

        Raises:
            TransientError: the jobs that were not answered may have been taken (E2), unless it says `nothing_done`.
        """

    @abc.abstractmethod
    def find(self, jobs: Collection[Submission]) -> Mapping[Key, Handle]:
        """Return the handles of those jobs that were taken, by whomever: to adopt after a crash or a lost answer.

        Only what carries the full key counts (E14). A key that is not in the answer was surely not taken. From here on
        the backend knows the jobs as if it had submitted them; a new connection is asked this first.

        Raises:
            TransientError: the scheduler did not answer.
        """

    @abc.abstractmethod
    def poll(self, handles: Collection[Handle]) -> Mapping[Handle, Observation]:
        """Report on many jobs with as few scheduler queries as possible.

        Every handle asked for is in the answer, `UNKNOWN` where the scheduler has none of it (E3). Laws: E3, E4, E12.

        Raises:
            TransientError: the scheduler did not answer; the engine asks again later.
        """

    @abc.abstractmethod
    def cancel(self, handles: Collection[Handle]) -> None:
        """Ask that every process of these jobs ends: politely, after each executor's grace by force (E7).

        Returns at once; the end is seen by `poll`. May be repeated; a finished job is left alone.

        Raises:
            TransientError: the scheduler did not answer; the engine asks again.
        """

    def kill(self, handles: Collection[Handle]) -> None:
        """End these jobs at once, without grace; for a user who will not wait. By default `cancel`."""
        self.cancel(handles)

    def read_log(self, handle: Handle, member: int, stream: str, offset: int, limit: int, incarnation: int) -> bytes:
        """Return at most `limit` bytes of a stream from `offset` on, b"" where there is nothing new (E8).

        Not called where `shares_files` is declared: there the streams are files in the job's folder. Elsewhere the
        engine asks for each stream of a running member after each poll, and for all of it before it says that the
        job has ended; a backend that knows how much there is answers without asking the scheduler.

        Args:
            stream: `out` and, where it is apart, `err`; `out.r` and `err.r` of rank r > 0.
            incarnation: whose stream; those of earlier ones are kept until `release`.

        Raises:
            TransientError: the scheduler did not answer.
        """
        raise NotImplementedError

    def wait(self, handles: Collection[Handle], timeout_seconds: float) -> Collection[Handle]:
        """Block until something changed, `wake` was called, or the time is over; return the handles worth a poll.

        Every change counts that `poll` would tell, a start as well as an end, also one that happened before the call.
        Called only where `Capabilities.wait` is declared. `handles` may be changed by no one meanwhile.
        """
        raise NotImplementedError

    def fetch(self, handle: Handle, member: int, patterns: Sequence[str], to: str) -> None:
        """Copy the files that match any pattern, relative to where the member ran, below the folder `to`.

        Called only where `Capabilities.fetch` is declared, not where `shares_files` is.

        Raises:
            TransientError: the scheduler did not answer.
        """
        raise NotImplementedError

    def wake(self) -> None:  # noqa: B027 - a backend without `wait` has nothing to wake
        """End a `wait` that another thread is in, or the next one, early."""

    def release(self, handles: Collection[Handle]) -> None:  # noqa: B027 - most schedulers forget by themselves
        """Remove what is left of finished jobs on the scheduler; called after their logs and outcome are safe here.

        May be repeated, also for what is gone by now. Where `Capabilities.release` is declared, a new driver finds and
        releases again what the one before may not have released.

        Raises:
            TransientError: the scheduler did not answer; the engine asks again.
        """
