"""The entry of the command `nemorun`: its groups, and what every error becomes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from nemorun_core import __version__
from nemorun_core._cli.grammar import Group
from nemorun_core.errors import Defect, ExperimentFailed, NemorunError, StoreError, TransientError

__all__ = ["cli", "main"]

_COMPLETE = "_NEMORUN_COMPLETE"
_CODES: tuple[tuple[type[NemorunError], int], ...] = (
    (ExperimentFailed, 1),
    (TransientError, 3),
    (Defect, 4),
    (StoreError, 5),
    (NemorunError, 2),
)
_INTERRUPTED = 130


@click.group(
    cls=Group,
    commands_of={
        "experiment": "experiment:experiment",
        "run": "run:run",
        "plugins": "system:plugins",
        "config": "system:config",
        "doctor": "system:doctor",
        "completion": "system:completion",
    },
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="nemorun", message="%(prog)s %(version)s")
def cli() -> None:
    """Launch machine-learning experiments, and know what became of them.

    Data goes to standard output, words to standard error. Exit codes: 0 done, 1 a job failed, 2 usage, 3 a scheduler
    does not answer, 4 a plugin fails, 5 the records cannot be read or written, 124 time-out, 130 interrupted.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default this process's, and return the exit code. Never raises what a user can cause."""
    # None where the caller has closed it; what stands in is open as long as the process.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
    if instruction := os.environ.get(_COMPLETE):
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, "nemorun", _COMPLETE, instruction)
    state = {"debug": False}
    try:
        with cli.make_context("nemorun", list(sys.argv[1:] if argv is None else argv), obj=state) as ctx:
            result = cli.invoke(ctx)
        sys.stdout.flush()
        return result if type(result) is int else 0
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except BrokenPipeError:  # nobody reads any more: nothing is left to say
        _drop_output()
        return 0
    except BaseException as error:
        code = _code(error)
        if code is None:
            raise
        if state["debug"] and code != _INTERRUPTED:
            import traceback

            traceback.print_exc()
        _say(error)
        if isinstance(error, OSError):
            _drop_output()
        return code


def _drop_output() -> None:
    """Throw away what standard output holds and cannot write: Python would fail for it when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _code(error: BaseException) -> int | None:
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return _INTERRUPTED
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    if isinstance(error, click.ClickException):
        return 2
    if isinstance(error, OSError):
        return 5
    return 4 if isinstance(error, Exception) else None


def _say(error: BaseException) -> None:
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        text = ""
    elif isinstance(error, NemorunError):
        text = str(error)
    elif isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx else "nemorun"
        quote = "Quote what holds spaces, and see" if "unexpected extra argument" in error.format_message() else "See"
        text = f"{error.format_message()}\n  {quote} `{where} --help`."
    elif isinstance(error, click.ClickException):
        text = error.format_message()
    elif isinstance(error, OSError):
        text = (
            f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}\n  Mend that, and try again."
        )
    else:
        text = (
            f"nemorun broke: {type(error).__name__}: {error}\n"
            "  Please report it, with what the same command says with --debug."
        )
    click.echo(f"Error: {text}" if text else "", err=True)
