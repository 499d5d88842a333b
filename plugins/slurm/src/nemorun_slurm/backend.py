"""`SlurmBackend`: submits, finds, watches and ends jobs of one cluster, here or through a tunnel."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

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
from nemorun_slurm.attempt import Attempt, Word, duplicates, expects_records, is_over_its_time, runs_on
from nemorun_slurm.commands import Result
from nemorun_slurm.executor import SlurmExecutor
from nemorun_slurm.files import files_of, sources_of_secrets
from nemorun_slurm.parse import SBATCH_CLOCK, QueueRow, observe_state, refusal, submitted_id, tried
from nemorun_slurm.queue import Queue, Snapshot
from nemorun_slurm.quoting import comment
from nemorun_slurm.reasons import still
from nemorun_slurm.script import KEY_MARK, batch_output, batch_script, job_name, secrets_text
from nemorun_slurm.site import Site
from nemorun_slurm.tunnel import Tunnel

__all__ = ["SlurmBackend"]

_SUBMIT_SECONDS = 60.0
_AT_ONCE = 4
_CANCEL_SECONDS = 30.0
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
    that lost its memory gives ids out again.
    """

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self._commands = tunnel.open()
        self._files = files_of(tunnel, self._commands)
        self._queue = Queue(self._commands, self._identity)
        self._site = Site(self._queue.config, tunnel.connection(), self._identity)
        self._attempts: dict[Handle, Attempt] = {}
        self._keys: dict[str, str] = {}  # id and name of a job to the key in its script

    def _identity(self) -> Hashable:
        conf = os.environ.get("SLURM_CONF", "") if self._tunnel.shares_files else ""
        return (self._tunnel.connection(), conf)

    def close(self) -> None:
        """End the connection; jobs go on."""
        self._queue.close()
        self._commands.close()

    def render(self, job: Submission) -> Sequence[Document]:
        """Return the batch script, byte for byte, and the files of the members where the cluster will see them."""
        layout = self._files.layout(job)
        documents = [Document(f"{_name(job)}.sbatch", self._script(job))]
        for member in self._files.localised(job).members:
            for name, content in member.files.items():
                text = content.decode("utf-8", "backslashreplace")
                documents.append(Document(os.path.join(layout.folder, name), text))
        return documents

    def _script(self, job: Submission) -> str:
        secrets = self._files.secrets(job) if sources_of_secrets(job) is not None else None
        return batch_script(self._files.localised(job), self._files.layout(job), secrets=secrets)

    def verify(self, job: Submission) -> str | Rejected:
        """Ask `sbatch --test-only`; what the site takes and holds back later, it does not tell."""
        result = self._commands.run(
            ["sbatch", "--test-only"],
            stdin=self._script(job).encode("utf-8", "surrogateescape"),
            environment=SBATCH_CLOCK,
            without=sources_of_secrets(job) or (),
            timeout_seconds=_SUBMIT_SECONDS,
        )
        if result.returncode == 0:
            return tried(result.error)
        answer = refusal(result.error, result.returncode)
        if answer is None:
            raise TransientError(f"sbatch gave no answer: {_last(result)}")
        return answer if isinstance(answer, Rejected) else f"would wait: {answer.reason}"

    # Submitting.

    def submit(self, jobs: Sequence[Submission]) -> Iterator[tuple[Key, Answer]]:
        """Look for the jobs first, then give those that are not there to sbatch, a few at a time."""
        unknown = [job for job in jobs if _name(job) not in self._attempts]
        with _before_sbatch():
            taken = self._look_for(unknown) if unknown else {}
        refused: dict[Key, Rejected] = {}
        scripts: dict[Key, str] = {}
        sent: list[tuple[Submission, str | None]] = []
        for job in unknown:
            if _name(job) in self._attempts or job.key in scripts:
                continue
            if job.key in taken:
                said = f"Slurm's job {taken[job.key]} has the name {_name(job)!r} and another key"
                refused[job.key] = Rejected(Reason(ReasonKind.REJECTED, said))
                continue
            try:
                scripts[job.key] = self._script(job)
                sent.append((job, secrets_text(job) or None))
            except (UsageError, ValueError) as error:
                refused[job.key] = Rejected(Reason(ReasonKind.REJECTED, str(error)))
        if sent:
            with _before_sbatch():
                self._site.settle([job for job, _ in sent])
                self._files.send(sent)
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="sbatch") as pool:
            calls = {job.key: pool.submit(self._sbatch, job, scripts[job.key]) for job, _ in sent}
            try:
                for job in jobs:
                    if job.key in refused:
                        yield job.key, refused[job.key]
                    elif job.key in calls:
                        yield job.key, calls[job.key].result()
                    else:
                        yield job.key, Accepted(_name(job))
            finally:
                for call in calls.values():
                    call.cancel()

    def _sbatch(self, job: Submission, script: str) -> Answer:
        result = self._commands.run(
            ["sbatch", "--parsable", *self._dependencies(job)],
            stdin=script.encode("utf-8", "surrogateescape"),
            without=sources_of_secrets(job) or (),
            timeout_seconds=_SUBMIT_SECONDS,
        )
        if result.returncode != 0:
            answer = refusal(result.error, result.returncode)
            if answer is None:
                raise TransientError(f"sbatch gave no answer: {_last(result)}")
            if isinstance(answer, Rejected):
                self._files.forget_secrets([job])
            return answer
        attempt = self._keep(job)
        attempt.submitted = time.time()
        attempt.remember(submitted_id(result.out.decode("utf-8", "replace")))
        return Accepted(attempt.name)

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

    def _keep(self, job: Submission) -> Attempt:
        name = _name(job)
        attempt = self._attempts.get(name)
        if attempt is None:
            attempt = self._attempts[name] = Attempt(job, name, changed=time.monotonic())
        return attempt

    # Finding.

    def find(self, jobs: Collection[Submission]) -> Mapping[Key, Handle]:
        """Return the jobs that left a record, or that Slurm holds with our key in their script: one squeue for all."""
        unknown = [job for job in jobs if _name(job) not in self._attempts]
        if unknown:
            self._look_for(unknown)
            # A driver may have died when it had sent them, and before it submitted.
            self._files.forget_secrets([job for job in unknown if _name(job) not in self._attempts])
        return {job.key: _name(job) for job in jobs if _name(job) in self._attempts}

    def _look_for(self, jobs: Sequence[Submission]) -> Mapping[Key, str]:
        """Take up the jobs that are there; return those whose name a live job of another key has, and its id."""
        strangers: list[Attempt] = []
        for job in jobs:
            attempt = Attempt(job, _name(job))
            attempt.recall()
            attempt.submitted, attempt.changed = _last_change(job)
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
            for row in snapshot.rows.get(attempt.name, ()):
                if not self._is_ours(attempt, row) and not observe_state(row)[0].is_final:
                    foreign[job.key] = row.job_id
            if attempt.ids or attempt.claimed:
                self._attempts[attempt.name] = attempt
                foreign.pop(job.key, None)
        return foreign

    def _is_ours(self, attempt: Attempt, row: QueueRow) -> bool:
        """Whether a job of our name is ours: known by its id, or by the key in its script, which is asked for once."""
        if row.name != attempt.name:
            return False
        if row.job_id in attempt.ids:
            return True
        known = f"{row.job_id} {row.name}"
        if known not in self._keys:
            result = self._commands.run(
                ["scontrol", "write", "batch_script", row.job_id, "-"], timeout_seconds=_CANCEL_SECONDS
            )
            if not result.out and not _NO_SCRIPT.search(result.error):
                raise TransientError(f"scontrol gave no answer: {_last(result)}")
            lines = result.out.decode("utf-8", "replace").splitlines()
            self._keys[known] = next((line for line in lines if line.startswith(f"# {KEY_MARK} ")), "")
        if self._keys[known] != _key_line(attempt.job.key):
            return False
        attempt.remember(row.job_id)
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
        self._attend(going_on, words)
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
        return [row for row in snapshot.rows.get(attempt.name, ()) if self._is_ours(attempt, row)]

    def _words(
        self, attempts: Sequence[Attempt], rows: Mapping[str, list[QueueRow]], snapshot: Snapshot
    ) -> dict[str, Word]:
        """Ask accounting about those that left the queue, and put together what Slurm said of each."""
        leavers = [attempt for attempt in attempts if not rows[attempt.name] and attempt.submitted <= snapshot.asked]
        ids = {job_id: attempt.name for attempt in leavers for job_id in attempt.ids}
        answered = True
        if ids:
            try:
                newer_than = time.time() - self._interval(leavers)
                for row in self._queue.ended(ids.keys(), newer_than) or ():
                    name = ids.get(row.job_id)
                    # A row that is not final is a job that slurmctld forgot, and tells nothing.
                    if name is not None and row.name == name and observe_state(row)[0].is_final:
                        rows[name].append(row)
            except TransientError:
                answered = False  # no witness: what the records say holds, and nothing else is concluded
        left = {attempt.name for attempt in leavers}
        return {name: Word(found, since=bool(found) or name in left, told=answered) for name, found in rows.items()}

    # Ending.

    def cancel(self, handles: Collection[Handle]) -> None:
        """Take back what waits; send TERM to the steps of what runs, again after 1 s, and KILL after the grace."""
        attempts = [attempt for attempt in self._open(handles) if not attempt.stopping.begun]
        if attempts:
            self._stop(attempts, self._fresh_rows(attempts))

    def kill(self, handles: Collection[Handle]) -> None:
        """Send KILL to the steps of what runs, and end the jobs."""
        attempts = self._open(handles)
        if attempts:
            rows = self._fresh_rows(attempts)
            self._kill([row for found in rows.values() for row in found])
            now = time.monotonic()
            for attempt in attempts:
                attempt.stopping.hurry(now)
                attempt.stopping.next(now)

    def _open(self, handles: Collection[Handle]) -> list[Attempt]:
        known = [self._attempts[handle] for handle in handles if handle in self._attempts]
        return [attempt for attempt in known if not attempt.over]

    def _fresh_rows(self, attempts: Sequence[Attempt]) -> dict[str, list[QueueRow]]:
        snapshot = self._queue.jobs(time.time())
        self._site.check([attempt.job for attempt in attempts])
        return {attempt.name: Word(self._rows(attempt, snapshot), since=True, told=True).live for attempt in attempts}

    def _stop(self, attempts: Sequence[Attempt], rows: Mapping[str, Sequence[QueueRow]]) -> None:
        """Send the first polite signal, and say when the next is due."""
        self._files.refresh([attempt.job for attempt in attempts])
        told: list[str] = []
        taken_back: list[str] = []
        for attempt in attempts:
            started = attempt.claimed
            for row in rows[attempt.name]:
                (told if started and row.state == "RUNNING" else taken_back).append(row.job_id)
        self._scancel(taken_back)
        self._scancel(told, "--signal=TERM")
        now = time.monotonic()
        for attempt in attempts:
            attempt.stopping.begin(now)
            attempt.stopping.next(now)
            attempt.changed = now

    def _kill(self, rows: Sequence[QueueRow]) -> None:
        """End every process of these jobs at once. Slurm itself would first be polite for its KillWait."""
        running = [row for row in rows if row.state == "RUNNING"]
        self._scancel([f"{row.job_id}.{step}" for row in running for step in self._steps(row)], "--signal=KILL")
        self._scancel([row.job_id for row in rows])

    def _steps(self, row: QueueRow) -> range:
        attempt = self._attempts.get(row.name)
        return range(len(attempt.job.members) if attempt else 0)

    def _attend(self, attempts: Sequence[Attempt], words: Mapping[str, Word]) -> None:
        """Do what is due: take back duplicates, a time-out, the second polite signal, the kill."""
        self._scancel([row.job_id for attempt in attempts for row in duplicates(words[attempt.name].live)])
        now = time.monotonic()
        late = [attempt for attempt in attempts if not attempt.stopping.begun and is_over_its_time(attempt)]
        if late:
            for attempt in late:
                attempt.stopping.expired = True
            self._stop(late, self._fresh_rows(late))
        due = [attempt for attempt in attempts if attempt.stopping.due is not None and now >= attempt.stopping.due]
        if not due:
            return
        rows = self._fresh_rows(due)
        again, dead = [], []
        for attempt in due:
            if attempt.stopping.next(now) == "KILL":
                dead += rows[attempt.name]
            else:
                again += [row.job_id for row in rows[attempt.name] if row.state == "RUNNING"]
        self._scancel(again, "--signal=TERM")
        self._kill(dead)

    def _scancel(self, ids: Sequence[str], *options: str) -> None:
        """Signal or end jobs or steps, by their ids: those of a row that was seen to be ours just now."""
        if not ids:
            return
        result = self._commands.run(["scancel", *options, *ids], timeout_seconds=_CANCEL_SECONDS)
        if result.returncode != 0 and not _is_gone(result):
            raise TransientError(f"scancel gave no answer: {_last(result)}")

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


def _name(job: Submission) -> str:
    return job_name(job.key, cast("SlurmExecutor", job.executors[0]).job_name_prefix)


def _last_change(job: Submission) -> tuple[float, float]:
    """Return when something was last added to a job's folder, as its start is: in POSIX seconds, and on the monotonic
    clock, no longer ago there than this connection may begin with old answers."""
    now = time.time()
    try:
        moment = min(os.stat(job.folder).st_mtime, now)
    except OSError:  # it has none yet
        moment = now
    return moment, time.monotonic() - min(now - moment, _LONGEST_QUIET_SECONDS)


def _key_line(key: Key) -> str:
    """Return the line of a script that holds a key."""
    return comment(f"{KEY_MARK} {key}")


def _is_gone(result: Result) -> bool:
    """Whether scancel only says that there is nothing to end."""
    said = result.error.splitlines()
    return bool(said) and all("Invalid job id" in line or "already completing or completed" in line for line in said)


def _last(result: Result) -> str:
    return result.error.splitlines()[-1] if result.error else f"exit code {result.returncode}"
