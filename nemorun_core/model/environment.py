"""Checks on what is handed to programs: environment names and values, and strings that no program can receive."""

from __future__ import annotations

from collections.abc import Mapping

from nemorun_core.errors import UsageError
from nemorun_core.model.secret import Secret

__all__ = ["check_environment", "check_text"]

_OURS = "NEMORUN_"
_SHELLS_OWN = frozenset({"IFS", "OLDPWD", "OPTIND", "PPID", "PWD"})


def check_text(text: object, where: str) -> str:
    """Return text that a program can be given (execve(2)).

    Raises:
        UsageError: another type than str, NUL, or a surrogate that stands for no byte; with `where` in it.
    """
    if not isinstance(text, str):
        raise UsageError(f"{where}: expected text, found {type(text).__name__} {text!r}.", hint="Write it as a string.")
    if "\0" in text:
        raise UsageError(f"{where} holds a NUL character, which no program can be passed.", hint="Take it out.")
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise UsageError(
            f"{where} holds a lone surrogate, which no program can be passed.", hint="Take it out."
        ) from None
    return text


def check_environment(environment: object, where: str) -> None:
    """Refuse names that a shell cannot hold or sets itself (POSIX XBD 8.1, XCU 2.5.3), names that are ours, and values
    that no program can be given: a shell starts every program, and would drop or change them.

    Raises:
        UsageError: with `where` and the variable's name in it.
    """
    if not isinstance(environment, Mapping):
        raise UsageError(
            f"{where}: expected a dict of names to text, found {type(environment).__name__}.",
            hint="Write {'NAME': 'value'}.",
        )
    for name, value in environment.items():
        if not isinstance(name, str) or not (name.isascii() and name.isidentifier()):
            raise UsageError(
                f"{where}: {name!r} is no name of an environment variable.",
                hint="Use letters, digits and '_', not beginning with a digit.",
            )
        if name.startswith(_OURS) or name in _SHELLS_OWN:
            whom = "nemorun" if name.startswith(_OURS) else "the shell"
            raise UsageError(f"{where}: {name} is set by {whom} itself.", hint="Choose another name.")
        if not isinstance(value, Secret):
            check_text(value, f"{where}[{name!r}]")
