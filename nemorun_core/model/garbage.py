"""The garbage collector, kept from looking again and again through many values that are all made to stay."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

__all__ = ["uncollected"]

_VERY_MANY = 100_000


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Make many values in the block without a collection in between, which would cost more than making them.

    Of very many, none is looked at after the block either: they are old at once.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            # Whoever freezes much of its own, as before a fork, keeps it so.
            if gc.get_count()[0] > _VERY_MANY > gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()  # into the oldest generation
            gc.enable()
