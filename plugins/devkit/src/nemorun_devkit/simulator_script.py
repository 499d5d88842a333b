"""What a simulation is told: how each attempt of each job ends, and what goes wrong at the scheduler meanwhile."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs

from nemorun_core import ReasonKind, UsageError

__all__ = [
    "Amnesia",
    "AnswerLost",
    "Down",
    "Fails",
    "Fault",
    "Forgets",
    "Full",
    "Hangs",
    "Members",
    "NodeLost",
    "Outcome",
    "Preempted",
    "Refused",
    "Scenario",
    "Slow",
    "Stale",
    "Succeeds",
    "Vanishes",
]


@attrs.frozen
class Outcome:
    """How one attempt goes. All times are seconds on the simulation's own clock.

    Attributes:
        after: how long the program runs.
        queued: how long the scheduler keeps it waiting before.
        stops_after: how long the program takes to end when it is asked to; after the executor's grace it is killed.
    """

    after: float = attrs.field(default=60.0, kw_only=True, validator=attrs.validators.ge(0))
    queued: float = attrs.field(default=0.0, kw_only=True, validator=attrs.validators.ge(0))
    stops_after: float = attrs.field(default=0.0, kw_only=True, validator=attrs.validators.ge(0))


@attrs.frozen
class Succeeds(Outcome):
    """The program ends with 0."""


@attrs.frozen
class Fails(Outcome):
    """The program ends with `code`. With `reason` the scheduler says why, such as "out of memory"."""

    code: int = attrs.field(default=1, validator=[attrs.validators.ge(1), attrs.validators.le(255)])
    reason: ReasonKind | None = attrs.field(default=None, kw_only=True, converter=attrs.converters.optional(ReasonKind))


@attrs.frozen
class Hangs(Outcome):
    """The program runs until it is stopped, by `timeout_seconds` or a cancel."""

    after: float = attrs.field(default=math.inf, init=False)


@attrs.frozen
class Preempted(Outcome):
    """The scheduler takes the place away. With `then` it requeues the job, which goes on so in its next incarnation;
    without, the attempt FAILED."""

    then: Outcome | None = attrs.field(default=None, kw_only=True)


@attrs.frozen
class NodeLost(Outcome):
    """The machine is gone, and no record of how the program ended. `then` as in `Preempted`."""

    then: Outcome | None = attrs.field(default=None, kw_only=True)


@attrs.frozen
class Vanishes(Outcome):
    """From then on the scheduler does not know the job, and no record says what became of it: it ends LOST."""


@attrs.frozen
class Refused(Outcome):
    """The scheduler refuses the job for good."""

    detail: str = "invalid"


@attrs.frozen
class Members(Outcome):
    """One outcome a member of a group; `queued` is of the whole group."""

    outcomes: Sequence[Outcome] = attrs.field(default=(), converter=tuple)


@attrs.frozen
class Fault:
    """Something wrong with the scheduler, which all jobs share."""


@attrs.frozen
class Down(Fault):
    """No call is answered from `start` to `end`."""

    start: float
    end: float


@attrs.frozen
class Amnesia(Fault):
    """From `start` to `end` the scheduler answers that it knows no job; they go on meanwhile."""

    start: float
    end: float


@attrs.frozen
class Slow(Fault):
    """Each call takes so many seconds."""

    seconds: float
    start: float = 0.0
    end: float = math.inf


@attrs.frozen
class Full(Fault):
    """A quota is reached from `start` to `end`: submissions are deferred."""

    start: float
    end: float


@attrs.frozen
class AnswerLost(Fault):
    """The submission of an attempt fails, and the scheduler takes it nevertheless: at once, or `late` seconds later.

    A late one that was submitted again meanwhile is dropped, as a second shim is that finds the start taken.
    """

    job: str
    attempt: int = 0
    late: float = 0.0


@attrs.frozen
class Forgets(Fault):
    """The scheduler forgets a job so many seconds after its end. Records in the job's folder stay."""

    after: float


@attrs.frozen
class Stale(Fault):
    """Every so-manieth answer about a job is an old one, told once more."""

    every: int = attrs.field(default=2, validator=attrs.validators.ge(2))


def _attempts(jobs: Mapping[str, Outcome | Sequence[Outcome]]) -> dict[str, tuple[Outcome, ...]]:
    made = {name: (given,) if isinstance(given, Outcome) else tuple(given) for name, given in jobs.items()}
    for name, outcomes in made.items():
        if not outcomes or not all(isinstance(outcome, Outcome) for outcome in outcomes):
            raise UsageError(f"Scenario: job {name!r}: expected one or more outcomes.", hint="Such as [Fails(3)].")
    return made


@attrs.frozen
class Scenario:
    """How a simulated experiment goes.

    Attributes:
        jobs: job id to its outcome, or to one outcome an attempt, of which the last counts for all later ones.
        otherwise: how jobs go that are not named.
        faults: what goes wrong at the scheduler.
        cancels: job id to the second in which a user cancels it.
    """

    jobs: Mapping[str, Sequence[Outcome]] = attrs.field(factory=dict, converter=_attempts)
    otherwise: Outcome = attrs.field(factory=Succeeds, kw_only=True)
    faults: Sequence[Fault] = attrs.field(default=(), kw_only=True, converter=tuple)
    cancels: Mapping[str, float] = attrs.field(factory=dict, kw_only=True)

    def outcome(self, job: str, attempt: int) -> Outcome:
        """Return how an attempt goes."""
        outcomes = self.jobs.get(job, (self.otherwise,))
        return outcomes[min(attempt, len(outcomes) - 1)]
