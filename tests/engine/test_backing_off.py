"""The pause after failures in a row: it doubles, and stops at a minute, however long they go on."""

from __future__ import annotations

from nemorun_core.engine.backing_off import BackOff, pause_seconds


def test_the_pause_doubles_from_a_second_to_a_minute():
    assert [pause_seconds(failures) for failures in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_scheduler_that_is_away_for_days_is_still_asked_each_minute():
    silence = BackOff()
    for _ in range(10_000):
        silence.fail(0.0)
    assert silence.left(0.0) == 60
    silence.succeed()
    silence.fail(0.0)
    assert silence.left(0.0) == 1
