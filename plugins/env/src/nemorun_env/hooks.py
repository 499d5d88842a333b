"""Applies the table `[env]` of the nearest `nemorun.toml` to every job; a job's own variables win."""

from __future__ import annotations

import sys
from pathlib import Path

from nemorun_core import PreparedJob, UsageError, hookimpl

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["nearest_variables", "nemorun_prepare_job"]

_FILE = "nemorun.toml"


def nearest_variables(folder: Path) -> dict[str, str]:
    """Return the table `[env]` of the nearest `nemorun.toml` in `folder` or above it; empty where there is none.

    Raises:
        UsageError: the file cannot be read, or a value is no text.
    """
    path = next((parent / _FILE for parent in (folder, *folder.parents) if (parent / _FILE).is_file()), None)
    if path is None:
        return {}
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("env", {})
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}.", hint="Mend it, or remove it.") from None
    if not isinstance(table, dict):
        raise UsageError(f"{path}: 'env' is no table.", hint="Write [env] on a line of its own.")
    for name, value in table.items():
        if not isinstance(value, str):
            raise UsageError(f"{path}: env.{name} is {value!r}, and must be text.", hint=f'Write {name} = "{value}".')
    return dict(table)


@hookimpl
def nemorun_prepare_job(job: PreparedJob) -> None:
    """Add the variables that the job does not set itself."""
    variables = nearest_variables(Path.cwd())
    for executor in job.executors:
        executor.env_vars = {**variables, **executor.env_vars}
