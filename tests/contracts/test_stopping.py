"""The signals of an attempt that is stopped, and their times."""

from __future__ import annotations

import pytest
from nemorun_local import LocalExecutor

from nemorun_core import Stopping


def ladder(stopping, moment, until):
    """Ask whenever it is due; return what was sent, with its second."""
    sent = []
    while stopping.due is not None and (moment := max(moment, stopping.due)) <= until:
        sent.append((moment, stopping.next(moment)))
    return sent


def test_nothing_is_due_before_it_is_stopped():
    stopping = Stopping(10)
    assert (stopping.due, stopping.next(100), stopping.begun) == (None, None, False)


def test_term_comes_twice_then_kill_each_second():
    stopping = Stopping(10)
    stopping.begin(5)
    wanted = [(5, "TERM"), (6, "TERM"), (15, "KILL"), (16, "KILL"), (17, "KILL")]
    assert ladder(stopping, 0, 17) == wanted
    assert not stopping.expired


@pytest.mark.parametrize(
    ("grace", "wanted"),
    [
        (0, [(5, "TERM"), (5, "KILL"), (6, "KILL")]),
        (0.5, [(5, "TERM"), (5.5, "KILL")]),
        (1, [(5, "TERM"), (6, "KILL")]),
        (1.5, [(5, "TERM"), (6, "TERM")]),
    ],
)
def test_a_short_grace_is_kept(grace, wanted):
    stopping = Stopping(grace)
    stopping.begin(5)
    assert ladder(stopping, 0, 6) == wanted


def test_what_comes_late_is_not_made_up_for():
    stopping = Stopping(10)
    stopping.begin(5)
    assert [stopping.next(moment) for moment in (5, 5.5, 40, 40.5, 41)] == ["TERM", None, "KILL", None, "KILL"]


def test_a_second_begin_does_not_move_the_kill():
    stopping = Stopping(10)
    stopping.begin(5)
    stopping.next(5)
    stopping.begin(12)
    assert ladder(stopping, 5, 15) == [(6, "TERM"), (15, "KILL")]


def test_who_is_in_a_hurry_kills_at_once():
    stopping = Stopping(10)
    stopping.begin(5)
    stopping.next(5)
    stopping.hurry(5.5)
    assert ladder(stopping, 5, 6.5) == [(5.5, "KILL"), (6.5, "KILL")]


def test_an_attempt_whose_time_is_over_is_stopped_the_same_way():
    stopping = Stopping(3, expires=20)
    assert (stopping.due, stopping.next(19)) == (20, None)
    assert ladder(stopping, 19, 23) == [(20, "TERM"), (21, "TERM"), (23, "KILL")]
    assert stopping.expired


def test_an_attempt_that_was_cancelled_before_does_not_expire():
    stopping = Stopping(3, expires=20)
    stopping.begin(19)
    ladder(stopping, 19, 25)
    assert not stopping.expired


def test_a_group_has_the_longest_grace_and_the_shortest_time():
    executors = [LocalExecutor(grace_seconds=3), LocalExecutor(grace_seconds=8, timeout_seconds=50)]
    stopping = Stopping.of([*executors, LocalExecutor(grace_seconds=1, timeout_seconds=70)], 100)
    assert ladder(stopping, 100, 158) == [(150, "TERM"), (151, "TERM"), (158, "KILL")]


def test_an_attempt_without_a_time_never_expires():
    assert Stopping.of([LocalExecutor()], 100).due is None


def test_a_kill_comes_again_as_often_as_its_scheduler_can_bear():
    stopping = Stopping(2, again_seconds=5)
    stopping.begin(0)
    assert ladder(stopping, 0, 12) == [(0, "TERM"), (1, "TERM"), (2, "KILL"), (7, "KILL"), (12, "KILL")]
