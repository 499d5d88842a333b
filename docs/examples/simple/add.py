"""What the example's function works on: a dataclass becomes a `run.Config` when it is given to a `run.Partial`."""

from dataclasses import dataclass

import nemorun_core as run


@dataclass
class SomeObject:
    """Three numbers."""

    value_1: int
    value_2: int
    value_3: int


def add_object(obj_1: SomeObject, obj_2: SomeObject) -> SomeObject:
    """Add two objects, value by value, and print the sum."""
    result = SomeObject(
        obj_1.value_1 + obj_2.value_1,
        obj_1.value_2 + obj_2.value_2,
        obj_1.value_3 + obj_2.value_3,
    )
    print(f"{result = }")
    return result


@run.autoconvert
def commonly_used_object() -> SomeObject:
    """Return an object that several experiments use."""
    return SomeObject(value_1=5, value_2=10, value_3=15)
