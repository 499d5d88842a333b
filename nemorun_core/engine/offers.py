"""`Offers`: the attempts that wait to be submitted, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable

import attrs

from nemorun_core.contracts.backend import After, Submission
from nemorun_core.engine.events import Event, Refused, Withdrawn
from nemorun_core.engine.releasing import Attempt
from nemorun_core.errors import UsageError
from nemorun_core.model.key import Key
from nemorun_core.model.state import Reason, ReasonKind

__all__ = ["Offers"]


class Offers:
    """First those whose submissions were made, since they were offered already.

    Args:
        build: makes the submission of an attempt; raises UsageError.
        edges: what a scheduler has to keep of a job's edges; None where it is not to be submitted now.
    """

    def __init__(
        self, build: Callable[[str, int], Submission], edges: Callable[[str], tuple[After, ...] | None]
    ) -> None:
        self._build = build
        self._edges = edges
        self._built: deque[Submission] = deque()
        self._named: deque[Attempt] = deque()

    def __bool__(self) -> bool:
        return bool(self._built or self._named)

    def add(self, attempts: Iterable[Attempt]) -> None:
        """Add attempts at the end."""
        self._named.extend(attempts)

    def add_built(self, job: Submission) -> None:
        """Add one whose submission was made to look for it."""
        self._built.append(job)

    def attempts(self) -> list[Attempt]:
        """Return all, in order."""
        return [*map(_attempt, self._built), *self._named]

    def take_back(self, attempts: Collection[Attempt]) -> set[Attempt]:
        """Remove those of these that are here, and return them."""
        here = set(attempts).intersection(self.attempts())
        self._named = deque(attempt for attempt in self._named if attempt not in here)
        self._built = deque(job for job in self._built if _attempt(job) not in here)
        return here

    def next(self, largest: int) -> tuple[list[Submission], list[Event]]:
        """Return what is offered next, with its edges as they stand now, and what becomes of others: some cannot be
        built, and some must not start any more. Those that are returned stay until they are `answered`, or `dropped`.
        """
        jobs: list[Submission] = []
        events: list[Event] = []
        unwanted: list[Attempt] = []
        built, self._built = self._built, deque()
        while len(jobs) < largest and (built or self._named):
            if built:
                job = built.popleft()
            else:
                name, attempt = self._named.popleft()
                try:
                    job = self._build(name, attempt)
                except UsageError as error:
                    events.append(Refused(name, attempt, Reason(ReasonKind.REJECTED, error.line)))
                    continue
            after = self._edges(job.key.job)
            if after is None:
                unwanted.append(_attempt(job))
            else:
                jobs.append(job if after == job.after else attrs.evolve(job, after=after))
        self._built.extend((*jobs, *built))
        return jobs, [*events, *([Withdrawn(tuple(unwanted))] if unwanted else [])]

    def answered(self, job: Submission) -> None:
        """Remove one that was taken or refused."""
        if self._built and self._built[0] is job:
            self._built.popleft()
        else:
            self._built.remove(job)

    def drop(self, keys: Collection[Key]) -> None:
        """Remove submissions of which it is not known whether they were taken."""
        self._built = deque(job for job in self._built if job.key not in keys)


def _attempt(job: Submission) -> Attempt:
    return job.key.job, job.key.attempt
