"""Functions and classes that the tests of tasks name: importable, so that they are sent by reference."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field

import attrs


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Optimizer:
    lr: float = 0.1
    betas: tuple[float, ...] = (0.9, 0.99)


@dataclass
class Model:
    width: int
    optimizer: Optimizer = field(default_factory=Optimizer)
    layers: list[object] = field(default_factory=list)
    built: int = field(default=0, init=False)


@attrs.define
class Data:
    _path: str
    shards: list[int] = attrs.field(factory=list)


@dataclass
class Seeded:
    seed: InitVar[int]
    value: int = 0


class Tokenizer:
    def __init__(self, name: str) -> None:
        self.name = name

    @classmethod
    def load(cls, name: str) -> Tokenizer:
        return cls(name)

    def encode(self, text: str) -> str:
        return text


def train(
    model: object,
    steps: int = 10,
    optimizer: Optimizer = Optimizer(),  # noqa: B008  # that a default can be changed safely is what is tested
    table: dict[str, int] = {"a": 1},  # noqa: B006  # the same
) -> object:
    return model, steps, optimizer, table


def spread(first: object, /, second: object = 2, *rest: object, **options: object) -> object:
    return first, second, rest, options


def command(command: str) -> str:
    return command


def show(*values: object, **named: object) -> None:
    print(values, dict(sorted(named.items())), os.environ.get("GREETING", ""), sep="\n")


def apply(function: Callable[..., object], *values: object) -> None:
    print(function(*values))


def fail(message: str) -> None:
    raise ValueError(message)


def square(value: int) -> int:
    return value * value


def square_in_processes(method: str) -> None:
    import multiprocessing

    with multiprocessing.get_context(method).Pool(1) as pool:
        print(pool.map(square, [1, 2, 3]))
