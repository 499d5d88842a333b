"""Jobs as containers of a Docker engine on this machine."""

from nemorun_docker.executor import DockerExecutor

__all__ = ["DockerExecutor"]
