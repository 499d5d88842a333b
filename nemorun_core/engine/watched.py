"""`Watched`: an attempt on its scheduler, as one connection knows it."""

from __future__ import annotations

from nemorun_core.contracts.backend import Submission
from nemorun_core.contracts.observation import Observation

__all__ = ["Watched"]


class Watched:
    """An attempt, what was seen of it last, and since when its scheduler does not know it."""

    __slots__ = ("_lost_after", "_unknown_since", "attempt", "job", "last", "members")

    def __init__(self, job: Submission) -> None:
        self.job = job.key.job
        self.attempt = job.key.attempt
        self.members = len(job.members)
        self.last: Observation | None = None
        self._lost_after = max(executor.lost_after_seconds for executor in job.executors)
        self._unknown_since: float | None = None

    def is_known(self) -> None:
        """Note that the scheduler knows it."""
        self._unknown_since = None

    def is_lost(self, moment: float) -> bool:
        """Note that the scheduler, which answers, does not know it; return whether that is so for too long (E6)."""
        if self._unknown_since is None:
            self._unknown_since = moment
        return moment - self._unknown_since >= self._lost_after

    def miscount(self, seen: Observation) -> str:
        """Say what is wrong with an observation of another number of members, "" where nothing is."""
        if len(seen.members) == self.members:
            return ""
        return f"it reports {len(seen.members)} members of job {self.job!r}, which has {self.members}"
