"""The garbage collector is kept from values that are made to stay, and from nothing else."""

from __future__ import annotations

import gc

import pytest

from nemorun_core.model.garbage import uncollected


def is_old(value: object) -> bool:
    return any(one is value for one in gc.get_objects(generation=2))


@pytest.mark.parametrize(("amount", "old"), [(10, False), (200_000, True)])
def test_only_of_very_many_values_none_is_looked_at_after_they_are_made(amount, old):
    gc.collect()
    with uncollected():
        made: list[list[int]] = [[] for _ in range(amount)]
        assert not is_old(made[0])
    assert is_old(made[0]) is old
    assert gc.isenabled()


def test_what_somebody_has_frozen_stays_so(monkeypatch):
    monkeypatch.setattr(gc, "get_freeze_count", lambda: 1_000_000)
    monkeypatch.setattr(gc, "unfreeze", lambda: pytest.fail("it was let go"))
    with uncollected():
        made: list[list[int]] = [[] for _ in range(200_000)]
    assert len(made) == 200_000


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was_also_after_an_error(enabled):
    def fail() -> None:
        with uncollected():
            assert not gc.isenabled()
            raise KeyError

    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(KeyError):
            fail()
        assert gc.isenabled() is enabled
    finally:
        gc.enable()
