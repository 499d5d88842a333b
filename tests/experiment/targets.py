"""Functions and plugins that experiments of these tests run, importable by name."""

from __future__ import annotations

import os
import sys

import attrs

from nemorun_core import Executor, Plugin, Script, Task, UsageError


def add(first: int, second: int = 0) -> int:
    print(f"{first} + {second} = {first + second}")
    return first + second


def show_place(variable: str = "") -> None:
    print(os.getpid(), os.environ.get("NEMORUN_JOB"), os.environ.get(variable))


def break_down(text: str) -> None:
    print("before")
    print("apart", file=sys.stderr)
    raise LookupError(text)


@attrs.define
class Tag(Plugin):
    """Adds an argument to a script and, of the same kind, a variable to the executor."""

    word: str
    experiment_id: str = ""

    def assign(self, experiment_id: str) -> None:
        self.experiment_id = experiment_id

    def setup(self, task: Task, executor: Executor) -> None:
        assert isinstance(task, Script)
        task.args = [*task.args, self.word]
        executor.env_vars["TAG"] = f"{executor.env_vars.get('TAG', '')}{self.word}@{self.experiment_id}"


@attrs.define
class Refuse(Plugin):
    """Accepts nothing."""

    def setup(self, task: Task, executor: Executor) -> None:
        raise UsageError("no task is good enough.", hint="Give up.")
