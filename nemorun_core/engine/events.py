"""The events of the journal, one line of JSON each. An experiment's state is the fold over them, in order.

Named tuples, not attrs classes: each of those costs every start of ours a third of a millisecond.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple

import attrs

from nemorun_core.contracts.observation import MemberObservation
from nemorun_core.model.records import MalformedRecord
from nemorun_core.model.state import Reason, ReasonKind, State

__all__ = [
    "Asked",
    "Delayed",
    "Driven",
    "Event",
    "Intended",
    "Lost",
    "Observed",
    "Refused",
    "Released",
    "Submitted",
    "Warned",
    "Withdrawn",
    "dump",
    "load",
]


class Driven(NamedTuple):
    """A driver took the lock, with a higher epoch than any before: that of this line."""

    host: str
    pid: int


class Intended(NamedTuple):
    """These attempts may be submitted from now on, so they are looked for before anything is submitted again."""

    attempts: tuple[tuple[str, int], ...]


class Submitted(NamedTuple):
    """The backend took an attempt, or was found to have taken it; `remains`: it leaves something there."""

    job: str
    attempt: int
    handle: str
    remains: bool = False


class Released(NamedTuple):
    """Nothing is left of these ended attempts on their scheduler."""

    attempts: tuple[tuple[str, int], ...]


class Refused(NamedTuple):
    """The backend refused an attempt for good."""

    job: str
    attempt: int
    reason: Reason


class Delayed(NamedTuple):
    """These attempts wait: a limit holds them back, or their scheduler does not answer. They are offered again."""

    attempts: tuple[tuple[str, int], ...]
    reason: Reason


class Withdrawn(NamedTuple):
    """These attempts are surely not submitted, and are not offered any more."""

    attempts: tuple[tuple[str, int], ...]


class Observed(NamedTuple):
    """What a backend saw of an attempt; written when it differs from what was known."""

    job: str
    attempt: int
    incarnation: int
    members: tuple[MemberObservation, ...]
    reason: Reason | None = None


class Lost(NamedTuple):
    """The scheduler does not know an attempt any more, and no outcome of it was found for long enough."""

    job: str
    attempt: int


class Asked(NamedTuple):
    """Somebody asked that jobs be cancelled."""

    jobs: tuple[str, ...]
    reason: Reason


class Warned(NamedTuple):
    """Something that people should know and that changes no state."""

    text: str


Event = Driven | Intended | Submitted | Released | Refused | Delayed | Withdrawn | Observed | Lost | Asked | Warned

_KINDS: Mapping[str, type[Event]] = {
    kind.__name__.lower(): kind
    for kind in (Driven, Intended, Submitted, Released, Refused, Delayed, Withdrawn, Observed, Lost, Asked, Warned)
}
_MEMBER_FIELDS = tuple(field.name for field in attrs.fields(MemberObservation))
_DECODE = json.JSONDecoder().raw_decode
_STATES = {state.value: state for state in State}
_REASONS = {kind.value: kind for kind in ReasonKind}
_COMPACT = json.JSONEncoder(separators=(",", ":")).encode


def _plain(value: object) -> object:
    if value is None or isinstance(value, str):  # most are
        return value
    if isinstance(value, Reason):
        return [value.kind.value, value.detail]
    if isinstance(value, MemberObservation):
        given = {name: getattr(value, name) for name in _MEMBER_FIELDS}
        return {name: _plain(field) for name, field in given.items() if field is not None and field != ()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def dump(event: Event, time: str, epoch: int) -> str:
    """Return the journal's line for an event, without its newline. Hand-written: a line is written for each change."""
    line: dict[str, object] = {"event": type(event).__name__.lower(), "time": time, "epoch": epoch}
    for name in event._fields:
        if (value := getattr(event, name)) is not False:
            line[name] = _plain(value)
    return _COMPACT(line)


def load(line: str) -> tuple[Event, str, int]:
    """Read back what `dump` wrote: the event, its time and the epoch of its driver.

    Raises:
        MalformedRecord: it is no such line; the text says why.
    """
    try:
        fields, end = _DECODE(line)
        if end != len(line):
            raise ValueError("more than one object")
        kind = _KINDS[fields.pop("event")]
        time, epoch = fields.pop("time"), fields.pop("epoch")
        if not isinstance(time, str) or type(epoch) is not int:
            raise TypeError("time or epoch")
        for name, value in fields.items():
            if name == "reason" and value is not None:
                fields[name] = _reason(value)
            elif name == "members":
                if not value:
                    raise ValueError("no members")
                fields[name] = tuple(_member(member) for member in value)
            elif name == "attempts":
                fields[name] = tuple((str(job), int(attempt)) for job, attempt in value)
            elif name == "jobs":
                fields[name] = tuple(value)
        return kind(**fields), time, epoch
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise MalformedRecord(f"expected an event, found {line[:80]!r} ({type(error).__name__}: {error})") from None


def _reason(value: list[str]) -> Reason:
    kind, detail = value
    return Reason(_REASONS[kind], detail)


def _member(fields: dict[str, object]) -> MemberObservation:
    fields["state"] = _STATES[fields["state"]]
    if "reason" in fields:
        fields["reason"] = _reason(fields["reason"])  # type: ignore[arg-type]
    if "signals" in fields:
        fields["signals"] = tuple(fields["signals"])  # type: ignore[arg-type]
    return MemberObservation(**fields)  # type: ignore[arg-type]
