"""What the records of a member's ranks say of its end."""

from __future__ import annotations

from nemorun_core.contracts.witness import ended_member
from nemorun_core.model.records import Outcome
from nemorun_core.model.state import ReasonKind, State


def test_a_member_of_which_a_rank_was_not_started_for_an_edge_is_skipped():
    outcomes = [Outcome(code=0, signals=(), uptime=1.0), Outcome(code=None, signals=(), uptime=None, skipped=True)]
    member = ended_member(outcomes, started=None, ended=None, host="here")
    assert (member.state, member.exit_code, member.host) == (State.SKIPPED, None, "here")
    assert member.reason is not None
    assert member.reason.kind is ReasonKind.DEPENDENCY
