"""What the base classes do for an author who has not written a method, and how this machine is asked."""

from __future__ import annotations

import os
import subprocess
import sys

import attrs
import pytest

import nemorun_core as run
from nemorun_core.contracts import host, witness
from nemorun_core.contracts.launcher import Launcher
from nemorun_core.model.graph import Node
from nemorun_core.model.records import parse_outcome, parse_start
from nemorun_core.model.state import signal_reason


class Bare(run.Backend):
    """Has what must be there, and notes cancels."""

    def __init__(self):
        self.cancelled = []

    def render(self, job):
        return []

    def submit(self, jobs):
        yield from ()

    def find(self, jobs):
        return {}

    def poll(self, handles):
        return {}

    def cancel(self, handles):
        self.cancelled.extend(handles)


@attrs.define(kw_only=True)
class Limited(run.Executor):
    """Can nothing that is optional."""

    def capabilities(self):
        return run.Capabilities()

    def connection(self):
        return "limited"

    def backend(self):
        return Bare()


@attrs.define(kw_only=True)
class Words(run.Task):
    """A task of a plugin: says words."""

    words: list[str] = attrs.field(factory=list)

    def command(self, place):
        return run.Command(argv=("echo", *self.words))


def test_a_backend_without_kill_cancels():
    with Bare() as backend:
        backend.kill(["h"])
        backend.wake()
        backend.release(["h"])
    assert backend.cancelled == ["h"]


def test_a_backend_without_check_says_nothing_of_its_scheduler():
    with Limited.sample().backend() as backend:
        assert backend.check() == ""


@pytest.mark.parametrize(
    "call",
    [
        lambda: Bare().read_log("h", 0, "out", 0, 1, 0),
        lambda: Bare().wait(["h"], 1.0),
        lambda: Bare().fetch("h", 0, ["*"], "/tmp"),
        lambda: run.Executor().capabilities(),
        lambda: run.Executor().connection(),
        lambda: run.Executor().backend(),
        lambda: run.Plugin().setup(None, None),
        lambda: Launcher().wrap(run.Command(argv=("x",)), run.Executor(), 0, [0]),
        lambda: run.Task().command(None),
        lambda: Node.__build__(None, print, [], {}),
    ],
)
def test_what_an_author_must_write_says_that_it_is_not_written(call):
    with pytest.raises(NotImplementedError):
        call()


def test_the_base_launcher_and_plugin_accept_and_keep_nothing():
    Launcher().check(run.Executor())
    run.Plugin().assign("x_1")
    assert run.Executor().ranks() == 1
    assert run.Packager().collect("/") == run.Contents()


@pytest.mark.parametrize(
    ("fields", "word"), [({"timeout_seconds": 1.0}, "timeout_seconds"), ({"separate_stderr": True}, "separate_stderr")]
)
def test_what_a_backend_cannot_do_is_refused(fields, word):
    with pytest.raises(run.UsageError, match=f"cannot honour {word}"):
        Limited(**fields).check()


def test_a_group_is_refused_where_there_are_none():
    with run.Experiment("group") as experiment, pytest.raises(run.UsageError, match="Limited runs none"):
        experiment.add([run.Script(inline="a")] * 2, Limited(packager=run.Packager()))


def test_a_task_of_a_plugin_is_named_copied_written_and_read():
    from nemorun_core.registry import Registry

    task = Words(words=["a"])
    copy = task.clone()
    copy.words.append("b")
    assert task.words == ["a"]
    assert task.default_name() == "Words"
    assert task.objects() == {}
    registry = Registry()
    kinded = registry.record_task(task)
    assert kinded.kind == f"{__name__}:Words"
    assert registry.read_task(kinded) == task
    with pytest.raises(run.UsageError, match="is no task"):
        registry.read_task(attrs.evolve(kinded, kind=f"{__name__}:Limited"))
    with pytest.raises(run.UsageError, match="is no class"):
        registry.read_task(attrs.evolve(kinded, kind="os:getcwd"))
    with pytest.raises(run.UsageError, match="cannot be loaded"):
        registry.read_task(attrs.evolve(kinded, kind="no_such_module_here:X"))
    with pytest.raises(run.UsageError, match="is no Executor"):
        registry.read_executor(attrs.evolve(kinded, kind=f"{__name__}:Words"))


def test_a_task_of_a_plugin_runs(capfd):
    with run.Experiment("words", log_level="WARNING") as experiment:
        experiment.add(Words(words=["hello"]), name="job", tail_logs=True)
        experiment.run(check=True)
    assert "hello" in capfd.readouterr().out


# This machine.


def test_a_machine_without_proc_has_no_boot_and_knows_processes_by_signals(monkeypatch):
    def missing(path, *args, **options):
        raise FileNotFoundError(path)

    monkeypatch.setattr("builtins.open", missing)
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    assert host.boot_id.__wrapped__() == "unknown"
    assert host.process_started(os.getpid()) == 0.0
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    assert host.process_started(process.pid) is None
    monkeypatch.setattr(os, "kill", lambda pid, number: (_ for _ in ()).throw(PermissionError()))
    assert host.process_started(1) == 0.0


def test_a_signal_that_this_machine_does_not_know_keeps_its_number():
    assert str(signal_reason(99)) == "signal 99"


def test_times_of_a_shim_that_had_no_clock_are_unknown():
    start = parse_start("nemorun-start 1 pid=3 uptime=unknown host=h boot=b end\n")
    assert start is not None
    assert start.uptime is None
    assert parse_start("nemorun-start 1 pid=x uptime=1 host=h boot=b end\n") is None
    outcome = parse_outcome("nemorun-outcome 1 code=0 signals=none uptime=unknown end\n")
    assert outcome is not None
    assert outcome.uptime is None
    assert witness.rank_suffix(2) == ".2"
