"""What an executor's fields become in a request: the engine's `HostConfig` and what stands beside it. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from nemorun_core import UsageError

if TYPE_CHECKING:
    from nemorun_docker.executor import DockerExecutor

__all__ = ["Volume", "config", "host_config", "size_bytes", "visible", "volume"]

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE)
_MODES = {"ro", "rw", "z", "Z", "cached", "consistent", "delegated", "nocopy"}
_PROPAGATIONS = {"private", "rprivate", "shared", "rshared", "slave", "rslave"}
_ULIMIT = re.compile(r"([a-z]+)[=:](-1|\d+)(?::(-1|\d+))?")
_DEVICE = re.compile(r"(/[^:]+)(?::(/[^:]+))?(?::([rwm]+))?")
# Options of docker-py's `containers.create` by their names in the engine's API, whose values pass as they are.
_IN_HOST_CONFIG = {
    "blkio_weight": "BlkioWeight",
    "cap_add": "CapAdd",
    "cap_drop": "CapDrop",
    "cgroup_parent": "CgroupParent",
    "cpu_shares": "CpuShares",
    "cpuset_cpus": "CpusetCpus",
    "cpuset_mems": "CpusetMems",
    "device_cgroup_rules": "DeviceCgroupRules",
    "dns": "Dns",
    "dns_opt": "DnsOptions",
    "dns_search": "DnsSearch",
    "group_add": "GroupAdd",
    "init": "Init",
    "mem_swappiness": "MemorySwappiness",
    "oom_score_adj": "OomScoreAdj",
    "pid_mode": "PidMode",
    "pids_limit": "PidsLimit",
    "read_only": "ReadonlyRootfs",
    "security_opt": "SecurityOpt",
    "storage_opt": "StorageOpt",
    "sysctls": "Sysctls",
    "tmpfs": "Tmpfs",
    "userns_mode": "UsernsMode",
    "uts_mode": "UTSMode",
}
_IN_CONFIG = {"domainname": "Domainname", "hostname": "Hostname", "working_dir": "WorkingDir"}
_SIZES = {"mem_reservation": "MemoryReservation", "memswap_limit": "MemorySwap"}
_OURS = {
    "auto_remove": "the container is removed by nemorun: see `keep`",
    "command": "it is the task",
    "cpu_period": "use cpus",
    "cpu_quota": "use cpus",
    "detach": "see `Experiment.run(detach=True)`",
    "device_requests": "use gpus",
    "environment": "use env_vars",
    "image": "use container_image",
    "mem_limit": "use memory",
    "mounts": "use volumes",
    "name": "it is how nemorun finds the job again",
    "nano_cpus": "use cpus",
    "network_mode": "use network",
    "remove": "the container is removed by nemorun: see `keep`",
    "restart_policy": "a program starts once; use retries",
    "stdin_open": "a job has no input",
    "stop_signal": "a job is sent TERM",
    "tty": "a job has no terminal",
    "volumes_from": "use volumes",
}
_HEALTHCHECK = {
    "interval": "Interval",
    "retries": "Retries",
    "start_period": "StartPeriod",
    "test": "Test",
    "timeout": "Timeout",
}


class Volume(NamedTuple):
    """One entry of `volumes`. `source` is an absolute path of this machine, or the name of a volume."""

    source: str
    target: str
    options: tuple[str, ...] = ()

    @property
    def is_path(self) -> bool:
        return self.source.startswith("/")


def volume(text: str) -> Volume:
    """Read one entry of `volumes`. Raises UsageError."""
    parts = text.split(":") if isinstance(text, str) else []
    options = tuple(parts[2].split(",")) if len(parts) == 3 else ()
    wrong = [option for option in options if option not in _MODES | _PROPAGATIONS]
    if len(parts) not in (2, 3) or not parts[0] or not parts[1].startswith("/") or wrong:
        raise _refused("volumes", text, "'SOURCE:/TARGET' or 'SOURCE:/TARGET:ro'")
    return Volume(parts[0], parts[1], options)


def visible(folder: str, volumes: Sequence[str]) -> bool:
    """Whether a folder of this machine is seen in the container under the same path."""
    found = [one for one in map(volume, volumes) if one.is_path and one.source == os.path.normpath(one.target)]
    return any(os.path.commonpath([one.source, folder]) == one.source for one in found)


def size_bytes(text: str, field: str) -> int:
    """Read a size as docker-run(1) takes it. Raises UsageError."""
    found = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if found is None or float(found[1]) == 0:
        raise _refused(field, text, "bytes, or a size as '512m' or '2g'")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def host_config(executor: DockerExecutor) -> dict[str, Any]:
    """Return the engine's `HostConfig`, without mounts and network. Raises UsageError for what makes no sense."""
    made: dict[str, Any] = {"RestartPolicy": {"Name": "no"}, "AutoRemove": False}
    made["Binds"] = [":".join((*entry[:2], *filter(None, [",".join(entry.options)]))) for entry in _volumes(executor)]
    if requests := _gpus(executor):
        made["DeviceRequests"] = requests
    if executor.cpus is not None:
        if isinstance(executor.cpus, bool) or not isinstance(executor.cpus, (int, float)) or not executor.cpus >= 0.01:
            raise _refused("cpus", executor.cpus, "a number of processors, 0.01 or more")
        made["NanoCpus"] = round(executor.cpus * 1e9)
    for field, name in (("memory", "Memory"), ("shm_size", "ShmSize")):
        if (value := getattr(executor, field)) is not None:
            made[name] = size_bytes(value, field)
    if executor.ulimits:
        made["Ulimits"] = [_ulimit(text) for text in executor.ulimits]
    for field, name in (("ipc_mode", "IpcMode"), ("runtime", "Runtime"), ("network", "NetworkMode")):
        value = getattr(executor, field)
        if value is not None and (not isinstance(value, str) or not value or value.split() != [value]):
            raise _refused(field, value, "a name")
        if value is not None:
            made[name] = value
    if executor.privileged:
        made["Privileged"] = True
    _add(executor.additional_kwargs, made)
    config(executor)
    return made


