"""`nemorun plugins`, `config`, `doctor`, `completion`, commands of plugins, and what starting costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = """
import click, os
from nemorun_core import Executor, TransientError, UsageError

open(os.environ["WITNESS"], "a").write("imported\\n")

@click.command()
@click.argument("words", nargs=-1)
@click.option("--code", type=int, default=0)
def command(words, code):
    "Do what the plugin does."
    click.echo(f"plugin: {' '.join(words)}")
    return code

@click.command()
def broken():
    raise UsageError("the plugin does not like it.", hint="Do something else.")

@click.command()
def silent():
    raise TransientError("the moon does not answer.")
"""
COMMANDS = """
[nemorun.commands]
moon = moon_plugin:command
dark = moon_plugin:silent
experiment tide = moon_plugin:broken
"""
EXECUTOR = """
import attrs
from nemorun_core import Backend, Capabilities, Executor, TransientError

class MoonBackend(Backend):
    def render(self, job): return []
    def submit(self, jobs): return iter(())
    def find(self, jobs): return {}
    def cancel(self, handles): return None
    def poll(self, handles): return {}
    def check(self): raise TransientError("the moon does not answer.", hint="Wait for the night.")

@attrs.define(kw_only=True)
class MoonExecutor(Executor):
    def capabilities(self): return Capabilities()
    def connection(self): return ("moon",)
    def backend(self): return MoonBackend()
