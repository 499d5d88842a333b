"""Jobs as processes of this machine."""

from nemorun_local.executor import LocalExecutor

__all__ = ["LocalExecutor"]
