"""The one module that starts, finds and signals processes."""

import errno
import os
import shutil
import signal
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

__all__ = [
    "Process",
    "belonging",
    "check_sizes",
    "end_all",
    "head_port",
    "inheritable_files",
    "processes",
    "send",
    "shell",
    "shim_of",
    "spawn",
]

_MOST_LOOKS = 1000
_EXEC_SECONDS, _YOUNG_SECONDS = 0.1, 1.0
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD of linux/sched.h
_TICKS = os.sysconf("SC_CLK_TCK")
_LONGEST_TEXT_BYTES = 128 * 1024
_MOST_BYTES = os.sysconf("SC_ARG_MAX") - 4096
_RESET = [
    number
    for number in (
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGPIPE,
        signal.SIGTERM,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGCHLD,
        getattr(signal, "SIGXFSZ", None),
    )
    if number is not None
]


class Process(NamedTuple):
    """One process of this machine, its session, and when it started in seconds since boot, from proc_pid_stat(5)."""

    pid: int
    session: int
    started: float


def shell() -> list[str]:
    """Return the command of the smallest POSIX shell here, for the shim."""
    dash = shutil.which("dash")
    if dash:
        return [dash]
    busybox = shutil.which("busybox")
    return [busybox, "sh"] if busybox else [shutil.which("sh") or "/bin/sh"]


def inheritable_files() -> list[int]:
    """Return this process's open files, beyond the standard three, that a program would inherit."""
    try:
        names = os.listdir("/dev/fd")
    except OSError:
        return []
    found = []
    for name in names:
        number = int(name)
        try:
            if number > 2 and os.get_inheritable(number):
                found.append(number)
        except OSError:  # the listing's own
            continue
    return found


def spawn(argv: list[str], environment: Mapping[str, str], close: Collection[int]) -> int:
    """Start a program in a session of its own, with no terminal and no open files, and return its pid. Raises OSError.

    Signals that this process ignores or blocks are what they were born as: a shell cannot trap what it inherits as
    ignored (POSIX sh, 2.11).
    """
    null = "/dev/null"
    actions: list[tuple[int, int, str, int, int] | tuple[int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, null, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, null, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, null, os.O_WRONLY, 0),
    ]
    actions.extend((os.POSIX_SPAWN_CLOSE, number) for number in close)
    return os.posix_spawn(
        argv[0], argv, environment, file_actions=actions, setsid=True, setsigmask=[], setsigdef=_RESET
    )


def processes() -> Iterator[Process]:
    """Yield the processes of this machine that are alive; none where there is no /proc."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    for name in names:
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as stream:
                fields = stream.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields[0] not in (b"Z", b"X") and not int(fields[6]) & _KERNEL_THREAD:
            yield Process(pid=int(name), session=int(fields[3]), started=int(fields[19]) / _TICKS)


def belonging(jobs: Sequence[tuple[Collection[int], bytes | None]]) -> list[set[int]]:
    """Return the processes of each job, in one look at the process table.

    A job is its sessions' ids and its mark: the variable, as NAME=value, that its processes inherit. A process belongs
    to it by session or, if it made a session of its own, by the mark in its first environment (proc_pid_environ(5)).
    """
    found: list[set[int]] = [set() for _ in jobs]
    sessions = {session: index for index, (own, _) in enumerate(jobs) for session in own}
    marks = {mark: index for index, (_, mark) in enumerate(jobs) if mark is not None}
    for process in processes():
        owner = sessions.get(process.session)
        if owner is None and marks:
            owner = _marked(process, marks)
        if owner is not None:
            found[owner].add(process.pid)
    return found


def _variables(pid: int) -> list[bytes]:
    """Return a process's first environment, NAME=value each; empty if it is gone or somebody else's."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as stream:
            return stream.read().split(b"\0")
    except OSError:
        return []


def _marked(process: Process, marks: Mapping[bytes, int]) -> int | None:
    """Return whose mark a process has. One that is within execve(2) shows no environment yet, also to who started it:
    posix_spawn(3) returns before that is there."""
    variables = _variables(process.pid)
    deadline = time.monotonic() + _EXEC_SECONDS
    while variables == [b""] and _uptime() - process.started < _YOUNG_SECONDS and time.monotonic() < deadline:
        time.sleep(0.001)
        variables = _variables(process.pid)
    return next((marks[variable] for variable in variables if variable in marks), None)


def _uptime() -> float:
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def head_port(pid: int) -> int | None:
    """Return the port that a running rank was given for its job's meeting point; None where it cannot be read."""
    prefix = b"NEMORUN_HEAD_PORT="
    ports = (variable.removeprefix(prefix) for variable in _variables(pid) if variable.startswith(prefix))
    return next(map(int, ports), None)


def shim_of(pids: Collection[int], base: str, suffix: str) -> int:
    """Return which of these processes is the shim of this rank: it leads a session and has the rank's path as its
    argument; 0 if none does."""
    wanted = [os.fsencode(base), os.fsencode(suffix)]
    for process in processes():
        if process.pid not in pids or process.pid != process.session:
            continue
        try:
            with open(f"/proc/{process.pid}/cmdline", "rb") as stream:
                arguments = stream.read().split(b"\0")
        except OSError:
            continue
        if any(arguments[place : place + 2] == wanted for place in range(len(arguments))):
            return process.pid
    return 0


def end_all(mark: bytes | None, spared: Collection[int], *, session: int | None = None) -> None:
    """Kill every process with this mark, and of this session, but those spared, until none is left.

    One look at the process table is no instant: a program may fork meanwhile, so it is looked at again, a bounded
    number of times.
    """
    for _ in range(_MOST_LOOKS):
        found = belonging([([session] if session is not None else [], mark)])[0].difference(spared)
        if not found:
            return
        send(found, signal.SIGSTOP)
        send(found, signal.SIGKILL)
        time.sleep(0.001)


def check_sizes(argv: list[str], declared: Mapping[str, str], inherited_bytes: int) -> None:
    """Refuse what execve(2) would refuse, before anything runs.

    Raises:
        ValueError: a NUL character; UnicodeEncodeError, which is one too: a lone surrogate that stands for no byte.
        OSError: E2BIG, one text or all of them are too long.
    """
    texts = [os.fsencode(text) for text in (*argv, *declared, *declared.values())]
    if any(b"\0" in text for text in texts):
        raise ValueError("a NUL character in an argument or in the environment")
    if (
        inherited_bytes + sum(map(len, texts)) + 16 * len(texts) > _MOST_BYTES
        or max(map(len, texts)) >= _LONGEST_TEXT_BYTES
    ):
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))


def send(pids: Collection[int], number: int) -> None:
    """Send a signal to each process, those that started first before what they started, so that no shell goes on to its
    next command; one that is gone is no error."""
    for pid in sorted(pids):
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue
