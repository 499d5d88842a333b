"""Checks on what is handed to programs: environment names and values, and strings that no program can receive."""

from __future__ import annotations

from collections.abc import Mapping

from nemorun_core.errors import UsageError
from nemorun_core.model.secret import Secret

__all__ = ["check_environment", "check_text"]

_OURS = "NEMORUN_"


def check_text(text: object, where: str) -> None:
    """Refuse what no program can be given: other types than str, and NUL (execve(2)).

    Raises:
        UsageError: with `where` in it.
    """
    if not isinstance(text, str):
        raise UsageError(f"{where}: expected text, found {type(text).__name__} {text!r}.", hint="Write it as a string.")
    if "\0" in text:
        raise UsageError(f"{where}: holds a NUL character, which no program can receive.", hint="Take it out.")


def check_environment(environment: Mapping[str, str | Secret], where: str) -> None:
    """Refuse names that a shell cannot hold (POSIX XBD 8.1), names that are ours, and values that are not text.

    Raises:
        UsageError: with `where` and the variable's name in it.
    """
    if not isinstance(environment, Mapping):
        raise UsageError(f"{where}: expected a dict of names to text, found {type(environment).__name__}.")
    for name, value in environment.items():
        if not isinstance(name, str) or not (name.isascii() and name.isidentifier()):
            raise UsageError(
                f"{where}: {name!r} is no name of an environment variable.",
                hint="Use letters, digits and '_', not beginning with a digit.",
            )
        if name.startswith(_OURS):
            raise UsageError(f"{where}: {name} is set by nemorun itself.", hint="Choose another name.")
        if not isinstance(value, Secret):
            check_text(value, f"{where}[{name!r}]")
