"""The bodies of the requests that make a job: containers and network. Pure: what is rendered is what is sent."""

from __future__ import annotations

import os
import string
from typing import Any

from nemorun_core import Key, Secret, Submission, UsageError, base_path, boot_id, hostname, shim_argv
from nemorun_docker.executor import DockerExecutor
from nemorun_docker.options import config, host_config, visible

__all__ = [
    "KEY",
    "MEMBER",
    "NONCE",
    "container_body",
    "container_name",
    "has_own_network",
    "mounted_folders",
    "network_body",
    "working_folder",
]

KEY, NONCE, MEMBER = "nemorun.key", "nemorun.nonce", "nemorun.member"
_LOCALHOST = "127.0.0.1"
_PORT = 29500
_PORTS = range(20000, 30000)  # below those that the kernel gives away by itself (ip(7), ip_local_port_range)
_HOSTS_ALPHABET = string.ascii_lowercase + string.digits + "-"
_LONGEST_NAME = 63
_LONGEST_TEXT_BYTES = 128 * 1024
_SECRETS = "/run/nemorun-secrets"
# One process, which becomes the shim, whose path is its $0: it reads the secrets into its environment first. Bash is
# told not to be in its POSIX mode, where a signal that arrives during `wait` is lost.
_PRELUDE = (
    '[ -z "$BASH_VERSION" ] || set +o posix; NEMORUN_secrets=$1; shift; '
    '[ -z "$NEMORUN_secrets" ] || . "$NEMORUN_secrets"; . "$0"'
)


def executor_of(job: Submission, index: int) -> DockerExecutor:
    """Return the executor of a member."""
    executor = job.executors[index]
    assert isinstance(executor, DockerExecutor)
    return executor


def container_name(key: Key, index: int, members: int) -> str:
    """Return the name of a member's container: the slug of its key; in a group one that is a host's name, too."""
    if members == 1:
        return key.slug(_LONGEST_NAME)
    ending = f"-{index}"
    return key.slug(_LONGEST_NAME - len(ending), _HOSTS_ALPHABET) + ending


def has_own_network(job: Submission) -> bool:
    """Whether a job is a group whose members meet on a network of their own."""
    return len(job.members) > 1 and executor_of(job, 0).network is None


def network_body(key: Key) -> dict[str, Any]:
    """Return the body of `POST /networks/create` for a group."""
    return {"Name": key.slug(_LONGEST_NAME), "CheckDuplicate": True, "Labels": {KEY: str(key), NONCE: key.nonce}}


def working_folder(job: Submission, index: int) -> str:
    """Return where a member runs: its bundle, or the folder of the launch where a volume shows it under the same path;
    else ".", the folder that the image, or `working_dir`, says."""
    cwd = job.members[index].cwd
    if job.bundles and job.bundles[index]:
        return cwd
    executor = executor_of(job, index)
    shown = "working_dir" not in executor.additional_kwargs and visible(cwd, executor.volumes)
    return cwd if shown else "."


def mounted_folders(job: Submission, index: int) -> dict[str, bool]:
    """Return the folders of this machine that a member needs under the same paths, and whether it may write there."""
    objects = os.path.join(os.path.dirname(job.support), "objects")
    folders = {job.folder: True, job.support: False}
    if any(objects in argument for argument in job.members[index].argv):
        folders[objects] = False
    if job.bundles and job.bundles[index]:
        folders[job.members[index].cwd] = True
    return folders


def container_body(job: Submission, index: int, secrets: str, network: str) -> dict[str, Any]:
    """Return the body of `POST /containers/create` for a member.

    Args:
        secrets: the file with the values of its secrets; "" where it has none.
        network: the group's own network; "" where it has none.

    Raises:
        UsageError: an option that makes no sense, or an argument that no program can be given.
    """
    executor, member = executor_of(job, index), job.members[index]
    where = working_folder(job, index)
    if executor.outputs and where == ".":
        raise UsageError(
            "outputs are declared, and the job runs in a folder of the image, which ends with its container.",
            hint="Ship the code with a packager, or show the folder to the container by `volumes`.",
        )
    shim = shim_argv(
        os.path.join(job.support, "shim.sh"),
        base_path(job.folder, job.key.attempt, 0, index),
        "",
        where,
        [*(executor.entrypoint or []), *member.argv],
        separate_stderr=executor.separate_stderr,
        forward=True,
        place=f"host={hostname()} boot={boot_id()}",
    )
    environment = [f"{name}={value}" for name, value in _environment(job, index).items() if isinstance(value, str)]
    _check_texts([*shim, *environment])
    beside, host = config(executor), host_config(executor)
    mounts = [(path, path, not writes) for path, writes in mounted_folders(job, index).items()]
    if secrets:
        mounts.append((secrets, _SECRETS, True))
    host["Mounts"] = [
        {"Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only}
        for source, target, read_only in mounts
    ]
    body = {
        **beside,
        "Image": executor.container_image,
        "Entrypoint": ["/bin/sh", "-c", _PRELUDE, shim[0]],
        "Cmd": [_SECRETS if secrets else "", *shim[1:]],
        "Env": environment,
        "Labels": {**beside["Labels"], KEY: str(job.key), NONCE: job.key.nonce, MEMBER: str(index)},
        "StopSignal": "SIGTERM",
        "HostConfig": host,
    }
    if network:
        host["NetworkMode"] = network
        alias = container_name(job.key, index, len(job.members))
        body["NetworkingConfig"] = {"EndpointsConfig": {network: {"Aliases": [alias]}}}
    return body


def _environment(job: Submission, index: int) -> dict[str, str | Secret]:
    network = executor_of(job, index).network
    here = len(job.members) == 1 or network == "host"
    hosts = [_LOCALHOST if here else container_name(job.key, n, len(job.members)) for n in range(len(job.members))]
    return {
        **job.members[index].environment,
        "NEMORUN_RANK": "0",
        "NEMORUN_LOCAL_RANK": "0",
        "NEMORUN_NODE_RANK": "0",
        "NEMORUN_NNODES": "1",
        "NEMORUN_HEAD_HOST": hosts[0],
        "NEMORUN_HEAD_PORT": str(_port(job.key) if network == "host" else _PORT),
        **{f"NEMORUN_MEMBER_{number}_HOST": host for number, host in enumerate(hosts)},
    }


def _port(key: Key) -> int:
    """Return the port where the members of a job meet on this machine's own network: another one for each attempt, and
    the same for whoever goes on with it."""
    import hashlib

    return _PORTS[int.from_bytes(hashlib.sha256(str(key).encode()).digest()[:4], "big") % len(_PORTS)]


def _check_texts(texts: list[str]) -> None:
    """Refuse what execve(2) or JSON would refuse. Raises UsageError."""
    for text in texts:
        shown = repr(text[:60])
        if "\0" in text:
            raise UsageError(f"{shown} holds a NUL character, which no program can be given.")
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise UsageError(f"{shown} is no Unicode text, and a Docker engine takes nothing else.") from None
        if size >= _LONGEST_TEXT_BYTES:
            raise UsageError(
                f"{shown}… has {size} bytes, and an argument or variable may have {_LONGEST_TEXT_BYTES - 1}.",
                hint="Put it into a file.",
            )
