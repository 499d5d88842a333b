"""Where a supervisor is started: outside this login's scope, where a systemd of the user runs."""

from __future__ import annotations

import pytest

from nemorun_core import Experiment, Script
from nemorun_core.engine.supervisor import _scope


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    """Stand in for systemd-run(1): notes its arguments, then does what it is told to."""
    runtime, programs = tmp_path / "runtime", tmp_path / "programs"
    (runtime / "systemd").mkdir(parents=True)
    (runtime / "systemd" / "private").touch()
    programs.mkdir()
    command = programs / "systemd-run"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("PATH", str(programs), prepend=":")

    def behave(text):
        command.write_text(f"#!/bin/sh\necho \"$*\" >> '{tmp_path}/calls'\n{text}\n")
        command.chmod(0o755)

    return behave


def run_detached():
    with Experiment("scoped") as experiment:
        experiment.add(Script(inline="echo here"))
        experiment.run(detach=True)
    return experiment


def test_a_supervisor_leaves_the_scope_of_the_login(systemd, tmp_path):
    systemd('while [ "$1" != -- ]; do shift; done; shift; exec "$@"')
    assert run_detached().wait(30)
    assert (tmp_path / "calls").read_text().startswith("--user --scope --quiet --collect -- ")


def test_where_no_scope_can_be_made_it_is_started_as_it_is(systemd, tmp_path):
    systemd("echo 'Failed to connect to bus' >&2; exit 1")
    assert run_detached().wait(30)
    assert len((tmp_path / "calls").read_text().splitlines()) == 1


def test_without_a_systemd_of_the_user_nothing_is_put_before_it(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert _scope() == []
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert _scope() == []
