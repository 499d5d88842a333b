"""The outcome's file is full when it gets its name, and never written again."""

from __future__ import annotations

import os
import threading

import pytest

from nemorun_core.contracts import witness
from nemorun_core.contracts.witness import pad_outcome
from nemorun_core.model.records import OUTCOME_PADDING


def test_two_that_race_leave_one_that_is_full(tmp_path, monkeypatch):
    """A program may start, and end, while the second driver is still between two calls."""
    base, path = str(tmp_path / "0.0.0"), tmp_path / "0.0.0.outcome"
    real, stopped, go_on = os.write, threading.Event(), threading.Event()

    def late(handle, data):
        stopped.set()
        assert go_on.wait(10)
        return real(handle, data)

    monkeypatch.setattr(witness.os, "write", late)
    slow = threading.Thread(target=pad_outcome, args=(base, ""))
    slow.start()
    assert stopped.wait(10)
    assert not path.exists()
    monkeypatch.setattr(witness.os, "write", real)
    pad_outcome(base, "")
    path.write_bytes(b"outcome")
    go_on.set()
    slow.join()
    assert path.read_bytes() == b"outcome"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_disk_that_refuses_leaves_nothing(tmp_path, monkeypatch):
    def full(handle, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(witness.os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        pad_outcome(str(tmp_path / "0.0.0"), "")
    assert list(tmp_path.iterdir()) == []


def test_it_is_what_the_shim_overwrites(tmp_path):
    pad_outcome(str(tmp_path / "0.0.0"), ".1")
    assert (tmp_path / "0.0.0.outcome.1").read_bytes() == OUTCOME_PADDING
