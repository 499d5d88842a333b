"""Write the generated part of docs/reference/cli.md out of the commands themselves: `python -m tests.cli.reference`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from nemorun_core._cli.main import cli

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"
MARK = "<!-- From here on written by `python -m tests.cli.reference`, out of the commands. -->\n"


def commands(command: click.Command = cli, path: tuple[str, ...] = ("nemorun",)) -> Iterator[tuple[str, click.Command]]:
    """Yield every command of ours with its path, groups before what is in them."""
    yield " ".join(path), command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path[-1])
        for name in command._commands_of:  # type: ignore[attr-defined]  # our own groups; without those of plugins
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, (*path, name))


def generated() -> str:
    """Return the generated part."""
    parts = [MARK]
    for path, command in commands():
        context = click.Context(command, info_name=path)
        usage = " ".join(command.collect_usage_pieces(context))
        parts.append(f"\n## {path}\n\n`{path} {usage}`\n\n{inspect.cleandoc(command.help or '')}\n")
        rows = [
            (", ".join(option.opts), option.metavar, option.help)
            for option in command.params
            if isinstance(option, click.Option) and not option.hidden
        ]
        if rows:
            parts.append("\n| option | |\n|---|---|\n")
        for names, metavar, text in rows:
            shown = f"{names} {metavar}" if metavar else names
            escaped = (text or "").replace("|", "\\|")
            parts.append(f"| `{shown}` | {escaped} |\n")
    return "".join(parts)


def page() -> str:
    """Return the page with its generated part renewed; what people wrote above it is kept."""
    return PAGE.read_text().partition(MARK)[0] + generated()


if __name__ == "__main__":
    PAGE.write_text(page())