def config(executor: DockerExecutor) -> dict[str, Any]:
    """Return what stands beside `HostConfig`: user, health check, names. Raises UsageError."""
    made: dict[str, Any] = {}
    if executor.user is not None:
        if not isinstance(executor.user, str) or not re.fullmatch(r"[\w.-]+(:[\w.-]+)?", executor.user):
            raise _refused("user", executor.user, "'USER', 'UID' or 'UID:GID'")
        made["User"] = executor.user
    if executor.healthcheck:
        if unknown := set(executor.healthcheck) - set(_HEALTHCHECK):
            raise _refused("healthcheck", sorted(unknown), f"keys among {', '.join(_HEALTHCHECK)}")
        made["Healthcheck"] = {_HEALTHCHECK[name]: value for name, value in executor.healthcheck.items()}
        if isinstance(made["Healthcheck"].get("Test"), str):
            made["Healthcheck"]["Test"] = ["CMD-SHELL", made["Healthcheck"]["Test"]]
    for name in _IN_CONFIG.keys() & executor.additional_kwargs.keys():
        made[_IN_CONFIG[name]] = executor.additional_kwargs[name]
    made["Labels"] = {str(name): str(value) for name, value in executor.additional_kwargs.get("labels", {}).items()}
    if ours := [name for name in made["Labels"] if name.startswith("nemorun.")]:
        raise _refused("additional_kwargs", {"labels": ours}, "names that do not begin with 'nemorun.'")
    if ports := executor.additional_kwargs.get("ports"):
        made["ExposedPorts"] = {_port(inside): {} for inside in ports}
    return made


def _add(extra: Mapping[str, Any], made: dict[str, Any]) -> None:
    """Add what `additional_kwargs` say to a `HostConfig`."""
    known = {*_IN_HOST_CONFIG, *_IN_CONFIG, *_SIZES, "devices", "extra_hosts", "labels", "log_config", "ports"}
    for name, value in extra.items():
        if name in _IN_HOST_CONFIG:
            made[_IN_HOST_CONFIG[name]] = value
        elif name in _SIZES:
            made[_SIZES[name]] = -1 if value == -1 else size_bytes(str(value), f"additional_kwargs[{name!r}]")
        elif name == "devices":
            made["Devices"] = [_device(text) for text in value]
        elif name == "extra_hosts":
            made["ExtraHosts"] = [f"{host}:{address}" for host, address in dict(value).items()]
        elif name == "log_config":
            made["LogConfig"] = value
        elif name == "ports":
            made["PortBindings"] = {_port(inside): _bindings(outside) for inside, outside in value.items()}
        elif name not in known:
            import difflib

            near = difflib.get_close_matches(str(name), known, n=1)
            why = _OURS.get(name) or (f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}")
            raise UsageError(f"DockerExecutor(additional_kwargs=...): {name!r} cannot be given: {why}.")


def _volumes(executor: DockerExecutor) -> list[Volume]:
    if not isinstance(executor.volumes, (list, tuple)):
        raise _refused("volumes", executor.volumes, "a list")
    return [volume(text) for text in executor.volumes]


def _gpus(executor: DockerExecutor) -> list[dict[str, Any]]:
    wanted = executor.gpus
    if executor.num_gpus is not None:
        if wanted is not None:
            raise _refused("num_gpus", executor.num_gpus, "either gpus or num_gpus")
        if type(executor.num_gpus) is not int or executor.num_gpus < 0:
            raise _refused("num_gpus", executor.num_gpus, "a whole number, 0 or more")
        wanted = str(executor.num_gpus)
    if wanted in (None, "0"):
        return []
    request: dict[str, Any] = {"Driver": "", "Capabilities": [["gpu"]]}
    if wanted == "all":
        return [{**request, "Count": -1}]
    if isinstance(wanted, str) and wanted.isdecimal():
        return [{**request, "Count": int(wanted)}]
    if isinstance(wanted, str) and wanted.startswith("device=") and all(devices := wanted[7:].split(",")):
        return [{**request, "DeviceIDs": devices}]
    raise _refused("gpus", wanted, "'all', a whole number, or 'device=0,1'")


def _ulimit(text: str) -> dict[str, Any]:
    found = _ULIMIT.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise _refused("ulimits", text, "'NAME=SOFT' or 'NAME=SOFT:HARD', as 'memlock=-1'")
    return {"Name": found[1], "Soft": int(found[2]), "Hard": int(found[3] or found[2])}


def _device(text: str) -> dict[str, str]:
    found = _DEVICE.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise _refused("additional_kwargs", {"devices": text}, "'/dev/here:/dev/there:rwm'")
    return {"PathOnHost": found[1], "PathInContainer": found[2] or found[1], "CgroupPermissions": found[3] or "rwm"}


def _port(inside: object) -> str:
    return f"{inside}" if "/" in str(inside) else f"{inside}/tcp"


def _bindings(outside: object) -> list[dict[str, str]]:
    """Return where a port is published: a port, (address, port), a list of these, or None for any port."""
    if isinstance(outside, list):
        return [one for each in outside for one in _bindings(each)]
    address, port = outside if isinstance(outside, tuple) else ("", outside)
    return [{"HostIp": address, "HostPort": "" if port is None else str(port)}]


def _refused(field: str, found: object, expected: str) -> UsageError:
    return UsageError(f"DockerExecutor({field}={found!r}): expected {expected}.")
