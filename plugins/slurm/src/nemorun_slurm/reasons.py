"""Why a job waits or ended: Slurm's words, of which there are more than two hundred, as reasons."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from nemorun_core import Reason, ReasonKind

__all__ = ["end_reason", "output_reason", "still", "waiting_reason"]

_STARTS = "; expected to start at "
_LIMITS = re.compile(r"^AccountingPolicy|^Assoc|^QOS|^Max|Limit$")
_OF_ONE_JOB = re.compile(r"PerJob|Min(?!utes)\w*(?:Limit|NotSatisfied)$")
_NEVER = MappingProxyType(
    {
        "AccountNotAllowed": "the account may not use the partition",
        "BadConstraints": "no node can ever have what is asked for",
        "DeadLine": "its deadline cannot be met",
        "InvalidAccount": "the account is not valid",
        "InvalidQOS": "the QOS is not valid",
        "PartitionNodeLimit": "it asks for more nodes than the partition gives",
        "PartitionTimeLimit": "it asks for more time than the partition gives",
        "QOSNotAllowed": "the QOS may not be used with this account or partition",
    }
)
_WAITS = MappingProxyType(
    {
        "BeginTime": "it was started before, or begins later",
        "Cleaning": "what is left of an earlier start is cleaned up",
        "JobHeldAdmin": "an administrator holds it",
        "JobHeldUser": "its user holds it",
        "Licenses": "a license is not free",
        "NodeDown": "a node that it needs is down",
        "PartitionDown": "the partition does not start jobs",
        "PartitionInactive": "the partition takes no jobs",
        "Priority": "others come first",
        "Prolog": "the nodes are made ready",
        "ReqNodeNotAvail": "a node that it asks for is not available",
        "Reservation": "its reservation has not begun",
        "Resources": "what it asks for is not free",
        "job requeued in held state": "it was started before; scontrol release lets it go on",
        "launch failed requeued held": "Slurm could not start it; scontrol release lets it try again",
    }
)
_ENDS: Mapping[str, tuple[ReasonKind, str]] = MappingProxyType(
    {
        "BOOT_FAIL": (ReasonKind.NODE_FAILURE, "a node did not boot"),
        "CANCELLED": (ReasonKind.BY_USER, ""),
        "DEADLINE": (ReasonKind.TIMEOUT, "its deadline is over"),
        "LAUNCH_FAILED": (ReasonKind.NODE_FAILURE, "Slurm could not start it"),
        "NODE_FAIL": (ReasonKind.NODE_FAILURE, ""),
        "OUT_OF_MEMORY": (ReasonKind.OUT_OF_MEMORY, ""),
        "PREEMPTED": (ReasonKind.PREEMPTED, ""),
        "REVOKED": (ReasonKind.BY_USER, "another cluster of the federation has it"),
        "TIMEOUT": (ReasonKind.TIMEOUT, ""),
    }
)
_OUTPUT = (
    (re.compile(r"oom[-_ ]kill|Out Of Memory|out-of-memory", re.IGNORECASE), ReasonKind.OUT_OF_MEMORY),
    (
        re.compile(
            r"pyxis: .*(?:fail|couldn't|error|no such)|enroot-import|FATAL: +.*(?:image|container|could not open)",
            re.IGNORECASE,
        ),
        ReasonKind.IMAGE,
    ),
    (
        re.compile(
            r"srun: (?:unrecognized option|invalid option|error: (?:unable to create step|invalid))", re.IGNORECASE
        ),
        ReasonKind.REJECTED,
    ),
)


def waiting_reason(state: str, word: str, expected_start: str | None) -> Reason:
    """Return why a job waits, of the kind LIMIT, UNSCHEDULABLE, DEPENDENCY or, by default, WAITING.

    Args:
        state: Slurm's word, for jobs that wait in a special way (CONFIGURING, REQUEUE_HOLD).
        word: Slurm's reason (squeue(1), "JOB REASON CODES"), with more behind a comma or not.
        expected_start: when Slurm thinks that it starts, ISO 8601 UTC.
    """
    head = re.split(r"[,:\s]", word, maxsplit=1)[0]
    kind, meaning = ReasonKind.WAITING, _WAITS.get(word) or _WAITS.get(head, "")
    if head in _NEVER:
        kind, meaning = ReasonKind.UNSCHEDULABLE, _NEVER[head]
    elif head.startswith("Dependency"):
        kind, meaning = ReasonKind.DEPENDENCY, ""
    elif _OF_ONE_JOB.search(head):
        kind, meaning = ReasonKind.UNSCHEDULABLE, "it asks for something that a limit gives to no job"
    elif _LIMITS.search(head):
        kind = ReasonKind.LIMIT
    elif state == "CONFIGURING":
        meaning = "its nodes are made ready"
    said = word if head and head not in ("None", "(null)") else ("" if meaning else state.lower().replace("_", " "))
    detail = f"{said} ({meaning})" if said and meaning else said or meaning
    if expected_start:
        detail += f"{_STARTS}{expected_start[:19]}Z"
    return Reason(kind, detail)


def still(told: Reason | None, seen: Reason | None, now: float) -> Reason | None:
    """Return why a job waits, of what was told last and what is seen now: the former, where only the expected start has
    moved, and by less than a tenth of the time left. In a busy queue it moves each half minute, for hundreds of jobs.

    Args:
        now: POSIX seconds.
    """
    if told is None or seen is None or told.kind is not seen.kind:
        return seen
    (before, _, first), (after, _, second) = told.detail.partition(_STARTS), seen.detail.partition(_STARTS)
    if before != after or not first or not second:
        return seen
    start, moved = (datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() for text in (first, second))
    return told if abs(moved - start) < (start - now) / 10 else seen


def end_reason(state: str, word: str, exit_code: int | None, signal: int | None) -> Reason | None:
    """Return why a job ended that did not succeed; None for a state that is not known to be an end.

    Args:
        state: Slurm's word for how it ended.
        word: Slurm's reason, or what sacct has behind the state ("by 1000").
        exit_code, signal: of the batch script.
    """
    if state in _ENDS:
        kind, detail = _ENDS[state]
        if state == "CANCELLED" and word.startswith("Dependency"):
            return Reason(ReasonKind.DEPENDENCY, word)
        return Reason(kind, detail or (word if state == "CANCELLED" and word.startswith("by ") else ""))
    if state != "FAILED":
        return None
    if word in ("JobLaunchFailure", "launch_failed_requeued_held") and not exit_code and not signal:
        return Reason(ReasonKind.NODE_FAILURE, "Slurm could not start it")
    if word.startswith("FAIL_") or word in ("BadConstraints", "InvalidAccount", "InvalidQOS"):
        return Reason(ReasonKind.REJECTED, word)
    if signal and not exit_code:
        return Reason(ReasonKind.SIGNAL, f"{signal}, of the batch script")
    return Reason(ReasonKind.EXIT_CODE, f"{exit_code if exit_code is not None else 'unknown'}, of the batch script")


def output_reason(text: str) -> Reason | None:
    """Return the reason that srun, slurmstepd or a container's runtime gave in the batch script's output; None: none.

    A witness of what neither a record nor squeue has: that memory ran out in a step, that a container could not be
    made, or that srun took the step for impossible.
    """
    for line in text.splitlines():
        for pattern, kind in _OUTPUT:
            if pattern.search(line) and re.match(r"\s*(?:srun|slurmstepd|pyxis|enroot|FATAL|\[ERROR\])", line):
                return Reason(kind, line.strip()[:300])
    return None
