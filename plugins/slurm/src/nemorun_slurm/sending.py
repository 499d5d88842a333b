"""`Sender`: gives jobs to sbatch, one by one or many as an array, and says how it answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nemorun_core import Accepted, Answer, Deferred, Document, Key, Rejected, Submission, TransientError
from nemorun_slurm.calls import Batches, Call, array_of, name_of
from nemorun_slurm.commands import Commands, Result, last_line
from nemorun_slurm.executor import LARGEST_ARRAY
from nemorun_slurm.files import Files, sources_of_secrets
from nemorun_slurm.parse import SBATCH_CLOCK, refusal, submitted_id, tried
from nemorun_slurm.script import array_script, array_task, batch_script

__all__ = ["Sender"]

_SUBMIT_SECONDS = 60.0
_TOO_LARGE = "Invalid job array specification"  # slurm_errno.c, ESLURM_INVALID_ARRAY


class Sender:
    """Calls sbatch on one connection; several threads may use it at once.

    How large an array may be is learned from what Slurm refuses: its MaxArraySize for good; for the moment a limit on
    submitted jobs, against which each task counts.
    """

    def __init__(self, commands: Commands, files: Files, batches: Batches) -> None:
        self._commands = commands
        self._files = files
        self._batches = batches
        self._bound = LARGEST_ARRAY
        self._last = LARGEST_ARRAY  # how many were taken at once the last time

    def script(self, job: Submission) -> str:
        """Return the batch script of a job that goes out alone. Raises UsageError."""
        secrets = self._files.secrets(job) if sources_of_secrets(job) is not None else None
        return batch_script(self._files.localised(job), self._files.layout(job), secrets=secrets)

    def task(self, job: Submission) -> str:
        """Return the line that makes a task of an array this job. Raises UsageError."""
        return array_task(self._files.localised(job), self._files.layout(job))

    def array_documents(self, jobs: Sequence[Submission]) -> list[Document]:
        """Return the script of an array, and the text of its tasks where the cluster sees it."""
        call, _ = array_of(jobs)
        path = self._files.tasks(jobs[0], call.name)
        tasks = "".join(map(self.task, jobs))
        return [Document(f"{call.name}.sbatch", self._array(jobs, call, path)), Document(path, tasks)]

    def _array(self, jobs: Sequence[Submission], call: Call, path: str) -> str:
        job = self._files.localised(jobs[0])
        return array_script(job, name=call.name, mark=call.mark, size=len(jobs), tasks=path)

    def verify(self, job: Submission) -> str | Rejected:
        """Ask `sbatch --test-only` about a job, and return what it said. Raises TransientError."""
        result = self._commands.run(
            ["sbatch", "--test-only"],
            stdin=self.script(job).encode("utf-8", "surrogateescape"),
            environment=SBATCH_CLOCK,
            without=sources_of_secrets(job) or (),
            timeout_seconds=_SUBMIT_SECONDS,
        )
        if result.returncode == 0:
            return tried(result.error)
        refused = refusal(result.error, result.returncode)
        if refused is None:
            raise TransientError(f"sbatch gave no answer: {last_line(result)}")
        return refused if isinstance(refused, Rejected) else f"would wait: {refused.reason}"

    def send(self, job: Submission, script: str, options: Sequence[str]) -> Answer:
        """Give one job to sbatch.

        Raises:
            TransientError: it may have been taken.
        """
        refused = self._sbatch(Call.single(job), script, options, sources_of_secrets(job) or ())
        if isinstance(refused, Rejected):
            self._files.forget_secrets([job])
        return refused or Accepted(name_of(job))

    def send_array(self, jobs: Mapping[Key, tuple[Submission, str]]) -> Mapping[Key, Answer]:
        """Give jobs to sbatch as one array, or as several where one would be too large.

        An array that is refused is tried again by half, down to one job that goes out alone: what that one is answered
        holds for those behind it, which ask for the same.

        Args:
            jobs: with their lines, by `task`.

        Raises:
            OSError: this machine's disk refused. TransientError: some may have been taken.
        """
        answers: dict[Key, Answer] = {}
        left, size = list(jobs.values()), 2 * self._last
        while left:
            part = left[: min(size, self._bound)]
            refused = self._send_part(part)
            if refused is None:
                answers.update((job.key, Accepted(name_of(job))) for job, _ in part)
                left, self._last, size = left[len(part) :], len(part), 2 * len(part)
            elif len(part) > 1:
                size = len(part) // 2
                if _TOO_LARGE in refused.reason.detail:
                    self._bound = size
            else:
                answers.update((job.key, refused) for job, _ in left)
                self._last = 1
                break
        return answers

    def _send_part(self, part: Sequence[tuple[Submission, str]]) -> Rejected | Deferred | None:
        jobs = [job for job, _ in part]
        if len(jobs) == 1:
            return self._sbatch(Call.single(jobs[0]), self.script(jobs[0]), [], ())
        call, is_new = self._batches.write(jobs)
        path = self._files.tasks(jobs[0], call.name)
        self._files.send_tasks(path, "".join(line for _, line in part))
        refused = self._sbatch(call, self._array(jobs, call, path), [], ())
        if refused is not None and is_new:  # else a call of before, whose answer was lost, may still be taken
            self._batches.forget(call)
            self._files.forget_tasks(path)
        return refused

    def _sbatch(
        self, call: Call, script: str, options: Sequence[str], without: Sequence[str]
    ) -> Rejected | Deferred | None:
        """Return how sbatch refused; None where it took the job or array, whose number is remembered."""
        result: Result = self._commands.run(
            ["sbatch", "--parsable", *options],
            stdin=script.encode("utf-8", "surrogateescape"),
            without=without,
            timeout_seconds=_SUBMIT_SECONDS,
        )
        if result.returncode == 0:
            call.remember(submitted_id(result.out.decode("utf-8", "replace")))
            return None
        refused = refusal(result.error, result.returncode)
        if refused is None:
            raise TransientError(f"sbatch gave no answer: {last_line(result)}")
        return refused
