"""What must come out, written from the documentation and not from the code.

One job after another, in the order of its edges: given how its upstreams ended, how may it end? More than one answer is
right only where a user cancels it meanwhile, and for groups whose members' ends the driver may see at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import NamedTuple

AROUND = {"image", "limit", "lost", "node failure", "preempted", "rejected", "unschedulable"}


class End(NamedTuple):
    """How a job ends: attempts that were made, and for each how many incarnations started."""

    state: str
    reason: str | None
    attempts: int
    incarnations: tuple[int, ...]


class Part(NamedTuple):
    """How one member goes in one incarnation: "succeeds", "fails", "hangs", and when it ends."""

    how: str
    after: float


class Try(NamedTuple):
    """How one attempt goes: `how` is "runs", "refused", "vanishes", "preempted" or "node failure"; `requeues` is how
    often the scheduler starts it again before."""

    how: str
    parts: tuple[Part, ...]
    requeues: int = 0


class Plan(NamedTuple):
    """One job: its edges as (index of the upstream, condition), and the rules that it was given."""

    edges: tuple[tuple[int, str], ...]
    tries: tuple[Try, ...]
    retries: int
    retry_on: tuple[str, ...]
    timeout: float
    until: str
    cancelled: bool
    at_once: bool  # the driver may see the ends of two members in one look


def expected(plan: Plan, upstreams: Sequence[str]) -> Iterator[End]:
    """Yield each end that is right. `upstreams` are the states in which they ended, edge by edge."""
    good = {"success": {"SUCCEEDED"}, "failure": {"FAILED", "LOST", "CANCELLED"}}
    edges = zip(plan.edges, upstreams, strict=True)
    if not all(condition == "any" or state in good[condition] for (_, condition), state in edges):
        yield End("SKIPPED", "dependency", 0, ())
        # Cancelled while its upstreams had not ended: then it does not wait for them.
        if plan.cancelled:
            yield End("CANCELLED", "by user", 0, ())
            yield End("CANCELLED", "by user", 1, (0,))  # a scheduler that keeps edges had it already
        return
    for ends in ways([plan.tries[min(n, len(plan.tries) - 1)] for n in range(2 * plan.retries + 1)], plan):
        own = around = 0
        incarnations: tuple[int, ...] = ()
        for number, (one, state, reason) in enumerate(ends, 1):
            begun = 0 if one.how == "refused" else one.requeues + 1
            if plan.cancelled:  # before this attempt, or in any incarnation of it
                yield End("CANCELLED", "by user", number - 1, incarnations)
                for part in range(begun + 1):
                    yield End("CANCELLED", "by user", number, (*incarnations, part))
            incarnations += (begun,)
            again = state in ("FAILED", "LOST") and (
                reason in plan.retry_on if plan.retry_on else reason not in ("lost", "rejected")
            )
            own, around = (own, around + again) if reason in AROUND else (own + again, around)
            last = not again or max(own, around) > plan.retries
            # What is lost cannot be cancelled, and what failed while a group's other members still stop has failed;
            # neither is retried then.
            if last or (plan.cancelled and (state == "LOST" or len(one.parts) > 1)):
                yield End(state, reason, number, incarnations)
            if last:
                break


def ways(tries: Sequence[Try], plan: Plan) -> Iterator[list[tuple[Try, str, str | None]]]:
    """Yield how the attempts may end, one after another."""
    if not tries:
        yield []
        return
    for end in sorted(set(attempt(tries[0], plan)), key=str):
        for rest in ways(tries[1:], plan) if end[0] != "SUCCEEDED" else [[]]:
            yield [(tries[0], *end), *rest]


def attempt(one: Try, plan: Plan) -> Iterator[tuple[str, str | None]]:
    """Yield state and reason of one attempt."""
    if one.how != "runs":
        reason = {"refused": "rejected", "vanishes": "lost"}.get(one.how, one.how)
        yield "LOST" if reason == "lost" else "FAILED", reason
        return
    ends = [
        (plan.timeout, "timeout")
        if part.how == "hangs" or part.after > plan.timeout
        else (part.after, "exit code" if part.how == "fails" else None)
        for part in one.parts
    ]
    # In the order in which members end, and where the driver sees some at once, in any order of these.
    order = sorted(range(len(ends)), key=lambda index: ends[index][0])
    yield decided(order, ends, plan)
    if plan.at_once:
        yield from (decided(other, ends, plan) for other in permutations(order))


def decided(order: Sequence[int], ends: Sequence[tuple[float, str | None]], plan: Plan) -> tuple[str, str | None]:
    """Return the end of a group whose members end in this order: the first that decides, decides."""
    for index in order:
        if ends[index][1]:
            return "FAILED", ends[index][1]
        if plan.until == "first" or (plan.until == "leader" and index == 0):
            return "SUCCEEDED", None
    return "SUCCEEDED", None
