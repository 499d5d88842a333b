"""A secret by reference: records hold where it comes from, never what it is."""

from __future__ import annotations

import os
from typing import Literal

import attrs

from nemorun_core.errors import UsageError

__all__ = ["Secret"]


@attrs.frozen
class Secret:
    """An environment value that is read where the driver runs, at each submission, and written to no record.

    Make one with `Secret.from_env("HF_TOKEN")` or `Secret.from_file("~/.netrc-token")`.
    """

    source: Literal["env", "file"]
    name: str

    @classmethod
    def from_env(cls, name: str) -> Secret:
        """Refer to the environment variable `name` of the process that submits."""
        return cls("env", name)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Secret:
        """Refer to the text of a file on the machine that submits; one newline at its end is dropped."""
        return cls("file", os.fspath(path))

    def reveal(self) -> str:
        """Return the secret itself. Only the code that hands it to the program calls this.

        Raises:
            UsageError: the variable is not set, or the file cannot be read, in this process.
        """
        if self.source == "env":
            value = os.environ.get(self.name)
            if value is None:
                raise UsageError(
                    f"the secret {self} is not set in this process's environment.",
                    hint=f"Set it, without writing it into a script: read -rs {self.name}; export {self.name}",
                )
            return value
        try:
            with open(os.path.expanduser(self.name), encoding="utf-8") as stream:
                return stream.read().removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise UsageError(
                f"the secret {self} cannot be read: {cause}.", hint="Check the path and its permissions."
            ) from None

    def __str__(self) -> str:
        return f"Secret.from_{self.source}({self.name!r})"
