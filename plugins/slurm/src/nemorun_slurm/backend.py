"""`SlurmBackend`: submits, finds, watches and ends jobs of one cluster, here or through a tunnel."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import time
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import attrs

from nemorun_core import (
    UNKNOWN,
    Accepted,
    Answer,
    Backend,
    Condition,
    Document,
    Handle,
    Key,
    Observation,
    Reason,
    ReasonKind,
    Rejected,
    Submission,
    TransientError,
    UsageError,
)
from nemorun_slurm.arrays import sort_out
from nemorun_slurm.attempt import Attempt, Word, expects_records, runs_on
from nemorun_slurm.calls import Batches, Call, Place, name_of
from nemorun_slurm.commands import last_line
from nemorun_slurm.ending import Ender
from nemorun_slurm.files import files_of
from nemorun_slurm.parse import QueueRow, observe_state
from nemorun_slurm.queue import Queue, Snapshot
from nemorun_slurm.reasons import still
from nemorun_slurm.script import KEY_MARK, batch_output, secrets_text
from nemorun_slurm.sending import Sender
from nemorun_slurm.site import Site
from nemorun_slurm.tunnel import Tunnel

__all__ = ["SlurmBackend"]

_AT_ONCE = 4
_ALONE = 64  # jobs of one call of `submit`: whoever cancels, or takes over, is heard after those
_LOOKED_SECONDS = 10.0
_SCRIPT_SECONDS = 30.0
_SHORTEST_SECONDS, _LONGEST_SECONDS = 1.0, 60.0
_PART_OF_AGE = 6.0
_LONGEST_QUIET_SECONDS = 90.0  # of a new connection, which takes an answer that is 15 s old for what is so now
_DEPENDENCIES = {Condition.SUCCESS: "afterok", Condition.FAILURE: "afternotok", Condition.ANY: "afterany"}
_OUTPUT_BYTES = 1 << 16
_NO_SCRIPT = re.compile("Invalid job id|Job script not specified")  # scontrol says so with exit code 0


class SlurmBackend(Backend):
    """One connection to one cluster. A handle is the name of an attempt's job in Slurm, with a digest of its key.

    Whether a job of that name is ours is said by the id that `sbatch` gave us, which stands beside the job's records,
    or by the script that Slurm holds, whose second line has the full key. An id alone is never believed: a cluster
    that lost its memory gives ids out again. The same holds for an array that many equal jobs went out as; which of
    its tasks is which job was written down before.
    """

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self._commands = tunnel.open()
        self._files = files_of(tunnel, self._commands)
        self._queue = Queue(self._commands, self._identity)
        self._site = Site(self._queue.config, tunnel.connection(), self._identity)
        self._batches = Batches()
        self._sender = Sender(self._commands, self._files, self._batches)
        self._ender = Ender(self._commands, self._files, self._fresh_rows)
        self._attempts: dict[Handle, Attempt] = {}
        self._missed: tuple[float, set[Handle]] = (0.0, set())  # since when some jobs are known not to be there
        self._marks: dict[str, str] = {}  # number and name of a job or array to the mark in its script

    def _identity(self) -> Hashable:
        conf = os.environ.get("SLURM_CONF", "") if self._tunnel.shares_files else ""
        return (self._tunnel.connection(), conf)

    def close(self) -> None:
        """End the connection; jobs go on."""
        self._queue.close()
        self._commands.close()

    def check(self) -> str:
        """Ask slurmctld for its configuration."""
        return self._site.described()

    def render(self, job: Submission) -> Sequence[Document]:
        """Return the batch script, byte for byte, and the files of the members where the cluster will see them."""
        return [Document(f"{name_of(job)}.sbatch", self._sender.script(job)), *self._members_files(job)]

    def render_together(self, jobs: Sequence[Submission]) -> Iterator[tuple[Sequence[Key], Sequence[Document]]]:
        """Return many equal jobs as the arrays that they are submitted as: script, text of the tasks, files."""
        arrays, alone = sort_out(jobs)
        for array in arrays:
            files = [document for job in array for document in self._members_files(job)]
            yield [job.key for job in array], [*self._sender.array_documents(array), *files]
        for job in alone:
            yield [job.key], self.render(job)

    def _members_files(self, job: Submission) -> Iterator[Document]:
        folder = self._files.layout(job).folder
        for member in self._files.localised(job).members:
            for name, content in member.files.items():
                yield Document(os.path.join(folder, name), content.decode("utf-8", "backslashreplace"))

    def verify(self, job: Submission) -> str | Rejected:
        """Ask `sbatch --test-only`; what the site takes and holds back later, it does not tell."""
        return self._sender.verify(job)

    # Submitting.

    def submit(self, jobs: Sequence[Submission]) -> Iterator[tuple[Key, Answer]]:
        """Look for the jobs first, then give those that are not there to sbatch: many equal ones as one array, the
        others a few at a time, and of those no more than one call can soon answer for."""
        taken = self._look_once(jobs)
        arrays, alone = sort_out([job for job in jobs if name_of(job) not in self._attempts])
        alone = alone[:_ALONE]
        texts, refused = self._prepare(arrays, alone, taken)
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="sbatch") as pool:
            calls: dict[Key, Future[Mapping[Key, Answer]]] = {}
            for array in arrays:
                if left := {job.key: (job, texts[job.key]) for job in array if job.key in texts}:
                    calls.update(dict.fromkeys(left, pool.submit(self._send_array, left)))
            for job in alone:
                if job.key in texts:
                    calls[job.key] = pool.submit(self._send, job, texts[job.key])
            try:
                for job in jobs:
                    if job.key in refused:
                        yield job.key, refused[job.key]
                    elif job.key in calls:
                        yield job.key, calls[job.key].result()[job.key]
                    elif name_of(job) in self._attempts:
                        yield job.key, Accepted(name_of(job))
            finally:
                for call in calls.values():
                    call.cancel()

    def _look_once(self, jobs: Sequence[Submission]) -> Mapping[Key, str]:
        """Look for those jobs that were not looked for a moment ago, when the others were submitted first; return what
        `_look_for` does."""
        now = time.monotonic()
        if now - self._missed[0] > _LOOKED_SECONDS:
            self._missed = (now, set())
        missed = self._missed[1]
        unknown = [job for job in jobs if name_of(job) not in self._attempts and name_of(job) not in missed]
        with _before_sbatch():
            taken = self._look_for(unknown) if unknown else {}
        missed.update(name_of(job) for job in unknown if job.key not in taken)
        return taken

    def _prepare(
        self, arrays: Sequence[Sequence[Submission]], alone: Sequence[Submission], taken: Mapping[Key, str]
    ) -> tuple[Mapping[Key, str], Mapping[Key, Rejected]]:
        """Have everything there that those jobs need which are not in Slurm yet. Return what they are submitted with,
        the line of a task or a script, and which of the jobs are refused."""
        together = {job.key for array in arrays for job in array}
        chosen = {job.key: job for job in itertools.chain(*arrays, alone)}
        self._missed[1].difference_update(map(name_of, chosen.values()))
        refused: dict[Key, Rejected] = {}
        texts: dict[Key, str] = {}
        sent: list[tuple[Submission, str | None]] = []
        for job in chosen.values():
            if job.key in taken:
                said = f"Slurm's job {taken[job.key]} has the name {name_of(job)!r} and another key"
                refused[job.key] = Rejected(Reason(ReasonKind.REJECTED, said))
                continue
            try:
                text = self._sender.task(job) if job.key in together else self._sender.script(job)
                sent.append((job, secrets_text(job) or None))
                texts[job.key] = text
            except UsageError as error:
                refused[job.key] = Rejected(Reason(ReasonKind.REJECTED, error.line))
            except ValueError as error:
                refused[job.key] = Rejected(Reason(ReasonKind.REJECTED, str(error)))
        if sent:
            with _before_sbatch():
                self._site.settle([job for job, _ in sent])
                self._files.send(sent)
        return texts, refused

    def _send(self, job: Submission, script: str) -> Mapping[Key, Answer]:
        answer = self._sender.send(job, script, self._dependencies(job))
        if isinstance(answer, Accepted):
            self._keep(job)
        return {job.key: answer}

    def _send_array(self, jobs: Mapping[Key, tuple[Submission, str]]) -> Mapping[Key, Answer]:
        try:
            answers = self._sender.send_array(jobs)
        except OSError as error:
            raise TransientError(f"{error.filename} cannot be written: {error.strerror}.") from None
        for job, _ in jobs.values():
            if isinstance(answers[job.key], Accepted):
                self._keep(job)
        return answers

    def _dependencies(self, job: Submission) -> list[str]:
        """Return the edges for sbatch(1). Of an upstream that Slurm has twice, one runs and the others end at once: all
        of them must have ended, and how is for the shim to say."""
        words = []
        for edge in job.after:
            upstream = self._attempts.get(edge.handle)
            ids = sorted(upstream.ids) if upstream is not None else []
            if not ids:
                raise TransientError(f"Slurm's number of job {edge.key.job!r}, an upstream, is not known")
            kind = _DEPENDENCIES[edge.condition] if len(ids) == 1 else "afterany"
            words.append(":".join([kind, *ids]))
        return [f"--dependency={','.join(words)}", "--kill-on-invalid-dep=yes"] if words else []

    def _keep(self, job: Submission) -> None:
        """Take up a job that Slurm has just taken."""
        attempt = self._attempts.setdefault(name_of(job), self._attempt(job))
        attempt.submitted = time.time()

    def _attempt(self, job: Submission) -> Attempt:
        """Return a job with what is written down of it: where it may be in Slurm. Raises TransientError."""
        alone = Call.single(job)
        alone.recall()
        places = (Place(alone), *self._batches.places(job.key))
        return Attempt(job, name_of(job), places, changed=time.monotonic())

    # Finding.

    def find(self, jobs: Collection[Submission]) -> Mapping[Key, Handle]:
        """Return the jobs that left a record, or that Slurm holds with our key in their script: one squeue for all."""
        unknown = [job for job in jobs if name_of(job) not in self._attempts]
        if unknown:
            self._look_for(unknown)
            # A driver may have died when it had sent them, and before it submitted.
            self._files.forget_secrets([job for job in unknown if name_of(job) not in self._attempts])
        return {job.key: name_of(job) for job in jobs if name_of(job) in self._attempts}

    def _look_for(self, jobs: Sequence[Submission]) -> Mapping[Key, str]:
        """Take up the jobs that are there; return those whose name a live job of another key has, and its id."""
        self._batches.read(jobs)
        strangers: list[Attempt] = []
        for job in jobs:
            attempt = self._attempt(job)
            attempt.submitted, attempt.changed = _last_change(attempt)
            if attempt.ids:
                self._attempts[attempt.name] = attempt
            else:
                strangers.append(attempt)
        if not strangers:
            return {}  # as for each of many processes that look: squeue is asked where an answer is too old
        snapshot = self._queue.jobs(time.time())
        self._site.check([attempt.job for attempt in strangers])
        self._files.refresh([attempt.job for attempt in strangers if os.path.isdir(attempt.job.folder)])
        foreign: dict[Key, str] = {}
        for attempt in strangers:
            job = attempt.job
            ours = {row.job_id for row in self._rows(attempt, snapshot)}
            for row in snapshot.rows(attempt.name):
                if row.job_id not in ours and not observe_state(row)[0].is_final:
                    foreign[job.key] = row.job_id
            if attempt.ids or attempt.claimed:
                self._attempts[attempt.name] = attempt
                foreign.pop(job.key, None)
        return foreign

    def _is_ours(self, call: Call, row: QueueRow) -> bool:
        """Whether a row of a call's name is of it: known by its number, or by the mark in its script, which is asked
        for once."""
        number = row.array_job or row.job_id
        if number in call.ids:
            return True
        known = f"{number} {row.name}"
        if known not in self._marks:
            result = self._commands.run(
                ["scontrol", "write", "batch_script", row.job_id, "-"], timeout_seconds=_SCRIPT_SECONDS
            )
            if not result.out and not _NO_SCRIPT.search(result.error):
                raise TransientError(f"scontrol gave no answer: {last_line(result)}")
            lines = result.out.decode("utf-8", "replace").splitlines()
            mark = next((line for line in lines if line.startswith(f"# {KEY_MARK} ")), "")
            if row.array_job and not result.out:
                return False  # this task alone may be gone
            self._marks[known] = mark
        if self._marks[known] != call.mark:
            return False
        call.remember(number)
        return True

    # Watching.

    def poll(self, handles: Collection[Handle]) -> Mapping[Handle, Observation]:
        """Ask squeue once, and sacct once for those that it does not show; then read the records."""
        asked = {handle: self._attempts[handle] for handle in handles if handle in self._attempts}
        open_ones = [attempt for attempt in asked.values() if not attempt.over]
        if open_ones or len(asked) < len(set(handles)):
            self._look(open_ones, strangers=len(asked) < len(set(handles)))
        return {handle: asked[handle].seen if handle in asked else UNKNOWN for handle in handles}

    def _look(self, attempts: Sequence[Attempt], *, strangers: bool) -> None:
        snapshot = self._queue.jobs(time.time() - (0.0 if strangers else self._interval(attempts)))
        self._site.check([attempt.job for attempt in attempts])
        rows = {attempt.name: self._rows(attempt, snapshot) for attempt in attempts}
        words = self._words(attempts, rows, snapshot)
        expecting = [attempt.job for attempt in attempts if expects_records(attempt, words[attempt.name])]
        running_on = [attempt.job for attempt in attempts if runs_on(attempt, words[attempt.name])]
        self._files.refresh(expecting, running_on)
        ended: list[Submission] = []
        before = time.monotonic()
        try:
            for attempt in attempts:
                seen = attempt.observe(words[attempt.name])
                if attempt.seen.members and seen.members != attempt.seen.members:
                    attempt.changed = time.monotonic()
                attempt.seen = attrs.evolve(seen, reason=still(attempt.seen.reason, seen.reason, time.time()))
                if seen.is_over:
                    self._explain(attempt)
                    attempt.over = True
                    ended.append(attempt.job)
        except OSError as error:
            raise TransientError(f"{error.filename} cannot be read: {error.strerror}.") from None
        self._files.forget_secrets(ended)
        going_on = [attempt for attempt in attempts if not attempt.over]
        self._ender.attend(going_on, words)
        just_ended = any(attempt.over_since is not None and attempt.over_since >= before for attempt in going_on)
        if just_ended and time.time() - snapshot.asked > _SHORTEST_SECONDS:
            self._look(going_on, strangers=False)  # that answer is from before the end, and says nothing of it

    def _explain(self, attempt: Attempt) -> None:
        """Look into what the batch script printed, where neither a record nor Slurm says why it ended."""
        if attempt.is_unexplained:
            name = os.path.basename(batch_output("", attempt.job.key.attempt))
            attempt.explain(self._files.read(attempt.job, name, 0, _OUTPUT_BYTES).decode("utf-8", "replace"))

    def _interval(self, attempts: Sequence[Attempt]) -> float:
        """Return how old an answer may be: a second where something has just happened, a minute where nothing does."""
        age = time.monotonic() - max((attempt.changed for attempt in attempts), default=0.0)
        return min(max(_SHORTEST_SECONDS, age / _PART_OF_AGE), _LONGEST_SECONDS)

    def _rows(self, attempt: Attempt, snapshot: Snapshot) -> list[QueueRow]:
        return [
            row for call, task in attempt.places for row in snapshot.rows(call.name, task) if self._is_ours(call, row)
        ]

    def _words(
        self, attempts: Sequence[Attempt], rows: Mapping[str, list[QueueRow]], snapshot: Snapshot
    ) -> dict[str, Word]:
        """Ask accounting about those that left the queue, and put together what Slurm said of each."""
        leavers = [attempt for attempt in attempts if not rows[attempt.name] and attempt.submitted <= snapshot.asked]
        places = [(place, attempt.name) for attempt in leavers for place in attempt.places]
        names = {(place.call.name, job_id): name for place, name in places for job_id in place.ids}
        numbers = {number for place, _ in places for number in place.call.ids}
        answered = True
        if numbers:
            try:
                newer_than = time.time() - self._interval(leavers)
                for row in self._queue.ended(numbers, newer_than) or ():
                    name = names.get((row.name, row.job_id))
                    # A row that is not final is a job that slurmctld forgot, and tells nothing.
                    if name is not None and observe_state(row)[0].is_final:
                        rows[name].append(row)
            except TransientError:
                answered = False  # no witness: what the records say holds, and nothing else is concluded
        left = {attempt.name for attempt in leavers}
        return {name: Word(found, since=bool(found) or name in left, told=answered) for name, found in rows.items()}

    # Ending.

    def cancel(self, handles: Collection[Handle]) -> None:
        """Take back what waits; send TERM to the steps of what runs, again after 1 s, and KILL after the grace."""
        self._ender.stop([attempt for attempt in self._open(handles) if not attempt.stopping.begun])

    def kill(self, handles: Collection[Handle]) -> None:
        """Send KILL to the steps of what runs, and end the jobs."""
        self._ender.kill(self._open(handles))

    def _open(self, handles: Collection[Handle]) -> list[Attempt]:
        known = [self._attempts[handle] for handle in handles if handle in self._attempts]
        return [attempt for attempt in known if not attempt.over]

    def _fresh_rows(self, attempts: Sequence[Attempt]) -> dict[str, list[QueueRow]]:
        snapshot = self._queue.jobs(time.time())
        self._site.check([attempt.job for attempt in attempts])
        return {attempt.name: Word(self._rows(attempt, snapshot), since=True, told=True).live for attempt in attempts}

    # Reading.

    def read_log(self, handle: Handle, member: int, stream: str, offset: int, limit: int, incarnation: int) -> bytes:
        """Return a part of a stream."""
        attempt = self._attempts.get(handle)
        if attempt is None:
            return b""
        name = f"{attempt.job.key.attempt}.{incarnation}.{member}.{stream}"
        return self._files.read(attempt.job, name, offset, limit)

    def fetch(self, handle: Handle, member: int, patterns: Sequence[str], to: str) -> None:
        """Copy outputs from where the member ran."""
        job = self._attempts[handle].job
        self._files.fetch(self._files.localised(job).members[member].cwd, patterns, to)

    def release(self, handles: Collection[Handle]) -> None:
        """Forget finished jobs here, and their secrets there, if no poll saw the end. Slurm forgets by itself."""
        known = [self._attempts[handle] for handle in handles if handle in self._attempts]
        self._files.forget_secrets([attempt.job for attempt in known if not attempt.over])
        for attempt in known:
            if attempt.over:
                del self._attempts[attempt.name]


@contextlib.contextmanager
def _before_sbatch() -> Iterator[None]:
    """Say of an error that nothing was submitted yet. Raises TransientError."""
    try:
        yield
    except OSError as error:
        raise TransientError(f"{error.filename} cannot be written: {error.strerror}.", nothing_done=True) from None
    except TransientError as error:
        error.nothing_done = True
        raise


def _last_change(attempt: Attempt) -> tuple[float, float]:
    """Return when something was last added to a job's folder, as its start is, or it was submitted: in POSIX seconds,
    and on the monotonic clock, no longer ago there than this connection may begin with old answers."""
    now = time.time()
    moments = []
    for path in (attempt.job.folder, *(place.call.record for place in attempt.places if place.task)):
        with contextlib.suppress(OSError):  # it has none yet
            moments.append(os.stat(path).st_mtime)
    moment = min(max(moments, default=now), now)
    return moment, time.monotonic() - min(now - moment, _LONGEST_QUIET_SECONDS)