"""


def install(site: Path, name: str, entry_points: str, **modules: str) -> None:
    """Put a distribution into a folder of the import path, as an installer would."""
    metadata = site / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n\n")
    (metadata / "entry_points.txt").write_text(entry_points)
    for module, text in modules.items():
        (site / f"{module}.py").write_text(text)


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("WITNESS", str(tmp_path / "witness"))
    return folder


@pytest.fixture
def plugin(site):
    install(site, "nemorun-moon", COMMANDS, moon_plugin=PLUGIN)


def test_commands_of_plugins_are_listed_without_being_imported(shell, plugin, tmp_path):
    assert "moon        Comes with nemorun-moon 1.0." in shell("nemorun --help").out
    assert "tide" in shell("nemorun experiment --help").out
    assert not (tmp_path / "witness").exists()


def test_a_command_of_a_plugin_runs_with_its_options_and_exit_code(shell, plugin, tmp_path):
    said = shell("nemorun moon full half --code 3")
    assert (said.code, said.out) == (3, "plugin: full half\n")
    assert shell("nemorun moon -- --full").out == "plugin: --full\n"
    assert "Do what the plugin does." in shell("nemorun moon --help").out
    said = shell("nemorun experiment tide")
    assert (said.code, said.err) == (2, "Error: the plugin does not like it.\n  Do something else.\n")


def test_a_scheduler_that_does_not_answer_is_exit_code_3(shell, plugin):
    said = shell("nemorun dark")
    assert (said.code, said.err) == (3, "Error: the moon does not answer.\n")


def test_safe_mode_leaves_commands_of_plugins_out(shell, plugin):
    assert "moon" not in shell("nemorun --safe-mode --help").out
    assert shell("nemorun --safe-mode moon").code == 2
    assert shell("nemorun moon", NEMORUN_PLUGINS_DISABLE="*").code == 2


def test_safe_mode_leaves_hooks_out(shell, site, tmp_path):
    hooks = "from nemorun_core import hookimpl\n@hookimpl\ndef nemorun_prepare_job(job): raise RuntimeError('hook')\n"
    install(site, "nemorun-moon", "[nemorun.hooks]\nmoon = moon_hooks\n", moon_hooks=hooks)
    (tmp_path / "hello.sh").write_text("echo hello\n")
    said = shell("nemorun run hello.sh")
    assert said.code == 4
    assert "nemorun-moon 1.0" in said.err
    assert shell("nemorun --safe-mode run hello.sh").code == 0
    assert shell("nemorun run hello.sh --safe-mode").code == 0


def test_a_command_brought_twice_is_refused_with_both_names(shell, plugin, site):
    install(site, "nemorun-sun", "[nemorun.commands]\nmoon = moon_plugin:command\n")
    said = shell("nemorun moon")
    assert said.code == 2
    assert "nemorun-moon 1.0" in said.err
    assert "nemorun-sun 1.0" in said.err


def test_a_distribution_that_stands_twice_on_the_import_path_counts_once(shell, plugin, site, monkeypatch):
    install(site / "later", "nemorun-moon", COMMANDS, moon_plugin=PLUGIN)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.environ["PYTHONPATH"], str(site / "later")]))
    assert shell("nemorun moon full").out == "plugin: full\n"


def test_a_command_of_a_plugin_never_replaces_ours(shell, site):
    install(site, "nemorun-moon", "[nemorun.commands]\ndoctor = moon_plugin:command\n", moon_plugin=PLUGIN)
    assert "records" in shell("nemorun doctor").out


def test_a_plugin_that_cannot_be_imported_is_exit_code_4_with_its_name(shell, site):
    points = "[nemorun.commands]\nmoon = moon_missing:command\n[nemorun.executors]\nmoon = moon_missing:Executor\n"
    install(site, "nemorun-moon", points)
    for line in ("nemorun moon", "nemorun plugins show moon"):
        said = shell(line)
        assert said.code == 4
        assert "nemorun-moon 1.0" in said.err
        assert "Traceback" not in said.err
    said = shell("nemorun doctor")
    assert said.code == 4
    assert "FAIL  executors moon of nemorun-moon 1.0" in said.out
    assert shell("nemorun plugins list").code == 0


def test_doctor_is_content_with_a_sound_installation(shell):
    said = shell("nemorun doctor")
    assert said.code == 0
    assert "FAIL" not in said.out
    assert "executors local of nemorun-local" in said.out
    findings = json.loads(shell("nemorun doctor --json").out)
    assert {tuple(finding) for finding in findings} == {("what", "ok", "code", "found", "next")}
    assert all(finding["ok"] for finding in findings)


def test_doctor_names_a_scheduler_that_does_not_answer(shell, site):
    install(site, "nemorun-moon", "[nemorun.executors]\nmoon = moon_executor:MoonExecutor\n", moon_executor=EXECUTOR)
    said = shell("nemorun doctor")
    assert said.code == 3
    assert "the moon does not answer.\n      Wait for the night." in said.out


def test_doctor_names_a_folder_that_cannot_be_written(shell, tmp_path):
    (tmp_path / "file").touch()
    said = shell("nemorun doctor --base-dir file")
    assert said.code in (2, 5)
    said = shell("nemorun doctor", NEMORUN_HOME=str(tmp_path / "file"))
    assert said.code == 5
    assert "FAIL  records" in said.out


def test_plugins_list_names_group_name_and_distribution(call):
    entries = json.loads(call("plugins", "list", "--json").out)
    assert {tuple(entry) for entry in entries} == {("group", "name", "object", "distribution", "version")}
    assert ("executors", "local", "nemorun-local") in {(e["group"], e["name"], e["distribution"]) for e in entries}
    assert "nemorun-local" in call("plugins", "list").out


@pytest.mark.parametrize("name", ["local", "LocalExecutor", "nemorun-local"])
def test_plugins_show_lists_the_fields(call, name):
    assert "  ntasks_per_node: int = 1\n" in call("plugins", "show", name).out
    shown = json.loads(call("plugins", "show", name, "--json").out)
    [entry] = [one for one in shown if one["group"] == "executors"]
    assert {"name": "ntasks_per_node", "type": "int", "default": "1"} in entry["fields"]


def test_config_show_says_who_chose_the_folder(shell, nemorun_home, tmp_path):
    shown = json.loads(shell("nemorun config show --json").out)
    assert list(shown) == ["version", "python", "home", "home_from", "environment"]
    assert (shown["home"], shown["home_from"]) == (str(nemorun_home), "NEMORUN_HOME")
    shown = json.loads(shell("nemorun config show --json --base-dir here").out)
    assert (shown["home"], shown["home_from"]) == (str(tmp_path / "here"), "--base-dir")
    assert f"home     {nemorun_home} (NEMORUN_HOME)\n" in shell("nemorun config show").out


def complete(shell, line: str, *, instruction: str = "zsh_complete") -> list[str]:
    """Return what the shell would offer at the end of the line."""
    words = line.split(" ")
    variables = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_NEMORUN_COMPLETE": instruction}
    lines = shell("nemorun", **variables).out.splitlines()
    return [entry.partition(",")[2] for entry in lines] if instruction.startswith("bash") else lines[1::3]


def test_completion_offers_commands_ids_and_jobs(shell, ran):
    experiment = ran("hello", first="true", second="true")
    ran("My Experiment", first="true")
    assert complete(shell, "nemorun exp") == ["experiment"]
    assert complete(shell, "nemorun experiment st") == ["status"]
    assert complete(shell, "nemorun experiment status hel") == [experiment.id]
    assert complete(shell, f"nemorun experiment logs {experiment.id} ") == ["first", "second"]
    assert complete(shell, f"nemorun experiment cancel {experiment.id} first s") == ["second"]
    assert complete(shell, "nemorun experiment logs nope ") == []


def test_completion_in_bash_is_quoted(shell, ran):
    experiment = ran("My Experiment", first="true")
    offered = complete(shell, "nemorun experiment status ", instruction="bash_complete")
    assert offered == [f"'{experiment.id}'"]


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(call, name):
    said = call("completion", name)
    assert said.code == 0
    assert f"_NEMORUN_COMPLETE={name}_complete" in said.out


def test_help_imports_click_and_nothing_else_that_is_heavy():
    heavy = ["rich", "attrs", "attr", "cattrs", "pluggy", "importlib_metadata", "importlib.metadata", "nemorun_local"]
    code = (
        "import sys; from nemorun_core._cli.main import main; assert main(sys.argv[1:]) == 0; "
        f"sys.stderr.write(' '.join(name for name in {heavy} if name in sys.modules))"
    )
    for words in (["--help"], ["experiment", "--help"], ["--version"]):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        assert done.stderr == ""


def test_looking_at_an_experiment_imports_no_plugin_and_no_rich(ran):
    experiment = ran("hello", first="true")
    heavy = ["rich", "pluggy", "nemorun_local", "nemorun_env", "importlib_metadata"]
    code = (
        "import sys; from nemorun_core._cli.main import main; assert main(sys.argv[1:]) == 0; "
        f"sys.stderr.write(' '.join(name for name in {heavy} if name in sys.modules))"
    )
    for words in (["list"], ["status", experiment.id], ["logs", experiment.id], ["show", experiment.id]):
        command = [sys.executable, "-c", code, "experiment", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
        assert done.stderr == "", words


def test_the_version_is_printed(call):
    from nemorun_core import __version__

    assert call("--version").out == f"nemorun {__version__}\n"


def test_an_interrupt_while_the_command_is_loaded_ends_it_without_a_word():
    code = (
        "import os, signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'nemorun_core._cli.main':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from nemorun_core._cli.entry import main\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
