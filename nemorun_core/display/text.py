"""Words for people: how to go on with an experiment, in Python and in the shell."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

__all__ = ["farewell", "shell_command"]


def shell_command(name: str, experiment_id: str, base_dir: str | os.PathLike[str] | None = None) -> str:
    """Return a line that works when pasted into a shell."""
    parts = ["nemorun", "experiment", name, experiment_id]
    if base_dir is not None:
        parts += ["--base-dir", os.fspath(base_dir)]
    return " ".join(map(shlex.quote, parts))


def farewell(experiment_id: str, jobs: Sequence[str], base_dir: str | os.PathLike[str] | None = None) -> str:
    """Return how to look at an experiment later, as the guide shows it; every line works when pasted."""
    first = jobs[0]
    where = f", base_dir={os.fspath(base_dir)!r}" if base_dir is not None else ""
    listed = repr(list(jobs)) if len(jobs) <= 20 else f"{list(jobs[:20])!r} and {len(jobs) - 20} more"
    python = [
        f"# The experiment was run with the following tasks: {listed}",
        "# You can inspect and reconstruct this experiment at a later point in time using:",
        "import nemorun_core as run",
        f"experiment = run.Experiment.from_id({experiment_id!r}{where})",
        "experiment.status()  # Gets the overall status",
        f"experiment.logs({first!r})  # Gets the log for the provided task",
        f"experiment.cancel({first!r})  # Cancels the provided task if still running",
    ]
    shell = [
        "# You can inspect this experiment at a later point in time using the CLI as well:",
        shell_command("status", experiment_id, base_dir),
        _with_job("logs", experiment_id, base_dir),
        _with_job("cancel", experiment_id, base_dir),
    ]
    return "\n".join(["", *python, "", *shell])


def _with_job(name: str, experiment_id: str, base_dir: str | os.PathLike[str] | None) -> str:
    return f"{shell_command(name, experiment_id, base_dir)} 0"
