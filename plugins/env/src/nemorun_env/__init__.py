"""Environment variables for jobs: a plugin for `plugins=[...]`, and a hook that reads `nemorun.toml`."""

from nemorun_env.variables import EnvVars

__all__ = ["EnvVars"]
