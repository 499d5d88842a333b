"""The laws that every backend keeps; the conformance kit tests each by its number."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["LAWS"]

LAWS: Mapping[str, str] = MappingProxyType(
    {
        "E1": "`submit` accepts a job whole or refuses it whole, with a reason.",
        "E2": "A member's program starts at most once an incarnation, also when an answer was lost, a timed-out "
        "submission is accepted late, or two drivers raced; never where an edge that its scheduler keeps does "
        "not hold.",
        "E3": "A failed query raises `TransientError` and is never read as a state; every handle asked for is "
        "answered, `UNKNOWN` if it is not there.",
        "E4": "States only move forward within an incarnation; a job is final when no incarnation or attempt can "
        "follow, and then stays so.",
        "E5": "Exit code and reason are the program's own and survive: scheduler's memory expired, daemon restarted, "
        "records removed.",
        "E6": "Only the engine says `LOST`: `UNKNOWN` in every successful poll for `lost_after_seconds`, and no "
        "outcome record in the job's folder.",
        "E7": "`cancel` is idempotent, reaches every process, leaves a finished job alone, ends in `CANCELLED`.",
        "E8": "Logs are byte-exact by member and stream, resumable by offset in the job's folder, readable until the "
        "user deletes the experiment; what an engine dropped before it could be read is a visible gap.",
        "E9": "Running jobs outlive the process that submitted them.",
        "E10": "Command, arguments, declared environment and working directory arrive exactly: spaces, quotes, "
        "newlines, `$`, Unicode, empty strings.",
        "E11": "A `Secret` is at rest only where the documentation says; only declared variables are recorded, never "
        "the caller's environment.",
        "E12": "N jobs cost O(1) scheduler queries an interval in the steady state, however many processes watch.",
        "E13": "What is rendered is what is submitted.",
        "E14": "Nothing that does not carry our full key is ever adopted, changed or removed; a name clash with "
        "another key is `Rejected`.",
        "E15": "A group starts as one, and its members reach each other by name.",
        "E16": "An option that cannot be honoured is a `UsageError` before anything is created.",
    }
)
