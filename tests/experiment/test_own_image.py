"""Executors whose jobs run in an image of their own: files are shared, and this machine's Python is not."""

from __future__ import annotations

import sys

import attrs
import pytest

import nemorun_core as run
from nemorun_core._cli.run import _task

from .targets import add


@attrs.define(kw_only=True)
class Imaged(run.LocalExecutor):
    def capabilities(self) -> run.Capabilities:
        return attrs.evolve(super().capabilities(), own_image=True)


def rendered(task, executor, capsys):
    with run.Experiment("imaged", log_level="WARNING") as experiment:
        experiment.add(task, executor, name="job")
        experiment.dryrun()
    return capsys.readouterr().out


def test_a_python_task_runs_under_python3_of_the_image(capsys):
    said = rendered(run.Partial(print, "hello"), Imaged(), capsys)
    assert " python3 " in said
    assert sys.executable not in said


def test_the_python_that_was_named_is_the_one(capsys):
    assert "/opt/bin/python" in rendered(run.Partial(print, "hello"), Imaged(python="/opt/bin/python"), capsys)


def test_the_import_path_of_this_machine_does_not_travel(capsys, monkeypatch):
    monkeypatch.syspath_prepend("/only/here")
    assert "/only/here" in rendered(run.Partial(print, "hello"), run.LocalExecutor(), capsys)
    assert "/only/here" not in rendered(run.Partial(print, "hello"), Imaged(), capsys)


def test_a_function_that_only_lies_here_is_refused():
    with run.Experiment("imaged", log_level="WARNING") as experiment, pytest.raises(run.UsageError, match="Ship it"):
        experiment.add(run.Partial(add, 1), Imaged(), name="job")


def test_a_python_file_of_the_command_line_runs_under_python3_of_the_image(tmp_path):
    file = tmp_path / "train.py"
    file.touch()
    assert _task(str(file), (), Imaged()).entrypoint == "python3"
    assert _task(str(file), (), run.LocalExecutor()).entrypoint == sys.executable
