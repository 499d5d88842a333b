"""`DockerExecutor`."""

from __future__ import annotations

import attrs

from nemorun_core import Executor

__all__ = ["DockerExecutor"]


@attrs.define(kw_only=True)
class DockerExecutor(Executor):
    """Jobs as containers of a Docker engine on this machine."""
