"""Where the command begins: an interrupt while it is still being loaded ends it without a word, as any program."""

import signal

__all__ = ["main"]


def main() -> int:
    """Load the command line, then run it; returns its exit code."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from nemorun_core._cli.main import main as command

    signal.signal(signal.SIGINT, before)
    return command()
