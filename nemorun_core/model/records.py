"""What the shim writes: the start and the outcome of one rank, parsed. Pure text, no files."""

from typing import NamedTuple

__all__ = ["OUTCOME_PADDING", "MalformedRecord", "Outcome", "Start", "malformed", "parse_outcome", "parse_start"]


class MalformedRecord(ValueError):
    """A record does not have the shape that was expected; the text says where, as `$.jobs[2].until`."""


def malformed(path: str, expected: str, found: object) -> MalformedRecord:
    """Return the error for one place of a record."""
    shown = repr(found)
    return MalformedRecord(f"{path}: expected {expected}, found {shown[:80] + '…' if len(shown) > 80 else shown}")


OUTCOME_PADDING = b" " * 255 + b"\n"
"""What the submitter writes into an outcome file before the start, so that the outcome fits on a full disk."""


class Start(NamedTuple):
    """Who claimed a start. `uptime` is seconds since boot on `host`, None where that machine could not say."""

    pid: int
    uptime: float | None
    host: str
    boot: str


class Outcome(NamedTuple):
    """How the program ended: exit code as a shell reports it (None: the shell could not tell), signals noted.

    `skipped`: it was not started, since an edge that the scheduler kept does not hold.
    """

    code: int | None
    signals: tuple[str, ...]
    uptime: float | None
    skipped: bool = False


def _seconds(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _fields(text: str, name: str, names: tuple[str, ...]) -> list[str] | None:
    """Return the values of `<name> 1 a=... b=... end`, None for anything else: torn, padded only, or rubbish."""
    line, newline, _ = text.partition("\n")
    words = line.split(" ")
    if not newline or len(words) != len(names) + 3 or (words[0], words[1], words[-1]) != (name, "1", "end"):
        return None
    pairs = [word.partition("=") for word in words[2:-1]]
    return [value for _, _, value in pairs] if tuple(pair[0] for pair in pairs) == names else None


def parse_start(text: str) -> Start | None:
    """Read a start record; None where the claim stands without its text (a full disk)."""
    found = _fields(text, "nemorun-start", ("pid", "uptime", "host", "boot"))
    if found is None or not found[0].isdecimal():
        return None
    return Start(pid=int(found[0]), uptime=_seconds(found[1]), host=found[2], boot=found[3])


def parse_outcome(text: str) -> Outcome | None:
    """Read an outcome record; None until its end mark is there."""
    found = _fields(text, "nemorun-outcome", ("code", "signals", "uptime"))
    if found is None or not (found[0].isdecimal() or found[0] in ("unknown", "skipped")):
        return None
    return Outcome(
        code=int(found[0]) if found[0].isdecimal() else None,
        signals=() if found[1] == "none" else tuple(found[1].split(",")),
        uptime=_seconds(found[2]),
        skipped=found[0] == "skipped",
    )
