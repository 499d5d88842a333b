"""What a job's folder says of one member: the shim's records, put together over its ranks."""

import os
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import attrs

from nemorun_core.contracts.backend import After
from nemorun_core.contracts.host import boot_id, time_of_uptime
from nemorun_core.contracts.observation import MemberObservation
from nemorun_core.model.records import OUTCOME_PADDING, Outcome, Start, parse_outcome, parse_start
from nemorun_core.model.state import Reason, ReasonKind, State, exit_reason

__all__ = [
    "RankWitness",
    "base_path",
    "edges_text",
    "ended_member",
    "pad_outcome",
    "rank_suffix",
    "read_outcome",
    "read_rank",
    "shim_argv",
]


def base_path(folder: str, attempt: int, incarnation: int, member: int) -> str:
    """Return the path that all records of one start of one member begin with."""
    return os.path.join(folder, f"{attempt}.{incarnation}.{member}")


def rank_suffix(rank: int) -> str:
    """Return how the names of a rank's records end: '' for rank 0, '.r' for rank r."""
    return f".{rank}" if rank else ""


def shim_argv(
    shim: str,
    base: str,
    suffix: str,
    cwd: str,
    argv: Sequence[str],
    *,
    separate_stderr: bool = False,
    forward: bool = False,
    place: str = "-",
) -> list[str]:
    """Return the shim's arguments, to be run by a POSIX shell; see the head of `shim.sh`.

    Args:
        forward: pass signals on to the program: where the shim alone gets them.
        place: `host=... boot=...` of this machine. With it and without `forward` the shim believes that its submitter
            is its parent, has padded the outcome, and handed no edge over.
    """
    return [
        shim,
        base,
        suffix,
        cwd,
        "apart" if separate_stderr else "join",
        "forward" if forward else "no",
        place,
        *argv,
    ]


def pad_outcome(base: str, suffix: str) -> None:
    """Write the bytes that the shim's outcome will overwrite, so that it arrives on a full disk. Keeps one that is
    there, of another driver that races. Raises OSError.

    The file gets its name when it is full: blanks that came later would wipe out the outcome of a quick program.
    """
    path = f"{base}.outcome{suffix}"
    filling = f"{path}.{os.getpid()}.{threading.get_ident()}"
    handle = os.open(filling, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        try:
            os.write(handle, OUTCOME_PADDING)
        finally:
            os.close(handle)
        os.link(filling, path)
    except OSError:
        if not os.path.exists(path):
            raise
    finally:
        os.unlink(filling)


def edges_text(after: Sequence[After], folder_of: Callable[[str], str] = str) -> str:
    """Return what the shim reads to check edges again: a line each, of the condition, the records and their path.

    Args:
        folder_of: where the folder of a job of this machine is seen by the shim.
    """
    lines = []
    for edge in after:
        records = [f"{member}:{rank_suffix(rank)}" for member, ranks in enumerate(edge.ranks) for rank in range(ranks)]
        path = os.path.join(folder_of(edge.folder), str(edge.key.attempt))
        lines.append(f"{edge.condition.value} {','.join(records)} {path}\n")
    return "".join(lines)


class RankWitness(NamedTuple):
    """The records of one rank.

    Attributes:
        claimed: a shim has the start, though its text may be missing.
        started, ended: POSIX seconds on the clock of the machine where it happened; None: not yet.
    """

    claimed: bool
    start: Start | None
    outcome: Outcome | None
    started: float | None
    ended: float | None


def read_outcome(base: str, suffix: str) -> Outcome | None:
    """Read how one rank ended; None until its outcome is whole. Raises OSError where the disk does not answer."""
    text, _ = _read(f"{base}.outcome{suffix}")
    return parse_outcome(text) if text else None


def read_rank(base: str, suffix: str) -> RankWitness:
    """Read one rank's records; missing ones are None. Raises OSError where the disk does not answer."""
    start_text, start_time = _read(f"{base}.start{suffix}")
    outcome_text, outcome_time = _read(f"{base}.outcome{suffix}")
    start = parse_start(start_text) if start_text else None
    outcome = parse_outcome(outcome_text) if outcome_text else None
    boot = start.boot if start else ""
    return RankWitness(
        claimed=start_text is not None,
        start=start,
        outcome=outcome,
        started=_moment(start.uptime if start else None, boot, start_time),
        ended=_moment(outcome.uptime, boot, outcome_time) if outcome else None,
    )


def ended_member(
    outcomes: Sequence[Outcome | None], *, started: str | None, ended: str | None, host: str | None
) -> MemberObservation:
    """Return the end of a member whose ranks have all ended: one outcome a rank, None where a shim was killed.

    SKIPPED where a shim found that an edge does not hold. A rank without an outcome, or whose shell could not tell,
    counts as signal 9 with the exit code unknown.
    """
    if any(outcome.skipped for outcome in outcomes if outcome):
        unmet = Reason(ReasonKind.DEPENDENCY, "by its records an upstream did not end so that this may start")
        return MemberObservation(state=State.SKIPPED, reason=unmet, ended=ended, host=host)
    signals = dict.fromkeys(name for outcome in outcomes if outcome for name in outcome.signals)
    codes = [outcome.code for outcome in outcomes if outcome and outcome.code is not None]
    member = MemberObservation(
        state=State.SUCCEEDED,
        exit_code=max(codes, default=None),
        signals=tuple(signals),
        started=started,
        ended=ended,
        host=host,
    )
    if len(codes) < len(outcomes):
        killed = Reason(ReasonKind.SIGNAL, "9 (SIGKILL)")
        return attrs.evolve(member, state=State.FAILED, exit_code=None, reason=killed)
    reason = exit_reason(max(codes))
    return attrs.evolve(member, state=State.FAILED, reason=reason) if reason else member


def _read(path: str) -> tuple[str | None, float]:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(), os.fstat(stream.fileno()).st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return None, 0.0


def _moment(uptime: float | None, boot: str, recorded: float) -> float | None:
    """Make a time of what the shim could say: its uptime if this is still the same boot, else the record's own time."""
    if uptime is not None and boot == boot_id():
        return time_of_uptime(uptime)
    return recorded or None
