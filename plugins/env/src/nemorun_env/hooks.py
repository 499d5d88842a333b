"""Applies the table `[env]` of the nearest `nemorun.toml` to every job; a job's own variables win."""

from __future__ import annotations

import os
import sys

from nemorun_core import PreparedJob, UsageError, hookimpl

__all__ = ["nearest_variables", "nemorun_prepare_job"]

_FILE = "nemorun.toml"


def nearest_variables(folder: str) -> dict[str, str]:
    """Return the table `[env]` of the nearest `nemorun.toml` in `folder` or above it; empty where there is none.

    Raises:
        UsageError: the file cannot be read, or a value is no text.
    """
    path = _nearest(folder)
    if path is None:
        return {}
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        with open(path, encoding="utf-8") as stream:
            table = tomllib.loads(stream.read()).get("env", {})
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}.", hint="Mend it, or remove it.") from None
    if not isinstance(table, dict):
        raise UsageError(f"{path}: 'env' is no table.", hint="Write [env] on a line of its own.")
    for name, value in table.items():
        if not isinstance(value, str):
            raise UsageError(f"{path}: env.{name} is {value!r}, and must be text.", hint=f'Write {name} = "{value}".')
    return dict(table)


def _nearest(folder: str) -> str | None:
    while True:
        path = os.path.join(folder, _FILE)
        if os.path.isfile(path):
            return path
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent


@hookimpl
def nemorun_prepare_job(job: PreparedJob) -> None:
    """Add the variables that the job does not set itself."""
    variables = nearest_variables(os.getcwd())
    for executor in job.executors:
        executor.env_vars = {**variables, **executor.env_vars}
