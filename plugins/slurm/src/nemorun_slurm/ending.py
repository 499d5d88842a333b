"""`Ender`: takes jobs back, asks them to end, and ends them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from nemorun_core import TransientError
from nemorun_slurm.attempt import Attempt, Word, duplicates, is_over_its_time
from nemorun_slurm.commands import Commands, Result, last_line
from nemorun_slurm.files import Files
from nemorun_slurm.parse import QueueRow

__all__ = ["Ender"]

_CANCEL_SECONDS = 30.0
_ENDED_AT_ONCE = 1000  # ids on one command line, which ssh has in one word of at most 128 KiB
_ALREADY_DONE = 2021 & 0xFF  # ESLURM_ALREADY_DONE of slurm_errno.h, as an exit code


class Ender:
    """Ends jobs of one connection by scancel.

    Args:
        rows: asks for the live rows of attempts now, by their names.
    """

    def __init__(
        self,
        commands: Commands,
        files: Files,
        rows: Callable[[Sequence[Attempt]], Mapping[str, Sequence[QueueRow]]],
    ) -> None:
        self._commands = commands
        self._files = files
        self._rows = rows

    def stop(self, attempts: Sequence[Attempt]) -> None:
        """Take back what waits, send the first polite signal to what runs, and say when the next is due."""
        if not attempts:
            return
        rows = self._rows(attempts)
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

    def kill(self, attempts: Sequence[Attempt]) -> None:
        """End every process of these jobs at once, and send no polite signal any more."""
        if not attempts:
            return
        self._kill(attempts, self._rows(attempts))
        now = time.monotonic()
        for attempt in attempts:
            attempt.stopping.hurry(now)
            attempt.stopping.next(now)

    def attend(self, attempts: Sequence[Attempt], words: Mapping[str, Word]) -> None:
        """Do what is due: take back duplicates, a time-out, the second polite signal, the kill."""
        self._scancel([row.job_id for attempt in attempts for row in duplicates(words[attempt.name].live)])
        now = time.monotonic()
        late = [attempt for attempt in attempts if not attempt.stopping.begun and is_over_its_time(attempt)]
        for attempt in late:
            attempt.stopping.expired = True
        self.stop(late)
        due = [attempt for attempt in attempts if attempt.stopping.due is not None and now >= attempt.stopping.due]
        if not due:
            return
        rows = self._rows(due)
        again, dead = [], []
        for attempt in due:
            if attempt.stopping.next(now) == "KILL":
                dead.append(attempt)
            else:
                again += [row.job_id for row in rows[attempt.name] if row.state == "RUNNING"]
        self._scancel(again, "--signal=TERM")
        if dead:
            self._kill(dead, rows)

    def _kill(self, attempts: Sequence[Attempt], rows: Mapping[str, Sequence[QueueRow]]) -> None:
        """End every process of these jobs at once. Slurm itself would first be polite for its KillWait."""
        steps = [
            f"{row.job_id}.{step}"
            for attempt in attempts
            for row in rows[attempt.name]
            if row.state == "RUNNING"
            for step in range(len(attempt.job.members))
        ]
        self._scancel(steps, "--signal=KILL")
        self._scancel([row.job_id for attempt in attempts for row in rows[attempt.name]])

    def _scancel(self, ids: Sequence[str], *options: str) -> None:
        """Signal or end jobs or steps, by their ids: those of a row that was seen to be ours just now."""
        for begin in range(0, len(ids), _ENDED_AT_ONCE):
            call = ["scancel", *options, *ids[begin : begin + _ENDED_AT_ONCE]]
            result = self._commands.run(call, timeout_seconds=_CANCEL_SECONDS)
            if result.returncode != 0 and not _is_gone(result):
                raise TransientError(f"scancel gave no answer: {last_line(result)}")


def _is_gone(result: Result) -> bool:
    """Whether scancel only says that there is nothing to end. It may say so by its exit code alone, as when it has sent
    a signal to a task of an array and tried that again."""
    said = result.error.splitlines()
    return bool(said or result.returncode == _ALREADY_DONE) and all(
        "Invalid job id" in line or "already completing or completed" in line for line in said
    )
