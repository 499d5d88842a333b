"""How many jobs this machine takes at once."""

from __future__ import annotations

import os
import resource

__all__ = ["room"]

_FILES_KEPT = 64
_PROCESSES_A_RANK = 4
_BYTES_A_RANK = 16 << 20


def room() -> tuple[int, str]:
    """Return how many further ranks this machine takes now, never negative, and the limit that says so."""
    return min(_by_files(), _by_processes(), _by_memory())


def _by_files() -> tuple[int, str]:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        soft = 1 << 20
    try:
        used = len(os.listdir("/dev/fd"))
    except OSError:
        used = 0
    return max(0, soft - used - _FILES_KEPT), f"open files of this process (RLIMIT_NOFILE {soft})"


def _by_processes() -> tuple[int, str]:
    most, used = 1 << 22, 0
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and os.geteuid() != 0:
        most = soft
    system = _number("/proc/sys/kernel/pid_max")
    if system is not None:
        most = min(most, system)
    try:
        with open("/proc/loadavg", encoding="ascii") as stream:
            used = int(stream.read().split()[3].partition("/")[2])
    except (OSError, ValueError, IndexError):
        used = 0
    return max(0, (most - used) // _PROCESSES_A_RANK), f"processes of this machine ({most})"


def _by_memory() -> tuple[int, str]:
    try:
        with open("/proc/meminfo", encoding="ascii") as stream:
            for line in stream:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024 // _BYTES_A_RANK, "available memory"
    except (OSError, ValueError, IndexError):
        pass
    return 1 << 22, "available memory"


def _number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as stream:
            return int(stream.read())
    except (OSError, ValueError):
        return None
