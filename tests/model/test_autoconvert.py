"""`autoconvert` takes apart what a function returns."""

from __future__ import annotations

import dataclasses

import pytest

import nemorun_core as run


@dataclasses.dataclass
class Inner:
    rate: float


@dataclasses.dataclass
class Outer:
    name: str
    inner: Inner


@run.autoconvert
def made(name: str = "a") -> Outer:
    """Make one."""
    return Outer(name, Inner(0.5))


@run.autoconvert(partial=True)
def begun() -> Inner:
    return Inner(0.1)


def test_an_instance_becomes_its_config_with_all_that_it_holds():
    assert made() == run.Config(Outer, name="a", inner=run.Config(Inner, rate=0.5))
    assert made("b").name == "b"
    assert made.__doc__ == "Make one."


def test_with_partial_it_becomes_a_partial():
    assert begun() == run.Partial(Inner, rate=0.1)


def test_a_config_is_passed_on():
    assert run.autoconvert(lambda: run.Config(Inner, rate=1.0))() == run.Config(Inner, rate=1.0)
    assert run.autoconvert(lambda: run.Partial(Inner, rate=1.0))() == run.Partial(Inner, rate=1.0)


def test_anything_else_is_refused_with_what_to_do():
    with pytest.raises(run.UsageError, match="returned 3, and autoconvert takes") as caught:
        run.autoconvert(lambda: 3)()
    assert "run.Config" in caught.value.hint
