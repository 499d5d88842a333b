"""What the shim writes: the start and the outcome of one rank, parsed. Pure text, no files."""

from __future__ import annotations

import re

import attrs

__all__ = ["OUTCOME_PADDING", "MalformedRecord", "Outcome", "Start", "parse_outcome", "parse_start"]


class MalformedRecord(ValueError):
    """A record does not have the shape that was expected; the text says where, as `$.jobs[2].until`."""


OUTCOME_PADDING = b" " * 255 + b"\n"
"""What the submitter writes into an outcome file before the start, so that the outcome fits on a full disk."""

_START = re.compile(r"nemorun-start 1 pid=(\d+) uptime=(\S+) host=(\S*) boot=(\S*) end\n")
_OUTCOME = re.compile(r"nemorun-outcome 1 code=(\d+|unknown) signals=(\S+) uptime=(\S+) end\n")


@attrs.frozen(kw_only=True)
class Start:
    """Who claimed a start. `uptime` is seconds since boot on `host`, None where that machine could not say."""

    pid: int
    uptime: float | None
    host: str
    boot: str


@attrs.frozen(kw_only=True)
class Outcome:
    """How the program ended: exit code as a shell reports it (None: the shell could not tell), signals noted."""

    code: int | None
    signals: tuple[str, ...]
    uptime: float | None


def _seconds(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def parse_start(text: str) -> Start | None:
    """Read a start record; None where the claim stands without its text (a full disk)."""
    found = _START.match(text)
    if not found:
        return None
    pid, uptime, host, boot = found.groups()
    return Start(pid=int(pid), uptime=_seconds(uptime), host=host, boot=boot)


def parse_outcome(text: str) -> Outcome | None:
    """Read an outcome record; None until its end mark is there."""
    found = _OUTCOME.match(text)
    if not found:
        return None
    code, signals, uptime = found.groups()
    return Outcome(
        code=None if code == "unknown" else int(code),
        signals=() if signals == "none" else tuple(signals.split(",")),
        uptime=_seconds(uptime),
    )
