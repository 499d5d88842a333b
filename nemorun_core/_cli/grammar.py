"""Groups whose commands are imported when used, commands of plugins among them, and what all commands share."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from nemorun_core.errors import Defect, UsageError

__all__ = ["Command", "Group", "base_dir_option", "json_option", "plugin_commands"]

F = TypeVar("F", bound=Callable[..., Any])

_SWITCH = "NEMORUN_PLUGINS_DISABLE"


def _set_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and isinstance(state := ctx.find_root().obj, dict):
        state["debug"] = True


def _set_safe(_: click.Context, __: click.Parameter, value: bool) -> None:
    if value:
        os.environ[_SWITCH] = "*"


def shared_options(*, hidden: bool) -> list[click.Parameter]:
    """Return the options that every command takes, wherever they stand on the line; shown by the root's help only."""
    return [
        click.Option(
            ["--debug"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_set_debug,
            hidden=hidden,
            help="Show the traceback of an error.",
        ),
        click.Option(
            ["--safe-mode"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_set_safe,
            hidden=hidden,
            help="Switch the hooks and commands of plugins off, as NEMORUN_PLUGINS_DISABLE=* does.",
        ),
    ]


class Command(click.Command):
    """A command with the shared options. What it returns, where that is a number, is the exit code."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(shared_options(hidden=True))


class Group(click.Group):
    """A group that imports a command when it is used.

    Args:
        commands_of: command name to `module:attribute`, in the order in which help lists them.
        path: how plugins name this group: their entry points are called `<path> <command>`.
    """

    def __init__(self, *args: Any, commands_of: dict[str, str], path: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(shared_options(hidden=bool(path)))
        self._commands_of = commands_of
        self._path = path

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ([] if ctx.resilient_parsing else ["--help"]))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self._commands_of, *sorted(set(plugin_commands(self._path)) - set(self._commands_of))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self._commands_of:
            module, _, attribute = self._commands_of[cmd_name].partition(":")
            command = getattr(importlib.import_module(f"nemorun_core._cli.{module}"), attribute)
            assert isinstance(command, click.Command)
            return command
        found = plugin_commands(self._path).get(cmd_name)
        return _PluginCommand(cmd_name, found) if found else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            raise UsageError(f"there is no command `{ctx.command_path} {name}`.", hint=self._suggestion(ctx, name))
        return super().resolve_command(ctx, args)

    def _suggestion(self, ctx: click.Context, name: str) -> str:
        import difflib

        known = self.list_commands(ctx)
        for group in () if self._path else ("experiment", "plugins"):
            inner = self.get_command(ctx, group)
            if isinstance(inner, click.Group) and name in inner.list_commands(ctx):
                return f"Did you mean `nemorun {group} {name}`?"
        near = difflib.get_close_matches(name, known, n=1)
        return f"Did you mean `{ctx.command_path} {near[0]}`?" if near else f"Its commands: {', '.join(known)}."


class _PluginCommand(click.Command):
    """A command of an installed plugin: listed by its distribution, imported when it is invoked."""

    def __init__(self, name: str, found: Sequence[tuple[str, str]]) -> None:
        self._found = found
        self._whose = " and ".join(distribution for _, distribution in found)
        super().__init__(name, help=f"Comes with {self._whose}.")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.args = list(args)  # all of it is the plugin's to read
        return []

    def invoke(self, ctx: click.Context) -> object:
        if len(self._found) > 1:
            raise UsageError(
                f"the command {self.name!r} is brought by {self._whose}.",
                hint=f"Uninstall one of them: pip uninstall {self._found[1][1].split()[0]}",
            )
        from nemorun_core.registry import Found, import_found

        value, distribution = self._found[0]
        command = import_found(Found(name=str(self.name), value=value, distribution=distribution))
        if not isinstance(command, click.Command):
            raise Defect(f"{value} of {distribution} is no click command.", distribution=distribution)
        with command.make_context(self.name, [*ctx.args], parent=ctx.parent) as inner:
            return command.invoke(inner)


def plugin_commands(path: str) -> dict[str, list[tuple[str, str]]]:
    """Return the commands that plugins add to the group `path`: name to places, each `module:attribute` and
    distribution. Nothing is imported."""
    if "*" in os.environ.get(_SWITCH, "").split(","):
        return {}
    depth = len(path.split())
    found: dict[str, list[tuple[str, str]]] = {}
    for full, places in _entry_points().items():
        words = full.split()
        if words[:depth] == path.split() and len(words) == depth + 1:
            found[words[-1]] = places
    return found


@functools.cache
def _entry_points() -> dict[str, list[tuple[str, str]]]:
    """Read the group `nemorun.commands` out of the metadata of what is installed.

    By hand, since importing importlib.metadata alone takes four times as long as starting Python.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    seen = set()
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            if not name.endswith(".dist-info"):
                continue
            distribution, _, version = name.removesuffix(".dist-info").partition("-")
            if distribution in seen:  # the first on the import path is the one that is imported
                continue
            seen.add(distribution)
            try:
                with open(os.path.join(folder, name, "entry_points.txt"), encoding="utf-8") as stream:
                    text = stream.read()
            except (OSError, UnicodeDecodeError):
                continue
            if "[nemorun.commands]" not in text:
                continue
            section = ""
            for line in map(str.strip, text.splitlines()):
                if line.startswith("["):
                    section = line
                elif section == "[nemorun.commands]" and "=" in line and not line.startswith("#"):
                    left, _, right = line.partition("=")
                    place = (right.split("[")[0].strip(), f"{distribution.replace('_', '-')} {version}")
                    found.setdefault(" ".join(left.split()), []).append(place)
    return found


def base_dir_option(function: F) -> F:
    """Add `--base-dir`."""
    return click.option(
        "--base-dir",
        metavar="FOLDER",
        type=click.Path(file_okay=False),
        help="Folder of the records, instead of $NEMORUN_HOME or ~/.nemo_run.",
    )(function)


def json_option(function: F) -> F:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(function)
