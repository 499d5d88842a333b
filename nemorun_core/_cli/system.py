"""`nemorun plugins`, `config`, `doctor` and `completion`: what is installed, what is set, and what is wrong."""

from __future__ import annotations

import os
import sys

import click

from nemorun_core._cli.grammar import Command, Group, base_dir_option, json_option
from nemorun_core._cli.lookup import emit, home_of
from nemorun_core.errors import UsageError

__all__ = ["completion", "config", "config_show", "doctor", "plugins", "plugins_list", "plugins_show"]


@click.group(cls=Group, path="plugins", commands_of={"list": "system:plugins_list", "show": "system:plugins_show"})
def plugins() -> None:
    """See which plugins are installed."""


@click.group(cls=Group, path="config", commands_of={"show": "system:config_show"})
def config() -> None:
    """See what nemorun was told by its environment."""


@click.command("list", cls=Command)
@json_option
def plugins_list(as_json: bool) -> None:
    """List what installed plugins bring.

    JSON: `[{"group", "name", "object", "distribution", "version"}]`.
    """
    from nemorun_core.experiment.checkup import installed
    from nemorun_core.registry import default_registry

    rows = installed(default_registry())
    if as_json:
        emit(rows)
        return
    if not rows:
        click.echo("No plugin is installed.\n  pip install nemorun-local", err=True)
    widths = [max((len(row[key]) for row in rows), default=0) for key in ("group", "name")]
    for row in rows:
        click.echo(f"{row['group']:{widths[0]}}  {row['name']:{widths[1]}}  {row['distribution']} {row['version']}")


@click.command("show", cls=Command)
@click.argument("name")
@json_option
def plugins_show(name: str, as_json: bool) -> None:
    """Show what a plugin brings, with its fields.

    NAME is one of `plugins list`, a class, or a distribution.

    JSON: `[{"group", "name", "object", "distribution", "version", "summary", "fields": [{"name", "type",
    "default"}]}]`.
    """
    from nemorun_core.experiment.checkup import described, installed
    from nemorun_core.registry import default_registry

    rows = installed(default_registry())
    chosen = [row for row in rows if name in (row["name"], row["distribution"], row["object"].split(":")[-1])]
    if not chosen:
        known = ", ".join(sorted({row["name"] for row in rows})) or "none"
        raise UsageError(f"no plugin {name!r} is installed (installed: {known}).", hint=f"pip install nemorun-{name}")
    found = [row | described(row) for row in chosen]
    if as_json:
        emit(found)
        return
    for row in found:
        click.echo(f"{row['name']} ({row['group']}): {row['object']}, of {row['distribution']} {row['version']}")
        if row["summary"]:
            click.echo(f"  {row['summary']}")
        fields = row["fields"]
        assert isinstance(fields, list)
        for field in fields:
            click.echo(f"  {field['name']}: {field['type']}{' = ' + field['default'] if field['default'] else ''}")


@click.command("show", cls=Command)
@json_option
@base_dir_option
def config_show(as_json: bool, base_dir: str | None) -> None:
    """Show version, folder of the records, variables.

    JSON: `{"version", "python", "home", "home_from", "environment": {name: value}}`.
    """
    from nemorun_core import __version__

    chosen = "--base-dir" if base_dir else "NEMORUN_HOME" if os.environ.get("NEMORUN_HOME") else "default"
    names = [name for name in sorted(os.environ) if name.startswith("NEMORUN_") or name == "NO_COLOR"]
    shown: dict[str, object] = {
        "version": __version__,
        "python": sys.executable,
        "home": os.path.dirname(home_of(base_dir).path),
        "home_from": chosen,
        "environment": {name: os.environ[name] for name in names},
    }
    if as_json:
        emit(shown)
        return
    click.echo(f"version  {shown['version']}\npython   {shown['python']}\nhome     {shown['home']} ({chosen})")
    for name in names:
        click.echo(f"{name}={os.environ[name]}")


@click.command(cls=Command)
@json_option
@base_dir_option
def doctor(as_json: bool, base_dir: str | None) -> int:
    """Check the records, the plugins and the schedulers.

    Says whether the folder can be written, each plugin loads, and the scheduler of each executor answers. The exit code
    is 0 or that of the worst finding: 3 a scheduler, 4 a plugin, 5 the folder.

    JSON: `[{"what", "ok", "code", "found", "next"}]`.
    """
    from nemorun_core.experiment.checkup import findings_of
    from nemorun_core.registry import default_registry

    findings = findings_of(home_of(base_dir), default_registry())
    if as_json:
        emit(findings)
    else:
        for finding in findings:
            click.echo(f"{'ok  ' if finding['ok'] else 'FAIL'}  {finding['what']}: {finding['found']}")
            if finding["next"]:
                click.echo(f"      {finding['next']}")
    return max(finding["code"] for finding in findings)


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what completes words in a shell.

    Commands, options, experiment ids and job names. For bash, add to ~/.bashrc: eval "$(nemorun completion bash)"; for
    zsh the same in ~/.zshrc; for fish, put it into ~/.config/fish/completions/nemorun.fish.
    """
    from click.shell_completion import get_completion_class

    from nemorun_core._cli.main import cli

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(cli, {}, "nemorun", "_NEMORUN_COMPLETE").source())
