"""This machine: its name, its boot, its clock, and whether a process of it is still the same one."""

from __future__ import annotations

import functools
import os
import time

__all__ = ["boot_id", "hostname", "iso_time", "now", "process_started", "time_of_uptime"]


def iso_time(seconds: float) -> str:
    """Return a POSIX time as `YYYY-MM-DDTHH:MM:SS.mmmZ`: ISO 8601 UTC that sorts as text."""
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{milliseconds:03d}Z"


def now() -> str:
    """Return the time here and now, as `iso_time` writes it."""
    return iso_time(time.time())


@functools.cache
def boot_id() -> str:
    """Return what differs from boot to boot of this machine; "unknown" where the system has no such thing (proc(5))."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return "unknown"


@functools.cache
def hostname() -> str:
    """Return this machine's own name, without blanks."""
    return "_".join(os.uname().nodename.split()) or "unknown"


def process_started(pid: int) -> float | None:
    """Return when a process started, in seconds since boot; None if there is none (a zombie counts as none).

    Where there is no /proc (proc_pid_stat(5)), 0.0 for any process that exists.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            fields = stream.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        if os.path.exists("/proc/self/stat"):
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return 0.0
    if fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def time_of_uptime(uptime: float) -> float:
    """Return the POSIX time at which this machine had been up for `uptime` seconds; in one process always the same."""
    return _booted() + uptime


@functools.cache
def _booted() -> float:
    return time.time() - time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
