"""What is told of a job that waits does not change each time that Slurm thinks about it."""

from __future__ import annotations

import pytest
from nemorun_slurm.reasons import still, waiting_reason

NOW = 1_795_780_800.0  # 2026-11-27T12:00:00Z


def waits(start: str | None, word: str = "Resources"):
    return waiting_reason("PENDING", word, start and f"2026-11-27T{start}.000Z")


@pytest.mark.parametrize(
    ("told", "seen", "is_told"),
    [
        (waits("22:00:00"), waits("22:59:00"), True),
        (waits("22:00:00"), waits("21:01:00"), True),
        (waits("22:00:00"), waits("23:01:00"), False),  # more than a tenth of ten hours
        (waits("12:10:00"), waits("12:10:59"), True),
        (waits("12:10:00"), waits("12:11:01"), False),
        (waits("11:59:00"), waits("12:00:01"), False),  # what was told is over
        (waits("22:00:00"), waits("22:01:00", "Priority"), False),
        (waits("22:00:00"), waits("22:01:00", "QOSMaxJobsPerUserLimit"), False),
        (waits(None), waits("22:00:00"), False),
        (waits("22:00:00"), waits(None), False),
        (None, waits("22:00:00"), False),
        (waits("22:00:00"), None, False),
    ],
)
def test_an_expected_start_that_hardly_moves_is_no_news(told, seen, is_told):
    assert still(told, seen, NOW) is (told if is_told else seen)
