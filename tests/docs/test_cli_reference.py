"""docs/reference/cli.md says what the commands say, and shows each of them; its examples run with all pages."""

from __future__ import annotations

import re

import click
import pytest

from tests.cli.reference import MARK, PAGE, commands, page

COMMANDS = dict(commands())


def test_the_page_is_what_the_commands_say():
    assert PAGE.read_text() == page(), "python -m tests.cli.reference writes it anew"


@pytest.mark.parametrize("path", [path for path, command in COMMANDS.items() if not isinstance(command, click.Group)])
def test_the_examples_show_the_command(path):
    examples = re.findall(r"^```(?:sh|console)\n(.*?)^```", PAGE.read_text().partition(MARK)[0], re.M | re.S)
    assert re.search(rf"{path}\b", "".join(examples))


@pytest.mark.parametrize("path", COMMANDS)
def test_everything_a_command_takes_is_described(path):
    command = COMMANDS[path]
    assert command.help
    assert len(command.help.splitlines()[0]) < 70, "its first line stands in the list of commands"
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, option.name
            assert option.metavar or option.is_flag or option.count or not option.expose_value, option.name


@pytest.mark.parametrize("path", [path for path, one in COMMANDS.items() if "as_json" in {p.name for p in one.params}])
def test_every_json_shape_is_documented(path):
    assert "JSON" in str(COMMANDS[path].help)
