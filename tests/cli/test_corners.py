"""What commands say in rare places: narrow terminals, plugins that are none, ages, and what is not there."""

from __future__ import annotations

import json
import os
import sys

import click
import pytest

import nemorun_core as nemorun
from nemorun_core._cli import main as main_module
from nemorun_core._cli.grammar import _PluginCommand
from nemorun_core.display import _rich, console
from nemorun_core.registry import Registry


@pytest.fixture
def terminal(monkeypatch):
    """Have the commands believe that they print on a terminal of that width."""

    def of(width):
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((width, 24)))

    return of


def test_list_keeps_ids_whole_and_cuts_titles(call, ran, terminal):
    ran("A title, which is no name of a folder", id="first", one="true")
    terminal(200)
    assert call("experiment", "list").out.rstrip().endswith("Z  A title, which is no name of a folder")
    terminal(40)
    line = call("experiment", "list").out.rstrip("\n")
    assert line.startswith("first  20")
    assert len(line) <= 40
    terminal(20)
    assert call("experiment", "list").out == "first\n"


def test_status_follows_on_a_terminal_with_a_table_that_stays(ran, call, monkeypatch):
    experiment = ran("hello", one="true")
    drawn = []
    monkeypatch.setattr(_rich, "follow_table", lambda graph, *, is_over: drawn.append(is_over(graph())))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert call("experiment", "status", experiment.id, "-f").out == ""
    assert drawn == [True]


def test_the_table_is_drawn_until_all_is_over(monkeypatch, capsys):
    with nemorun.Experiment("hello", log_level="ERROR") as experiment:
        experiment.add(nemorun.Script(inline="true"))
        experiment.run()
    graph = experiment._session.graph()
    monkeypatch.setattr(_rich, "_REDRAW_SECONDS", 0.001)
    looks = iter([False, True])
    _rich.follow_table(lambda: graph, is_over=lambda _: next(looks))
    assert "SUCCEEDED" in capsys.readouterr().out
    assert next(looks, None) is None


def test_many_failures_are_counted(ran, call):
    with nemorun.Experiment("many", id="many") as experiment:
        for _ in range(12):
            experiment.add(nemorun.Script(inline="exit 3"))
        experiment.run()
    said = call("experiment", "wait", "many")
    assert said.code == 1
    assert said.err.rstrip().endswith("and 2 more")


def test_rerun_refuses_what_has_not_ended(call, tmp_path):
    with nemorun.Experiment("open", id="open") as experiment:
        experiment.add(nemorun.Script(inline=f"until [ -e '{tmp_path}/gate' ]; do sleep 0.01; done"))
        experiment.run()
        said = call("experiment", "rerun", "open")
        (tmp_path / "gate").touch()
    assert said.code == 2
    assert "open has 1 jobs that have not ended" in said.err
    assert "nemorun experiment wait open" in said.err


def test_an_export_that_fails_leaves_nothing(call, ran, tmp_path, monkeypatch):
    ran("hello", id="hello", one="true")

    def full(folder, stream):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nemorun_core.store.archive.pack", full)
    monkeypatch.setattr("nemorun_core._cli.archive.pack", full, raising=False)
    said = call("experiment", "export", "hello", "--output", tmp_path / "x.tar")
    assert said.code == 5
    assert "No space left" in said.err
    assert list(tmp_path.glob("x.tar*")) == []


def test_delete_says_that_nothing_is_that_old_and_asks_on_a_terminal(call, ran, monkeypatch):
    ran("hello", id="hello", one="true")
    assert "No experiment is older than 30d" in call("experiment", "delete", "--older-than", "30d").err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    asked = []
    monkeypatch.setattr(click, "confirm", lambda text, **options: asked.append(text))
    assert call("experiment", "delete", "--older-than", "0h").out == "hello\n"
    assert asked[0].startswith("Delete 1 experiments created before ")


def test_completion_of_a_home_that_cannot_be_read_says_nothing(monkeypatch, call):
    from nemorun_core._cli import lookup

    monkeypatch.setattr(lookup, "home_of", lambda base_dir: 1 / 0)
    context = click.Context(click.Command("x"))
    assert lookup._complete_ids(context, None, "a") == []
    assert lookup._complete_jobs(context, None, "a") == []


def test_a_plugins_command_that_is_no_command_is_the_plugins_fault():
    command = _PluginCommand("odd", [("os:getcwd", "odd 1.0")])
    with pytest.raises(nemorun.Defect, match="is no click command"):
        command.invoke(click.Context(command))


def test_an_executor_that_is_none_is_the_plugins_fault(call, tmp_path, monkeypatch):
    (tmp_path / "a.sh").write_text("echo")
    monkeypatch.setattr(Registry, "load", lambda self, group, name: dict)
    said = call("run", tmp_path / "a.sh", "--executor", "odd")
    assert said.code == 4
    assert "does not derive from run.Executor" in said.err


def test_without_plugins_list_says_what_to_install(call, monkeypatch):
    monkeypatch.setattr(Registry, "found", lambda self, group: [])
    said = call("plugins", "list")
    assert (said.code, said.out) == (0, "")
    assert "pip install nemorun-local" in said.err


def test_a_plugin_without_a_docstring_is_shown_by_its_name(call, monkeypatch):
    from nemorun_core.experiment import checkup

    monkeypatch.setattr(checkup, "described", lambda row: {"summary": "", "fields": []})
    assert call("plugins", "show", "docker").out.splitlines()[0].startswith("docker (executors)")
    assert len(call("plugins", "show", "docker").out.splitlines()) == 1


# `doctor`.


def found(monkeypatch, tmp_path, cls):
    """Return what doctor finds where the executor `local` is this class."""
    from nemorun_core.experiment import checkup
    from nemorun_core.registry import default_registry
    from nemorun_core.store.layout import Home

    monkeypatch.setattr(Registry, "load", lambda self, group, name: cls)
    findings = checkup.findings_of(Home(str(tmp_path)), default_registry())
    return next(one for one in findings if one["what"].startswith("executors local "))


def test_doctor_says_what_it_could_not_ask(monkeypatch, tmp_path):
    class Needs(nemorun.LocalExecutor):
        def __init__(self, partition):
            raise AssertionError

    finding = found(monkeypatch, tmp_path, Needs)
    assert finding["ok"]
    assert "its scheduler was not asked" in finding["found"]


def test_doctor_is_content_with_a_scheduler_that_is_not_here(monkeypatch, tmp_path):
    class Away(nemorun.LocalExecutor):
        def backend(self):
            opened = super().backend()
            opened.check = missing
            return opened

    def missing():
        raise nemorun.UsageError("no moon is here.", hint="Travel.")

    finding = found(monkeypatch, tmp_path, Away)
    assert finding["ok"]
    assert finding["found"] == "can be loaded, and not used from here: no moon is here. Travel."


def test_doctor_names_an_executor_that_is_none_and_one_that_breaks(monkeypatch, tmp_path):
    base = nemorun.LocalExecutor

    class Breaks(base):
        def backend(self):
            raise RuntimeError("no")

    assert found(monkeypatch, tmp_path, dict)["code"] == 4
    finding = found(monkeypatch, tmp_path, Breaks)
    assert (finding["code"], finding["found"]) == (4, "RuntimeError: no")


def test_doctor_says_that_no_executor_is_installed(monkeypatch, tmp_path):
    from nemorun_core.experiment import checkup
    from nemorun_core.registry import default_registry
    from nemorun_core.store.layout import Home

    monkeypatch.setattr(checkup, "installed", lambda registry: [])
    last = checkup.findings_of(Home(str(tmp_path)), default_registry())[-1]
    assert (last["code"], last["next"]) == (2, "pip install nemorun-local")


def test_where_no_mounts_can_be_read_the_file_system_is_unknown(monkeypatch, tmp_path):
    from nemorun_core.experiment import checkup

    def missing(*args, **options):
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", missing)
    assert checkup._file_system(str(tmp_path)) == "an unknown file system"


# The entry.


class Leaving(BaseException):
    """Neither an error nor an interrupt."""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (click.ClickException("cannot"), 2, "Error: cannot"),
        (RuntimeError("odd"), 4, "nemorun broke: RuntimeError: odd"),
        (OSError(5, "Input/output error", "/x"), 5, "Input/output error: /x"),
    ],
)
def test_what_a_command_raises_becomes_words_and_a_code(monkeypatch, call, error, code, words):
    def broken(*args, **options):
        raise error

    monkeypatch.setattr(main_module.cli, "invoke", broken)
    said = call("config", "show")
    assert said.code == code
    assert words in said.err


def test_what_is_no_error_goes_on(monkeypatch):
    def leaving(*args, **options):
        raise Leaving

    monkeypatch.setattr(main_module.cli, "invoke", leaving)
    with pytest.raises(Leaving):
        main_module.main(["config", "show"])


def test_a_stream_that_cannot_be_configured_is_left_as_it_is(monkeypatch):
    class Plain:
        encoding = "utf-8"

        def __init__(self):
            self.text = ""

        def write(self, text):
            self.text += text

        def flush(self):
            pass

        def isatty(self):
            return False

    plain = Plain()
    monkeypatch.setattr(sys, "stdout", plain)
    assert main_module.main(["config", "show", "--json"]) == 0
    assert json.loads(plain.text)["version"]


def test_a_stream_that_is_closed_is_no_terminal(monkeypatch):
    class Closed:
        def isatty(self):
            raise ValueError("I/O operation on closed file")

    monkeypatch.setattr(sys, "stdout", Closed())
    assert not console._is_terminal()
